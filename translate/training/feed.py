"""Updates as tensors on the device, on a GPU each made while the one before it is learnt from.

There a thread names the sentences of the next update, which are read on the device if the text is there; if not, it
makes their arrays and starts them on their way by pinned memory. So the host, which launches the work of this update,
waits neither for NumPy nor for the bus. On a CPU a thread would only take time from the model, and an update is made
when it is asked for.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from translate.errors import is_out_of_memory
from translate.text.arrays import Integers
from translate.text.batches import BatchPlan, Share, Turn, Update
from translate.training.loss import TensorBatch
from translate.training.resident import resident


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
    after: Turn
    """The turn of the update that follows."""


class Feed:
    """The updates of a plan for one rank."""

    def __init__(self, plan: BatchPlan, device: torch.device, packed: bool, rank: int, ranks: int) -> None:
        self.plan, self.device, self.packed, self.rank, self.ranks = plan, device, packed, rank, ranks
        self.thread: ThreadPoolExecutor | None = None
        if device.type == "cuda":  # a thread begins with the first GPU, whichever one its process has
            self.device = torch.device("cuda", torch.cuda.current_device())
            self.thread = ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(self.device,))
        self.text = resident(plan.split, self.device)
        self._ahead: tuple[tuple[Turn, int], Future[Fed]] | None = None

    def update(self, turn: Turn, batch_tokens: int) -> Fed:
        """An update in micro-batches of at most `batch_tokens` real target tokens."""
        if self.thread is None:
            return self._make(turn, batch_tokens)
        asked, ahead = (turn, batch_tokens), self._ahead
        self._ahead = None
        fed = self._wait(self.thread, asked, ahead[1] if ahead is not None and ahead[0] == asked else None)
        following = fed.after, batch_tokens
        self._ahead = following, self.thread.submit(self._make, *following)
        return fed

    def on_device(self, update: Update, after: Turn) -> Fed:
        """Move an update of arrays there."""
        parts = [(place, TensorBatch.of(batch, self.device, self.packed)) for place, batch in update.parts]
        pairs = max(len(batch.indices) for _, batch in update.parts)
        return _fed(update.tokens, parts, pairs, after)

    def _wait(self, thread: ThreadPoolExecutor, asked: tuple[Turn, int], made: Future[Fed] | None) -> Fed:
        """What was asked for. All of it is made in the one thread, so that the plan is read by nobody else."""
        try:
            return (made or thread.submit(self._make, *asked)).result()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # ids are small: there was no room for them beside an update at its peak
        return thread.submit(self._make, *asked).result()

    def _make(self, turn: Turn, batch_tokens: int) -> Fed:
        share = self.plan.share(turn, batch_tokens, self.rank, self.ranks)
        parts = [(place, self._batch(share, chosen)) for place, chosen in share.parts]
        pairs = max(len(chosen) for _, chosen in share.parts)
        return _fed(share.tokens, parts, pairs, self.plan.after(turn))

    def _batch(self, share: Share, chosen: Integers) -> TensorBatch:
        if self.text is None or not len(chosen):
            return TensorBatch.of(share.batch(chosen), self.device, self.packed)
        return self.text.batch(share.examples.rows[chosen], self.packed)


def _fed(tokens: int, parts: list[tuple[int, TensorBatch]], pairs: int, after: Turn) -> Fed:
    return Fed(tokens, parts, max(batch.tokens for _, batch in parts), pairs, after)
