"""What a query may see, position by position."""

import math
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

from tests.attention_by_hand import seen_by
from translate.config import AttentionConfig
from translate.models.scope import LocalP, Scope, Visible, build_scope, lowest

assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-12)
LENGTHS = [6, 2, 1]
S, T, D = 6, 9, 4
"""Outputs go on for longer than any of the sources."""


def scope_of(name: str, window: int) -> tuple[AttentionConfig, Scope]:
    torch.manual_seed(3)
    config = AttentionConfig.model_validate({"scope": name, "window": window})
    scope = build_scope(config, D).double()
    for parameter in scope.parameters():
        parameter.data.mul_(3.0)  # so that centres are spread over the sentence
    return config, scope


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_sentence_without_real_tokens_gets_no_weight(dtype: torch.dtype) -> None:
    mask = torch.tensor([[False, False], [True, False]])
    visible = Visible.real(mask, dtype)
    scores = torch.randn(2, 1, 2).to(dtype).requires_grad_()
    weights = visible.softmax(scores + visible.bias)
    assert weights.tolist() == [[[0.0, 0.0]], [[1.0, 0.0]]]
    weights.sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_the_past_and_what_each_head_sees() -> None:
    past = Visible.past(4, torch.float64, torch.device("cpu"))
    assert ((past.bias[0] == 0) == torch.ones(4, 4, dtype=torch.bool).tril()).all()
    assert past.heads(3) is past
    real = Visible.real(torch.tensor([[True, False], [True, True]]), torch.float64).heads(2)
    assert (real.bias[:, 0] == 0).tolist() == [[True, False], [True, False], [True, True], [True, True]]
    assert real.alive is not None
    assert real.alive.flatten().tolist() == [1.0] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_two_masks_and_a_score_fit_into_every_number_format(dtype: torch.dtype) -> None:
    """Padding outside a window is hidden twice."""
    hidden = torch.full((1,), lowest(dtype), dtype=dtype) + lowest(dtype) - 1000.0
    assert hidden.isfinite().all()
    assert torch.stack([hidden, torch.zeros_like(hidden)]).softmax(0)[0].item() == 0.0


@pytest.mark.parametrize(
    ("name", "window", "heads", "at_once"),
    [*product(["global", "local_m", "local_p"], [1, 2, 7], [False, True], [False, True])],
)
def test_scopes_equal_their_formulas(name: str, window: int, heads: bool, at_once: bool) -> None:
    """All outputs at once or each by itself, with a dimension of heads or without."""
    config, scope = scope_of(name, window)
    query = torch.randn(3, 2 if heads else 1, T, D, dtype=torch.float64)
    lengths = torch.tensor(LENGTHS)[:, None, None, None]

    def ask(asked: Tensor, time: Tensor | int) -> tuple[Tensor, Tensor]:
        hidden, factor = scope(asked if heads else asked.squeeze(1), time, lengths if heads else lengths.squeeze(1), S)
        shape = (*asked.shape[:3], S)
        hidden = torch.zeros(shape, dtype=torch.float64) if hidden is None else hidden.view(3, -1, asked.size(2), S)
        factor = torch.ones(shape, dtype=torch.float64) if factor is None else factor.view(shape)
        return hidden.expand(shape), factor

    if at_once:
        hidden, factor = ask(query, torch.arange(T)[:, None])
    else:
        steps = [ask(query[:, :, t : t + 1], t) for t in range(T)]
        hidden, factor = (torch.cat(parts, 2) for parts in zip(*steps, strict=True))
    parameters = dict(scope.named_parameters())
    for b, h, t in product(range(3), range(query.size(1)), range(T)):
        seen = seen_by(config, parameters, query[b, h, t], t, LENGTHS[b])
        for s in range(LENGTHS[b]):  # what lies behind the end is hidden by others
            assert hidden[b, h, t, s].item() == (0.0 if s in seen else lowest(torch.float64))
            if s in seen:
                assert_equal(factor[b, h, t, s], seen[s])


def test_a_window_that_moves_stays_on_the_last_word() -> None:
    _, scope = scope_of("local_m", 1)
    hidden, factor = scope(torch.zeros(1, T, D), torch.arange(T)[:, None], torch.tensor([[[3]]]), S)
    assert factor is None
    assert hidden is not None
    visible = [[s for s in range(S) if hidden[0, t, s] == 0] for t in range(T)]
    assert visible == [[0, 1], [0, 1, 2], [1, 2, 3], *[[1, 2, 3]] * (T - 3)]  # padding, 3, is hidden by its own mask


@pytest.mark.parametrize("end", [-1.0, 1.0])
def test_a_centre_at_either_end_leaves_something_to_see(end: float) -> None:
    """Even where the sigmoid says exactly 0 or 1."""
    scope = LocalP(1, D).double()
    scope.hidden.weight.data = 100 * torch.eye(D, dtype=torch.float64)
    scope.v.weight.data.fill_(1000.0 * end)
    query = torch.ones(1, 1, D, dtype=torch.float64)
    for length in range(1, S + 1):
        hidden, factor = scope(query, 0, torch.tensor([[[length]]]), length)
        assert hidden is not None
        assert factor is not None
        seen = [s for s in range(length) if hidden[0, 0, s] == 0]
        assert seen == ([length - 1] if end > 0 else [0, 1][:length])
        assert (factor[0, 0, seen] > 0.1).all()


def test_the_gaussian_is_as_wide_as_the_paper_has_it() -> None:
    """Half a window from the centre is one standard deviation."""
    scope = LocalP(4, D).double()
    scope.v.weight.data.zero_()  # the centre of ten words is 5
    hidden, factor = scope(torch.ones(1, 1, D, dtype=torch.float64), 0, torch.tensor([[[10]]]), 10)
    assert hidden is not None
    assert factor is not None
    assert_equal(factor[0, 0, [3, 5, 7]], torch.tensor([math.exp(-0.5), 1.0, math.exp(-0.5)], dtype=torch.float64))
    assert [s for s in range(10) if hidden[0, 0, s] == 0] == list(range(1, 10))


def test_gradient_of_the_centre() -> None:
    """It flows through the Gaussian only: a mask has no slope."""
    config, scope = scope_of("local_p", 2)
    query = torch.randn(3, 1, D, dtype=torch.float64, requires_grad=True)
    _, factor = scope(query, 0, torch.tensor(LENGTHS)[:, None, None], S)
    assert factor is not None
    parameters = dict(scope.named_parameters())
    total = torch.zeros((), dtype=torch.float64)
    weights = torch.randn(3, S, dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    for b, length in enumerate(LENGTHS):
        for s, share in seen_by(config, parameters, query[b, 0], 0, length).items():
            total = total + weights[b, s] * factor[b, 0, s]
            expected = expected + weights[b, s] * share
    wanted = [query, *parameters.values()]
    ours, theirs = torch.autograd.grad(total, wanted), torch.autograd.grad(expected, wanted)
    for one, other in zip(ours, theirs, strict=True):
        assert_equal(one, other)
        assert one.abs().max() > 0
