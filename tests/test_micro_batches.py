"""Micro-batches: found by measuring, halved when memory runs out, and the same when an update is done again."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import translate.stages.training
import translate.training.micro_batches as micro_batches
from tests.test_batches import random_split
from tests.test_distributed import assert_same, told, trained
from tests.tiny import tiny_config, tiny_corpus, train_in_child
from translate.config import Config
from translate.device import Machine
from translate.errors import TryAgainError
from translate.run import RunDirectory
from translate.stages.training import train
from translate.text.arrays import Sequences
from translate.text.batches import Batch, BatchPlan, Turn
from translate.text.encoded import EncodedSplit
from translate.training import memory
from translate.training.checkpoint import newest_sound
from translate.training.distributed import Ranks
from translate.training.loop import Loop
from translate.training.loss import Objective, TensorBatch
from translate.training.micro_batches import MicroBatches, Trial, fitting, last_rows, padded, real, worst_case

CLOCKS = {"time", "tokens_per_second"}
MACHINE = Machine("cpu", "fp32", 1, "highest")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


def settings(corpus: Path, **train: object) -> Config:
    return tiny_config(corpus, **({"batch_tokens": 120, "max_steps": 9} | train))


def history(root: Path) -> list[list[int]]:
    found: list[list[int]] = json.loads((root / "machine.json").read_text())["batch_tokens"]
    return found


def outcome(root: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """All tensors of the newest checkpoint, and the log without its clocks."""
    saved, _ = newest_sound(RunDirectory(root))
    assert saved is not None
    lines = [json.loads(line) for line in (root / "log.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    log = [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]
    return {name: saved.tensor(name).numpy().tobytes() for name in saved.names()}, log


# The history


def test_a_size_holds_until_the_next(tmp_path: Path) -> None:
    found = MicroBatches(MACHINE, tmp_path / "machine.json")
    found.settle("auto", 1, lambda: 400)
    found.store()
    assert found.halve(7, 400) == 200
    assert found.halve(7, 200) == 100  # again too large
    assert found.halve(9, 100) == 50
    assert [found.at(update) for update in (1, 6, 7, 8, 9, 99)] == [400, 400, 100, 100, 50, 50]
    assert [update for update in range(1, 12) if found.changes(update)] == [7, 9]
    assert history(tmp_path) == [[0, 400], [7, 100], [9, 50]]


@pytest.mark.parametrize(("largest", "half"), [(400, 200), (250, 200), (200, 100), (90, 50), (2, 1)])
def test_half_is_less_than_what_was_too_much(largest: int, half: int) -> None:
    found = MicroBatches(MACHINE, None)
    found.settle(400, 1, lambda: 0)
    assert found.halve(3, largest) == half


def test_another_setting_begins_where_the_run_goes_on() -> None:
    def never() -> int:
        raise AssertionError("measured although it was known")

    first = MicroBatches(MACHINE, None)
    first.settle("auto", 1, lambda: 400)
    first.halve(7, 400)
    again = MicroBatches(first.machine, None)
    again.settle("auto", 6, never)
    assert again.machine.batch_tokens == ((0, 400), (7, 200))
    again.settle(90, 6, never)
    assert again.machine.batch_tokens == ((0, 400), (6, 90))  # what came after was made with the other setting
    again.halve(8, 90)
    once_more = MicroBatches(again.machine, None)
    once_more.settle(90, 6, never)
    assert once_more.machine.batch_tokens == ((0, 400), (6, 90), (8, 45))


# Fitting


@pytest.mark.parametrize("setup", [None, 4])
@pytest.mark.parametrize("tokens", [400, 130, 31])
def test_no_micro_batch_of_training_is_larger_than_the_worst_case(tokens: int, setup: int | None) -> None:
    split = random_split(3000, longest=40)
    plan = BatchPlan(split, 1, 400, setup)
    worst = worst_case(plan, tokens)
    turn, largest = Turn(), 0
    while turn.epoch < 3:
        largest = max(largest, *(padded(batch) for _, batch in plan.update(turn, tokens).parts))
        turn = plan.after(turn)
    assert largest <= 1.3 * padded(worst)  # their lengths have nothing to do with each other: chance is large here
    assert padded(worst) <= 2 * largest


def test_a_single_long_pair_counts_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its neighbours are padded to it, unless it is cut off."""
    monkeypatch.setattr(micro_batches, "LOOKED_AT", 1)
    split = random_split(9000, longest=12)
    lists = [split.src(i).tolist() for i in range(len(split))]
    lists[1234] = [5] * 90
    long = replace(split, sources=Sequences.of(lists, np.int32))
    plan = BatchPlan(long, 1, 400)
    turn = Turn()
    while turn.pool == 0:  # the pool that is looked at does not have it
        assert all(1234 not in batch.indices for _, batch in plan.update(turn, 400).parts)
        turn = plan.after(turn)
    worst = worst_case(plan, 400)
    assert worst.src.shape[1] == 90
    assert len(worst.indices) > 10
    cut = worst_case(BatchPlan(long, 1, 400, 4), 400)
    assert cut.src.shape[1] <= 12
    assert padded(cut) < 0.5 * padded(worst)


