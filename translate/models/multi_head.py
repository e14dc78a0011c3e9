"""Scaled dot products of many heads (Vaswani et al. 2017), as the Transformer looks at itself and at a memory.

`Attention` computes the same, and everything else; this is written for speed: one product for queries, keys and values
of all heads, heads as rows of a batch, and a fused kernel where there is one.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from translate.config import AttentionConfig
from translate.models.attention import Attention, linear
from translate.models.dropout import Dropout
from translate.models.scope import Visible
from translate.models.seq2seq import Aux, Memory, Record, State
from translate.models.spans import Spans


class MultiHead(nn.Module):
    """softmax(Q K^T / sqrt(d)) V in each of H subspaces of width d (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.scale = 1.0 / math.sqrt(self.head_width)
        self.output = linear(width, width)
        self.dropout = Dropout(dropout)

    def look(
        self, query: Tensor, keys: Tensor, values: Tensor, visible: Visible, record: Record | None, path: str
    ) -> Tensor:
        """Queries (B*H, Q, d), keys and values (B*H, S, d), what the heads see -> (B, Q, D); records (B, H, Q, S).

        Three plain products on CPU, where the fused kernel is ten times slower at sentence lengths; the fused kernel
        on a GPU, unless weights are wanted or dropped.
        """
        if query.is_cuda and record is None and not self.dropout.active:
            context = self._fused(query, keys, values, visible)
        else:
            weights = visible.softmax(torch.baddbmm(visible.bias, query, keys.transpose(1, 2), alpha=self.scale))
            if record is not None:
                record[path] = weights.unflatten(0, (-1, self.heads))
            context = torch.bmm(self.dropout(weights.to(values.dtype)), values)
        return self.output(context.unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2))

    def _fused(self, query: Tensor, keys: Tensor, values: Tensor, visible: Visible) -> Tensor:
        # By sentence and head: a grid has room for 65,535 of either, and of both together there may be more.
        q, k, v = (tensor.unflatten(0, (-1, self.heads)) for tensor in (query, keys, values))
        one = visible.bias.size(0) == 1
        bias = visible.bias[None] if one else visible.bias.unflatten(0, (-1, self.heads))
        context = F.scaled_dot_product_attention(q, k, v, bias, scale=self.scale).flatten(0, 1)
        return context if visible.alive is None else context * visible.alive

    def look_within(self, query: Tensor, keys: Tensor, values: Tensor, spans: Spans) -> Tensor:
        """The same for packed sequences: (N_q, H, d), (N_k, H, d) -> (N_q, D)."""
        return self.output(spans.attend(query, keys, values, self.scale).flatten(1))

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Projections (B, L, parts * D) -> each part as (B*H, L, d), the rows of a head side by side in memory."""
        by_head = x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (parts, B, H, L, d)
        return by_head.flatten(1, 2).unbind(0)


class SelfAttention(MultiHead):
    """A sequence looks at itself; one matrix gives queries, keys and values."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout)
        self.qkv = linear(width, width, parts=3)

    def forward(self, x: Tensor, visible: Visible | Spans, record: Record | None, path: str) -> Tensor:
        """x (B, L, D) -> (B, L, D); records (B, H, L, L). Packed: x (N, D) -> (N, D)."""
        if isinstance(visible, Spans):
            query, keys, values = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(1)
            return self.look_within(query, keys, values, visible)
        query, keys, values = self.split(self.qkv(x), 3)
        return self.look(query, keys, values, visible, record, path)

    def step(self, x: Tensor, keys: Tensor, values: Tensor, time: int, record: Record | None, path: str) -> Tensor:
        """The position `time`, x (B, K, D) -> (B, K, D); records (B, K, H, time + 1).

        Its key and value are written into the caches (B, K, H, capacity, d) in place.
        """
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (B, K, H, d)
        keys[:, :, :, time] = key
        values[:, :, :, time] = value
        keys, values = keys[:, :, :, : time + 1], values[:, :, :, : time + 1]
        scores = (keys @ (query * self.scale)[..., None]).squeeze(-1)  # (B, K, H, time + 1)
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        if record is not None:
            record[path] = weights
        return self.output((weights[:, :, :, None].to(values.dtype) @ values).flatten(2))


