"""Every score function against its formula, one query and one state at a time, forwards and backwards."""

import math
from functools import partial
from itertools import product
from typing import get_args

import pytest
import torch
from torch import Tensor

from tests.attention_by_hand import scores_of
from translate.config import AttentionConfig
from translate.config.architectures import ScoreName
from translate.errors import DataError
from translate.models.loop_matrix import LoopMatrix
from translate.models.score import Score, build_score

assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-11)
SCORES = [name for name in get_args(ScoreName) if name != "none"]
FEATURES = ["scalar", "multi_dimensional"]
B, H, Q, S, D = 2, 2, 2, 3, 4


def score_of(name: str, features: str = "scalar", coverage: bool = False, width: int = D) -> Score:
    """A score in float64, no weight of which is 0."""
    torch.manual_seed(11)
    config = AttentionConfig.model_validate(
        {"score": name, "features": features, "coverage": coverage, "max_positions": 5}
    )
    score = build_score(config, width).double()
    for parameter in score.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return score


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("name", "features", "coverage"), [*product(SCORES, FEATURES, [False, True])])
def test_scores_and_gradients_equal_their_formulas(name: str, features: str, coverage: bool) -> None:
    score, per_feature = score_of(name, features, coverage), features == "multi_dimensional"
    query, memory = random(B, H, Q, D, seed=1), random(B, H, S, D, seed=2)
    covered = random(B, H, Q, S, seed=3).abs()
    inputs = [query, memory, *([covered] if coverage else [])]
    for tensor in inputs:
        tensor.requires_grad_()
    found = score(query, score.prepare(memory), covered if coverage else None)
    parameters = dict(score.named_parameters())
    rows = [
        scores_of(name, parameters, query[b, h, q], memory[b, h, s], s, covered[b, h, q, s], per_feature)
        for b, h, q, s in product(range(B), range(H), range(Q), range(S))
    ]
    expected = torch.stack(rows).view(B, H, Q, S, -1)
    if not per_feature:
        expected = expected.squeeze(-1)
    assert_equal(found, expected)
    against = random(*found.shape, seed=4)
    wanted = [*inputs, *parameters.values()]
    ours = torch.autograd.grad((found * against).sum(), wanted, allow_unused=name == "location")
    theirs = torch.autograd.grad((expected * against).sum(), wanted, allow_unused=name == "location")
    for one, other in zip(ours, theirs, strict=True):
        if one is None or other is None:
            assert name == "location"  # the memory matters only for its length
            assert one is other
        else:
            assert_equal(one, other)


@pytest.mark.parametrize("name", SCORES)
def test_without_weights_so_far_coverage_changes_nothing(name: str) -> None:
    """The first query of a sentence."""
    score = score_of(name, coverage=True)
    query, memory = random(B, Q, D, seed=1), random(B, S, D, seed=2)
    keys = score.prepare(memory)
    assert_equal(score(query, keys, None), score(query, keys, torch.zeros(B, Q, S, dtype=torch.float64)))
    assert not torch.allclose(score(query, keys, None), score(query, keys, torch.ones(B, Q, S, dtype=torch.float64)))


@pytest.mark.parametrize("name", SCORES)
def test_a_product_score_is_one_in_a_loop_too(name: str) -> None:
    """What a loop relies on: keys enter such a score by a product alone."""
    score = score_of(name)
    query, memory = random(B, Q, D, seed=1), random(B, S, D, seed=2)
    keys = score.prepare(memory)
    assert keys.shape == ((B, D, S) if score.is_product else (B, S, D))
    if score.is_product:
        assert_equal(score(query, LoopMatrix(keys, torch.float64)), score(query, keys))


def test_the_formulas_tell_the_scores_apart() -> None:
    """No two scores, each with weights of its own, give the same numbers, but for scaled_dot and the factor in it."""
    query, memory = random(1, 1, D, seed=1), random(1, S, D, seed=2)
    found = {name: (score := score_of(name))(query, score.prepare(memory)).flatten() for name in SCORES}
    assert_equal(found["dot"], found["scaled_dot"] * math.sqrt(D))
    for one, other in product(SCORES, repeat=2):
        assert one == other or not torch.allclose(found[one], found[other])


def test_concat_is_one_matrix_from_the_start() -> None:
    """Initialised as W [q; m] of 2 D columns, not as two matrices of D; and there is no b."""
    torch.manual_seed(1)
    score = build_score(AttentionConfig(score="concat"), 64)
    parameters = dict(score.named_parameters())
    assert set(parameters) == {"query.weight", "key.weight", "v.weight"}
    both = torch.cat([parameters["query.weight"], parameters["key.weight"]], 1)
    bound = math.sqrt(6 / (64 + 128))
    assert 0.98 * bound < both.abs().max().item() <= bound


def test_cosine_begins_sharp_enough_to_choose() -> None:
    torch.manual_seed(1)
    score = build_score(AttentionConfig(score="cosine"), 16)
    query = torch.randn(1, 1, 16)
    memory = torch.cat([query, -query], 1)
    weights = score(query, score.prepare(memory)).softmax(-1)
    assert weights[0, 0, 0].item() > 0.99


@pytest.mark.parametrize("name", ["cosine", "location"])
def test_a_state_of_zeros_has_a_score_and_a_gradient(name: str) -> None:
    score = score_of(name)
    memory = torch.zeros(1, S, D, dtype=torch.float64, requires_grad=True)
    query = torch.zeros(1, Q, D, dtype=torch.float64, requires_grad=True)
    scores = score(query, score.prepare(memory))
    scores.sum().backward()
    assert scores.isfinite().all()
    assert query.grad is not None
    assert query.grad.isfinite().all()


def test_location_has_a_vector_for_each_position_and_no_more() -> None:
    score = score_of("location")
    assert score.prepare(random(1, 5, D, seed=1)).shape == (1, D, 5)
    with pytest.raises(DataError, match=r"a source has 6 pieces, but model\.decoder\.attention\.max_positions is 5"):
        score.prepare(random(1, 6, D, seed=1))


def test_location_does_not_read_the_memory() -> None:
    score = score_of("location")
    assert not score.reads_memory
    assert torch.equal(score.prepare(random(2, S, D, seed=1)), score.prepare(random(2, S, D, seed=2)))


def test_none_has_no_score() -> None:
    with pytest.raises(AssertionError, match="without attention"):
        build_score(AttentionConfig(score="none"), D)
