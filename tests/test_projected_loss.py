"""The loss that never has all logits in memory, against the one that has."""

from typing import Any

import pytest
import torch
from torch import Tensor

from translate.training import projected_loss as module
from translate.training.projected_loss import plain_losses, projected_loss

WORDS = 23


def given(dtype: torch.dtype, rows: int = 17) -> tuple[list[Tensor], Tensor]:
    """Features, weight and bias that are learnt, and target words."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(rows, 8), (WORDS, 8), (WORDS,)]
    learnt = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    words = torch.randint(WORDS, (rows,), generator=generator)
    return [tensor.requires_grad_() for tensor in learnt], words


@pytest.mark.parametrize("rows_at_once", [1, 5, 17, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_loss_and_gradients_are_those_of_the_plain_form(
    rows_at_once: int, smoothing: float, biased: bool, dtype: torch.dtype, close: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.LOGITS_AT_ONCE, "cpu", rows_at_once * WORDS)
    learnt, words = given(dtype)
    features, weight, bias = learnt[0], learnt[1], learnt[2] if biased else None
    learnt = learnt if biased else learnt[:2]
    total, losses = projected_loss(features, weight, bias, words, smoothing)
    exact_bias = None if bias is None else bias.double()
    expected = plain_losses(features.double(), weight.double(), exact_bias, words, smoothing)
    torch.testing.assert_close(losses.double(), expected.double(), rtol=close, atol=close)
    assert not losses.requires_grad
    ours = torch.autograd.grad(0.3 * total, learnt)
    theirs = torch.autograd.grad(0.3 * expected.sum(), learnt)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() < 10 * max(close, 1e-7) * other.abs().max()


def test_no_gradient_is_made_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made on the way forward, so validation would pay for them."""
    made, chunked = [], module._chunked

    def watched(*given: Any) -> Any:
        losses, gradients = chunked(*given)
        made.append([gradient is not None for gradient in gradients])
        return losses, gradients

    monkeypatch.setattr(module, "_chunked", watched)
    (features, weight, bias), words = given(torch.float64)
    total, losses = projected_loss(features, weight, bias, words, 0.1)
    with torch.no_grad():
        assert torch.equal(projected_loss(features, weight, bias, words, 0.1)[1], losses)
    assert projected_loss(features.detach(), weight.detach(), bias.detach(), words, 0.1)[0] == total
    assert made == [[True] * 3, [False] * 3, [False] * 3]


def test_gradients_match_finite_differences() -> None:
    learnt, words = given(torch.float64, rows=4)
    assert torch.autograd.gradcheck(lambda h, w, b: projected_loss(h, w, b, words, 0.1)[0], learnt)


def test_products_are_bf16_under_autocast_and_sums_are_not() -> None:
    """The rounding of the plain form under autocast is the yardstick: the chunked one may not be further off."""
    learnt, words = given(torch.float32, rows=600)
    features, weight, bias = learnt
    exact = plain_losses(features.double(), weight.double(), bias.double(), words, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, losses = projected_loss(features, weight, bias, words, 0.1)
        plain = plain_losses(features, weight, bias, words, 0.1)
    assert losses.dtype == total.dtype == torch.float32
    assert (losses - exact).abs().max() < 1.5 * (plain - exact).abs().max()
    assert (losses - exact).abs().max() > 1e-4  # in fp32 it would be less
    wanted = torch.autograd.grad(exact.sum(), learnt)
    ours, theirs = torch.autograd.grad(total, learnt), torch.autograd.grad(plain.sum(), learnt)
    for mine, other, best in zip(ours, theirs, wanted, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - best).norm() < 1.5 * (other - best).norm() + 1e-3


def test_what_learns_not_costs_no_gradient() -> None:
    (features, weight, bias), words = given(torch.float64)
    with torch.no_grad():
        assert not projected_loss(features, weight, bias, words, 0.1)[0].requires_grad
    total, _ = projected_loss(features, weight.detach(), bias.detach(), words, 0.1)
    total.backward()
    expected = torch.autograd.grad(plain_losses(features, weight, bias, words, 0.1).sum(), features)[0]
    torch.testing.assert_close(features.grad, expected)


def test_no_words_no_loss() -> None:
    """A rank may have nothing to learn from in an update, and still takes part."""
    learnt, words = given(torch.float64, rows=0)
    features, weight, bias = learnt
    total, losses = projected_loss(features, weight, bias, words, 0.1)
    assert total.item() == 0
    assert losses.shape == (0,)
    assert all(gradient.abs().sum() == 0 for gradient in torch.autograd.grad(total, learnt))
