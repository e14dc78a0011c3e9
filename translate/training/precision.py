"""The scale of the loss in fp16, whose numbers end at 65504 and begin at 6e-8: small gradients would vanish.

The loss is multiplied by the scale before the backward pass and the gradients are divided by it after (Micikevicius et
al. 2018). Where the scale was too large a gradient is infinite: the update is left out and the scale halved; after
STEADY updates in a row that were not, it is doubled. Everything happens on the device, so that the host waits for
nothing. The scale has a history, so a checkpoint holds it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

FIRST, LARGEST = 2.0**16, 2.0**24
STEADY = 2000


class LossScale:
    """The scale and how many updates in a row it did not overflow."""

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.tensor(FIRST, device=device)
        self.steady = torch.tensor(0.0, device=device)

    def apply(self, loss: Tensor) -> Tensor:
        """The loss to go back from."""
        return loss * self.scale

    def divide(self, gradients: Iterable[Tensor]) -> None:
        """Undo it in the gradients, in place."""
        torch._foreach_mul_(list(gradients), 1.0 / self.scale)

    def note(self, overflowed: Tensor) -> None:
        """Take in whether a gradient of this update was infinite: a number that is 1 or 0."""
        self.steady = (self.steady + 1) * (1 - overflowed)
        grown = torch.where(self.steady >= STEADY, 2.0, 1.0)
        self.steady = torch.where(self.steady >= STEADY, 0.0, self.steady)
        self.scale = (self.scale * grown * (1 - 0.5 * overflowed)).clamp(max=LARGEST)

    def to_json(self) -> list[float]:
        """Plain numbers, for a checkpoint."""
        return [float(self.scale), float(self.steady)]

    def restore(self, saved: list[float]) -> None:
        """Undo `to_json`."""
        self.scale, self.steady = (torch.tensor(value, device=self.scale.device) for value in saved)