def test_the_last_rows_are_a_micro_batch_of_their_own() -> None:
    split = random_split(100)
    batch = worst_case(BatchPlan(split, 1, 300), 300)
    part = last_rows(batch, 3)
    assert part.tokens == int(batch.tgt_lengths[-3:].sum()) == int((part.tgt_out != 0).sum())
    assert part.src.shape == (3, part.src_lengths.max())
    assert part.tgt_in.shape == part.tgt_out.shape == (3, part.tgt_lengths.max())
    np.testing.assert_array_equal(part.src, batch.src[-3:, : part.src.shape[1]])


class Scales:
    """Stands for a `Trial`: a micro-batch weighs 1000 bytes and 7 more for each padded token."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.sharded = self.packed = False
        self.weighed: list[int] = []

    def run(self, batch: Batch) -> None:
        self.weighed.append(padded(batch))

    def peak_of(self, work: Callable[[], object], device: torch.device) -> int:
        work()
        return 1000 + 7 * self.weighed[-1]

    def fits(self, batch: Batch) -> bool:
        self.run(batch)
        return 1000 + 7 * padded(batch) <= (memory.limit(self.device) or 0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("room", [10**9, 60_000, 20_000, 5000, 10])
def test_the_largest_that_fits_is_taken(device: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scales = Scales(device)
    monkeypatch.setattr(memory, "limit", lambda *_: room)
    monkeypatch.setattr(memory, "peak_of", scales.peak_of)
    plan = BatchPlan(random_split(500), 1, 3000)
    found = fitting(scales, plan, Ranks())  # type: ignore[arg-type]
    tried = [3000 >> times for times in range(12)]
    assert found in tried
    single = len(worst_case(plan, found).indices) == 1
    assert single or 1000 + 7 * padded(worst_case(plan, found)) <= room
    if found < 3000:
        larger = worst_case(plan, tried[tried.index(found) - 1])
        assert 1000 + 7 * padded(larger) > room
    if device == "cpu":  # two probes, however much was asked
        assert len(scales.weighed) == 2
        assert max(scales.weighed) < 3 * micro_batches.PROBE


def test_where_nothing_is_known_of_memory_the_whole_update_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "limit", lambda *_: None)
    monkeypatch.setattr(memory, "peak_of", Scales("cpu").peak_of)
    scales = Scales("cpu")
    monkeypatch.setattr(memory, "peak_of", scales.peak_of)
    assert fitting(scales, BatchPlan(random_split(100), 1, 300), Ranks()) == 300  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raised", "fits"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (MemoryError(), False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), False),
        (None, True),
    ],
)
def test_a_trial_that_runs_out_of_memory_does_not_fit(
    raised: Exception | None, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peak(*_: object) -> int:
        if raised is not None:
            raise raised
        return 5

    monkeypatch.setattr(memory, "peak_of", peak)
    monkeypatch.setattr(memory, "limit", lambda *_: 10)
    trial = Trial.__new__(Trial)
    trial.device = torch.device("cpu")
    assert trial.fits(worst_case(BatchPlan(random_split(9), 1, 30), 30)) is fits


def test_measuring_leaves_no_trace(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the weights, not in what is drawn later, and so not in the run."""
    measured: list[int] = []

    def looked_at(trial: Trial, plan: BatchPlan, ranks: Ranks) -> int:
        before = [p.detach().clone() for p in trial.learner.model.parameters()]
        state = torch.get_rng_state()
        measured.append(fitting(trial, plan, ranks))
        assert all(p.grad is None for p in trial.learner.model.parameters())
        assert all(torch.equal(p, old) for p, old in zip(trial.learner.model.parameters(), before, strict=True))
        assert torch.equal(state, torch.get_rng_state())
        assert not trial.learner.optimizer.state
        return measured[-1]

    monkeypatch.setattr(translate.stages.training, "fitting", looked_at)
    train(settings(corpus, batch_tokens="auto"), RunDirectory(tmp_path / "auto"))
    train(settings(corpus), RunDirectory(tmp_path / "told"))
    assert measured == [120]
    assert outcome(tmp_path / "auto") == outcome(tmp_path / "told")
    assert history(tmp_path / "auto") == [[0, 120]]


