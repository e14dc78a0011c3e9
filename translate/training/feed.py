"""Updates as tensors on the device, each made while the one before it is learnt from.

On a GPU a thread makes the next update's arrays and starts their way to the device; on a CPU, where that would only
take time from the model, an update is made when it is asked for.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import torch

from translate.text.batches import BatchPlan, Turn
from translate.training.loss import TensorBatch


@dataclass(frozen=True)
class Fed:
    """What one rank learns from in an update."""

    tokens: int
    """Real target tokens of the whole update, over all ranks."""
    parts: list[tuple[int, TensorBatch]]
    """Micro-batches on the device, each with its place in the whole update."""
    following: Turn
    """Whose turn it is afterwards."""


class Feed:
    """The updates of a plan for one rank; a context manager that ends its thread."""

    def __init__(self, plan: BatchPlan, device: torch.device, packed: bool, rank: int = 0, ranks: int = 1) -> None:
        self.plan, self.device, self.packed, self.rank, self.ranks = plan, device, packed, rank, ranks
        self._thread = ThreadPoolExecutor(1) if device.type == "cuda" else None
        self._ahead: tuple[tuple[Turn, int], Future[Fed]] | None = None

    def update(self, turn: Turn, batch_tokens: int) -> Fed:
        """An update in micro-batches of at most `batch_tokens`."""
        if self._thread is None:
            return self._make(turn, batch_tokens)
        expected = self._ahead is not None and self._ahead[0] == (turn, batch_tokens)
        fed = self._ahead[1].result() if self._ahead is not None and expected else self._make(turn, batch_tokens)
        self._ahead = (fed.following, batch_tokens), self._thread.submit(self._make, fed.following, batch_tokens)
        return fed

    def _make(self, turn: Turn, batch_tokens: int) -> Fed:
        update = self.plan.update(turn, batch_tokens, self.rank, self.ranks)
        parts = [(place, TensorBatch.of(batch, self.device, self.packed)) for place, batch in update.parts]
        return Fed(update.tokens, parts, self.plan.after(turn))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
