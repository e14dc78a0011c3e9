import itertools
import math
import random

import pytest
import torch

from tests.stub_model import POISON, StubDecoder, key_of, log_prob_by_hand, next_row, rows_by_hand, stub_model, tokens
from translate.decoding.beam import beam_search, best_candidates
from translate.decoding.greedy import greedy
from translate.decoding.scorer import Hypothesis, Scorer, force_score
from translate.models.seq2seq import Seq2Seq
from translate.text.tokenizer import BOS, EOS

PENALTIES = [0.0, 0.5, 1.0, 1.7, -0.5]


def sources(count: int, seed: int, longest: int = 6) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.choice([3, 4, 6, 7]) for _ in range(chance.randint(1, longest))] for _ in range(count)]


def all_translations(vocab: int, limit: int) -> list[list[int]]:
    words = range(3, vocab)
    return [list(ids) for length in range(limit + 1) for ids in itertools.product(words, repeat=length)]


def ranked(model: Seq2Seq, src: list[int], limit: int, penalty: float) -> list[Hypothesis]:
    """Every translation there is, best first."""
    translations = all_translations(model.output.out_features, limit)
    scored = [Hypothesis.finish(ids, log_prob_by_hand(model, src, ids), penalty) for ids in translations]
    return sorted(scored, key=lambda each: -each.score)


def assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [each.ids for each in found] == [each.ids for each in expected]
    assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=1e-5)
    assert [each.log_prob for each in found] == pytest.approx([each.log_prob for each in expected], abs=1e-5)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("vocab", [4, 5, 6])
def test_wide_beam_is_exhaustive_search(vocab: int, penalty: float) -> None:
    for seed in range(25):
        limits = [4, 2, 0, 3] if vocab < 6 else [3, 2]
        model = stub_model(vocab, 100 * vocab + seed)
        srcs = sources(len(limits), seed)
        beam = len(all_translations(vocab, max(limits)))
        found = beam_search(Scorer([model]), tokens(*srcs), beam, limits, penalty, n_best=beam)
        for src, limit, hypotheses in zip(srcs, limits, found, strict=True):
            assert_same(hypotheses, ranked(model, src, limit, penalty))


def by_hand(model: Seq2Seq, src: list[int], beam: int, limit: int, penalty: float) -> list[Hypothesis]:
    """The same search over one sentence in plain Python, over lists of prefixes that are scored anew."""
    live: list[tuple[int, ...]] = [()]
    finished: list[Hypothesis] = []
    for time in range(limit + 1):
        candidates = []
        for ids in live:
            candidates.append((ids, log_prob_by_hand(model, src, list(ids)), True))
            for token in range(3, model.output.out_features) if time < limit else ():
                longer = (*ids, token)
                end = rows_end(model, src, longer)
                candidates.append((longer, log_prob_by_hand(model, src, list(longer)) - end, False))
        candidates.sort(key=lambda each: -each[1])
        finished += [Hypothesis.finish(list(ids), total, penalty) for ids, total, ends in candidates[:beam] if ends]
        live = [ids for ids, _, ends in candidates if not ends][:beam]
        if len(finished) >= beam:
            break
    return sorted(finished, key=lambda each: -each.score)


def rows_end(model: Seq2Seq, src: list[int], ids: tuple[int, ...]) -> float:
    return rows_by_hand(model, src, list(ids))[-1][EOS]


@pytest.mark.parametrize("beam", [1, 2, 3, 5, 12])
def test_equals_plain_python(beam: int) -> None:
    for seed in range(8):
        model = stub_model(9, seed)
        srcs = sources(5, seed)
        limits = [random.Random(seed + place).randint(0, 9) for place in range(len(srcs))]
        found = beam_search(Scorer([model]), tokens(*srcs), beam, limits, 0.8, n_best=beam)
        for src, limit, hypotheses in zip(srcs, limits, found, strict=True):
            assert_same(hypotheses, by_hand(model, src, beam, limit, 0.8)[:beam])


@pytest.mark.parametrize("penalty", PENALTIES)
def test_scores_are_confirmed_by_forced_scoring_and_fall(penalty: float) -> None:
    for seed in range(10):
        ensemble = Scorer([stub_model(11, seed), stub_model(11, 50 + seed)])
        srcs = sources(9, seed)
        for src, found in zip(srcs, beam_search(ensemble, tokens(*srcs), 4, 12, penalty, n_best=4), strict=True):
            assert 1 <= len(found) <= 4
            for hypothesis in found:
                assert hypothesis.log_prob == pytest.approx(
                    force_score(ensemble, tokens(src), hypothesis.ids), abs=1e-5
                )
                assert hypothesis.score == hypothesis.log_prob / (len(hypothesis.ids) + 1) ** penalty
            scores = [hypothesis.score for hypothesis in found]
            assert scores == sorted(scores, reverse=True)
            assert len({tuple(hypothesis.ids) for hypothesis in found}) == len(found)


