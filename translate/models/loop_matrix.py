"""A matrix that a loop over time multiplies by at every step, with its gradient taken once after the loop.

Autograd alone would form a gradient as large as the matrix at every step and add them up: for the weights and the
memory of a recurrent decoder that is more work than the steps themselves. The gradient of a sum of products is one
product of everything that went in with everything that came back, so each step only notes the two.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class LoopMatrix:
    """`x @ matrix` for x (N, I) and matrix (I, O), or for x (B, Q, I) and one matrix (B, I, O) a sentence.

    The matrix is brought to `dtype` once, and x at each product.
    """

    def __init__(self, matrix: Tensor, dtype: torch.dtype) -> None:
        self._notes: list[tuple[Tensor, Tensor]] = []
        self._noting = torch.is_grad_enabled() and matrix.requires_grad
        cast = matrix.to(dtype)
        self._matrix: Tensor = _Anchor.apply(cast, self._notes) if self._noting else cast

    def __rmatmul__(self, x: Tensor) -> Tensor:
        x = x.to(self._matrix.dtype)
        product: Tensor = _Product.apply(x, self._matrix, self._notes) if self._noting else x @ self._matrix
        return product


class _Anchor(torch.autograd.Function):
    """The node between the matrix and all its products. Autograd reaches it when every product has gone back."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, notes: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.notes = notes
        ctx.set_materialize_grads(False)
        return matrix.view_as(matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: None) -> tuple[Tensor | None, None]:
        if not ctx.notes:
            return None, None
        inputs = torch.cat([x for x, _ in ctx.notes], dim=-2)
        gradients = torch.cat([gradient for _, gradient in ctx.notes], dim=-2)
        ctx.notes.clear()
        return inputs.transpose(-1, -2) @ gradients, None


class _Product(torch.autograd.Function):
    """One step: the gradient of x at once, that of the matrix left to the anchor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, notes: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.save_for_backward(x, matrix)
        ctx.notes = notes
        return x @ matrix

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, matrix = ctx.saved_tensors
        ctx.notes.append((x, gradient))
        return gradient @ matrix.transpose(-1, -2), None, None
