"""Which pairs meet in which update: a pure function of (seed, epoch), so that a run can go on at any update.

The pairs of an epoch are shuffled and cut into pools of about POOL updates. A pool is sorted by length, so that little
is padded, and cut into updates of at most `update_tokens` real target tokens, which are shuffled. Micro-batches are
slices of an update; a few sentences that are much longer than the others get one of their own. Of an epoch nothing is
in memory but the order of its pairs, 4 bytes each, and one pool.
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from translate.text.arrays import Integers
from translate.text.encoded import EncodedSplit, Examples, Pairs
from translate.text.tokenizer import BOS, EOS

POOL = 40
"""Updates in a pool: enough to sort well, few enough that batches still mix. With 20 there is 3 to 5 % more padding."""
SETUP = {"cpu": 16, "cuda": 256}
"""What a micro-batch costs beside its sentences, as that many sentences more: measured on a CPU, a guess for a GPU."""


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

    def idle(self) -> "Batch":
        """The same without a target token, so that it passes through the model and teaches nothing."""
        return replace(self, tgt_lengths=np.zeros_like(self.tgt_lengths), tokens=0)


@dataclass(frozen=True)
class Update:
    """What one rank learns from in an update."""

    tokens: int
    """Real target tokens of the whole update, over all ranks"""
    parts: list[tuple[int, Batch]]
    """Micro-batches, each with its place in the whole update"""


@dataclass(frozen=True)
class Share:
    """Which examples are in the micro-batches that one rank learns from in an update."""

    tokens: int
    """Real target tokens of the whole update, over all ranks"""
    examples: Examples
    parts: list[tuple[int, Integers]]
    """Micro-batches, each with its place in the whole update; one without examples has nothing to learn"""
    spare: Integers
    """(1,) what passes through the model in its stead"""

    def batch(self, chosen: Integers) -> Batch:
        """One of its micro-batches."""
        return make_batch(self.examples, chosen) if len(chosen) else make_batch(self.examples, self.spare).idle()


class Turn(NamedTuple):
    """Whose turn it is: an update of a pool of an epoch, each counted from 0."""

    epoch: int = 0
    pool: int = 0
    update: int = 0


@dataclass(frozen=True)
class _Shuffled:
    """The pairs of an epoch in a random order; pool p is order[bounds[p] : bounds[p + 1]]."""

    order: Pairs
    bounds: Integers


@dataclass(frozen=True)
class _Pool:
    """Update u is the examples order[cuts[turns[u]] : cuts[turns[u] + 1]]."""

    examples: Examples
    order: Integers
    cuts: Integers
    turns: Integers


class BatchPlan:
    """The updates of every epoch over a split.

    `setup` is what a micro-batch costs beside its sentences, as that many sentences more, or None if padding does not
    reach the model: then no micro-batch is cut to save some.
    """

    def __init__(self, split: EncodedSplit, seed: int, update_tokens: int, setup: int | None = None) -> None:
        self.split = split
        self.seed = seed
        self.update_tokens = update_tokens
        self.setup = setup
        self._shuffled = lru_cache(1)(self._shuffle)
        self._pool = lru_cache(1)(self._fill)

    def share(self, turn: Turn, batch_tokens: int, rank: int = 0, ranks: int = 1) -> Share:
        """The part of an update that is `rank`'s; each micro-batch has at most `batch_tokens` real target tokens.

        One pair that has more is a micro-batch by itself. The micro-batches are dealt out in turn, the one with most
        tokens first, as many to each; if they are too few, a rank gets one with nothing to learn.
        """
        pool = self._pool(turn.epoch, turn.pool)
        number = pool.turns[turn.update]
        chosen = pool.order[pool.cuts[number] : pool.cuts[number + 1]]
        src, tgt = pool.examples.src_lengths()[chosen], pool.examples.tgt_lengths()[chosen]
        slices = list(itertools.starmap(slice, itertools.pairwise(even_cut(tgt, batch_tokens, ranks))))
        if self.setup is not None:
            slices = [part for whole in slices for part in apart(src, tgt, whole, self.setup)]
        slices.sort(key=lambda part: -int(tgt[part].sum()))
        parts = [chosen[part] for part in slices]
        parts += [chosen[:0]] * (-len(parts) % ranks)
        mine = [(place, parts[place]) for place in range(rank, len(parts), ranks)]
        return Share(int(tgt.sum()), pool.examples, mine, chosen[:1])

    def update(self, turn: Turn, batch_tokens: int, rank: int = 0, ranks: int = 1) -> Update:
        """`share` as arrays."""
        share = self.share(turn, batch_tokens, rank, ranks)
        return Update(share.tokens, [(place, share.batch(chosen)) for place, chosen in share.parts])

    def uncut(self) -> "BatchPlan":
        """The same plan as if padding cost nothing."""
        plan = copy.copy(self)
        plan.setup = None
        return plan

    def after(self, turn: Turn) -> Turn:
        """The turn that follows."""
        if turn.update + 1 < len(self._pool(turn.epoch, turn.pool).turns):
            return turn._replace(update=turn.update + 1)
        if turn.pool + 2 < len(self._shuffled(turn.epoch).bounds):
            return Turn(turn.epoch, turn.pool + 1)
        return Turn(turn.epoch + 1)

    def _shuffle(self, epoch: int) -> _Shuffled:
        order = self.split.pairs(self.seed, epoch)
        np.random.Generator(np.random.PCG64([self.seed, epoch, 0])).shuffle(order)
        tokens = len(order) * self.split.mean_tgt_length
        # A little less than POOL updates, for a pool of a little more would be POOL + 1 updates that are not full.
        pools = max(1, round(tokens / ((POOL - 0.4) * self.update_tokens)))
        return _Shuffled(order, np.linspace(0, len(order), pools + 1).round().astype(np.int64))

    def _fill(self, epoch: int, number: int) -> _Pool:
        shuffled, key = self._shuffled(epoch), (self.seed, epoch, number)
        examples = self.split.examples(shuffled.order[shuffled.bounds[number] : shuffled.bounds[number + 1]], key)
        src, tgt = examples.src_lengths(), examples.tgt_lengths()
        order = np.lexsort((src + tgt, np.maximum(src, tgt)))
        cuts = even_cut(tgt[order], self.update_tokens)
        turns = np.random.Generator(np.random.PCG64([*key, 2])).permutation(len(cuts) - 1)
        return _Pool(examples, order, cuts, turns)


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


def even_cut(lengths: Integers, limit: int, multiple: int = 1) -> Integers:
    """Bounds of runs whose sums are about equal and at most `limit`, in hardly more runs than `cut` needs.

    Else the last run could be a single sentence, and its gradient would weigh as much as that of a full update. If the
    lengths allow it, the number of runs is a multiple of `multiple`; with few lengths, runs may be empty.
    """
    ends, longest = np.cumsum(lengths), int(lengths.max())
    if 2 * longest > limit:
        return cut(lengths, limit)
    runs = -(-int(ends[-1]) // (limit * multiple)) * multiple
    while True:
        shares = np.arange(runs + 1) * (ends[-1] / runs)
        bounds = np.searchsorted(ends - lengths / 2, shares)
        sums = np.diff(np.concatenate([[0], ends])[bounds])
        if sums.max() <= limit:
            return bounds
        runs += (
            multiple  # ends at the latest where an equal share and the longest sequence together are within the limit
        )


def apart(src: Integers, tgt: Integers, part: slice, setup: int) -> list[slice]:
    """Cut a part of the sentences, sorted by length, where that saves more padding than another micro-batch costs.

    Sentences of lengths (N,) cost (N + setup) * (longest of src + longest of tgt). A part is cut at the best place, and
    what comes of it again.
    """
    lengths = src[part], tgt[part]
    before = np.add(*(np.maximum.accumulate(side) for side in lengths))[:-1]
    after = np.add(*(np.maximum.accumulate(side[::-1])[::-1] for side in lengths))
    count = len(after)
    if count < 2:
        return [part]
    left = np.arange(1, count)
    costs = (left + setup) * before + (count - left + setup) * after[1:]
    best = int(costs.argmin())
    if costs[best] >= (count + setup) * after[0]:
        return [part]
    middle = part.start + best + 1
    halves = slice(part.start, middle), slice(middle, part.stop)
    return [piece for half in halves for piece in apart(src, tgt, half, setup)]


def make_batch(examples: Examples, chosen: Integers) -> Batch:
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
