"""Updates as tensors on the device, on a GPU each made while the one before it is learnt from.

There a thread makes the arrays of the next update and starts their way to the device by way of pinned memory, so that
the device waits neither for NumPy nor for the bus. On a CPU a thread would only take time from the model, and an update
is made when it is asked for.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from translate.text.batches import BatchPlan, Turn, Update
from translate.training.loss import TensorBatch


@dataclass(frozen=True)
class Fed:
    """What one rank learns from in an update."""

    tokens: int
    """Real target tokens of the whole update, over all ranks."""
    parts: list[tuple[int, TensorBatch]]
    """Micro-batches on the device, each with its place in the whole update."""
    largest: int
    """Real target tokens of the largest of them."""
    pairs: int
    """Pairs of the one that has most."""


class Feed:
    """The updates of a plan for one rank."""

    def __init__(self, plan: BatchPlan, device: torch.device, packed: bool, rank: int, ranks: int) -> None:
        self.plan, self.device, self.packed, self.rank, self.ranks = plan, device, packed, rank, ranks
        self.thread = ThreadPoolExecutor(1) if device.type == "cuda" else None
        self._ahead: tuple[tuple[Turn, int], Future[Fed]] | None = None

    def update(self, turn: Turn, batch_tokens: int) -> Fed:
        """An update in micro-batches of at most `batch_tokens` real target tokens."""
        asked = turn, batch_tokens
        fed = self._ahead[1].result() if self._ahead is not None and self._ahead[0] == asked else self._make(*asked)
        if self.thread is not None:
            following = self.plan.after(turn), batch_tokens
            self._ahead = following, self.thread.submit(self._make, *following)
        return fed

    def on_device(self, update: Update) -> Fed:
        """Move an update of NumPy arrays there."""
        parts = [(place, TensorBatch.of(batch, self.device, self.packed)) for place, batch in update.parts]
        batches = [batch for _, batch in update.parts]
        return Fed(
            update.tokens,
            parts,
            max(batch.tokens for batch in batches),
            max(len(batch.indices) for batch in batches),
        )

    def _make(self, turn: Turn, batch_tokens: int) -> Fed:
        return self.on_device(self.plan.update(turn, batch_tokens, self.rank, self.ranks))
