"""The training text on a GPU: the host names the sentences of a micro-batch, and the device reads and lays them out.

What travels is four numbers a pair. `TensorBatch.of` makes the same of arrays, for a CPU, and where a text has no room
on the device or is segmented anew each epoch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from translate.models.seq2seq import Tokens
from translate.models.spans import FILLED_TO
from translate.text.arrays import Ids, Integers
from translate.text.encoded import EncodedSplit
from translate.text.tokenizer import BOS, EOS
from translate.training.loss import TensorBatch, to_device

SHARE = 0.1
"""Of the memory that is free, the most that a text may take."""
AT_ONCE = 2**24
"""Ids that travel to the device together."""


@dataclass(frozen=True)
class Sentences:
    """Some sentences of one side of the text; `lengths` count the BOS or EOS of the target."""

    items: Tensor
    """(N_tok,) the whole side"""
    starts: Tensor
    """(B,)"""
    lengths: Tensor
    """(B,)"""
    rows: Tensor
    """(N,) of each of their tokens the sentence, of `places` where in it the token stands"""
    places: Tensor
    host_lengths: Integers

    @classmethod
    def of(cls, items: Tensor, starts: Tensor, lengths: Tensor, host_lengths: Integers) -> "Sentences":
        """Number their tokens. The host knows how many there are, so that it need not wait for the device."""
        total = int(host_lengths.sum())
        numbers = torch.arange(len(host_lengths), device=items.device)
        rows = numbers.repeat_interleave(lengths, output_size=total)
        places = torch.arange(total, device=items.device) - (lengths.cumsum(0) - lengths)[rows]
        return cls(items, starts, lengths, rows, places, host_lengths)

    def read(self, shift: int = 0) -> Tensor:
        """(N,) the ids of all tokens, each sentence from place `shift` on; what lies outside of it is any id."""
        at = self.starts[self.rows] + self.places - shift
        return self.items[at.clamp(0, len(self.items) - 1)].long()

    def tokens(self, ids: Tensor, packed: bool) -> Tokens:
        """Lay their ids (N,) out."""
        return self._packed(ids) if packed else self._padded(ids)

    def flat_places(self) -> Tensor:
        """(N,) where their tokens lie among those of a padded block."""
        return self.rows * int(self.host_lengths.max()) + self.places

    def _padded(self, ids: Tensor) -> Tokens:
        longest = int(self.host_lengths.max())
        block = ids.new_zeros(len(self.host_lengths) * longest).index_copy(0, self.flat_places(), ids)
        host_lengths = torch.from_numpy(self.host_lengths)
        return Tokens(block.view(-1, longest), self.lengths, longest, host_lengths=host_lengths)

    def _packed(self, ids: Tensor) -> Tokens:
        """Filled up as `FILLED_TO` says."""
        count = len(self.host_lengths)
        spare = FILLED_TO - len(ids) % FILLED_TO
        nothing, one = ids.new_zeros(spare), ids.new_full((1,), 1)
        lengths = torch.cat([self.lengths, spare * one])
        offsets = torch.cat([0 * one, lengths.cumsum(0)]).int()
        rows = torch.cat([self.rows, nothing + count])
        longest = int(self.host_lengths.max())
        return Tokens(torch.cat([ids, nothing]), lengths, longest, offsets, rows, torch.cat([self.places, nothing]))


@dataclass(frozen=True)
class Resident:
    """All ids of a split."""

    split: EncodedSplit
    src: Tensor
    """(N_src,) int32"""
    tgt: Tensor
    """(N_tgt,) int32"""

    @classmethod
    def of(cls, split: EncodedSplit, device: torch.device) -> "Resident":
        """Move them to the device."""
        return cls(split, _moved(split.sources.items, device), _moved(split.targets.items, device))

    def batch(self, pairs: Integers, packed: bool) -> TensorBatch:
        """The pairs (B,) of the split as `TensorBatch.of` would give them."""
        src_lengths, tgt_lengths = self.split.sources.lengths(pairs), self.split.targets.lengths(pairs) + 1
        src_starts, tgt_starts = (side.offsets[pairs] for side in (self.split.sources, self.split.targets))
        table = to_device(np.stack([src_starts, src_lengths, tgt_starts, tgt_lengths]), self.src.device)
        src = Sentences.of(self.src, table[0], table[1], src_lengths)
        tgt = Sentences.of(self.tgt, table[2], table[3], tgt_lengths)
        tgt_in = tgt.read(shift=1).masked_fill(tgt.places == 0, BOS)
        tgt_out = tgt.read().masked_fill(tgt.places == tgt.lengths[tgt.rows] - 1, EOS)
        real = torch.arange(len(tgt_out), device=tgt_out.device) if packed else tgt.flat_places()
        return TensorBatch(src.tokens(src.read(), packed), tgt.tokens(tgt_in, packed), tgt_out, real, len(tgt_out))


def resident(split: EncodedSplit, device: torch.device) -> Resident | None:
    """The split on a GPU, if it can be and there is room."""
    if device.type != "cuda" or split.texts is not None:
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return Resident.of(split, device) if size(split) <= SHARE * free else None


def size(split: EncodedSplit) -> int:
    """Bytes of its ids on the device."""
    return torch.int32.itemsize * (len(split.sources.items) + len(split.targets.items))


def _moved(items: Ids, device: torch.device) -> Tensor:
    """Ids (N_tok,) as int32, for not every kernel takes 16 bits without a sign; few at once, for they are mapped."""
    moved = torch.empty(len(items), dtype=torch.int32, device=device)
    for start in range(0, len(items), AT_ONCE):
        moved[start : start + AT_ONCE] = torch.from_numpy(items[start : start + AT_ONCE].astype(np.int32)).to(device)
    return moved
