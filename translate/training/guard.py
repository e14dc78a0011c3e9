"""Keeps a gradient that is no number away from the weights without asking the device, and scales the loss in fp16.

Whether a loss and the norm of its gradient are finite is known on the device, and there the fused optimizer is told to
leave the weights alone. The host reads those of several updates at once, later; until then nothing has been spoilt.

fp16 ends at 65504 and begins at 6e-8, so that small gradients would vanish: the loss is multiplied by a scale before
the backward pass and the gradients are divided by it after (Micikevicius et al. 2018). Where it was too large a
gradient is infinite: the update is left out and the scale halved; after STEADY updates in a row that were not, it is
doubled. The scale has a history, so a checkpoint holds it. (The gradient of the output layer's logits, at most 1 for a
token, is rounded in `projected_loss` before it is scaled; what is lost there is below 6e-8 of a token.)
"""

from collections.abc import Iterable

import torch
from torch import Tensor

FIRST, LARGEST, LEAST = 2.0**16, 2.0**24, 2.0**-10
"""Of the scale. Gradients that overflow below the least are none of its fault."""
STEADY = 2000


class LossScale:
    """The scale, and how many updates in a row it did not overflow; numbers on the device."""

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.tensor(FIRST, device=device)
        self.steady = torch.tensor(0.0, device=device)

    def divide(self, gradients: Iterable[Tensor]) -> None:
        """Undo the scale in the gradients, in place."""
        torch._foreach_mul_(list(gradients), 1.0 / self.scale)

    def note(self, overflowed: Tensor) -> None:
        """Take in whether a gradient of this update was infinite: a number that is 1 or 0."""
        steady = (self.steady + 1) * (1 - overflowed)
        grown = torch.where(steady >= STEADY, 2.0, 1.0)
        self.steady = torch.where(steady >= STEADY, 0.0, steady)
        self.scale = (self.scale * grown * (1 - 0.5 * overflowed)).clamp(max=LARGEST)

    def to_json(self) -> list[float]:
        """Plain numbers, for a checkpoint."""
        return [float(self.scale), float(self.steady)]

    def restore(self, saved: list[float]) -> None:
        """Undo `to_json`."""
        scale, steady = saved
        self.scale.fill_(scale)
        self.steady.fill_(steady)


class Guard:
    """Stands between gradients and weights."""

    def __init__(self, optimizer: torch.optim.Optimizer, scale: LossScale | None) -> None:
        self.optimizer = optimizer
        self.scale = scale
        self.bad: Tensor | None = None
        """1 from the first gradient on that is no number, unless the scale may be to blame."""

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to go back from."""
        return loss if self.scale is None else loss * self.scale.scale

    def stop(self, loss: Tensor, norm: Tensor) -> None:
        """Let the optimizer's next step change nothing if the loss or the norm of its gradient is no number."""
        missed = (~(torch.isfinite(loss) & torch.isfinite(norm.detach()))).float()
        if self.scale is not None:
            self.scale.note(missed)
        else:
            missed = self.bad = missed if self.bad is None else torch.maximum(self.bad, missed)
        self.optimizer.found_inf = missed  # type: ignore[attr-defined] # of fused optimizers, as GradScaler sets it
