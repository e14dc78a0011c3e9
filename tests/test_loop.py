"""The loop against what was really learnt from: a recorder stands beside it and counts for itself."""

import json
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

import translate.training.loop
from tests.tiny import tiny_config, tiny_corpus, train_in_child
from translate.errors import DataError, Interrupted
from translate.run import RunDirectory
from translate.stages.training import train
from translate.text.batches import Turn
from translate.training.checkpoint import CheckpointList
from translate.training.feed import Fed
from translate.training.loop import Loop
from translate.training.loss import Objective, TensorBatch
from translate.training.tensorfile import TensorFile

UPDATE = {"event", "step", "epoch", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "time"}


@dataclass
class Seen:
    """One update as the recorder saw it."""

    batches: list[TensorBatch]
    loss: float = 0.0
    norm: float = 0.0
    """Of the gradient, before it is clipped."""
    clipped: float = 0.0
    """Of the gradient, after it is clipped."""

    @property
    def tokens(self) -> int:
        return sum(int((batch.tgt_out != 0).sum()) for batch in self.batches)


@dataclass
class Recorder:
    """What happened in the loops of a test, in order."""

    loops: list[Loop] = field(default_factory=list)
    updates: list[Seen] = field(default_factory=list)
    """Those that were made; one that was broken off is not among them."""
    saves: list[tuple[int, bool]] = field(default_factory=list)
    """Step, and whether the save was due."""
    before: Callable[[int], None] = lambda step: None
    """Called before update `step`."""
    faults: dict[int, Callable[[Loop, Tensor], Tensor]] = field(default_factory=dict)
    """What to make of the loss of the last micro-batch of an update."""


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return plant(monkeypatch)


def norm_of(loop: Loop) -> float:
    squares = (float(p.grad.double().square().sum()) for p in loop.learner.model.parameters() if p.grad is not None)
    return math.sqrt(sum(squares))


def plant(patch: pytest.MonkeyPatch) -> Recorder:
    """Stand beside every loop that trains from now on."""
    found = Recorder()
    now = Seen([])
    train_, update, save, norm = Loop.train, Loop.update, Loop.save, Loop.gradient_norm
    refuse, forward = Loop.refuse_nonfinite, Objective.forward

    def recorded_train(self: Loop) -> str:
        found.loops.append(self)
        return train_(self)

    def recorded_update(self: Loop, of: Fed) -> None:
        nonlocal now
        now = Seen([batch for _, batch in of.parts])
        found.before(self.progress.step + 1)
        update(self, of)
        found.updates.append(now)

    def recorded_forward(self: Objective, batch: TensorBatch) -> tuple[Tensor, int]:
        loss, tokens = forward(self, batch)
        loop = found.loops[-1]
        if self.training:
            now.loss += loss.item()
            fault = found.faults.get(loop.progress.step + 1)
            if fault is not None and tokens == now.batches[-1].tokens:
                loss = fault(loop, loss)
        return loss, tokens

    def recorded_norm(self: Loop) -> Tensor:
        now.norm = norm_of(self)
        return norm(self)

    def recorded_refuse(self: Loop, *given: Any) -> None:
        now.clipped = norm_of(self)
        refuse(self, *given)

    def recorded_save(self: Loop, *, scheduled: bool) -> None:
        found.saves.append((self.progress.step, scheduled))
        save(self, scheduled=scheduled)

    patch.setattr(Loop, "train", recorded_train)
    patch.setattr(Loop, "update", recorded_update)
    patch.setattr(Loop, "save", recorded_save)
    patch.setattr(Loop, "gradient_norm", recorded_norm)
    patch.setattr(Loop, "refuse_nonfinite", recorded_refuse)
    patch.setattr(Objective, "forward", recorded_forward)
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """A run that nothing happened to, recorded."""
    with pytest.MonkeyPatch.context() as patch:
        found = plant(patch)
        train(tiny_config(corpus), RunDirectory(tmp_path_factory.mktemp("whole") / "run"))
    return found


