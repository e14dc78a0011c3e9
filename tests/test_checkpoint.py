"""Which checkpoints are kept, which are removed, and what loading refuses."""

import json
import random
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_config, tiny_corpus, train_in_child
from translate.config import Config
from translate.errors import CheckpointError, MissingInputError
from translate.run import RunDirectory
from translate.training.averaging import MovingAverage, mean_of
from translate.training.checkpoint import CheckpointList, Entry, load_model, newest_sound
from translate.training.tensorfile import TensorFile

CPU = torch.device("cpu")


def test_random_histories_keep_the_newest_the_best_and_nothing_foreign(tmp_path: Path) -> None:
    draw = random.Random(1)
    for history in range(200):
        run = RunDirectory(tmp_path / str(history)).create()
        run.checkpoints.mkdir()
        foreign = run.checkpoints / "step-00000001 (copy).safetensors"
        foreign.touch()
        keep, best, scheduled_steps = draw.randint(1, 4), None, []
        for step in range(1, draw.randint(2, 15)):
            scheduled = draw.random() < 0.6
            best = step if draw.random() < 0.3 or best is None else best
            listed = CheckpointList.read(run)
            name = f"step-{step:08}.safetensors"
            (run.checkpoints / name).touch()
            listed.note(Entry(step, name, scheduled), best, keep)
            there = {path.name for path in run.checkpoints.iterdir()}
            listed.write(run)
            scheduled_steps += [step] if scheduled else []
            expected = {*scheduled_steps[-keep:], best, step}
            found = CheckpointList.read(run)
            assert {entry.step for entry in found.checkpoints} == expected
            assert {path.name for path in run.checkpoints.iterdir()} == {
                foreign.name,
                *(f"step-{kept:08}.safetensors" for kept in expected),
            }
            assert (found.best, found.last) == (best, step)
            assert set(found.removing) <= there  # what has gone is forgotten, or the list would grow for ever


def test_a_kill_before_removal_is_made_good_at_the_next_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path).create()
    run.checkpoints.mkdir()
    for step in (1, 2):
        (run.checkpoints / f"{step}").touch()
        listed = CheckpointList.read(run)
        listed.note(Entry(step, f"{step}", True), step, 1)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", lambda *_, **__: None)
            listed.write(run)
    assert {path.name for path in run.checkpoints.iterdir()} == {"1", "2"}
    CheckpointList.read(run).write(run)
    assert {path.name for path in run.checkpoints.iterdir()} == {"2"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return tiny_config(tiny_corpus(tmp_path_factory.mktemp("corpus")))


@pytest.fixture(scope="module")
def trained(config: Config, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    root = tmp_path_factory.mktemp("trained") / "run"
    assert train_in_child(config, root) == 0, (root.parent / "run.log").read_text()
    return RunDirectory(root)


def test_average_is_the_mean_of_the_last_scheduled_checkpoints(trained: RunDirectory) -> None:
    entries = [entry for entry in CheckpointList.read(trained).checkpoints if entry.scheduled][-2:]
    files = [TensorFile(trained.checkpoints / entry.file) for entry in entries]
    model = load_model(trained, "average", CPU).model
    for name, parameter in model.named_parameters():
        mean = (files[0].tensor(f"model.{name}").double() + files[1].tensor(f"model.{name}").double()) / 2
        torch.testing.assert_close(parameter.detach().double(), mean, rtol=1e-6, atol=1e-8)


def test_last_best_and_ema_are_what_they_say(trained: RunDirectory) -> None:
    listed = CheckpointList.read(trained)
    last = TensorFile(trained.checkpoints / listed.checkpoints[-1].file)
    name = next(iter(dict(load_model(trained, "last", CPU).model.named_parameters())))
    for which, step, prefix in (
        ("last", listed.last, "model."),
        ("best", listed.best, "model."),
        ("ema", listed.last, "ema."),
    ):
        loaded = load_model(trained, which, CPU)  # type: ignore[arg-type]
        assert loaded.step == step
        entry = listed.find(step)
        assert entry is not None
        saved = TensorFile(trained.checkpoints / entry.file)
        assert torch.equal(dict(loaded.model.named_parameters())[name], saved.tensor(prefix + name))
    assert not torch.equal(last.tensor("ema." + name), last.tensor("model." + name))


def test_ema_follows_its_formula() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average, expected = MovingAverage(model, 0.9), 1.0
    for step in range(1, 200):
        with torch.no_grad():
            model.weight.fill_(float(step % 7))
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step % 7)
        assert average.weights["weight"].item() == pytest.approx(expected, rel=1e-4)


def test_mean_of_one_is_itself() -> None:
    weights = {"a": torch.randn(3)}
    assert torch.equal(mean_of([weights])["a"], weights["a"])


def test_a_damaged_newest_checkpoint_falls_back_with_a_warning_naming_it(
    config: Config, trained: RunDirectory, tmp_path: Path
) -> None:
    import shutil

    run = RunDirectory(tmp_path / "run")
    shutil.copytree(trained.root, run.root)
    entries = CheckpointList.read(run).checkpoints
    newest = run.checkpoints / entries[-1].file
    broken = bytearray(newest.read_bytes())
    broken[-5] ^= 4
    newest.write_bytes(broken)
    saved, warnings = newest_sound(run)
    assert saved is not None
    assert json.loads(saved.metadata["progress"])["step"] == entries[-2].step
    assert len(warnings) == 1
    assert newest.name in warnings[0]
    assert train_in_child(config, run.root) == 0
    assert CheckpointList.read(run).last == 14
    for entry in CheckpointList.read(run).checkpoints:
        (run.checkpoints / entry.file).write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of its checkpoints can be used"):
        newest_sound(run)


def test_a_run_without_checkpoints_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="has no checkpoint yet"):
        load_model(RunDirectory(tmp_path), "best", CPU)
