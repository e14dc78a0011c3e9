"""Dropout masks cut from a pool instead of drawn one by one, for processors on which drawing is dear.

The pool is BLOCKS blocks of random bits; one of them is drawn anew at each update, so block b at step s is a function
of (seed, b, the last step up to s that is b modulo BLOCKS) and a run that goes on has the pool it would have had. A
mask is a stretch of the pool at an offset drawn from the mask's own key. Masks of an update are not independent of each
other where they overlap, so whether learning suffers has to be measured (docs/performance.md).
"""

import numpy as np
import torch
from torch import Tensor

BLOCKS, BLOCK = 16, 2**20
"""Blocks, and elements of a block."""


class MaskPool:
    """Masks of one probability and number format: 1 where an element is kept, 0 elsewhere."""

    def __init__(self, seed: int, threshold: int, dtype: torch.dtype) -> None:
        """An element is kept with probability 1 - threshold / 65536."""
        self.seed = seed
        self.threshold = threshold
        self.masks = torch.empty(BLOCKS * BLOCK, dtype=dtype)
        self.drawn: list[int | None] = [None] * BLOCKS
        """The step each block is of, plus BLOCKS so that no number is negative."""

    def cut(self, step: int, key: list[int], count: int) -> Tensor | None:
        """A mask (count,) for update `step`; None where the pool is too small to give one that is like no other."""
        if 2 * count > BLOCKS * BLOCK:
            return None
        for block in range(BLOCKS):
            self._draw(block, step - (step - block) % BLOCKS + BLOCKS)
        offset = int(np.random.SFC64(key).random_raw()) % (BLOCKS * BLOCK - count)
        return self.masks[offset : offset + count]

    def _draw(self, block: int, of: int) -> None:
        if self.drawn[block] == of:
            return
        draws = np.random.SFC64([self.seed, block, of]).random_raw(BLOCK // 4).view(np.uint16)
        kept = torch.from_numpy((draws >= self.threshold).view(np.uint8))
        self.masks[block * BLOCK : (block + 1) * BLOCK] = kept.to(self.masks.dtype)
        self.drawn[block] = of