def test_what_is_packed_is_measured_without_padding() -> None:
    """One long source among many short ones is the most that is padded, and far from the most that is packed."""
    sources = [[5] * 300 + [2]] + [[5, 2]] * 200 + [[5] * 20 + [2]] * 30
    targets = [[6] * 2] + [[6]] * 200 + [[6] * 20] * 30
    split = EncodedSplit(Sequences.of(sources, np.uint16), Sequences.of(targets, np.uint16), (231,), (1.0,))
    plan = BatchPlan(split, 1, 10_000)
    by_padding, by_tokens = (worst_case(plan, 240, packed=packed) for packed in (False, True))
    every = [batch for _, batch in plan.update(Turn(), 240).parts]
    assert padded(by_padding) >= max(map(padded, every))
    assert int(by_tokens.src_lengths.sum() + by_tokens.tgt_lengths.sum()) >= max(map(real, every)) > real(by_padding)


def test_a_compiled_model_is_proved_before_its_memory_is_measured(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    settle = MicroBatches.settle

    def settled(*given: Any) -> None:
        order.append("settled")
        settle(*given)

    monkeypatch.setattr(Trial, "prove", lambda _, plan: order.append(f"proved {plan.update_tokens}"))
    monkeypatch.setattr(MicroBatches, "settle", settled)
    train(settings(corpus, max_steps=1), RunDirectory(tmp_path / "run"))
    assert order == ["proved 120", "settled"]


# Out of memory


def too_much(above: int, step: int, error: type[Exception] = RuntimeError) -> Callable[[], None]:
    """Plant an allocation that fails in micro-batches of more than `above` target tokens, from an update on."""

    def plant(patch: pytest.MonkeyPatch | None = None) -> None:
        forward, update, now = Objective.forward, Loop.update, [0]

        def failing(self: Objective, batch: TensorBatch) -> tuple[Tensor, int]:
            found = forward(self, batch)
            if self.training and now[0] >= step and batch.tokens > above:
                raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
            return found

        def counted(self: Loop, *given: Any) -> None:
            now[0] = self.progress.step + 1
            update(self, *given)

        for owner, name, new in ((Objective, "forward", failing), (Loop, "update", counted)):
            (patch or pytest.MonkeyPatch()).setattr(owner, name, new)

    return plant


@pytest.fixture(scope="module")
def halved(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which nothing failed, told beforehand to take halves from update 6 on."""
    root = tmp_path_factory.mktemp("halved") / "run"
    root.mkdir()
    machine = {"device": "cpu", "precision": "fp32", "threads": 1, "matmul": "highest"}
    sizes = {"batch_tokens": [[0, 120], [6, 60]], "batch_setting": 120}
    (root / "machine.json").write_text(json.dumps(machine | sizes))
    train(settings(corpus), RunDirectory(root))
    return root


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, torch.OutOfMemoryError])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_update(
    error: type[Exception],
    corpus: Path,
    halved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    too_much(60, 6, error)(monkeypatch)  # type: ignore[call-arg]
    report = train(settings(corpus), RunDirectory(tmp_path / "run"))
    assert report.progress.step == 9
    assert history(tmp_path / "run") == [[0, 120], [6, 60]]
    assert outcome(tmp_path / "run") == outcome(halved)
    line = "step 6: out of memory; from here on micro-batches of 60 target tokens, in updates as large as ever\n"
    assert line in capsys.readouterr().err
    log = outcome(tmp_path / "run")[1]
    assert [event for event in log if event["event"] == "memory"] == [
        {"event": "memory", "step": 6, "batch_tokens": 60}
    ]


def test_the_updates_learn_from_as_much_as_before(corpus: Path, halved: Path, tmp_path: Path) -> None:
    train(settings(corpus), RunDirectory(tmp_path / "run"))
    ours, theirs = outcome(halved)[1], outcome(tmp_path / "run")[1]
    tokens = [event["tokens"] for event in ours if event["event"] == "update"]
    assert tokens == [event["tokens"] for event in theirs if event["event"] == "update"]
    losses = [[event["loss"] for event in log if event["event"] == "update"] for log in (ours, theirs)]
    assert losses[0] != losses[1]  # other masks of dropout: the halves were really made


def kill_at(step: int) -> None:
    """Plant a death in the update after `step`."""
    original = Loop.gradient_norm

    def dying(self: Loop) -> Tensor:
        if self.progress.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self)

    setattr(Loop, "gradient_norm", dying)  # noqa: B010 - in the child alone


def test_a_killed_run_remembers_the_halving_even_before_its_step(corpus: Path, halved: Path, tmp_path: Path) -> None:
    """It goes on from step 4 with memory enough, and still takes halves from update 6 on."""

    def prepare() -> None:
        too_much(60, 6)()
        kill_at(5)

    root = tmp_path / "run"
    assert train_in_child(settings(corpus), root, prepare) == -signal.SIGKILL
    saved, _ = newest_sound(RunDirectory(root))
    assert saved is not None
    assert json.loads(saved.metadata["progress"])["step"] < 6
    train(settings(corpus), RunDirectory(root))
    assert outcome(root) == outcome(halved)


def test_a_killed_run_that_was_given_auto_goes_on_with_the_same_bits(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though a measurement would now find something else."""
    config = settings(corpus, batch_tokens="auto")
    monkeypatch.setattr(translate.stages.training, "fitting", lambda *_: 60)
    train(config, RunDirectory(tmp_path / "whole"))
    assert train_in_child(config, tmp_path / "killed", lambda: kill_at(6)) == -signal.SIGKILL
    monkeypatch.setattr(translate.stages.training, "fitting", lambda *_: 30)
    train(config, RunDirectory(tmp_path / "killed"))
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    train(config, RunDirectory(tmp_path / "other"))
    assert outcome(tmp_path / "other")[0] != outcome(tmp_path / "whole")[0]


def test_single_pairs_cannot_be_halved(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    too_much(0, 3)(monkeypatch)  # type: ignore[call-arg]
    with pytest.raises(TryAgainError) as caught:
        train(settings(corpus), RunDirectory(tmp_path / "run"))
    assert str(caught.value) == (
        "step 3: out of memory with one pair at a time; make room, or set train.recompute to true, or choose a "
        "smaller model"
    )


def test_an_update_that_has_begun_to_change_weights_is_not_repeated(
    corpus: Path, halved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, root = torch.optim.AdamW.step, tmp_path / "run"

    def failing(self: Any, *given: Any) -> Any:
        found = step(self, *given)
        if self.state[self.param_groups[0]["params"][0]]["step"] == 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", failing)
        with pytest.raises(TryAgainError) as caught:
            train(settings(corpus), RunDirectory(root))
    assert str(caught.value) == (
        "step 6: out of memory; the same command goes on from the last checkpoint, from this step on with "
        "micro-batches of 60 target tokens"
    )
    train(settings(corpus), RunDirectory(root))
    assert outcome(root) == outcome(halved)


def test_what_is_no_lack_of_memory_ends_the_run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    too_much(0, 2, ZeroDivisionError)(monkeypatch)  # type: ignore[call-arg]
    with pytest.raises(ZeroDivisionError):
        train(settings(corpus), RunDirectory(tmp_path / "run"))
    assert history(tmp_path / "run") == [[0, 120]]


# Several processes


def test_two_ranks_halve_at_the_next_start(corpus: Path, tmp_path: Path) -> None:
    """One that runs out of memory cannot repeat an update alone."""
    root, config = tmp_path / "run", settings(corpus, update_tokens=240)
    assert trained(config, root, 2, {1: too_much(60, 6)}) == [TryAgainError.exit_code] * 2, told(root)
    assert history(root) == [[0, 120], [6, 60]]
    assert "step 6: out of memory; the same command goes on from the last checkpoint" in told(root)
    assert trained(config, root, 2, {1: too_much(60, 6)}) == [0, 0], told(root)
    one = tmp_path / "one"
    one.mkdir()
    (one / "machine.json").write_text((root / "machine.json").read_text())
    assert trained(config, one, 2) == [0, 0], told(one)
    assert_same(root, one)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_ranks_measure_together_and_compute_again(how: str, corpus: Path, tmp_path: Path) -> None:
    config = settings(corpus, batch_tokens="auto", recompute=True, distributed=how, max_steps=4)
    assert trained(config, tmp_path / "two", 2) == [0, 0], told(tmp_path / "two")
    assert history(tmp_path / "two") == [[0, 120]]
    assert trained(settings(corpus, max_steps=4, distributed=how), tmp_path / "plain", 2) == [0, 0]
    assert_same(tmp_path / "two", tmp_path / "plain", close=1e-12)
