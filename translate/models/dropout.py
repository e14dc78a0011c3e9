"""The one door for randomness in a forward pass.

No generator's state outlives a pass: each mask is a pure function of the key that the training loop sets
(seed, step, micro-batch), of the module's place in the model and of how often it was called in this pass.
"""

import numpy as np
import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zero each element with probability p and scale the rest by 1 / (1 - p) (Srivastava et al. 2014).

    On CPU a mask is 16 random bits an element: torch's own generator draws one element at a time on one thread and
    costs more than the layer it follows. p is rounded to 1/65536 and the scale uses the rounded value.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.key: tuple[int, ...] | None = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape; identity in evaluation mode."""
        if not self.training or self.p == 0.0:
            return x
        assert self.key is not None, "Seq2Seq.key_randomness was not called before this training pass"
        mask = self._cpu_mask(x) if x.device.type == "cpu" else self._device_mask(x)
        self.calls += 1
        return x * mask

    def _cpu_mask(self, x: Tensor) -> Tensor:
        threshold = round(self.p * 65536)
        draws = np.random.Generator(np.random.SFC64([*self._key(), self.calls])).bytes(2 * x.numel())
        kept = np.frombuffer(draws, dtype=np.uint16) >= threshold
        return torch.from_numpy(kept).view(x.shape).to(x.dtype).mul_(65536 / (65536 - threshold))

    def _device_mask(self, x: Tensor) -> Tensor:
        seed = np.random.SeedSequence([*self._key(), self.calls]).generate_state(1, np.uint64)[0]
        generator = torch.Generator(x.device).manual_seed(int(seed) & (2**63 - 1))
        return torch.empty_like(x).bernoulli_(1.0 - self.p, generator=generator).div_(1.0 - self.p)

    def _key(self) -> tuple[int, ...]:
        assert self.key is not None
        return self.key

    def extra_repr(self) -> str:
        """p, for print(model)."""
        return f"p={self.p}"