def events(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "log.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]


def state(learner: Any) -> dict[str, bytes]:
    return {name: tensor.cpu().numpy().tobytes() for name, tensor in learner.tensors().items()}


def saved_state(root: Path, step: int) -> dict[str, bytes]:
    saved = TensorFile(root / "checkpoints" / f"step-{step:08}.safetensors")
    return {name: saved.tensor(name).numpy().tobytes() for name in saved.names()}


def test_the_log_has_every_event_once_and_in_order(whole: Recorder) -> None:
    expected: list[tuple[str, int]] = []
    for step in range(1, 15):
        expected += [("update", step)] if step % 2 == 0 else []
        expected += [("validation", step)] if step % 3 == 0 or step == 14 else []
    logged = events(whole.loops[0].run.root)
    assert [(event["event"], event["step"]) for event in logged] == [*expected, ("finished", 14)]
    times = [event["time"] for event in logged]
    assert times == sorted(times)
    assert {"event": "finished", "step": 14, "reason": "train.max_steps (14) reached"}.items() <= logged[-1].items()
    assert logged[-1].keys() == {"event", "step", "reason", "time"}


def test_the_log_has_the_figures_of_the_updates(whole: Recorder) -> None:
    logged = [event for event in events(whole.loops[0].run.root) if event["event"] == "update"]
    assert len(whole.updates) == 14
    for event in logged:
        step = event["step"]
        latest = whole.updates[step - 2 : step]
        assert event.keys() == UPDATE
        assert event["tokens"] == sum(update.tokens for update in whole.updates[:step])
        assert event["loss"] == pytest.approx(sum(u.loss for u in latest) / sum(u.tokens for u in latest), rel=1e-6)
        assert event["grad_norm"] == pytest.approx(whole.updates[step - 1].norm, rel=1e-5)
        assert event["lr"] == pytest.approx(1e-2 * min(step / 4, 1) * math.sqrt(4 / max(step, 4)))
        assert event["tokens_per_second"] > 0
        assert event["epoch"] == 0


def test_the_log_has_the_validations(whole: Recorder) -> None:
    logged = [event for event in events(whole.loops[0].run.root) if event["event"] == "validation"]
    best: tuple[float, float] | None = None
    for event, known in zip(logged, whole.loops[0].progress.validations, strict=True):
        assert event.keys() == {"event", "step", "loss", "bleu", "best", "time"}
        assert known.bleu is not None
        assert (event["step"], event["loss"], event["bleu"]) == (known.step, known.loss, round(known.bleu, 4))
        better = best is None or (known.bleu, -known.loss) > best
        best = (known.bleu, -known.loss) if better else best
        assert event["best"] == better


def test_a_checkpoint_is_written_when_due_when_best_and_at_the_end(whole: Recorder) -> None:
    best = {event["step"] for event in events(whole.loops[0].run.root) if event.get("best")}
    assert 3 in best
    expected = [(step, step in (4, 8, 12, 14)) for step in sorted(best | {4, 8, 12, 14})]
    assert whole.saves == expected


@pytest.mark.parametrize("clip", [0.05, 0.0])
def test_the_gradient_that_is_learnt_from_is_clipped(
    clip: float, recorder: Recorder, corpus: Path, tmp_path: Path
) -> None:
    train(tiny_config(corpus, clip=clip, max_steps=2), RunDirectory(tmp_path / "run"))
    for update in recorder.updates:
        assert update.norm > 0.2
        assert update.clipped == pytest.approx(clip or update.norm, rel=1e-4)


def pairs_of(corpus: Path) -> set[tuple[str, str]]:
    sides = [(corpus / f"train.{side}").read_text(encoding="utf-8").split("\n")[:-1] for side in ("src", "tgt")]
    return set(zip(*sides, strict=True))


def test_every_pair_is_learnt_from_once_an_epoch_also_across_interruptions(
    recorder: Recorder, corpus: Path, tmp_path: Path
) -> None:
    config = tiny_config(corpus, max_steps=None, max_epochs=2, update_tokens=300, batch_tokens=90)
    stops = [2, 3, 8, 11]

    def interrupt(step: int) -> None:
        if stops and step == stops[0] and len(recorder.loops) + len(stops) == 5:  # one signal a loop
            stops.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)

    recorder.before = interrupt
    for _ in range(4):
        with pytest.raises(Interrupted):
            train(config, RunDirectory(tmp_path / "run"))
    report = train(config, RunDirectory(tmp_path / "run"))
    assert len(recorder.loops) == 5
    assert report.reason == "train.max_epochs (2) reached"
    assert report.progress.step == len(recorder.updates)

    tokenizer, used = recorder.loops[-1].learner.tokenizer, Counter[tuple[str, str]]()
    plan, first_epoch, turn = recorder.loops[0].feed.plan, 0, Turn()
    while turn.epoch == 0:
        first_epoch, turn = first_epoch + 1, plan.after(turn)
    assert stops == []
    assert 3 < first_epoch < 11 < report.progress.step
    for number, update in enumerate(recorder.updates, 1):
        for batch in update.batches:
            src_in, tgt_in = batch.src, batch.tgt_in
            for src, src_length, tgt, length in zip(
                src_in.ids, src_in.lengths, tgt_in.ids, tgt_in.lengths, strict=True
            ):
                pieces = "".join(tokenizer.pieces_src(src[: src_length - 1].tolist())).replace("▁", " ").strip()
                used[pieces, tokenizer.decode_tgt(tgt[1:length].tolist())] += 1
        if number == first_epoch:
            assert used == Counter(pairs_of(corpus))
    assert used == Counter(dict.fromkeys(pairs_of(corpus), 2))


def nan_gradient(loop: Loop, loss: Tensor) -> Tensor:
    """The same loss; the gradient of the root of zero is not a number."""
    weight = next(loop.learner.model.parameters()).flatten()[0]
    return loss + (weight - weight).sqrt()


