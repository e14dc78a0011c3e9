import math

import pytest
import torch

from tests.stub_model import POISON, log_prob_by_hand, rows_by_hand, stub_model, tokens
from translate.decoding.scorer import Hypothesis, Scorer, force_score, limits_of
from translate.text.tokenizer import BOS, EOS, PAD


def first_step(scorer: Scorer, *sentences: list[int]) -> torch.Tensor:
    scorer.start(tokens(*sentences), 4)
    return scorer.step(torch.full((len(sentences), 1), BOS), 0)


def test_log_probs_are_float32_and_pad_and_bos_impossible() -> None:
    log_probs = first_step(Scorer([stub_model(8, 1)]), [4, 6], [7])
    assert log_probs.dtype == torch.float32
    assert log_probs.shape == (2, 1, 8)
    assert (log_probs[..., [PAD, BOS]] == -math.inf).all()
    assert log_probs[..., [EOS, 3, 4, 5, 6, 7]].isfinite().all()


def test_log_probs_are_those_of_the_model() -> None:
    model = stub_model(8, 1)
    found = first_step(Scorer([model]), [4, 6])[0, 0, EOS].item()
    assert found == pytest.approx(log_prob_by_hand(model, [4, 6], []), abs=1e-6)


def test_ensemble_averages_probabilities() -> None:
    models = [stub_model(8, seed) for seed in (1, 2, 3)]
    single = torch.stack([first_step(Scorer([model]), [4, 6], [7]) for model in models])
    expected = single.double().exp().mean(0).log()
    torch.testing.assert_close(first_step(Scorer(models), [4, 6], [7]).double(), expected, rtol=0, atol=1e-6)


def test_ensemble_of_one_model_twice_is_that_model() -> None:
    model = stub_model(8, 1)
    torch.testing.assert_close(first_step(Scorer([model, model]), [4]), first_step(Scorer([model]), [4]))


def test_ensemble_needs_one_vocabulary() -> None:
    with pytest.raises(AssertionError, match=r"\[8, 9\]"):
        Scorer([stub_model(8, 1), stub_model(9, 1)])


def test_training_mode_is_refused() -> None:
    with pytest.raises(AssertionError, match="evaluation mode"):
        Scorer([stub_model(8, 1).train()]).start(tokens([4]), 3)


def test_keep_and_reorder_go_on_from_the_right_history() -> None:
    model = stub_model(8, 3)
    scorer = Scorer([model])
    scorer.start(tokens([4], [6], [7, 4]), 4, beam=2)
    scorer.step(torch.full((3, 2), BOS), 0)
    scorer.step(torch.tensor([[3, 4], [5, 6], [6, 7]]), 1)
    scorer.reorder(torch.tensor([[0, 0], [0, 1], [1, 0]]))
    scorer.keep(torch.tensor([2, 0]))
    ends = scorer.step(torch.tensor([[4, 4], [6, 7]]), 2)[..., EOS]
    expected = [
        [rows_by_hand(model, [7, 4], ids)[-1][EOS] for ids in ([7, 4], [6, 4])],
        [rows_by_hand(model, [4], ids)[-1][EOS] for ids in ([3, 6], [3, 7])],
    ]
    torch.testing.assert_close(ends, torch.tensor(expected))


@pytest.mark.parametrize("logit", [math.nan, math.inf])
def test_a_row_without_a_distribution_is_nan(logit: float) -> None:
    model = stub_model(8, 1)
    clean = first_step(Scorer([model]), [4], [6])
    model.output.bias = torch.nn.Parameter(torch.zeros(8, dtype=torch.float64))
    model.output.bias.data[7] = logit
    assert first_step(Scorer([model]), [4], [6])[..., EOS].isnan().all()
    assert clean.isfinite().any()


def test_a_poisoned_sentence_leaves_the_others_alone() -> None:
    scorer = Scorer([stub_model(8, 1)])
    scorer.start(tokens([4], [POISON]), 4)
    scorer.step(torch.full((2, 1), BOS), 0)
    assert scorer.step(torch.full((2, 1), 4), 1)[..., EOS].isnan().tolist() == [[False], [True]]


def test_force_score_is_the_sum_by_hand() -> None:
    model = stub_model(8, 5)
    for ids in ([], [4], [6, 3, 7, 7]):
        by_hand = log_prob_by_hand(model, [4, 7], ids)
        assert force_score(Scorer([model]), tokens([4, 7]), ids) == pytest.approx(by_hand, abs=1e-5)


def test_hypothesis_score_counts_eos() -> None:
    assert Hypothesis.finish([4, 5, 6], -8.0, 1.0).score == -2.0
    assert Hypothesis.finish([4, 5, 6], -8.0, 0.5).score == -4.0
    assert Hypothesis.finish([], -8.0, 1.0).score == -8.0


def test_limits() -> None:
    assert limits_of(7, 2) == [7, 7]
    assert limits_of(torch.tensor([3, 4]), 2) == [3, 4]
    assert limits_of([3, 4], 2) == [3, 4]
