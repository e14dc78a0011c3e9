"""What keeps a bad gradient away from the weights: the rule of the scale by hand, and runs that are read late."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import translate.training.loop
from tests.test_loop import FAULTS, Recorder, events, plant, saved_state, state
from tests.tiny import tiny_config, tiny_corpus
from translate.errors import DataError
from translate.run import RunDirectory
from translate.stages.training import train
from translate.training import guard
from translate.training.checkpoint import CheckpointList, newest_sound
from translate.training.guard import FIRST, LEAST, Guard, LossScale
from translate.training.loop import Loop

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


def by_hand(overflows: list[bool], steady_needed: int) -> list[float]:
    scale, steady, scales = FIRST, 0, []
    for overflow in overflows:
        if overflow:
            scale, steady = scale / 2, 0
        else:
            steady += 1
            if steady == steady_needed:
                scale, steady = min(2 * scale, guard.LARGEST), 0
        scales.append(scale)
    return scales


def test_the_scale_follows_its_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "STEADY", 3)
    generator = torch.Generator().manual_seed(1)
    overflows = (torch.rand(200, generator=generator) < 0.4).tolist() + [False] * 300
    scale, found = LossScale(CPU), []
    for overflow in overflows:
        scale.note(torch.tensor(float(overflow)))
        found.append(float(scale.scale))
    assert found == by_hand(overflows, 3)
    assert max(found) == guard.LARGEST
    assert min(found) < FIRST


def test_the_scale_saves_small_gradients() -> None:
    weight = torch.tensor([1.0], dtype=torch.float16, requires_grad=True)
    (plain,) = torch.autograd.grad((weight * 1e-5).float().sum() * 1e-4, weight)
    assert plain.item() == 0  # 1e-9 is nothing in fp16
    scale = LossScale(CPU)
    (scaled,) = torch.autograd.grad((weight * 1e-5).float().sum() * 1e-4 * scale.scale, weight)
    wide = scaled.float()
    scale.divide([wide])
    assert wide.item() == pytest.approx(1e-9, rel=1e-2)


def test_it_goes_on_from_a_checkpoint() -> None:
    scale = LossScale(CPU)
    for overflow in (0, 0, 1, 0):
        scale.note(torch.tensor(float(overflow)))
    again = LossScale(CPU)
    again.restore(json.loads(json.dumps(scale.to_json())))
    assert again.to_json() == scale.to_json() == [FIRST / 2, 1.0]


def optimizer() -> torch.optim.AdamW:
    weight = torch.nn.Parameter(torch.ones(3))
    return torch.optim.AdamW([weight], lr=0.1, fused=True)


@pytest.mark.parametrize("loss", [1.0, math.nan, math.inf])
@pytest.mark.parametrize("norm", [1.0, math.nan, math.inf])
def test_a_bad_update_changes_no_weight_and_no_moment(loss: float, norm: float) -> None:
    """And none after it, though theirs are sound: the run will stop, and its weights shall be those before."""
    adamw = optimizer()
    (weight,) = adamw.param_groups[0]["params"]
    stands = Guard(adamw, None)
    sound = math.isfinite(loss) and math.isfinite(norm)
    for number, (of_loss, of_norm) in enumerate([(1.0, 1.0), (loss, norm), (1.0, 1.0)]):
        weight.grad = torch.full((3,), of_norm)
        stands.stop(torch.tensor(of_loss), torch.tensor(of_norm))
        adamw.step()
        if number == 0:
            first = weight.detach().clone()
    assert float(adamw.state[weight]["step"]) == (3 if sound else 1)
    assert torch.equal(weight, first) is not sound
    assert adamw.state[weight]["exp_avg"].isfinite().all()


def test_with_a_scale_only_the_update_that_overflowed_is_left_out() -> None:
    adamw = optimizer()
    (weight,) = adamw.param_groups[0]["params"]
    stands = Guard(adamw, LossScale(CPU))
    for norm in (1.0, math.inf, 1.0):
        weight.grad = torch.full((3,), norm)
        stands.stop(torch.tensor(1.0), torch.tensor(norm))
        adamw.step()
    assert float(adamw.state[weight]["step"]) == 2
    assert weight.isfinite().all()
    assert stands.scale is not None
    assert stands.scale.to_json() == [FIRST / 2, 1.0]
    assert float(stands.scaled(torch.tensor(2.0))) == FIRST


# --- read late, as from a GPU


def log(root: Path) -> list[dict[str, Any]]:
    return [{key: event[key] for key in event if key not in ("time", "tokens_per_second")} for event in events(root)]


def test_when_losses_are_read_changes_nothing(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(corpus, log_every=5)
    train(config, RunDirectory(tmp_path / "at once"))
    monkeypatch.setitem(translate.training.loop.READ_TOGETHER, "cpu", 4)
    train(config, RunDirectory(tmp_path / "late"))
    assert saved_state(tmp_path / "at once", 14) == saved_state(tmp_path / "late", 14)
    assert log(tmp_path / "at once") == log(tmp_path / "late")


@pytest.mark.parametrize("found", FAULTS)
def test_read_late_a_bad_loss_stops_too_and_nothing_is_spoilt(
    found: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Update 8 is bad; it is read after update 10, and a save is due at 12."""
    monkeypatch.setitem(translate.training.loop.READ_TOGETHER, "cpu", 4)
    recorder: Recorder = plant(monkeypatch)
    sound: dict[str, bytes] = {}

    def remember(step: int) -> None:
        if step == 8:
            sound.update(state(recorder.loops[-1].learner))

    recorder.before, recorder.faults = remember, {8: FAULTS[found]}
    config = tiny_config(corpus, log_every=100, validate_every=6, save_every=6, ema=0.0)
    with pytest.raises(DataError, match=f"step 8: {found}, so the update was not made"):
        train(config, RunDirectory(tmp_path / "run"))
    assert recorder.loops[-1].progress.step in (9, 10)
    assert state(recorder.loops[-1].learner) == sound
    assert CheckpointList.read(RunDirectory(tmp_path / "run")).last == 6


