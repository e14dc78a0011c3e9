"""Every way for a query to look at a memory.

A recurrent decoder has one `Attention` with one of the scores below; a Transformer layer has `SelfAttention` and
`CrossAttention` with many heads. What depends on the memory alone is computed once a sentence, by `prepare`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from translate.config import AttentionConfig
from translate.models.dropout import Dropout
from translate.models.loop_matrix import LoopMatrix
from translate.models.seq2seq import Record


def compute_dtype(x: Tensor) -> torch.dtype:
    """The number format that matrix products with x come out in: autocast's where it is on, else x's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


@dataclass(frozen=True)
class Visible:
    """Which keys a query may see, prepared once for all layers, heads and steps of a pass.

    `bias` (B or 1, Q or 1, S) is added to the scores: 0, or so low that the weight becomes exactly 0.
    `alive` (B, 1, 1) is multiplied with the weights: 0 for a sentence of which nothing may be seen, so that its
    weights are 0 rather than uniform over padding; None where that cannot be.
    """

    bias: Tensor
    alive: Tensor | None = None

    @classmethod
    def real(cls, mask: Tensor, dtype: torch.dtype) -> "Visible":
        """All real tokens: mask (B, S)."""
        lowest = torch.finfo(dtype).min / 2  # a score may still be added
        bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest)
        return cls(bias[:, None], mask.any(-1)[:, None, None].to(torch.promote_types(dtype, torch.float32)))

    @classmethod
    def past(cls, length: int, dtype: torch.dtype, device: torch.device) -> "Visible":
        """Each position sees itself and what came before it (a causal mask)."""
        lowest = torch.full((length, length), torch.finfo(dtype).min / 2, dtype=dtype, device=device)
        return cls(lowest.triu_(1)[None])

    def heads(self, count: int) -> "Visible":
        """The same for B * count independent heads."""
        if self.bias.size(0) == 1 and self.alive is None:
            return self
        alive = None if self.alive is None else self.alive.repeat_interleave(count, 0)
        return Visible(self.bias.repeat_interleave(count, 0), alive)

    def softmax(self, biased: Tensor) -> Tensor:
        """Scores with `bias` already added (B, Q, S) -> weights; a row sums to 1, or to 0 if it sees nothing.

        In fp32 at least: that is more exact than bf16, and on CPU three times faster.
        """
        weights = biased.softmax(-1, dtype=torch.promote_types(biased.dtype, torch.float32))
        return weights if self.alive is None else weights * self.alive


# One head, for recurrent decoders -----------------------------------------------------------------------------------


class Score(nn.Module):
    """How well a key answers a query: query (B, Q, D), prepared keys -> scores (B, Q, S).

    A new score is a subclass and a case in `build_score`.
    """

    is_product = True
    """Whether the score is just `query @ keys` with keys (B, D, S), so that a loop may put their gradient off."""

    def prepare(self, memory: Tensor) -> Tensor:
        """The part that knows only the memory (B, S, D), computed once a sentence. Its first dimension is B."""
        raise NotImplementedError

    def forward(self, query: Tensor, keys: Tensor | LoopMatrix) -> Tensor:
        """query (B, Q, D) and what `prepare` gave -> scores (B, Q, S)."""
        return query @ keys


class Dot(Score):
    """q . m (Luong et al. 2015)."""

    def prepare(self, memory: Tensor) -> Tensor:
        """(B, S, D) -> (B, D, S)."""
        return memory.transpose(1, 2)


class ScaledDot(Score):
    """q . m / sqrt(D) (Vaswani et al. 2017)."""

    def prepare(self, memory: Tensor) -> Tensor:
        """(B, S, D) -> (B, D, S)."""
        return memory.transpose(1, 2) / math.sqrt(memory.size(-1))