@pytest.mark.parametrize("seed", range(20))
def test_one_hypothesis_is_greedy_search(seed: int) -> None:
    scorer = Scorer([stub_model(9, seed)])
    src = tokens(*sources(13, seed))
    expected = greedy(scorer, src, 11, 0.6)
    assert [found[0] for found in beam_search(scorer, src, 1, 11, 0.6)] == expected


def test_neighbours_change_nothing() -> None:
    scorer = Scorer([stub_model(9, 3)])
    srcs = sources(30, 4)
    limits = [random.Random(place).randint(1, 14) for place in range(len(srcs))]
    together = beam_search(scorer, tokens(*srcs), 4, limits, n_best=3)
    alone = [beam_search(scorer, tokens(src), 4, limit, n_best=3)[0] for src, limit in zip(srcs, limits, strict=True)]
    assert together == alone


def test_finished_sentences_leave_the_batch() -> None:
    model = stub_model(9, 2)
    assert isinstance(model.decoder, StubDecoder)
    beam_search(Scorer([model]), tokens(*sources(40, 5)), 3, 30)
    sizes = model.decoder.batches
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 20


def test_always_ends_at_the_limit() -> None:
    model = stub_model(9, 1)
    assert isinstance(model.decoder, StubDecoder)
    model.decoder.table[:, EOS] = -30.0
    (found,) = beam_search(Scorer([model]), tokens([4, 7]), 3, 6, n_best=3)
    assert [len(hypothesis.ids) for hypothesis in found] == [6, 6, 6]
    for hypothesis in found:
        assert hypothesis.log_prob == pytest.approx(log_prob_by_hand(model, [4, 7], hypothesis.ids), abs=1e-4)


def test_a_sentence_that_becomes_nan_has_no_translation() -> None:
    scorer = Scorer([stub_model(9, 2)])
    srcs = [[4, 6], [POISON, 4], [7], [7, POISON], [6, 6]]
    found = beam_search(scorer, tokens(*srcs), 3, 9, n_best=3)
    for src, hypotheses in zip(srcs, found, strict=True):
        assert hypotheses == ([] if POISON in src else beam_search(scorer, tokens(src), 3, 9, n_best=3)[0])
        assert all(math.isfinite(hypothesis.score) for hypothesis in hypotheses)


def test_one_nan_hypothesis_among_several_ends_the_sentence() -> None:
    model = stub_model(9, 2)
    assert isinstance(model.decoder, StubDecoder)
    srcs = [[4, 6], [7], [6, 6, 3]]
    clean = beam_search(Scorer([model]), tokens(*srcs), 3, 9, n_best=3)
    first = rows_by_hand(model, [7], [])[0]
    second_best = sorted((token for token in range(3, 9)), key=lambda token: -first[token])[1]
    start = next_row(key_of([7]), BOS, key_of([7]), 0)
    model.decoder.table[next_row(start, second_best, key_of([7]), 1)] = math.nan
    found = beam_search(Scorer([model]), tokens(*srcs), 3, 9, n_best=3)
    assert found == [clean[0], [], clean[2]]


def test_nan_discards_what_had_finished_before() -> None:
    model = stub_model(9, 2)
    assert isinstance(model.decoder, StubDecoder)
    model.decoder.table[:, EOS] = 4.0
    assert beam_search(Scorer([model]), tokens([4], [POISON]), 3, 9)[1] == []


def test_impossible_everything_is_no_translation() -> None:
    model = stub_model(9, 2)
    model.output.bias = torch.nn.Parameter(torch.full((9,), -math.inf, dtype=torch.float64))
    model.output.bias.data[[0, 1]] = 0.0
    assert beam_search(Scorer([model]), tokens([4], [6]), 4, 3) == [[], []]


def test_best_candidates_are_the_best_of_all() -> None:
    generator = torch.Generator().manual_seed(1)
    for words, beam, block in itertools.product([4, 9, 20, 101], [1, 3, 7], [2, 5, 100]):
        log_prob = torch.randn((3, beam), generator=generator, dtype=torch.float64)
        log_prob[1, 1:] = -math.inf
        log_probs = torch.randn((3, beam, words), generator=generator)
        log_probs[..., 0] = -math.inf
        found = best_candidates(log_prob, log_probs, 2 * beam, block)
        plain = (log_prob[..., None] + log_probs).flatten(1).topk(2 * beam)
        real = plain.values.isfinite()
        assert torch.equal(found.log_prob, plain.values)
        assert torch.equal((found.parent * words + found.token)[real], plain.indices[real])
