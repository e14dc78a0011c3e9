"""The one door for randomness in a forward pass.

No generator's state outlives a pass: each mask is a pure function of the key that the training loop sets
(seed, step, micro-batch), of the module's place in the model and of how often it was called in this pass. On a GPU the
generator of the device is seeded with the key before the pass, and draws in the order of the pass.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Keyed(nn.Module):
    """A place in the model that draws: `Seq2Seq.key_randomness` gives it its key before each training pass."""

    def __init__(self) -> None:
        super().__init__()
        self.key: tuple[int, ...] | None = None
        self.calls = 0

    def next_key(self) -> list[int]:
        """A key that no other draw of this pass has."""
        assert self.key is not None, "Seq2Seq.key_randomness was not called before this training pass"
        key = [*self.key, self.calls]
        self.calls += 1
        return key


class Dropout(Keyed):
    """Zero each element with probability p and scale the rest by 1 / (1 - p) (Srivastava et al. 2014).

    On CPU a mask is 16 random bits an element: torch's own generator draws one element at a time on one thread and
    costs more than the layer it follows. p is rounded to 1/65536 and the scale uses the rounded value.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = round(p * 65536) / 65536

    @property
    def active(self) -> bool:
        """Whether a call changes anything."""
        return self.training and self.p > 0.0

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape; identity in evaluation mode."""
        if not self.active:
            return x
        if x.is_cuda:
            return F.dropout(x, self.p)
        return _scale_kept(x, self.draw(x.shape, x), 1.0 / (1.0 - self.p))

    def draw(self, shape: torch.Size, like: Tensor) -> Tensor:
        """A fresh mask: 1 where an element is kept and 0 elsewhere, in the device and number format of `like`."""
        if like.is_cuda:
            return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(1.0 - self.p)
        return self._cpu_mask(self.next_key(), shape, like)

    def draw_scaled(self, like: Tensor, count: int) -> Tensor | None:
        """What a loop of `count` steps multiplies x (shaped as `like`) by: (count, ...), or None when inactive."""
        if not self.active:
            return None
        return self.draw(torch.Size([count, *like.shape]), like) * (1.0 / (1.0 - self.p))

    def _cpu_mask(self, key: list[int], shape: torch.Size, like: Tensor) -> Tensor:
        count, threshold = shape.numel(), round(self.p * 65536)
        draws = np.random.SFC64(key).random_raw((count + 3) // 4).view(np.uint16)[:count]
        # By way of uint8: torch turns bool into bf16 eight times more slowly than a byte.
        kept = (draws >= threshold).view(np.uint8)
        return torch.from_numpy(kept).to(like.dtype).view(shape)

    def extra_repr(self) -> str:
        """p, for print(model)."""
        return f"p={self.p:.4g}"


class Noise(Keyed):
    """Draws for those who choose at random."""

    def gumbel(self, like: Tensor) -> Tensor:
        """-log(-log u) with u uniform, of the shape of `like`.

        The largest of log p_i + noise_i is at i with probability p_i (Gumbel 1954; Jang et al. 2017).
        """
        return -torch.log(-torch.log(self.uniform(like))).to(like.dtype)

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers between 0 and 1, both left out, in float64 and of the shape of `like`."""
        if like.is_cuda:
            drawn = torch.rand(like.shape, dtype=torch.float64, device=like.device)
            return drawn.clamp(2.0**-54, 1.0 - 2.0**-53)
        draws = np.random.SFC64(self.next_key()).random_raw(like.numel()) >> np.uint64(11)
        return torch.from_numpy((draws.astype(np.float64) + 0.5) * 2.0**-53).view(like.shape)


def seed_of(key: Sequence[int]) -> int:
    """One number for a generator that takes no more."""
    return int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0]) & (2**63 - 1)


class _ScaleKept(torch.autograd.Function):
    """x * mask * scale. Two factors, because the scale itself would lose three digits as a bf16 number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return (x * mask).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return (gradient * mask).mul_(ctx.scale), None, None


def _scale_kept(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    scaled: Tensor = _ScaleKept.apply(x, mask, scale)
    return scaled