class General(Score):
    """q . W m (Luong et al. 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width, bias=False)
        nn.init.xavier_uniform_(self.key.weight)

    def prepare(self, memory: Tensor) -> Tensor:
        """(B, S, D) -> (B, D, S)."""
        keys: Tensor = self.key(memory)
        return keys.transpose(1, 2)


class Additive(Score):
    """v . tanh(W q + U m + b) (Bahdanau et al. 2015)."""

    is_product = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width)
        self.v = nn.Linear(width, 1, bias=False)
        for linear in (self.query, self.key, self.v):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.key.bias)

    def prepare(self, memory: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        return self.key(memory)

    def forward(self, query: Tensor, keys: Tensor | LoopMatrix) -> Tensor:
        """(B, Q, D), (B, S, D) -> (B, Q, S); B * Q * S * D numbers in between."""
        assert isinstance(keys, Tensor)
        scores: Tensor = self.v(torch.tanh(self.query(query)[:, :, None] + keys[:, None]))
        return scores.squeeze(-1)


def build_score(config: AttentionConfig, width: int) -> Score:
    """The score that the config names, for queries and memories of one width."""
    match config.score:
        case "dot":
            return Dot()
        case "scaled_dot":
            return ScaledDot()
        case "general":
            return General(width)
        case "additive":
            return Additive(width)
        case "none":
            raise AssertionError("a decoder without attention has no score")


class Attention(nn.Module):
    """Weights from a score, and the average of the values under them."""

    def __init__(self, config: AttentionConfig, width: int) -> None:
        super().__init__()
        self.score = build_score(config, width)

    def prepare(self, memory: Tensor) -> Tensor:
        """memory (B, S, D) -> keys, once a sentence."""
        keys: Tensor = self.score.prepare(memory)
        return keys

    def attend(
        self, query: Tensor, keys: Tensor | LoopMatrix, values: Tensor | LoopMatrix, visible: Visible
    ) -> tuple[Tensor, Tensor]:
        """query (B, Q, D), values (B, S, D) -> context (B, Q, D), weights (B, Q, S)."""
        weights = visible.softmax(self.score(query, keys) + visible.bias)
        return weights.to(visible.bias.dtype) @ values, weights


# Many heads, for the Transformer -------------------------------------------------------------------------------------


class MultiHead(nn.Module):
    """softmax(Q K^T / sqrt(d)) V in each of H subspaces of width d (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 1.0 / math.sqrt(width // heads)
        self.output = _linear(width, width)
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
        bias = visible.bias.expand(query.size(0), query.size(1), keys.size(1))
        context = F.scaled_dot_product_attention(query[None], keys[None], values[None], bias[None], scale=self.scale)
        return context[0] if visible.alive is None else context[0] * visible.alive

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Projections (B, L, parts * D) -> each part as (B*H, L, d), the rows of a head side by side in memory."""
        by_head = x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (parts, B, H, L, d)
        return by_head.flatten(1, 2).unbind(0)


class SelfAttention(MultiHead):
    """A sequence looks at itself; one matrix gives queries, keys and values."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout)
        self.qkv = _linear(width, width, parts=3)

    def forward(self, x: Tensor, visible: Visible, record: Record | None, path: str) -> Tensor:
        """x (B, L, D) -> (B, L, D); records (B, H, L, L)."""
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
        self.query = _linear(width, width)
        self.key_value = _linear(memory_width, width, parts=2)

    def prepare(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory (B, S, D_enc) -> keys and values (B*H, S, d), once a sentence."""
        keys, values = self.split(self.key_value(memory), 2)
        return keys, values

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, visible: Visible, record: Record | None, path: str
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D); records (B, H, T, S)."""
        (query,) = self.split(self.query(x), 1)
        return self.look(query, keys, values, visible, record, path)

    def step(
        self, x: Tensor, keys: Tensor, values: Tensor, visible: Visible, record: Record | None, path: str
    ) -> Tensor:
        """One position of each hypothesis, x (B, K, D) -> (B, K, D); records (B, K, H, S)."""
        attended = self.forward(x, keys, values, visible, record, path)
        if record is not None:
            record[path] = record[path].transpose(1, 2)
        return attended


def _linear(inputs: int, outputs: int, parts: int = 1) -> nn.Linear:
    """Several projections in one matrix, each initialised as if it stood alone (Glorot & Bengio 2010)."""
    linear = nn.Linear(inputs, parts * outputs)
    for part in linear.weight.data.chunk(parts):
        nn.init.xavier_uniform_(part)
    nn.init.zeros_(linear.bias)
    return linear
