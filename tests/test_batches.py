import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from translate.text.arrays import Sequences
from translate.text.batches import Batch, BatchPlan, batches_in_order, cut, even_cut
from translate.text.encoded import EncodedSplit
from translate.text.tokenizer import BOS, EOS, PAD

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def random_split(pairs: int, seed: int = 0, longest: int = 30, weights: tuple[float, ...] = (1.0,)) -> EncodedSplit:
    rng = np.random.default_rng(seed)
    src = [[*rng.integers(4, 100, rng.integers(0, longest)), EOS] for _ in range(pairs)]
    tgt = [list(rng.integers(4, 100, rng.integers(0, longest))) for _ in range(pairs)]
    counts = tuple(len(part) for part in np.array_split(np.arange(pairs), len(weights)))
    return EncodedSplit(Sequences.of(src, np.int32), Sequences.of(tgt, np.int32), counts, weights)


def check_batch(batch: Batch, split: EncodedSplit) -> None:
    """Against the split, row by row."""
    assert batch.src.shape[1] == max(batch.src_lengths)
    assert batch.tgt_in.shape == batch.tgt_out.shape == (len(batch.indices), max(batch.tgt_lengths))
    assert batch.tokens == np.count_nonzero(batch.tgt_out) == batch.tgt_lengths.sum()
    for row, i in enumerate(batch.indices):
        src, tgt = split.src(i).tolist(), split.tgt(i).tolist()
        assert batch.src[row].tolist() == src + [PAD] * (batch.src.shape[1] - len(src))
        rest = [PAD] * (batch.tgt_in.shape[1] - len(tgt) - 1)
        assert batch.tgt_in[row].tolist() == [BOS, *tgt, *rest]
        assert batch.tgt_out[row].tolist() == [*tgt, EOS, *rest]
        assert (batch.src_lengths[row], batch.tgt_lengths[row]) == (len(src), len(tgt) + 1)


def whole_epoch(plan: BatchPlan, epoch: int) -> list[list[Batch]]:
    return [plan.update(epoch, u) for u in range(plan.updates_in(epoch))]


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 100))
def test_cut_is_greedy(lengths: list[int], limit: int) -> None:
    runs: list[list[int]] = []
    for length in lengths:
        if runs and sum(runs[-1]) + length <= limit:
            runs[-1].append(length)
        else:
            runs.append([length])
    bounds = cut(np.array(lengths), limit).tolist()
    assert [lengths[a:b] for a, b in itertools.pairwise(bounds)] == runs


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(40, 200))
def test_even_cut_has_no_more_runs_and_keeps_the_limit(lengths: list[int], limit: int) -> None:
    bounds = even_cut(np.array(lengths), limit).tolist()
    sums = [sum(lengths[a:b]) for a, b in itertools.pairwise(bounds)]
    assert len(bounds) == len(cut(np.array(lengths), limit))
    assert sum(sums) == sum(lengths)
    assert max(sums) <= limit
    if len(sums) > 1:
        assert min(sums) > limit / 2 - 40


@pytest.mark.parametrize(("update_tokens", "batch_tokens"), [(300, 300), (300, 70), (31, 31), (5, 5), (10**6, 10**6)])
def test_every_pair_once_an_epoch_within_the_budgets(update_tokens: int, batch_tokens: int) -> None:
    split = random_split(500)
    plan = BatchPlan(split, 1, update_tokens, batch_tokens)
    updates = whole_epoch(plan, 0)
    assert sorted(i for update in updates for batch in update for i in batch.indices) == list(range(500))
    for update in updates:
        pairs = sum(len(batch.indices) for batch in update)
        assert sum(batch.tokens for batch in update) <= update_tokens or pairs == 1
        for batch in update:
            check_batch(batch, split)
            assert batch.tokens <= batch_tokens or len(batch.indices) == 1


def test_updates_are_nearly_full_and_little_is_padded() -> None:
    updates = whole_epoch(BatchPlan(random_split(5000), 1, 400, 400), 0)
    tokens = [sum(batch.tokens for batch in update) for update in updates]
    assert sorted(tokens)[2] > 0.9 * 400
    assert min(tokens) > 0.45 * 400
    padded = sum(max(batch.src.shape[1], batch.tgt_in.shape[1]) * len(batch.indices) for u in updates for batch in u)
    longer = sum(int(np.maximum(batch.src_lengths, batch.tgt_lengths).sum()) for u in updates for batch in u)
    assert longer > 0.95 * padded


def test_plan_is_a_pure_function_of_seed_and_epoch() -> None:
    split = random_split(300, weights=(1.0, 0.5))

    def indices(seed: int, epoch: int, update: int) -> list[list[int]]:
        plan = BatchPlan(split, seed, 200, 60)
        return [batch.indices.tolist() for batch in plan.update(epoch, update)]

    plan = BatchPlan(split, 5, 200, 60)
    for epoch in (3, 0, 1):  # in whatever order they are asked for
        for update in reversed(range(plan.updates_in(epoch))):
            assert [batch.indices.tolist() for batch in plan.update(epoch, update)] == indices(5, epoch, update)
    assert indices(5, 0, 0) != indices(5, 1, 0)
    assert indices(5, 0, 0) != indices(6, 0, 0)


def test_micro_batches_are_slices_of_the_same_update() -> None:
    split = random_split(300)
    whole, sliced = BatchPlan(split, 1, 200, 200), BatchPlan(split, 1, 200, 50)
    for update in range(whole.updates_in(2)):
        parts = np.concatenate([batch.indices for batch in sliced.update(2, update)])
        assert parts.tolist() == whole.update(2, update)[0].indices.tolist()


def test_updates_come_in_no_order_of_length() -> None:
    updates = whole_epoch(BatchPlan(random_split(5000), 1, 400, 400), 0)
    longest = np.array([max(batch.src.shape[1] for batch in update) for update in updates], dtype=float)
    assert abs(np.corrcoef(longest[1:], longest[:-1])[0, 1]) < 0.25
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.25


def test_mates_of_a_pair_change_from_epoch_to_epoch() -> None:
    plan = BatchPlan(random_split(2000), 1, 400, 400)

    def mates(epoch: int) -> set[int]:
        return next(set(b.indices.tolist()) for [b] in whole_epoch(plan, epoch) if 7 in b.indices)

    first, second = mates(0), mates(1)
    assert len(first & second) < 0.5 * len(first)


def test_batches_in_order_hold_every_pair_once() -> None:
    split = random_split(200)
    batches = list(batches_in_order(split, 100))
    assert sorted(i for batch in batches for i in batch.indices) == list(range(200))
    for batch in batches:
        check_batch(batch, split)
        assert max(batch.src_lengths.sum(), batch.tokens) <= 100 or len(batch.indices) == 1
    longest = [max(batch.src.shape[1], batch.tgt_in.shape[1]) for batch in batches]
    assert longest == sorted(longest)
    assert list(batches_in_order(random_split(0), 100)) == []


def test_a_large_split_is_planned_without_a_list_of_its_pairs() -> None:
    pairs = 200_000
    offsets = np.cumsum(np.r_[0, np.random.default_rng(1).integers(1, 40, pairs)])
    sequences = Sequences(np.zeros(offsets[-1], dtype=np.uint16), offsets)
    plan = BatchPlan(EncodedSplit(sequences, sequences, (pairs,), (1.0,)), 1, 4096, 4096)
    assert plan.updates_in(0) >= (offsets[-1] + pairs) / 4096
