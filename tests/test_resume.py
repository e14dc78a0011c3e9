"""Killed anywhere, a run that is started again ends with the same bits as one that was never killed.

Each fault is planted in a forked process that really trains and really dies. What is compared: every tensor of every
checkpoint, the list, the log without its clock, and the translations. Equality alone would not see work that was lost
and done again, so each test also asserts that nothing acknowledged is gone.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import translate.durable
import translate.run
import translate.training.tensorfile
from tests.tiny import in_child, tiny_config, tiny_corpus, train_in_child
from translate.config import Config
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translator
from translate.errors import EXIT_SIGINT, EXIT_SIGTERM
from translate.run import EventLog, RunDirectory
from translate.text.batches import Turn
from translate.text.lines import read_lines
from translate.training.checkpoint import CheckpointList, Learner, load_model, newest_sound
from translate.training.loop import Loop
from translate.training.tensorfile import TensorFile
from translate.training.validation import Validator

CLOCKS = {"time", "tokens_per_second"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def config(corpus: Path) -> Config:
    return tiny_config(corpus)


@pytest.fixture(scope="module")
def whole(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    root = tmp_path_factory.mktemp("whole") / "run"
    assert train_in_child(config, root) == 0, (root.parent / "run.log").read_text()
    return root


def outcome(root: Path, corpus: Path) -> dict[str, object]:
    """Everything that must be equal."""
    run = RunDirectory(root)
    listed = json.loads(run.checkpoint_list.read_text())
    listed.pop("removing")  # files that are gone: which ones there were depends on the kills
    found: dict[str, object] = {"list": listed}
    for entry in CheckpointList.read(run).checkpoints:
        saved = TensorFile(run.checkpoints / entry.file)
        for name in saved.names():
            found[f"{entry.step} {name}"] = saved.tensor(name).numpy().tobytes()
        progress = json.loads(saved.metadata["progress"])
        found[f"{entry.step} progress"] = {key: value for key, value in progress.items() if key != "seconds"}
    events = [json.loads(line) for line in read_lines(run.log_file)]
    found["log"] = [{key: value for key, value in event.items() if key not in CLOCKS} for event in events]
    loaded = load_model(run, "average", torch.device("cpu"))
    translator = Translator(Scorer([loaded.model]), loaded.tokenizer, loaded.config.decode, torch.device("cpu"))
    found["text"] = [answers[0].text for answers in translator.translate(read_lines(corpus / "test.src"))]
    return found


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(owner: object, name: str, number: int, act: Callable[[], None]) -> Callable[[], None]:
    """A fault: `act` happens when `owner.name` is called for the `number`th time, before it does anything."""

    def plant() -> None:
        original, calls = getattr(owner, name), 0

        def counted(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == number:
                act()
            return original(*args, **kwargs)

        setattr(owner, name, counted)

    return plant


def half_written(number: int) -> Callable[[], None]:
    """A fault: the `number`th durable write dies after its first bytes."""

    def plant() -> None:
        original, calls = translate.durable.durable_write, 0

        def torn(path: Path, data: object) -> None:
            nonlocal calls
            calls += 1
            if calls < number:
                return original(path, data)  # type: ignore[arg-type]

            def parts() -> Iterator[bytes]:
                for chunk in [data] if isinstance(data, bytes) else data:  # type: ignore[attr-defined]
                    yield bytes(chunk)[: len(chunk) // 2]
                    die()

            return original(path, parts())

        translate.durable.durable_write = torn
        for importer in (translate.run, translate.training.tensorfile):
            setattr(importer, "durable_write", torn)  # noqa: B010 - they imported it

    return plant


DEATHS: dict[str, Callable[[], None]] = {
    "in the middle of an update, between micro-batches": at_call(Loop, "gradient_norm", 6, die),
    "after the backward pass, before the first save": at_call(Loop, "gradient_norm", 3, die),
    "between the optimizer step and the log": at_call(Loop, "advance", 8, die),
    "before a validation": at_call(Validator, "loss", 2, die),
    "in a validation, between loss and BLEU": at_call(Validator, "bleu", 3, die),
    "before a save": at_call(Loop, "save", 2, die),
    "after a checkpoint was written, before the list": at_call(CheckpointList, "write", 3, die),
    "after the last checkpoint, before the last line of the log": at_call(EventLog, "append", 13, die),
    "in the last update": at_call(Loop, "update", 14, die),
}


def finish(config: Config, root: Path) -> None:
    """Go on to the end, and see that nothing that was acknowledged before has gone."""
    run = RunDirectory(root)
    listed = CheckpointList.read(run)
    saved, warnings = newest_sound(run)
    assert warnings == []
    assert (saved is None) == (listed.last is None)
    if saved is not None:
        assert json.loads(saved.metadata["progress"])["step"] == listed.last
    assert train_in_child(config, root) == 0, (root.parent / f"{root.name}.log").read_text()


@pytest.mark.parametrize("death", DEATHS)
def test_sigkill_then_resume_gives_the_same_bits(
    death: str, config: Config, corpus: Path, whole: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    assert train_in_child(config, root, DEATHS[death]) == -signal.SIGKILL
    finish(config, root)
    assert differences(outcome(whole, corpus), outcome(root, corpus)) == []
    assert not list(root.rglob("*.tmp"))


def test_sigkill_in_every_durable_write(config: Config, corpus: Path, whole: Path, tmp_path: Path) -> None:
    expected = outcome(whole, corpus)
    for number in range(1, 100):
        root = tmp_path / f"run{number}"
        if train_in_child(config, root, half_written(number)) == 0:
            assert number > 8, "the fault was never reached"
            return
        finish(config, root)
        assert differences(expected, outcome(root, corpus)) == [], number
    raise AssertionError("never ended")


def test_sigkill_at_random_moments_again_and_again(config: Config, corpus: Path, whole: Path, tmp_path: Path) -> None:
    draw, root, started = random.Random(5), tmp_path / "run", time.monotonic()
    assert train_in_child(config, tmp_path / "timed") == 0
    whole_run = time.monotonic() - started
    deaths = 0
    for _ in range(40):
        delay = draw.uniform(0.1, 0.7) * whole_run

        def shoot(seconds: float = delay) -> None:
            signal.signal(signal.SIGALRM, die)
            signal.setitimer(signal.ITIMER_REAL, seconds)

        deaths += train_in_child(config, root, shoot) == -signal.SIGKILL
        if CheckpointList.read(RunDirectory(root)).last == 14:
            break
    finish(config, root)
    assert deaths > 0
    assert differences(outcome(whole, corpus), outcome(root, corpus)) == []


@pytest.mark.parametrize(
    "moment",
    [
        at_call(Loop, "update", 1, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        at_call(Loop, "gradient_norm", 6, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        at_call(Validator, "loss", 2, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        at_call(Validator, "bleu", 2, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        at_call(Loop, "save", 2, lambda: os.kill(os.getpid(), signal.SIGTERM)),
    ],
    ids=["first update", "update", "validation loss", "validation BLEU", "save"],
)
def test_sigterm_saves_and_the_run_goes_on_as_if_nothing_had_been(
    moment: Callable[[], None], config: Config, corpus: Path, whole: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    assert train_in_child(config, root, moment) == EXIT_SIGTERM
    saved, _ = newest_sound(RunDirectory(root))
    if saved is not None:
        events = [json.loads(line) for line in read_lines(root / "log.jsonl")]
        done = max((event["step"] for event in events if event["event"] == "update"), default=0)
        assert json.loads(saved.metadata["progress"])["step"] >= done
    finish(config, root)
    assert differences(outcome(whole, corpus), outcome(root, corpus)) == []


def test_sigint_has_its_own_exit_code(config: Config, tmp_path: Path) -> None:
    interrupt = at_call(Loop, "update", 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert train_in_child(config, tmp_path / "run", interrupt) == EXIT_SIGINT


def forget_position() -> None:
    """A planted bug: after a resume, data start again from the beginning of the plan."""
    original = Learner.restore

    def restore(self: Learner, saved: TensorFile) -> None:
        original(self, saved)
        self.progress.turn = Turn()

    Learner.restore = restore  # type: ignore[method-assign]


def forget_moments() -> None:
    """A planted bug: the optimizer starts anew after a resume."""
    import translate.training.checkpoint

    setattr(translate.training.checkpoint, "restore_moments", lambda *_: None)  # noqa: B010 - that module imported it


def forget_step() -> None:
    """A planted bug: dropout and learning rate count from the resume, not from the start."""
    original = Learner.restore

    def restore(self: Learner, saved: TensorFile) -> None:
        original(self, saved)
        self.progress.step -= 1

    Learner.restore = restore  # type: ignore[method-assign]


@pytest.mark.parametrize("bug", [forget_position, forget_moments, forget_step])
def test_a_planted_bug_is_seen(
    bug: Callable[[], None], config: Config, corpus: Path, whole: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    assert train_in_child(config, root, at_call(Loop, "update", 10, die)) == -signal.SIGKILL
    train_in_child(config, root, bug)
    assert differences(outcome(whole, corpus), outcome(root, corpus)) != []


def test_a_finished_run_says_so_and_changes_nothing(config: Config, whole: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in whole.rglob("*") if path.is_file()}
    time.sleep(0.01)
    assert train_in_child(config, whole) == 0
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in whole.rglob("*") if path.is_file()}
    changed = {path.name for path in before | after if before.get(path) != after.get(path)}
    assert changed <= {"lock"}


def test_two_seeds_differ_and_one_seed_does_not(config: Config, corpus: Path, whole: Path, tmp_path: Path) -> None:
    assert train_in_child(config, tmp_path / "same") == 0
    assert differences(outcome(whole, corpus), outcome(tmp_path / "same", corpus)) == []
    other = Config.model_validate(config.model_dump() | {"seed": 2})
    assert train_in_child(other, tmp_path / "other") == 0
    assert differences(outcome(whole, corpus), outcome(tmp_path / "other", corpus)) != []


def test_how_often_to_log_and_to_save_changes_no_weight(
    config: Config, corpus: Path, whole: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    often = tiny_config(corpus, save_every=1, log_every=1, keep_last=9, average=0, tensorboard=True)
    assert train_in_child(often, root) == 0, (tmp_path / "run.log").read_text()
    one, other = outcome_of_weights(whole, 14), outcome_of_weights(root, 14)
    assert one == other


def outcome_of_weights(root: Path, step: int) -> dict[str, bytes]:
    saved = TensorFile(root / "checkpoints" / f"step-{step:08}.safetensors")
    return {name: saved.tensor(name).numpy().tobytes() for name in saved.names()}


def test_a_finished_run_is_extended_by_more_steps(corpus: Path, config: Config, tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert train_in_child(tiny_config(corpus, max_steps=12), root) == 0
    assert train_in_child(config, root) == 0
    assert CheckpointList.read(RunDirectory(root)).last == 14


def test_in_child_reports_how_it_ended(tmp_path: Path) -> None:
    assert in_child(lambda: None, tmp_path / "log") == 0
    assert in_child(die, tmp_path / "log") == -signal.SIGKILL
    assert in_child(lambda: 1 // 0, tmp_path / "log") == 70
