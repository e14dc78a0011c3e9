"""A forecast against the training that follows it: time by a clock of our own, memory and disk as they really are."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import translate.stages.forecast
import translate.training.loop
from tests.tiny import in_child, tiny_config, tiny_corpus, write_corpus
from translate.cli import main
from translate.config import Config
from translate.config.writer import dump_config
from translate.errors import ConfigError, TryAgainError, UsageError
from translate.run import RunDirectory
from translate.stages.forecast import Forecast, forecast
from translate.stages.tokenization import tokenize
from translate.stages.training import train
from translate.training import memory
from translate.training.checkpoint import CheckpointList, Learner
from translate.training.feed import Fed
from translate.training.loop import Loop
from translate.training.progress import Validation
from translate.training.validation import Validator


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def restart(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A clock, and how to set it back.

    It counts a second for each target token that is learnt from, a tenth for one that is scored, 30 for a translation.
    """
    late = 0.0

    def costing(owner: type, name: str, seconds: Callable[..., float]) -> None:
        original = getattr(owner, name)

        def costly(*given: Any) -> Any:
            nonlocal late
            found = original(*given)
            late += seconds(*given)
            return found

        monkeypatch.setattr(owner, name, costly)

    def learning(_: Loop, fed: Fed) -> float:
        return float(fed.tokens)

    costing(Loop, "update", learning)
    costing(Validator, "loss", lambda self, *_: 0.1 * float(self.split.tgt_lengths.sum()))
    costing(Validator, "bleu", lambda self, *_: 30.0 * len(self.src))
    for module in (translate.stages.forecast, translate.training.loop):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + late))

    def back() -> None:
        nonlocal late
        late = 0.0

    return back


@pytest.mark.parametrize(("stop", "steps"), [({"max_steps": 13}, 13), ({"max_steps": None, "max_epochs": 2}, None)])
def test_time_is_that_of_the_training_that_follows(
    stop: dict[str, int | None], steps: int | None, restart: Callable[[], None], corpus: Path, run: RunDirectory
) -> None:
    config = tiny_config(corpus, **stop, save_minutes=1e6)
    foretold = forecast(config, run, 3000.0)
    restart()
    ended = train(config, run).progress
    assert foretold.tokens_per_second == pytest.approx(1.0, rel=0.02)
    assert foretold.probed * 120 > 2800
    assert foretold.updates == pytest.approx(steps or ended.step, abs=0 if steps else 2)
    assert foretold.seconds == pytest.approx(ended.seconds, rel=0.05)
    assert foretold.validation_seconds == pytest.approx(30 * 12 + 0.1 * 207, rel=0.1)


@pytest.mark.usefixtures("restart")
def test_time_is_reckoned_from_where_the_run_stands(corpus: Path, run: RunDirectory) -> None:
    rest = {"validate_every": 1000, "save_minutes": 1e6}
    train(tiny_config(corpus, max_steps=10, **rest), run)
    longer = forecast(tiny_config(corpus, max_steps=30, **rest), run, 1000.0)
    assert (longer.step, longer.updates, longer.end) == (10, 20, "train.max_steps (30)")
    assert longer.seconds == pytest.approx(20 * 110 + longer.validation_seconds, rel=0.1)
    minutes = forecast(tiny_config(corpus, max_steps=30, max_minutes=60.0, **rest), run, 1000.0)
    assert minutes.end == "train.max_minutes (60)"
    assert minutes.seconds == pytest.approx(
        3600 - train(tiny_config(corpus, max_steps=10, **rest), run).progress.seconds
    )
    ended = forecast(tiny_config(corpus, max_steps=10, **rest), run, 100.0)
    assert ended.updates == 0
    assert ended.seconds == pytest.approx(0.0, abs=400)


