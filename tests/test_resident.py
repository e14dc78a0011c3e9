"""A text on the device gives the very micro-batches that arrays would; it is put there where there is room."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import tiny_plan
from translate.models.seq2seq import Tokens
from translate.models.spans import FILLED_TO
from translate.text.arrays import Sequences
from translate.text.batches import Turn, make_batch
from translate.text.encoded import EncodedSplit, Texts
from translate.text.tokenizer import Tokenizer
from translate.training import resident as door
from translate.training.feed import Feed
from translate.training.loss import TensorBatch
from translate.training.resident import Resident, resident, size

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def sequences(*lists: list[int]) -> Sequences:
    return Sequences.of(lists, np.uint16)


SRC = sequences([4, 5, 2], [9, 2], [2], [4, 4, 4, 4, 2], [65535, 2])
TGT = sequences([6, 7, 8], [4], [5, 5, 10, 10, 65535], [], [7, 7])
SPLIT = EncodedSplit(SRC, TGT, (5,), (1.0,))


def tensors(batch: TensorBatch) -> list[Tensor | None]:
    def of(side: Tokens) -> list[Tensor | None]:
        return [side.ids, side.lengths, side.offsets, side.rows, side.places, side.host_lengths]

    return [batch.tgt_out, batch.real, *of(batch.src), *of(batch.tgt_in)]


def assert_same(one: TensorBatch, other: TensorBatch) -> None:
    assert (one.tokens, one.src.longest, one.tgt_in.longest) == (other.tokens, other.src.longest, other.tgt_in.longest)
    for mine, theirs in zip(tensors(one), tensors(other), strict=True):
        if mine is None or theirs is None:
            assert mine is theirs
        else:
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("pairs", [[0], [3], [4], [2, 0, 3, 1, 4], [1, 1, 1], [3, 3]], ids=str)
def test_it_gives_what_arrays_give(pairs: list[int], packed: bool) -> None:
    """Sentences without a word, one alone, the same again, ids that need all 16 bits, the first and the last."""
    chosen = np.array(pairs)
    expected = TensorBatch.of(make_batch(SPLIT.whole(), chosen), CPU, packed)
    assert_same(Resident.of(SPLIT, CPU).batch(chosen, packed), expected)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_a_side_that_is_full_gets_one_more_filling(packed: bool) -> None:
    many = np.zeros(FILLED_TO, dtype=np.int64)  # 3 tokens a source, 4 a target: multiples of FILLED_TO
    expected = TensorBatch.of(make_batch(SPLIT.whole(), many), CPU, packed)
    found = Resident.of(SPLIT, CPU).batch(many, packed)
    assert_same(found, expected)
    assert not packed or len(found.src.ids) == 4 * FILLED_TO


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize(("ranks", "batch_tokens"), [(1, 120), (1, 30), (2, 30), (40, 30)])
def test_every_rank_is_fed_the_same(tmp_path: Path, packed: bool, ranks: int, batch_tokens: int) -> None:
    """Where there are several, one at times has nothing to learn."""
    plan, turn = tiny_plan(tmp_path), Turn()
    idle = 0
    while turn.epoch == 0:
        for rank in (0, ranks - 1):
            plain, fast = (Feed(plan, CPU, packed, rank, ranks) for _ in range(2))
            assert plain.text is None
            fast.text = Resident.of(plan.split, CPU)
            one, other = plain.update(turn, batch_tokens), fast.update(turn, batch_tokens)
            assert replace(one, parts=[]) == replace(other, parts=[])
            for (place, expected), (again, found) in zip(one.parts, other.parts, strict=True):
                assert place == again
                assert_same(found, expected)
                idle += expected.tokens == 0
        turn = plan.after(turn)
    assert (idle > 0) == (ranks > 1)


def test_a_long_text_travels_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "AT_ONCE", 4)
    text = Resident.of(SPLIT, CPU)
    assert text.src.tolist() == SRC.items.tolist()
    assert text.tgt.tolist() == TGT.items.tolist()


def test_it_is_there_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[torch.device] = []
    monkeypatch.setattr(Resident, "of", lambda _, device: placed.append(device))
    assert size(SPLIT) == 4 * (13 + 11)
    for free, there in ((960, True), (959, False)):  # at most a tenth
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 10**9))
        placed.clear()
        resident(SPLIT, CUDA)
        assert placed == [CUDA] * there
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10**9, 10**9))
    placed.clear()
    assert resident(SPLIT, CPU) is None
    anew = replace(SPLIT, texts=Texts(SRC, TGT, Tokenizer.__new__(Tokenizer), 0.1))
    assert resident(anew, CUDA) is None  # other ids each epoch
    assert placed == []
