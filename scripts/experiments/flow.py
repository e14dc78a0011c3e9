"""How much a number in a model depends on each word of the source: the size of its gradient there."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from translate.models.seq2seq import Encoder, Tokens


def source_gradients(encoder: Encoder, value: Callable[[], Tensor]) -> Tensor:
    """Norms (S,) of the gradient of `value()`, one number, with respect to the word vector of each source position.

    `value` runs the encoder once, on one sentence.
    """
    vectors: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        vectors.append(output)

    hook = encoder.embedding.register_forward_hook(keep)
    try:
        wanted = value()
    finally:
        hook.remove()
    (embedded,) = vectors
    (gradient,) = torch.autograd.grad(wanted, embedded)
    return gradient.flatten(0, -2).norm(dim=-1)


def sentence(ids: list[int]) -> Tokens:
    """A batch of one."""
    return Tokens(torch.tensor([ids]), torch.tensor([len(ids)]), len(ids))
