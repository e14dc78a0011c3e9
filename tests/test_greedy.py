import math
import random

import pytest
import torch

from tests.stub_model import POISON, StubDecoder, log_prob_by_hand, rows_by_hand, stub_model, tokens
from translate.decoding.greedy import greedy
from translate.decoding.scorer import Scorer
from translate.models.seq2seq import Seq2Seq
from translate.text.tokenizer import BOS, EOS, PAD


def by_hand(model: Seq2Seq, src: list[int], limit: int) -> list[int]:
    """Greedy search in plain Python, each prefix scored anew."""
    ids: list[int] = []
    while len(ids) < limit:
        row = rows_by_hand(model, src, ids)[-1]
        best = max((token for token in range(len(row)) if token not in (PAD, BOS)), key=lambda token: row[token])
        if best == EOS:
            break
        ids.append(best)
    return ids


def sources(count: int, seed: int) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.choice([3, 4, 6, 7]) for _ in range(chance.randint(1, 6))] for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_equals_plain_python(seed: int) -> None:
    model = stub_model(9, seed)
    srcs = sources(11, seed)
    limits = [random.Random(seed + place).randint(0, 12) for place in range(len(srcs))]
    found = greedy(Scorer([model]), tokens(*srcs), limits, 0.7)
    for src, limit, hypothesis in zip(srcs, limits, found, strict=True):
        assert hypothesis is not None
        assert hypothesis.ids == by_hand(model, src, limit)
        assert hypothesis.log_prob == pytest.approx(log_prob_by_hand(model, src, hypothesis.ids), abs=1e-5)
        assert hypothesis.score == hypothesis.log_prob / (len(hypothesis.ids) + 1) ** 0.7


def test_neighbours_change_nothing() -> None:
    model = stub_model(9, 3)
    srcs = sources(30, 4)
    together = greedy(Scorer([model]), tokens(*srcs), 15)
    assert together == [greedy(Scorer([model]), tokens(src), 15)[0] for src in srcs]


def test_ends_at_the_limit_with_the_probability_of_eos() -> None:
    model = stub_model(9, 1)
    assert isinstance(model.decoder, StubDecoder)
    model.decoder.table[:, EOS] = -30.0
    (hypothesis,) = greedy(Scorer([model]), tokens([4, 7]), torch.tensor([6]))
    assert hypothesis is not None
    assert len(hypothesis.ids) == 6
    assert hypothesis.log_prob == pytest.approx(log_prob_by_hand(model, [4, 7], hypothesis.ids), abs=1e-4)


def test_finished_sentences_leave_the_batch() -> None:
    model = stub_model(9, 2)
    assert isinstance(model.decoder, StubDecoder)
    greedy(Scorer([model]), tokens(*sources(40, 5)), 30)
    sizes = model.decoder.batches
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 20


def test_a_sentence_that_becomes_nan_has_no_translation() -> None:
    model = stub_model(9, 2)
    srcs = [[4, 6], [POISON, 4], [7], [7, POISON]]
    for limit in (1, 9):
        found = greedy(Scorer([model]), tokens(*srcs), limit)
        alone = [greedy(Scorer([model]), tokens(src), limit)[0] for src in srcs]
        assert found == alone
        for src, hypothesis in zip(srcs, found, strict=True):
            ends_before_poison = not by_hand(model, src, limit)
            assert (hypothesis is None) == (POISON in src and not ends_before_poison)


def test_nothing_is_computed_for_a_lost_sentence() -> None:
    model = stub_model(9, 2)
    assert isinstance(model.decoder, StubDecoder)
    model.decoder.table[:, EOS] = -30.0
    assert greedy(Scorer([model]), tokens([POISON]), 9) == [None]
    assert len(model.decoder.batches) == 2


def test_impossible_everything_is_no_translation() -> None:
    model = stub_model(9, 2)
    model.output.bias = torch.nn.Parameter(torch.full((9,), -math.inf, dtype=torch.float64))
    model.output.bias.data[[PAD, BOS]] = 0.0
    assert greedy(Scorer([model]), tokens([4], [6]), 3) == [None, None]
    assert isinstance(model.decoder, StubDecoder)
    assert len(model.decoder.batches) == 1
