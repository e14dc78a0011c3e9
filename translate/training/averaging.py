"""Means of weights: over the last checkpoints, and running over all updates (EMA)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


def mean_of(checkpoints: Iterable[Weights]) -> Weights:
    """The plain mean of several sets of weights, summed in float64 so that their order does not matter."""
    total: Weights = {}
    count = 0
    dtypes: dict[str, torch.dtype] = {}
    for weights in checkpoints:
        count += 1
        for name, tensor in weights.items():
            dtypes[name] = tensor.dtype
            total[name] = total[name].add_(tensor) if name in total else tensor.double()
    return {name: (tensor / count).to(dtypes[name]) for name, tensor in total.items()}


class MovingAverage:
    """Exponential moving average of the weights after every update: ema = decay * ema + (1 - decay) * weights.

    The decay starts small, min(decay, (1 + step) / (10 + step)), so that the first weights do not linger.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: Weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after update `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [p.detach() for _, p in model.named_parameters()]
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - decay)
