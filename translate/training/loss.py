"""The one training objective: label-smoothed cross-entropy, summed over real target tokens."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from translate.models.seq2seq import Aux, Seq2Seq, Tokens
from translate.text.batches import Batch
from translate.training.projected_loss import projected_loss


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
        evaluation mode the loss is the plain negative log-likelihood. What some kinds of attention add is theirs alone.
        """
        features, aux = self.model(batch.src, batch.tgt_in)
        real = features.flatten(0, 1).index_select(0, batch.real)  # (tokens, D)
        smoothing = self.label_smoothing if self.training else 0.0
        output = self.model.output
        loss, losses = projected_loss(real, output.weight, output.bias, batch.tgt_out, smoothing)
        if self.training and aux:
            loss = loss + auxiliary_loss(aux, losses, batch)
        return loss, batch.tokens


def auxiliary_loss(aux: Aux, losses: Tensor, batch: TensorBatch) -> Tensor:
    """What attention adds: losses (tokens,) of the real target tokens -> a sum over them.

    A sampled choice is paid by the score-function gradient (Williams 1992; Xu et al. 2015): its log-probability times
    the loss it led to, penalties included, that of its token and of those after it, less what the baseline expected.
    The baseline learns by a loss of its own, whose gradient is at most 1 a token, so that it cannot drown the rest
    when they are clipped.
    """
    at = {name: _rows(tensor).index_select(0, batch.real) for name, tensor in aux.items()}  # (tokens, 1 or L)
    total = losses.new_zeros(())
    if "penalty" in at:
        total = total + at["penalty"].sum()
        losses = losses + at["penalty"].detach().squeeze(1)
    for name in ("choice", "lone_choice"):
        if name in at:
            led_to = losses if name == "lone_choice" else _onward(losses, batch.real, aux[name].shape[:2])
            led_to = led_to[:, None].expand_as(at[name])
            total = total + (at[name] * (led_to - at["baseline"].detach())).sum()
            total = total + F.smooth_l1_loss(at["baseline"], led_to, reduction="sum")
    return total


def _rows(tensor: Tensor) -> Tensor:
    """(B, T) or (B, T, L) -> (B * T, 1 or L)."""
    return tensor.reshape(tensor.size(0) * tensor.size(1), -1)


def _onward(losses: Tensor, real: Tensor, shape: torch.Size) -> Tensor:
    """losses (tokens,) at the flat places `real` of (B, T) -> at each place the sum from there on, (tokens,)."""
    by_sentence = losses.new_zeros(shape.numel()).index_copy(0, real, losses).view(shape)
    return by_sentence.flip(1).cumsum(1).flip(1).flatten().index_select(0, real)
