"""Arithmetic that learning one target token takes, counted from the shapes: what a share of the ceiling refers to.

A matrix product (m, k) x (k, n) is 2 m k n operations forward. The way back makes two products of the same size, one
for the gradient of each factor, so an update is three times its forward pass. Counted are the products with weight
matrices over real tokens, and those of attention, real tokens with real tokens; padding, element-wise work, softmax and
the optimizer are not. With s and t the source and target tokens of a pair (EOS included), V words, the forward pass is

    Transformer  2 [ L (4 D^2 + 2 D F) s + L (6 D^2 + 2 D F) t + L 2 D^2 s + V D t ] + 4 D L (s^2 + t^2 + s t)
                     encoder               decoder               keys, values  output  self-attentions, cross-attention
    RNN          2 [ 2 * 4 H (E + H) s + 4 D (E + 2 D) t + D^2 s + 2 D^2 t + output t ] + 4 D s t
                     encoder, 2 x H      decoder, fed      score   combined             attention

The RNN's output is V D, or by way of a narrower layer O: D O + V O.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]
"""(N,) tokens of each sentence, EOS included."""


@dataclass(frozen=True)
class TransformerShape:
    """Widths of the Transformer that everybody trains."""

    width: int = 256
    feed_forward: int = 1024
    heads: int = 4
    layers: int = 3

    def flops(self, src: Lengths, tgt: Lengths, vocabulary: int) -> float:
        """Operations of an update, a target token."""
        s, t, d, f = float(src.sum()), float(tgt.sum()), self.width, self.feed_forward
        weights = self.layers * ((4 * d * d + 2 * d * f) * s + (6 * d * d + 2 * d * f) * t + 2 * d * d * s)
        looks = float((src * src + tgt * tgt + src * tgt).sum())
        return 3 * (2 * (weights + vocabulary * d * t) + 4 * d * self.layers * looks) / t


@dataclass(frozen=True)
class RnnShape:
    """Widths of the recurrent model that everybody trains."""

    width: int = 512
    embedding: int = 256
    output: int | None = None
    """Width of a layer between the features and the words, if there is one."""

    def flops(self, src: Lengths, tgt: Lengths, vocabulary: int) -> float:
        """Operations of an update, a target token."""
        s, t, d, e, h = float(src.sum()), float(tgt.sum()), self.width, self.embedding, self.width // 2
        output = vocabulary * d if self.output is None else (vocabulary + d) * self.output
        weights = (8 * h * (e + h) + d * d) * s + (4 * d * (e + 2 * d) + 2 * d * d + output) * t
        return 3 * (2 * weights + 4 * d * float((src * tgt).sum())) / t
