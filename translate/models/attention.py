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
        return cls(bias[:, None], mask.any(-1)[:, None, None].to(dtype))

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
        """Scores with `bias` already added (B, Q, S) -> weights; a row sums to 1, or to 0 if it sees nothing."""
        weights = biased.softmax(-1)
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
        return query @ keys  # type: ignore[operator]


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
        return weights @ values, weights  # type: ignore[operator]


# Many heads, for the Transformer -------------------------------------------------------------------------------------


def multi_head(
    query: Tensor, keys: Tensor, values: Tensor, visible: Visible, dropout: Dropout, need_weights: bool
) -> tuple[Tensor, Tensor | None]:
    """softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017): (B*H, Q, d), (B*H, S, d) twice -> (B*H, Q, d), weights.

    Three plain products on CPU, where the fused kernel is ten times slower at sentence lengths; the fused kernel on
    a GPU, unless weights are wanted or dropped. `visible` is that of the heads, weights are (B*H, Q, S).
    """
    scale = 1.0 / math.sqrt(query.size(-1))
    if query.is_cuda and not need_weights and not dropout.active:
        bias = visible.bias.expand(query.size(0), query.size(1), keys.size(1))
        fused = F.scaled_dot_product_attention(query[None], keys[None], values[None], bias[None], scale=scale)
        return fused[0] if visible.alive is None else fused[0] * visible.alive, None
    biased = torch.baddbmm(visible.bias, query, keys.transpose(1, 2), alpha=scale)
    weights = visible.softmax(biased)
    return torch.bmm(dropout(weights), values), weights


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself; one matrix gives queries, keys and values."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = _linear(width, width, parts=3)
        self.output = _linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, visible: Visible, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """x (B, L, D) -> (B, L, D), weights (B, H, L, L); `visible` is that of the heads."""
        query, keys, values = _split_heads(self.qkv(x), 3, self.heads)
        context, weights = multi_head(query, keys, values, visible, self.dropout, need_weights)
        return self.output(_join_heads(context, self.heads)), _by_sentence(weights, self.heads)

    def step(self, x: Tensor, keys: Tensor, values: Tensor, time: int) -> tuple[Tensor, Tensor]:
        """One position x (B, K, D), whose key and value are written into the caches (B, K, H, capacity, d) at `time`.

        Returns (B, K, D) and weights (B, K, H, time + 1).
        """
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (B, K, H, d)
        keys[:, :, :, time] = key
        values[:, :, :, time] = value
        keys, values = keys[:, :, :, : time + 1], values[:, :, :, : time + 1]
        scores = (query / math.sqrt(query.size(-1)))[:, :, :, None] @ keys.transpose(-1, -2)
        weights = scores.softmax(-1)  # (B, K, H, 1, time + 1)
        return self.output((weights @ values).flatten(2)), weights.squeeze(-2)


class CrossAttention(nn.Module):
    """Multi-head attention to a memory of any width."""

    def __init__(self, width: int, memory_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = _linear(width, width)
        self.key_value = _linear(memory_width, width, parts=2)
        self.output = _linear(width, width)
        self.dropout = Dropout(dropout)

    def prepare(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory (B, S, D_enc) -> keys and values (B*H, S, d), once a sentence."""
        keys, values = _split_heads(self.key_value(memory), 2, self.heads)
        return keys, values

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, visible: Visible, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Queries x (B, Q, D) -> (B, Q, D), weights (B, H, Q, S); `visible` is that of the heads."""
        (query,) = _split_heads(self.query(x), 1, self.heads)
        context, weights = multi_head(query, keys, values, visible, self.dropout, need_weights)
        return self.output(_join_heads(context, self.heads)), _by_sentence(weights, self.heads)


def _linear(inputs: int, outputs: int, parts: int = 1) -> nn.Linear:
    """Several projections in one matrix, each initialised as if it stood alone (Glorot & Bengio 2010)."""
    linear = nn.Linear(inputs, parts * outputs)
    for part in linear.weight.data.chunk(parts):
        nn.init.xavier_uniform_(part)
    nn.init.zeros_(linear.bias)
    return linear


def _split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(B, L, parts * D) -> for each part (B*H, L, d), each head's rows side by side in memory."""
    by_head = x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4)  # (parts, B, H, L, d)
    return by_head.flatten(1, 2).unbind(0)


def _join_heads(x: Tensor, heads: int) -> Tensor:
    """(B*H, L, d) -> (B, L, D)."""
    return x.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


def _by_sentence(weights: Tensor | None, heads: int) -> Tensor | None:
    """(B*H, Q, S) -> (B, H, Q, S)."""
    return None if weights is None else weights.unflatten(0, (-1, heads))
