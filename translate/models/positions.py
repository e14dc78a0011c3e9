"""How a model is told where in a sequence a word stands."""

import math
from collections.abc import Callable
from typing import Literal, Self

import torch
from torch import Tensor, nn

from translate.config import ConvEncoderConfig, TransformerEncoderConfig, embedding_width
from translate.errors import DataError
from translate.models.seq2seq import Tokens

AT_FIRST = 512
"""Rows of a table of sinusoids, more than most sentences need."""


class Positions(nn.Module):
    """Scales embeddings by sqrt(D) and adds what tells the positions apart: sinusoids, learned vectors, or nothing."""

    def __init__(
        self, config: TransformerEncoderConfig | ConvEncoderConfig, side: Literal["encoder", "decoder"]
    ) -> None:
        super().__init__()
        self.width = embedding_width(config)
        self.side = side
        self.kind = config.positions
        if self.kind == "learned":
            self.table = nn.Parameter(torch.empty(config.max_positions, self.width))
            nn.init.normal_(self.table, std=self.width**-0.5)
        else:
            # Not a buffer: neither saved nor cast, but grown on demand.
            self._sinusoids = sinusoids(AT_FIRST, self.width)

    def forward(self, embedded: Tensor, first: int) -> Tensor:
        """embedded (..., L, D) at positions first, first + 1, ... -> the same shape."""
        scaled = embedded * math.sqrt(self.width)
        if self.kind == "none":
            return scaled
        end = first + embedded.size(-2)
        return scaled + self._upto(end)[first:end].to(scaled)

    def tell(self, embedded: Tensor, tokens: Tokens) -> Tensor:
        """The word vectors of whole sentences, padded (B, L, D) or packed (N, D) -> the same shape."""
        if tokens.places is None:
            return self(embedded, 0)
        scaled = embedded * math.sqrt(self.width)
        return scaled if self.kind == "none" else scaled + self._upto(tokens.longest).to(scaled)[tokens.places]

    def _upto(self, end: int) -> Tensor:
        """At least `end` rows of width D."""
        if self.kind == "sinusoidal":
            if self._sinusoids.size(0) < end:
                self._sinusoids = sinusoids(2 * end, self.width).to(self._sinusoids.device)
            return self._sinusoids
        if end > self.table.size(0):
            raise DataError(
                f"a sequence reaches {end} pieces, but model.{self.side}.max_positions is {self.table.size(0)} and "
                "positions are learned: shorten the text, or train with a larger max_positions or with sinusoids"
            )
        return self.table

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the table with the weights: a graph in which it moved, or grew, would be compiled again without that."""
        moved = super()._apply(fn, recurse)
        if self.kind == "sinusoidal":
            self._sinusoids = self._sinusoids.to(fn(self._sinusoids).device)
        return moved


def sinusoids(length: int, width: int) -> Tensor:
    """Positions (length, width) in float64 (Vaswani et al. 2017).

    Entry 2i of position p is sin(p / 10000^(2i / width)), entry 2i + 1 the cosine of the same.
    """
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / width))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