class CrossAttention(MultiHead):
    """A sequence looks at a memory of any width."""

    def __init__(self, width: int, memory_width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout)
        self.query = linear(width, width)
        self.key_value = linear(memory_width, width, parts=2)

    def prepare(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Keys and values (B*H, S, d), once a sentence."""
        keys, values = self.split(self.key_value(memory.values), 2)
        return keys, values

    def forward(
        self, x: Tensor, memory: Memory, visible: Visible | Spans, record: Record | None, path: str
    ) -> tuple[Tensor, Aux]:
        """x (B, T, D) -> (B, T, D); records (B, H, T, S). Packed: x (N, D) -> (N, D)."""
        if isinstance(visible, Spans):
            query = self.query(x).unflatten(-1, (self.heads, -1))
            keys, values = self.key_value(memory.values).unflatten(-1, (2, self.heads, -1)).unbind(1)
            return self.look_within(query, keys, values, visible), {}
        return self._look_at(x, *self.prepare(memory), visible, record, path), {}

    def start(self, memory: Memory, beam: int, prefix: str) -> State:
        """Keys and values (B, H, S, d) as entries of a decoder's State."""
        names = (f"{prefix}keys", f"{prefix}values")
        parts = (part.unflatten(0, (-1, self.heads)) for part in self.prepare(memory))
        return State({}, dict(zip(names, parts, strict=True)))

    def step(
        self, x: Tensor, state: State, prefix: str, visible: Visible, time: int, record: Record | None, path: str
    ) -> Tensor:
        """One position of each hypothesis, x (B, K, D) -> (B, K, D); records (B, K, H, S)."""
        keys, values = (state.sentences[f"{prefix}{name}"].flatten(0, 1) for name in ("keys", "values"))
        attended = self._look_at(x, keys, values, visible, record, path)
        if record is not None:
            record[path] = record[path].transpose(1, 2)
        return attended

    def _look_at(
        self, x: Tensor, keys: Tensor, values: Tensor, visible: Visible, record: Record | None, path: str
    ) -> Tensor:
        (query,) = self.split(self.query(x), 1)
        return self.look(query, keys, values, visible, record, path)


class AnyCrossAttention(nn.Module):
    """`CrossAttention` with another score, scope, selection or normalizer than the paper's: an `Attention` inside."""

    def __init__(self, config: AttentionConfig, width: int, memory_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(config, width, memory_width, heads, dropout)

    def forward(
        self, x: Tensor, memory: Memory, visible: Visible | Spans, record: Record | None, path: str
    ) -> tuple[Tensor, Aux]:
        """As `CrossAttention`, and what the loss needs; padded only."""
        look = self.attention.attend_all(x, self.attention.prepare(memory))
        if record is not None:
            record[path] = look.weights if self.attention.heads > 1 else look.weights[:, None]
        return look.context, look.aux

    def start(self, memory: Memory, beam: int, prefix: str) -> State:
        """As `CrossAttention`."""
        return self.attention.start(memory, beam, prefix)

    def step(
        self, x: Tensor, state: State, prefix: str, visible: Visible, time: int, record: Record | None, path: str
    ) -> Tensor:
        """As `CrossAttention`."""
        look = self.attention.step(x, state, prefix, time)
        if record is not None:
            record[path] = look.weights if self.attention.heads > 1 else look.weights[:, :, None]
        return look.context


def build_cross_attention(
    config: AttentionConfig, width: int, memory_width: int, heads: int, dropout: float
) -> CrossAttention | AnyCrossAttention:
    """The Transformer's own where the config asks for nothing else, since that one is written for speed."""
    if config == type(config)(score="scaled_dot"):
        return CrossAttention(width, memory_width, heads, dropout)
    return AnyCrossAttention(config, width, memory_width, heads, dropout)