@pytest.mark.parametrize(("alone", "processes"), [(0.65, None), (0.75, 2)])
def test_a_process_a_core_is_named_where_it_would_be_faster(
    alone: float, processes: int | None, corpus: Path, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread is as fast as `alone` says, two are 1; three quarters of twice that are to be more than 1.05."""
    late = 0.0
    update = Loop.update

    def costly(self: Loop, fed: Fed) -> None:
        nonlocal late
        update(self, fed)
        late += fed.tokens / (alone if torch.get_num_threads() == 1 else 1.0)

    monkeypatch.setattr(Loop, "update", costly)
    monkeypatch.setattr(translate.stages.forecast, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + late))
    chosen = {"device": "cpu", "precision": "fp32", "threads": 2, "matmul": "highest"}
    run.create().machine_file.write_text(json.dumps(chosen), encoding="utf-8")
    found = forecast(tiny_config(corpus, threads="auto"), run, 3000.0)
    assert found.processes == processes
    assert any("torchrun --nproc-per-node 2 -m translate train" in line for line in found.summary()) == bool(processes)
    assert found.tokens_per_second == pytest.approx(1.0, rel=0.02)
    assert torch.get_num_threads() == 2
    assert forecast(tiny_config(corpus, threads=2), run, 100.0).processes is None  # nobody asked for another number


def test_an_epoch_has_as_many_updates_as_it_turns_out(corpus: Path, run: RunDirectory) -> None:
    config = tiny_config(corpus, max_steps=None, max_epochs=1)
    foretold = forecast(config, run, 0.3)
    assert foretold.epoch_updates == pytest.approx(train(config, run).progress.step, abs=1)


def test_disk_is_what_lies_there_at_most(corpus: Path, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best checkpoint is an early one, as late as possible each has its own file."""
    found: list[int] = []
    write = CheckpointList.write

    def measured(self: CheckpointList, run: RunDirectory) -> None:
        found.append(sum(path.stat().st_size for path in run.checkpoints.glob("step-*")))
        write(self, run)

    def validate(_: Validator, learner: Learner, check: object) -> Validation:
        return Validation(learner.progress.step, 1.0 + learner.progress.step, None)

    config = tiny_config(corpus, max_steps=24, best="loss")
    foretold = forecast(config, run, 0.1)
    monkeypatch.setattr(CheckpointList, "write", measured)
    monkeypatch.setattr(Validator, "__call__", validate)
    train(config, run)
    assert foretold.checkpoints == 4  # two that are kept, the best, and a new one
    assert foretold.checkpoints * foretold.checkpoint_bytes == pytest.approx(max(found), rel=0.02)


def test_few_checkpoints_are_due_in_a_short_run(corpus: Path, run: RunDirectory) -> None:
    assert forecast(tiny_config(corpus, max_steps=4, keep_last=9), run, 0.1).checkpoints == 3
    assert forecast(tiny_config(corpus, max_steps=None, patience=3, keep_last=9), run, 0.1).checkpoints == 11


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A model and micro-batches that take 100 MB and more, and a run whose text is there."""
    folder = tiny_corpus(tmp_path_factory.mktemp("larger"))
    write_corpus(folder, "train", 600, 5)
    part = {"kind": "transformer", "layers": 3, "width": 96, "heads": 4, "feed_forward": 384, "dropout": 0.1}
    sizes = {"update_tokens": 2500, "batch_tokens": "auto", "max_steps": 9, "validate_every": 4}
    values = tiny_config(folder, **sizes).model_dump() | {"model": {"encoder": part, "decoder": part}}
    config, root = Config.model_validate(values), folder / "run"
    with RunDirectory(root).create().locked():
        tokenize(config, RunDirectory(root))
    return config, root


def test_memory_is_that_of_the_training_that_follows(larger: tuple[Config, Path], tmp_path: Path) -> None:
    """Above what the process had before: a test has much more in memory than a model this small."""
    config, root = larger

    def weighed(work: Callable[[], object], name: str) -> int:
        def weigh() -> None:
            memory.forget_peak()
            before = memory.resident()
            work()
            after = memory.peak()
            assert before is not None
            assert after is not None
            (tmp_path / name).write_text(json.dumps(after - before))

        log = tmp_path / "log"
        assert in_child(weigh, log) == 0, log.read_text()
        return int((tmp_path / name).read_text())

    foretold = weighed(lambda: forecast(config, RunDirectory(root), 1.0), "foretold")
    real = weighed(lambda: train(config, RunDirectory(root)), "real")
    assert real > 80e6
    assert foretold == pytest.approx(real, rel=0.15)


@pytest.mark.parametrize(("batch_tokens", "passes"), [(120, 1), (60, 2)])
def test_the_largest_micro_batch_is_among_the_probes(
    batch_tokens: int, passes: int, corpus: Path, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice where an update has several: then the gradients of one are there while another passes."""
    seen: list[Fed] = []
    update = Loop.update

    def recorded(self: Loop, of: Fed) -> None:
        seen.append(of)
        update(self, of)

    monkeypatch.setattr(Loop, "update", recorded)
    forecast(tiny_config(corpus, batch_tokens=batch_tokens), run, 0.01)
    sizes = [[batch.src.ids.numel() + batch.tgt_in.ids.numel() for _, batch in of.parts] for of in seen]
    assert len(sizes[0]) == passes
    assert min(sizes[0]) >= max(size for later in sizes[1:] for size in later)
    assert len({str(batch.src.ids.tolist()) for _, batch in seen[0].parts}) == 1


def test_what_runs_out_of_memory_is_halved_as_in_training(
    corpus: Path, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    update = Loop.update

    def small(self: Loop, of: Fed) -> None:
        tried.append(of.largest)
        if of.largest > 40:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        update(self, of)

    monkeypatch.setattr(Loop, "update", small)
    forecast(tiny_config(corpus, batch_tokens=120), run, 0.01)
    assert tried[0] > 40 >= max(tried[-2:])
    monkeypatch.setattr(Loop, "update", lambda self, of: small(self, replace(of, largest=10**6)))
    with pytest.raises(TryAgainError, match="out of memory with one pair at a time"):
        forecast(tiny_config(corpus, batch_tokens=120), run, 0.01)


def files(root: Path) -> dict[str, bytes]:
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != "lock"}


def test_nothing_is_written_but_the_text(corpus: Path, run: RunDirectory) -> None:
    config = tiny_config(corpus, max_steps=3, batch_tokens="auto")
    forecast(config, run, 0.1)
    assert {name.partition("/")[0] for name in files(run.root)} == {"config.yaml", "data", "tokenizer"}
    train(config, run)
    before = files(run.root)
    forecast(tiny_config(corpus, max_steps=9, batch_tokens="auto"), run, 0.1)
    assert files(run.root) == before


def test_a_run_ends_with_the_same_bits_after_a_forecast(corpus: Path, tmp_path: Path) -> None:
    def weights(name: str, foretold: bool) -> dict[str, bytes]:
        config, run = tiny_config(corpus, max_steps=4), RunDirectory(tmp_path / name)
        if foretold:
            forecast(config, run, 0.1)
        train(config, run)
        return {name: data for name, data in files(run.checkpoints).items() if "00000004" in name}

    def tensors(found: dict[str, bytes]) -> bytes:
        (data,) = found.values()
        return data[8 + int.from_bytes(data[:8], "little") :]  # the header has clocks in it

    assert tensors(weights("first", foretold=True)) == tensors(weights("second", foretold=False))


def test_settings_that_spoil_the_run_are_refused(corpus: Path, run: RunDirectory) -> None:
    train(tiny_config(corpus, max_steps=2), run)
    with pytest.raises(ConfigError, match=r"train\.lr: 0\.01 → 0\.5"):
        forecast(tiny_config(corpus, max_steps=9, lr=0.5), run, 0.1)


# What the user sees


def test_summary() -> None:
    found = Forecast(
        step=0,
        probed=33,
        memory=1_560_000_000,
        gpu=None,
        batch_tokens=2048,
        tokens_per_second=4738.2,
        processes=None,
        epoch_updates=1140,
        epoch_seconds=366.0,
        end="train.max_steps (15000)",
        updates=15000,
        seconds=4730.0,
        validation_seconds=2.4,
        checkpoints=5,
        checkpoint_bytes=13_400_000,
    )
    assert found.summary() == [
        "forecast from step 0, by 33 updates that were not kept",
        "memory: 1,560 MB at most",
        "speed: 4,738 target tokens a second, 2,048 at once",
        "an epoch: 1,140 updates in 6:06",
        "to train.max_steps (15000): 15,000 updates in 1:18:50, with validations of 0:02",
        "checkpoints: 5 of 13 MB, 67 MB at most",
    ]


@pytest.fixture
def file(corpus: Path, tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_config(tiny_config(corpus, max_steps=None, patience=2)), encoding="utf-8")
    return str(path)


def test_the_command(file: str, run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--config", file, "--run", str(run.root), "--dry-run", "--dry-run-seconds", "0.1"]
    assert main(command) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [line.partition(":")[0].partition(",")[0] for line in lines] == [
        *("forecast from step 0", "memory", "speed", "an epoch", "to the end", "checkpoints", ""),
    ]
    assert lines[4] == "to the end: unknown, since train.patience alone decides"
    assert not run.checkpoint_list.exists()


@pytest.mark.parametrize("given", [["--dry-run-seconds", "5"], ["--dry-run", "--dry-run-seconds", "-1"],
                                   ["--dry-run", "--dry-run-seconds", "nan"]])  # fmt: skip
def test_seconds_make_sense(given: list[str], file: str, run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", file, "--run", str(run.root), *given]) == UsageError.exit_code
    assert "--dry-run-seconds goes with --dry-run, and is a number above 0" in capsys.readouterr().err
    assert not run.root.exists()


def test_several_processes_are_refused(corpus: Path, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--dry-run looks at one process; start it without torchrun"):
        forecast(tiny_config(corpus), run, 0.1)
    assert not run.root.exists()
