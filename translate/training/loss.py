"""The one training objective: label-smoothed cross-entropy, summed over real target tokens."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from translate.models.seq2seq import Seq2Seq, Tokens
from translate.text.batches import Batch


@dataclass(frozen=True)
class TensorBatch:
    """A micro-batch on the device. `real` holds the flat positions of real target tokens, found on the host."""

    src: Tokens
    tgt_in: Tokens
    tgt_out: Tensor  # (tokens,) only the real ones, in the order of `real`
    real: Tensor  # (tokens,) index into the flattened (B * T)
    tokens: int

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> "TensorBatch":
        """Move a NumPy batch to the device."""
        columns = np.arange(batch.tgt_out.shape[1])
        real = np.flatnonzero((columns < batch.tgt_lengths[:, None]).ravel())
        tgt_lengths = _tensor(batch.tgt_lengths, device)
        return cls(
            Tokens(_tensor(batch.src, device), _tensor(batch.src_lengths, device), batch.src.shape[1]),
            Tokens(_tensor(batch.tgt_in, device), tgt_lengths, batch.tgt_in.shape[1]),
            _tensor(batch.tgt_out.ravel()[real], device),
            _tensor(real, device),
            len(real),
        )


def _tensor(array: "np.ndarray[tuple[int, ...], np.dtype[np.integer]]", device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(device, non_blocking=True)


class Objective(nn.Module):
    """The training forward: whatever wraps or compiles the model wraps this, and training calls nothing else."""

    def __init__(self, model: Seq2Seq, label_smoothing: float) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing

    def forward(self, batch: TensorBatch) -> tuple[Tensor, int]:
        """Sum of the loss over the batch's real target tokens, in nats, and their number.

        In training mode the target distribution puts `label_smoothing` on all words alike (Szegedy et al. 2016); in
        evaluation mode the loss is the plain negative log-likelihood.
        """
        features, _ = self.model(batch.src, batch.tgt_in)
        logits = self.model.project(features.flatten(0, 1).index_select(0, batch.real))  # (tokens, V)
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits.float(), batch.tgt_out, reduction="sum", label_smoothing=smoothing)
        return loss, batch.tokens
