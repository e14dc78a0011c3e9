"""Projection and cross-entropy in one: the logits of a whole batch are never in memory.

Rows are taken by the chunk. With P = softmax(z) of a row's logits z = W h + b, the smoothed loss and its gradient are

    loss = logsumexp(z) - (1 - eps) z_t - eps mean(z)          d loss / d z = P - (1 - eps) onehot(t) - eps / V

so the gradient is known as soon as the loss is, and is carried back to h, W and b at once. What `eps` adds is the same
for every word and needs no pass over the logits: mean(z) = (h . colsum(W) + sum(b)) / V, and the gradients lose
eps / V colsum(W), eps / V sum(h) and eps / V. `plain_losses` is the same written down directly.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_AT_ONCE = {"cpu": 2**22, "cuda": 2**26}
"""Numbers in a chunk of logits: 16 MB on a CPU; 256 MB on a GPU, which would be done with a small chunk before the host
had sent the next."""


def plain_losses(features: Tensor, weight: Tensor, bias: Tensor | None, words: Tensor, smoothing: float) -> Tensor:
    """features (N, D), weight (V, D), bias (V,), words (N,) -> label-smoothed cross-entropies (N,)."""
    logits = F.linear(features, weight, bias)
    logits = logits.to(_wide(logits.dtype))
    return F.cross_entropy(logits, words, reduction="none", label_smoothing=smoothing)


def projected_loss(
    features: Tensor, weight: Tensor, bias: Tensor | None, words: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """The sum of `plain_losses`, which has a gradient, and the losses (N,), which have none."""
    # Within `forward` gradients are switched off, and a weight says it needs one whether or not anybody asks.
    total, losses = _ProjectedLoss.apply(features, weight, bias, words, smoothing, torch.is_grad_enabled())
    return total, losses


class _ProjectedLoss(torch.autograd.Function):
    """Gradients are computed on the way forward and wait for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        words: Tensor,
        smoothing: float,
        asked: bool,
    ) -> tuple[Tensor, Tensor]:
        device = features.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
        learning = asked and any(ctx.needs_input_grad[:3])
        with torch.autocast(device, enabled=False):
            losses, gradients = _chunked(features, weight, bias, words, smoothing, dtype, learning)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [None if gradient is None else gradient * of_total for gradient in ctx.saved_tensors]
        return (*gradients, None, None, None)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What sums are kept in."""
    return torch.promote_types(dtype, torch.float32)


def _chunked(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    words: Tensor,
    smoothing: float,
    dtype: torch.dtype,
    learning: bool,
) -> tuple[Tensor, list[Tensor | None]]:
    """Losses (N,), and where they are wanted the gradients of their sum by features, weight and bias."""
    wide = _wide(dtype)
    h, w = features.to(dtype), weight.to(dtype)
    size = weight.size(0)
    column_sum = weight.to(wide).sum(0)
    shift = 0.0 if bias is None else bias.to(wide).sum()
    means = (features.to(wide) @ column_sum + shift) / size
    losses = torch.empty(len(words), dtype=wide, device=features.device)
    by_h = torch.empty_like(features) if learning else None
    by_w = torch.zeros_like(weight, dtype=wide) if learning else None
    by_b = torch.zeros_like(bias, dtype=wide) if learning and bias is not None else None
    rows = max(1, LOGITS_AT_ONCE[features.device.type] // size)
    for start in range(0, len(words), rows):
        part = slice(start, start + rows)
        z = (h[part] @ w.t()).to(wide)
        if bias is not None:
            z += bias
        t = words[part, None]
        gradient = z.softmax(1)
        # By way of the likeliest word, whose probability cannot vanish; torch.logsumexp takes each exponential anew.
        logsumexp = z.amax(1) - gradient.amax(1).log()
        losses[part] = logsumexp - (1 - smoothing) * z.gather(1, t).squeeze(1) - smoothing * means[part]
        if by_h is None or by_w is None:
            continue
        gradient.scatter_add_(1, t, gradient.new_full(t.shape, smoothing - 1))
        if by_b is not None:
            by_b += gradient.sum(0)
        rounded = gradient.to(dtype)
        by_h[part] = rounded @ w
        by_w += rounded.t() @ h[part]
        del z, gradient, rounded  # before those of the next chunk are made
    if by_h is not None and by_w is not None and smoothing:
        by_h -= (smoothing / size * column_sum).to(by_h.dtype)
        by_w -= smoothing / size * features.to(wide).sum(0)
        if by_b is not None:
            by_b -= smoothing / size * len(words)
    return losses, [by_h, by_w, by_b]
