"""The one training objective: label-smoothed cross-entropy, summed over real target tokens."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from translate.device import Machine
from translate.models.multi_head import MultiHead
from translate.models.seq2seq import Aux, Seq2Seq, Tokens, sent
from translate.models.spans import FILLED_TO, has_kernel
from translate.text.batches import Batch
from translate.training.compiled import Compiled
from translate.training.projected_loss import projected_loss

Array = np.ndarray[tuple[int, ...], np.dtype[np.integer]]


@dataclass(frozen=True)
class TensorBatch:
    """A micro-batch on the device. `real` holds the places of real target tokens among the features, found on the host.

    Padded, features are (B * T, D) when flattened; packed, (N, D), real tokens first.
    """

    src: Tokens
    tgt_in: Tokens
    tgt_out: Tensor  # (tokens,) only the real ones, in the order of `real`
    real: Tensor  # (tokens,)
    tokens: int

    @classmethod
    def of(cls, batch: Batch, device: torch.device, packed: bool = False) -> "TensorBatch":
        """Move a NumPy batch to the device."""
        columns = np.arange(batch.tgt_out.shape[1])
        real = np.flatnonzero((columns < batch.tgt_lengths[:, None]).ravel())
        layout = _packed if packed else _padded
        return cls(
            layout(batch.src, batch.src_lengths, device),
            layout(batch.tgt_in, batch.tgt_lengths, device),
            to_device(batch.tgt_out.ravel()[real], device),
            to_device(np.arange(len(real)) if packed else real, device),
            len(real),
        )


def packs(model: Seq2Seq, machine: Machine) -> bool:
    """Whether micro-batches go to the model packed: where there is a kernel for that."""
    if machine.device != "cuda" or machine.precision == "fp32" or not model.reads_packed:
        return False
    return has_kernel(module.head_width for module in model.modules() if isinstance(module, MultiHead))


def _padded(ids: Array, lengths: Array, device: torch.device) -> Tokens:
    host_lengths = torch.from_numpy(np.ascontiguousarray(lengths, dtype=np.int64))
    return Tokens(to_device(ids, device), to_device(lengths, device), ids.shape[1], host_lengths=host_lengths)


def _packed(ids: Array, lengths: Array, device: torch.device) -> Tokens:
    """ids (B, L) -> sentence after sentence, and one more of what fills up to the next multiple of FILLED_TO."""
    real = int(lengths.sum())
    counts = np.append(lengths, FILLED_TO - real % FILLED_TO)
    rows = np.repeat(np.arange(len(counts)), counts)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    flat, places = np.zeros((2, len(rows)), dtype=np.int64)
    flat[:real] = ids[np.arange(ids.shape[1]) < lengths[:, None]]
    places[:real] = np.arange(real) - offsets[rows[:real]]
    return Tokens(
        to_device(flat, device),
        to_device(counts, device),
        max(1, int(lengths.max())),
        to_device(offsets, device).int(),
        to_device(rows, device),
        to_device(places, device),
    )


def to_device(array: Array, device: torch.device) -> Tensor:
    """As int64."""
    return sent(torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)), device)


class Objective(nn.Module):
    """The training forward: whatever wraps or compiles the model wraps this, and training calls nothing else."""

    def __init__(self, model: Seq2Seq, label_smoothing: float, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        self.read = Compiled(model) if compiled and model.is_one_graph else model.__call__
        if compiled and not model.is_one_graph:
            model.decoder.compile_steps(Compiled)
        self.label_smoothing = label_smoothing

    @property
    def whole(self) -> Compiled[..., tuple[Tensor, Aux]] | None:
        """The compiled model, if it is compiled as a whole."""
        return self.read if isinstance(self.read, Compiled) else None

    def forward(self, batch: TensorBatch) -> tuple[Tensor, int]:
        """Sum of the loss over the batch's real target tokens, in nats, and their number.

        In training mode the target distribution puts `label_smoothing` on all words alike (Szegedy et al. 2016); in
        evaluation mode the loss is the plain negative log-likelihood. What some kinds of attention add is theirs alone.
        """
        features, aux = self.read(batch.src, batch.tgt_in)
        real = features.flatten(0, -2).index_select(0, batch.real)  # (tokens, D)
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