FAULTS: dict[str, Callable[[Loop, Tensor], Tensor]] = {
    "the loss is nan": lambda loop, loss: loss * math.nan,
    "the loss is inf": lambda loop, loss: loss + math.inf,
    "the loss is -inf": lambda loop, loss: loss - math.inf,
    "the norm of the gradient is nan": nan_gradient,
}


@pytest.mark.parametrize("found", FAULTS)
def test_a_loss_that_is_no_number_stops_before_the_update(
    found: str, recorder: Recorder, corpus: Path, tmp_path: Path, whole: Recorder
) -> None:
    root = tmp_path / "run"
    sound: dict[str, bytes] = {}

    def remember(step: int) -> None:
        if step == 8:
            sound.update(state(recorder.loops[-1].learner))

    recorder.before, recorder.faults = remember, {8: FAULTS[found]}
    with pytest.raises(DataError) as caught:
        train(tiny_config(corpus), RunDirectory(root))
    assert caught.value.exit_code == 65
    assert str(caught.value) == (
        f"step 8: {found}, so the update was not made; the newest checkpoint is of step 6. Try a lower train.lr, "
        "a longer train.warmup, a smaller train.clip, or train.precision=fp32"
    )
    assert state(recorder.loops[-1].learner) == sound
    assert recorder.loops[-1].progress.step == 7
    assert CheckpointList.read(RunDirectory(root)).last == 6
    last = events(root)[-1]
    assert (last["event"], last["step"]) == ("nonfinite", 8)
    assert f"{last['loss']} {last['grad_norm']}".count(found.rpartition(" ")[2]) > 0

    recorder.faults = {}
    train(tiny_config(corpus), RunDirectory(root))
    assert saved_state(root, 14) == saved_state(whole.loops[0].run.root, 14)
    assert [event["event"] for event in events(root)].count("nonfinite") == 0


def test_a_loss_that_is_no_number_at_once_leaves_no_checkpoint(corpus: Path, tmp_path: Path) -> None:
    def prepare() -> None:
        plant(pytest.MonkeyPatch()).faults[1] = FAULTS["the loss is nan"]

    root = tmp_path / "run"
    assert train_in_child(tiny_config(corpus), root, prepare) == 65
    assert "error: step 1: the loss is nan, so the update was not made; there is no checkpoint yet. Try" in (
        (tmp_path / "run.log").read_text(encoding="utf-8")
    )
    assert not list(root.rglob("*.safetensors"))


def test_weights_that_are_no_numbers_are_not_saved(recorder: Recorder, corpus: Path, tmp_path: Path) -> None:
    def spoil(step: int) -> None:
        if step == 8:
            recorder.loops[-1].learner.optimizer.param_groups[0]["eps"] = math.nan

    recorder.before = spoil
    with pytest.raises(DataError, match=r"step 8: .* is not finite, so nothing was saved; .* lower train\.lr"):
        train(tiny_config(corpus), RunDirectory(tmp_path / "run"))
    assert CheckpointList.read(RunDirectory(tmp_path / "run")).last == 6


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    """Every update takes a minute; each process has its own clock."""
    first_steps: dict[int, int] = {}
    late = 0.0

    def tick(step: int) -> None:
        nonlocal late
        late = 60.0 * (step + 1 - first_steps.setdefault(len(recorder.loops), step))

    recorder.before = tick
    monkeypatch.setattr(translate.training.loop, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + late))


@pytest.mark.usefixtures("clock")
def test_a_checkpoint_is_written_when_time_has_passed(recorder: Recorder, corpus: Path, tmp_path: Path) -> None:
    config = tiny_config(corpus, max_steps=8, save_minutes=2.5, save_every=100, validate_every=100)
    train(config, RunDirectory(tmp_path / "run"))
    assert recorder.saves == [(3, False), (6, False), (8, True)]


@pytest.mark.usefixtures("clock")
def test_training_time_is_limited_and_remembered(recorder: Recorder, corpus: Path, tmp_path: Path) -> None:
    rest = {"max_steps": None, "save_every": 100, "validate_every": 100}
    first = train(tiny_config(corpus, max_minutes=3.0, **rest), RunDirectory(tmp_path / "run"))
    assert (first.reason, first.progress.step) == ("train.max_minutes (3) reached", 3)
    second = train(tiny_config(corpus, max_minutes=5.0, **rest), RunDirectory(tmp_path / "run"))
    assert (second.reason, second.progress.step) == ("train.max_minutes (5) reached", 5)
    assert 300 <= second.progress.seconds < 330


def test_a_recorder_changes_nothing(whole: Recorder, corpus: Path, tmp_path: Path) -> None:
    train(tiny_config(corpus), RunDirectory(tmp_path / "run"))
    assert saved_state(tmp_path / "run", 14) == saved_state(whole.loops[0].run.root, 14)
