"""Which pairs meet in which update: a pure function of (seed, epoch), so that a run can go on at any update.

An update holds at most `update_tokens` real target tokens; micro-batches are slices of it. Shuffled pairs are cut into
pools of about POOL updates, sorted by length inside the pool so that little is padded, cut into updates, and the
updates are shuffled.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from translate.text.arrays import Integers
from translate.text.encoded import EncodedSplit, Epoch
from translate.text.tokenizer import BOS, EOS

POOL = 20
"""Updates in a pool: enough to sort well, few enough that batches still mix."""


@dataclass(frozen=True)
class Batch:
    """Padded ids of some pairs; PAD is 0."""

    src: Integers
    """(B, S), each row ends in EOS before its padding"""
    src_lengths: Integers
    """(B,)"""
    tgt_in: Integers
    """(B, T), BOS first"""
    tgt_out: Integers
    """(B, T), EOS last"""
    tgt_lengths: Integers
    """(B,) counting BOS or EOS, of which each row has one"""
    indices: Integers
    """(B,) which pairs of the split"""
    tokens: int
    """Real target tokens, EOS included: the sum of `tgt_lengths`"""


@dataclass(frozen=True)
class _Plan:
    """One epoch: update u is the examples order[cuts[u] : cuts[u + 1]], and the updates come in the order `turns`."""

    examples: Epoch
    order: Integers
    cuts: Integers
    turns: Integers


class BatchPlan:
    """The updates of every epoch over a split."""

    def __init__(self, split: EncodedSplit, seed: int, update_tokens: int, batch_tokens: int) -> None:
        assert 1 <= batch_tokens <= update_tokens
        self.split = split
        self.seed = seed
        self.update_tokens = update_tokens
        self.batch_tokens = batch_tokens
        self._latest: tuple[int, _Plan] | None = None

    def updates_in(self, epoch: int) -> int:
        """How many updates an epoch (from 0) has."""
        return len(self._plan(epoch).turns)

    def update(self, epoch: int, index: int) -> list[Batch]:
        """The micro-batches of an update, at most `batch_tokens` real target tokens each unless one pair has more."""
        plan = self._plan(epoch)
        turn = plan.turns[index]
        examples = plan.order[plan.cuts[turn] : plan.cuts[turn + 1]]
        cuts = cut(plan.examples.targets.lengths(plan.examples.rows[examples]) + 1, self.batch_tokens)
        return [make_batch(plan.examples, part) for part in np.split(examples, cuts[1:-1])]

    def _plan(self, epoch: int) -> _Plan:
        """Planning takes a moment, so the latest epoch's plan is kept; it depends on nothing but the epoch."""
        if self._latest is None or self._latest[0] != epoch:
            self._latest = (epoch, self._make_plan(epoch))
        return self._latest[1]

    def _make_plan(self, epoch: int) -> _Plan:
        examples = self.split.epoch(self.seed, epoch)
        rng = np.random.Generator(np.random.PCG64([self.seed, epoch, 0]))
        order = rng.permutation(len(examples))
        src, tgt = examples.src_lengths()[order], examples.tgt_lengths()[order]
        pool = (np.cumsum(tgt) - tgt) // (POOL * self.update_tokens)
        # Every other pool is sorted downwards: where two meet, an update gets pairs of like lengths.
        direction = np.where(pool % 2 == 0, 1, -1)
        by_length = np.lexsort(((src + tgt) * direction, np.maximum(src, tgt) * direction, pool))
        order = order[by_length]
        cuts = even_cut(tgt[by_length], self.update_tokens)
        return _Plan(examples, order, cuts, rng.permutation(len(cuts) - 1))


def batches_in_order(split: EncodedSplit, batch_tokens: int) -> Iterator[Batch]:
    """Every pair of a split exactly once, sorted by length; source or target tokens of a batch <= batch_tokens."""
    examples = split.whole()
    src, tgt = examples.src_lengths(), examples.tgt_lengths()
    longer = np.maximum(src, tgt)
    order = np.lexsort((src + tgt, longer))
    cuts = cut(longer[order], batch_tokens)
    for part in np.split(order, cuts[1:-1]) if len(order) else []:
        yield make_batch(examples, part)


def cut(lengths: Integers, limit: int) -> Integers:
    """Bounds of the longest runs, from the left, whose lengths sum to at most `limit`; (N,) -> (runs + 1,).

    A length above the limit is a run by itself.
    """
    ends = np.cumsum(lengths)
    bounds = [0]
    while bounds[-1] < len(lengths):
        start = bounds[-1]
        before = ends[start - 1] if start else 0
        bounds.append(max(int(np.searchsorted(ends, before + limit, side="right")), start + 1))
    return np.array(bounds, dtype=np.int64)


def even_cut(lengths: Integers, limit: int) -> Integers:
    """`cut`, with the last two runs made about equal where the limit allows it.

    Else the last run could be a single sentence, and its gradient would weigh as much as that of a full update.
    """
    bounds = cut(lengths, limit)
    if len(bounds) > 2:
        ends = np.cumsum(lengths[bounds[-3] :])
        first = int(np.searchsorted(ends, ends[-1] / 2, side="right"))
        if first and ends[first - 1] <= limit and ends[-1] - ends[first - 1] <= limit:
            bounds[-2] = bounds[-3] + first
    return bounds


def make_batch(examples: Epoch, chosen: Integers) -> Batch:
    """The examples `chosen` (B,), padded to the longest of each side."""
    rows = examples.rows[chosen]
    src_lengths = examples.sources.lengths(rows)
    tgt_lengths = examples.targets.lengths(rows) + 1
    width = int(tgt_lengths.max())
    tgt_in = examples.targets.padded(rows, width, shift=1)
    tgt_in[:, 0] = BOS
    tgt_out = examples.targets.padded(rows, width)
    tgt_out[np.arange(len(rows)), tgt_lengths - 1] = EOS
    return Batch(
        src=examples.sources.padded(rows, int(src_lengths.max())),
        src_lengths=src_lengths,
        tgt_in=tgt_in,
        tgt_out=tgt_out,
        tgt_lengths=tgt_lengths,
        indices=examples.pairs[chosen],
        tokens=int(tgt_lengths.sum()),
    )