def test_speed_counts_the_time_that_reading_takes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a device that works a second on each update when it is asked: every fourth time, and before validations."""
    late = 0.0
    read = Loop.read

    def waiting(self: Loop) -> None:
        nonlocal late
        late += float(len(self.unread))
        read(self)

    monkeypatch.setitem(translate.training.loop.READ_TOGETHER, "cpu", 4)
    monkeypatch.setattr(Loop, "read", waiting)
    monkeypatch.setattr(translate.training.loop, "time", SimpleNamespace(monotonic=lambda: late + 1e-6))
    root = tmp_path / "run"
    train(tiny_config(corpus, log_every=4, validate_every=3, save_every=100, max_steps=12), RunDirectory(root))
    logged = [event for event in events(root) if event["event"] == "update"]
    for event in logged:
        assert event["tokens_per_second"] == pytest.approx(event["tokens"] / event["step"], rel=0.1)
    assert len(logged) == 3


# --- fp16


def test_fp16_keeps_its_scale_over_a_restart(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two halves are a whole, with an update left out in each: the optimizer has made fewer than were tried."""
    recorder = plant(monkeypatch)
    recorder.faults = dict.fromkeys((3, 9), FAULTS["the norm of the gradient is nan"])
    whole, halves = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "halves")
    train(tiny_config(corpus, precision="fp16"), whole)
    for steps in (7, 14):
        train(tiny_config(corpus, precision="fp16", max_steps=steps, validate_every=7, save_every=7), halves)
    saved, _ = newest_sound(whole)
    other, _ = newest_sound(halves)
    assert saved is not None
    assert other is not None
    assert json.loads(saved.metadata["loss_scale"])[0] == FIRST / 4
    assert saved.metadata["optimizer_steps"] == "12"
    for name in ("loss_scale", "optimizer_steps"):
        assert other.metadata[name] == saved.metadata[name]
    assert all(torch.equal(saved.tensor(name), other.tensor(name)) for name in saved.names())


def test_fp16_stops_where_no_scale_helps(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "FIRST", 2 * LEAST)
    recorder = plant(monkeypatch)
    recorder.faults = dict.fromkeys(range(3, 15), FAULTS["the norm of the gradient is nan"])
    with pytest.raises(DataError, match="step 5: the norm of the gradient is nan"):
        train(tiny_config(corpus, precision="fp16"), RunDirectory(tmp_path / "run"))
    assert recorder.loops[-1].progress.step == 4  # the third and the fourth were left out
