"""How many real target tokens pass through the model at once: as many as fit, remembered update by update.

The sums of a micro-batch round differently than those of two halves, so the size must be the same when an update is
done again. It is therefore a function of the update, kept with the other choices of the run in machine.json: measured
at the first launch, halved from the update on in which memory ran out. The update itself, and with it what is learnt,
is always of `train.update_tokens`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from translate.config import Auto
from translate.device import Machine, store
from translate.errors import is_out_of_memory
from translate.text.arrays import Integers, Sequences
from translate.text.batches import Batch, BatchPlan, Turn, apart, make_batch
from translate.text.encoded import EncodedSplit, Examples
from translate.training import memory
from translate.training.checkpoint import Learner
from translate.training.distributed import Ranks
from translate.training.loss import Objective, TensorBatch, packs

PROBE, PACKED_PROBE = 512, 16_384
"""Tokens of both sides in the smaller of two probes. Packed ones are many more, for each side is filled up."""
PROVED = 512
"""Target tokens of what goes through a compiled model to prove it."""
LOOKED_AT = 500_000
"""Target tokens of the plan among which the largest micro-batch is looked for, or one pool if that has more."""
AT_ONCE = 2**20
"""Pairs whose lengths are looked at together."""


class MicroBatches:
    """The history of a run's micro-batches."""

    def __init__(self, machine: Machine, stored: Path | None) -> None:
        self.machine = machine
        self.stored = stored

    def settle(self, setting: int | Auto, update: int, measure: Callable[[], int]) -> None:
        """Make sure that there is a size for `update`, the next one: measured, unless the setting is a number.

        If the setting is not the one that the history began with, another size begins here. Nothing is written.
        """
        if self.machine.batch_setting == setting:
            return
        tokens = measure() if setting == "auto" else setting
        first = update if any(begin < update for begin, _ in self.machine.batch_tokens) else 0
        self.machine = replace(self.machine, batch_setting=setting)
        self._change(first, tokens)

    def at(self, update: int) -> int:
        """Real target tokens of a micro-batch of an update, counted from 1."""
        sizes = [tokens for begin, tokens in self.machine.batch_tokens if begin <= update]
        return sizes[-1] if sizes else self.machine.batch_tokens[0][1]

    def changes(self, update: int) -> bool:
        """Whether an update has another size than the one before it."""
        return any(begin == update for begin, _ in self.machine.batch_tokens)

    def halve(self, update: int, largest: int) -> int:
        """From `update` on take half, or less if the largest micro-batch of that update would stay as it is."""
        tokens = self.at(update) // 2
        while tokens >= largest:
            tokens //= 2
        self._change(update, max(tokens, 1))
        self.store()
        return max(tokens, 1)

    def store(self) -> None:
        """Write the history down, if there is a place for it."""
        if self.stored is not None:
            store(self.machine, self.stored)

    def _change(self, update: int, tokens: int) -> None:
        before = tuple(entry for entry in self.machine.batch_tokens if entry[0] < update)
        self.machine = replace(self.machine, batch_tokens=(*before, (update, tokens)))


class Trial:
    """Passes of micro-batches through a model that leave no trace: no gradient, no weight changed, nothing drawn."""

    def __init__(self, learner: Learner, objective: nn.Module, machine: Machine, ranks: Ranks = Ranks()) -> None:  # noqa: B008 - a constant
        self.learner = learner
        self.machine = machine
        self.ranks = ranks
        self.device = torch.device(machine.device)
        self.packed = packs(learner.model, machine)
        self.sharded = isinstance(objective, FSDPModule)
        self.objective = objective.module if isinstance(objective, DistributedDataParallel) else objective

    def run(self, batch: Batch, passes: int = 2) -> None:
        """Forward and backward. The second pass has the gradients of the first in memory, as in an update of several.

        Those of sharded weights are whole, until the last pass. The optimizer's memory, which is not there before the
        first update, is taken up as well.
        """
        model = self.learner.model
        moments = [] if self.learner.optimizer.state else [torch.ones_like(p) for p in (*model.parameters(),) * 2]
        try:
            self.objective.train()
            for place in range(passes):
                model.key_randomness(0, 0, place)
                last = place == passes - 1
                with self.machine.autocast(), self.ranks.exchange(self.objective, now=last):
                    loss, tokens = self.objective(TensorBatch.of(batch, self.device, self.packed))
                    (loss / tokens).backward()
                del loss
        finally:
            moments.clear()
            self.learner.optimizer.zero_grad(set_to_none=True)

    def prove(self, plan: BatchPlan) -> None:
        """Go back through a compiled model once, and do without the compiler if that fails.

        Its backward pass is not compiled before it is first needed; in an update that would be too late.
        """
        whole = self.objective.whole if isinstance(self.objective, Objective) else None
        if whole is None:
            return
        share = plan.share(Turn(), PROVED)
        _, chosen = share.parts[0]
        try:
            self.run(share.batch(chosen), passes=1)
        except Exception as error:
            if is_out_of_memory(error) or not whole.give_up(error):
                raise

    def fits(self, batch: Batch) -> bool:
        """Whether it passes within the limit, found by trying: for a GPU, where too little memory is but an error."""
        most = memory.limit(self.device) or 0
        try:
            return memory.peak_of(lambda: self.run(batch), self.device) <= most
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False


