import itertools
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from translate.text.arrays import Sequences
from translate.text.batches import Batch, BatchPlan, Turn, apart, batches_in_order, cut, even_cut
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


def whole_epoch(plan: BatchPlan, epoch: int, batch_tokens: int) -> list[list[Batch]]:
    return [micro_batches(plan, turn, batch_tokens) for turn in turns_of(plan, epoch)]


def micro_batches(plan: BatchPlan, turn: Turn, batch_tokens: int) -> list[Batch]:
    return [batch for _, batch in plan.update(turn, batch_tokens).parts]


def turns_of(plan: BatchPlan, epoch: int) -> list[Turn]:
    following = itertools.accumulate(itertools.repeat(None), lambda turn, _: plan.after(turn), initial=Turn(epoch))
    return list(itertools.takewhile(lambda turn: turn.epoch == epoch, following))


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


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(1, 200))
def test_even_cut_keeps_the_limit_in_about_equal_runs(lengths: list[int], limit: int) -> None:
    bounds = even_cut(np.array(lengths), limit).tolist()
    runs = [lengths[a:b] for a, b in itertools.pairwise(bounds)]
    assert [length for run in runs for length in run] == lengths
    assert all(sum(run) <= limit or len(run) == 1 for run in runs)
    assert all(runs)
    longest = max(lengths)
    if 2 * longest <= limit:
        assert len(runs) <= max(1, -(-sum(lengths) // (limit - longest)))
        assert max(map(sum, runs)) - min(map(sum, runs)) <= 2 * longest


@pytest.mark.parametrize(("update_tokens", "batch_tokens"), [(300, 300), (300, 70), (31, 31), (5, 5), (10**6, 10**6)])
def test_every_pair_once_an_epoch_within_the_budgets(update_tokens: int, batch_tokens: int) -> None:
    split = random_split(500)
    plan = BatchPlan(split, 1, update_tokens)
    updates = whole_epoch(plan, 0, batch_tokens)
    assert sorted(i for update in updates for batch in update for i in batch.indices) == list(range(500))
    for update in updates:
        pairs = sum(len(batch.indices) for batch in update)
        assert sum(batch.tokens for batch in update) <= update_tokens or pairs == 1
        for batch in update:
            check_batch(batch, split)
            assert batch.tokens <= batch_tokens or len(batch.indices) == 1


def test_updates_are_nearly_full_and_little_is_padded() -> None:
    updates = whole_epoch(BatchPlan(random_split(7500), 1, 600), 0, 600)
    tokens = [sum(batch.tokens for batch in update) for update in updates]
    assert np.mean(tokens) > 0.94 * 600
    assert min(tokens) > 0.8 * 600
    padded = sum(max(batch.src.shape[1], batch.tgt_in.shape[1]) * len(batch.indices) for u in updates for batch in u)
    longer = sum(int(np.maximum(batch.src_lengths, batch.tgt_lengths).sum()) for u in updates for batch in u)
    assert longer > 0.95 * padded


def test_plan_is_a_pure_function_of_seed_and_epoch() -> None:
    split = random_split(600, weights=(1.0, 0.5))

    def indices(seed: int, turn: Turn) -> list[list[int]]:
        plan = BatchPlan(split, seed, 50)
        return [batch.indices.tolist() for batch in micro_batches(plan, turn, 20)]

    plan = BatchPlan(split, 5, 50)
    for epoch in (3, 0, 1):  # in whatever order they are asked for
        turns = turns_of(plan, epoch)
        assert turns[-1].pool > 1
        for turn in reversed(turns):
            assert [batch.indices.tolist() for batch in micro_batches(plan, turn, 20)] == indices(5, turn)
    assert indices(5, Turn(0)) != indices(5, Turn(1))
    assert indices(5, Turn(0)) != indices(6, Turn(0))


def test_micro_batches_are_slices_of_the_same_update() -> None:
    split = random_split(300)
    plan = BatchPlan(split, 1, 200)
    for turn in turns_of(plan, 2):
        whole = micro_batches(plan, turn, 200)[0].indices.tolist()
        parts = sorted(
            (batch.indices.tolist() for batch in micro_batches(plan, turn, 50)), key=lambda p: whole.index(p[0])
        )
        assert list(itertools.chain(*parts)) == whole


def cost(pairs: list[tuple[int, int]], setup: int) -> int:
    return (len(pairs) + setup) * sum(map(max, zip(*pairs, strict=True)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=30), st.integers(0, 40))
def test_micro_batches_are_cut_where_that_saves_padding(pairs: list[tuple[int, int]], setup: int) -> None:
    """And nowhere else: by trying every place."""
    src, tgt = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    pieces = [pairs[part] for part in apart(src, tgt, slice(0, len(pairs)), setup)]
    assert list(itertools.chain(*pieces)) == pairs

    def best(whole: list[tuple[int, int]]) -> int:
        return min((cost(whole[:i], setup) + cost(whole[i:], setup) for i in range(1, len(whole))), default=10**9)

    assert all(cost(piece, setup) <= best(piece) for piece in pieces)
    assert sum(cost(piece, setup) for piece in pieces) <= min(cost(pairs, setup), best(pairs))


def test_a_sentence_much_longer_than_the_others_is_a_micro_batch_of_its_own() -> None:
    ordinary = [[5] * 9 + [EOS]] * 100
    src = Sequences.of([*ordinary, [5] * 90 + [EOS]], np.int32)
    split = EncodedSplit(src, Sequences.of([[5] * 9] * 101, np.int32), (101,), (1.0,))
    [one, other] = micro_batches(BatchPlan(split, 1, 2000, 16), Turn(), 2000)
    assert one.src.shape == (100, 10)
    assert other.src.shape == (1, 91)
    assert [batch.src.shape for batch in micro_batches(BatchPlan(split, 1, 2000), Turn(), 2000)] == [(101, 91)]
    assert [batch.src.shape[0] for batch in micro_batches(BatchPlan(split, 1, 2000, 1000), Turn(), 2000)] == [101]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_micro_batch_with_most_tokens_is_dealt_first(ranks: int) -> None:
    plan = BatchPlan(random_split(400), 1, 300, 1)
    for turn in turns_of(plan, 0):
        parts = dict(part for rank in range(ranks) for part in plan.update(turn, 100, rank, ranks).parts)
        tokens = [parts[place].tokens for place in sorted(parts)]
        assert tokens == sorted(tokens, reverse=True)


@pytest.mark.parametrize("setup", [None, 1])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize(("update_tokens", "batch_tokens"), [(300, 300), (300, 70), (31, 31), (40, 40)])
def test_ranks_share_the_work_and_lose_no_pair(
    ranks: int, update_tokens: int, batch_tokens: int, setup: int | None
) -> None:
    split = random_split(200)
    plan = BatchPlan(split, 1, update_tokens, setup)
    seen: Counter[int] = Counter()
    for turn in turns_of(plan, 0):
        shares = [plan.update(turn, batch_tokens, rank, ranks) for rank in range(ranks)]
        alone = plan.update(turn, batch_tokens)
        assert {share.tokens for share in shares} == {alone.tokens}
        assert len({len(share.parts) for share in shares}) == 1  # nobody waits for a gradient that does not come
        places = sorted(place for share in shares for place, _ in share.parts)
        assert places == list(range(len(places)))
        batches = [batch for share in shares for _, batch in share.parts]
        assert sum(batch.tokens for batch in batches) == alone.tokens == sum(b.tokens for _, b in alone.parts)
        busy = [batch for batch in batches if batch.tokens]
        seen.update(int(i) for batch in busy for i in batch.indices)
        for batch in busy:
            check_batch(batch, split)
            assert batch.tokens <= batch_tokens or len(batch.indices) == 1
        if batch_tokens == 300 and setup is None:
            assert max(b.tokens for b in batches) - min(b.tokens for b in batches) <= 2 * 31
    assert seen == dict.fromkeys(range(200), 1)


def test_updates_come_in_no_order_of_length() -> None:
    updates = whole_epoch(BatchPlan(random_split(5000), 1, 400), 0, 400)
    longest = np.array([max(batch.src.shape[1] for batch in update) for update in updates], dtype=float)
    assert abs(np.corrcoef(longest[1:], longest[:-1])[0, 1]) < 0.25
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.25


def test_mates_of_a_pair_change_from_epoch_to_epoch() -> None:
    plan = BatchPlan(random_split(2000), 1, 400)

    def mates(epoch: int) -> set[int]:
        return next(set(b.indices.tolist()) for [b] in whole_epoch(plan, epoch, 400) if 7 in b.indices)

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


def test_a_large_split_takes_four_bytes_a_pair_and_starts_at_once() -> None:
    """Two million pairs: in a second, with nothing in memory but their order, what shuffling it takes, and a pool."""
    pairs = 2_000_000
    offsets = np.cumsum(np.r_[0, np.random.default_rng(1).integers(1, 40, pairs)])
    sequences = Sequences(np.zeros(offsets[-1], dtype=np.uint16), offsets)
    plan = BatchPlan(EncodedSplit(sequences, sequences, (pairs,), (1.0,)), 1, 4096)
    tracemalloc.start()
    seen = sum(len(batch.indices) for update in range(20) for batch in micro_batches(plan, Turn(3, 7, update), 4096))
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen > 15 * 4096 / 20
    assert held < 5 * pairs
    assert most < 5 * pairs