class Growth:
    """Peak memory as a straight line over the tokens of a micro-batch, through two small probes.

    For a CPU, where too little memory is no error but the end of the process, and for sharded weights, which all ranks
    must gather equally often.
    """

    def __init__(self, trial: Trial, worst: Batch, sharing: int) -> None:
        self.limit = memory.limit(trial.device, sharing)
        rows = len(worst.indices)
        self.size = size_of(trial.packed)
        probe = PACKED_PROBE if trial.packed else PROBE
        few = min(max(1, rows // 2), -(-probe * rows // self.size(worst)))
        small, large = (last_rows(worst, count) for count in (few, min(2 * few, rows)))
        self.start, self.first = self.size(small), memory.peak_of(lambda: trial.run(small), trial.device)
        more = memory.peak_of(lambda: trial.run(large), trial.device) - self.first
        self.slope = max(0.0, more / max(1, self.size(large) - self.start))

    def needed(self, batch: Batch) -> int:
        """Bytes that the whole process will hold."""
        return self.first + round(self.slope * (self.size(batch) - self.start))

    def fits(self, batch: Batch) -> bool:
        """Whether that is within the limit, if the system knows one."""
        return self.limit is None or self.needed(batch) <= self.limit


def fitting(trial: Trial, plan: BatchPlan, ranks: Ranks) -> int:
    """The most real target tokens that pass at once through the model of every rank: an update's, halved until it fits.

    A single pair is never too much: it is what training cannot do with less than.
    """
    tokens = plan.update_tokens
    worst = worst_case(plan, tokens, ranks.count, trial.packed)
    by_trial = trial.device.type == "cuda" and not trial.sharded
    fits = trial.fits if by_trial else Growth(trial, worst, ranks.on_this_machine).fits
    while len(worst.indices) > 1 and not fits(worst):
        tokens //= 2
        worst = worst_case(plan, tokens, ranks.count, trial.packed)
    (least,) = ranks.most(-tokens)
    return -int(least)


def worst_case(plan: BatchPlan, batch_tokens: int, ranks: int = 1, packed: bool = False) -> Batch:
    """As large a micro-batch as training will meet, padding included unless `packed`: the largest of some pools.

    The longest sentences of a pool are padded to the longest of them. Any pool may have the longest of the whole text,
    so each micro-batch that is the longest of its pool is looked at with those in it too, and then cut as all are.
    """
    uncut = plan.uncut()
    longest = [_longest(plan.split.sources), _longest(plan.split.targets)]
    turn, tokens = Turn(), 0
    worst: Part | None = None
    while worst is None or (turn.epoch == 0 and tokens < LOOKED_AT):
        pool, parts = turn.pool, list[Part]()
        while turn.epoch == 0 and turn.pool == pool:
            shares = [uncut.share(turn, batch_tokens, rank, ranks) for rank in range(ranks)]
            parts += [Part(share.examples, chosen) for share in shares for _, chosen in share.parts if len(chosen)]
            tokens += shares[0].tokens
            turn = plan.after(turn)
        parts.append(max(parts, key=lambda part: max(part.width)).holding(plan.split, longest))
        pieces = [piece for part in parts for piece in part.pieces(plan.setup)]
        worst = max([*([worst] if worst else []), *pieces], key=lambda part: part.size(packed))
    return make_batch(worst.examples, worst.chosen)


@dataclass(frozen=True)
class Part:
    """Examples that would pass at once, known by their lengths alone: nothing of the text is read."""

    examples: Examples
    chosen: Integers

    @cached_property
    def lengths(self) -> tuple[Integers, Integers]:
        """Of both sides, (B,) each."""
        rows = self.examples.rows[self.chosen]
        return self.examples.sources.lengths(rows), self.examples.targets.lengths(rows) + 1

    @property
    def width(self) -> tuple[int, int]:
        """Of both sides, with padding."""
        src, tgt = self.lengths
        return int(src.max()), int(tgt.max())

    def size(self, packed: bool) -> int:
        """What memory grows with, as `size_of` says it of a batch."""
        return int(np.sum(self.lengths)) if packed else len(self.chosen) * sum(self.width)

    def holding(self, split: EncodedSplit, longest: list[int]) -> "Part":
        """The same number of pairs, of which the last are those of the numbers `longest`."""
        pairs = np.array([*self.examples.pairs[self.chosen], *longest], dtype=np.int64)[-len(self.chosen) :]
        return Part(Examples(split.sources, split.targets, pairs, pairs), np.arange(len(pairs)))

    def pieces(self, setup: int | None) -> list["Part"]:
        """What comes of it if it is cut to save padding."""
        whole = slice(0, len(self.chosen))
        pieces = [whole] if setup is None else apart(*self.lengths, whole, setup)
        return [Part(self.examples, self.chosen[piece]) for piece in pieces]


def _longest(sequences: Sequences) -> int:
    """Number of the longest, found without a list of all lengths."""
    best, where = -1, 0
    for start in range(0, len(sequences), AT_ONCE):
        lengths = np.diff(sequences.offsets[start : start + AT_ONCE + 1])
        if lengths.max() > best:
            best, where = int(lengths.max()), start + int(lengths.argmax())
    return where


def padded(batch: Batch) -> int:
    """Tokens of both sides with their padding."""
    return batch.src.size + batch.tgt_in.size


def real(batch: Batch) -> int:
    """Tokens of both sides without padding."""
    return int(batch.src_lengths.sum() + batch.tgt_lengths.sum())


def size_of(packed: bool) -> Callable[[Batch], int]:
    """What memory grows with."""
    return real if packed else padded


def last_rows(batch: Batch, count: int) -> Batch:
    """The last pairs of a micro-batch."""
    src, tgt = batch.src_lengths[-count:], batch.tgt_lengths[-count:]
    width = int(tgt.max())
    return Batch(
        src=batch.src[-count:, : int(src.max())],
        src_lengths=src,
        tgt_in=batch.tgt_in[-count:, :width],
        tgt_out=batch.tgt_out[-count:, :width],
        tgt_lengths=tgt,
        indices=batch.indices[-count:],
        tokens=int(tgt.sum()),
    )
