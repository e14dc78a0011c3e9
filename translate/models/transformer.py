"""The Transformer (Vaswani et al. 2017), with the layer norm after each residual as there, or before each sublayer.

Dropout stands where the paper has it: on the sum of embeddings and positions, and on each sublayer's output before
it joins the residual.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from translate.config import TransformerDecoderConfig, TransformerEncoderConfig
from translate.models.attention import compute_dtype, of_layers
from translate.models.dropout import Dropout
from translate.models.multi_head import CrossAttention, SelfAttention, build_cross_attention
from translate.models.positions import Positions
from translate.models.scope import Visible
from translate.models.seq2seq import Aux, Block, Decoder, Encoder, Memory, Record, State, Tokens, build_embedding
from translate.models.spans import Spans

CACHE_BUCKET = 16
"""Positions by which a decoder's cache grows."""


class TransformerEncoder(Encoder):
    """Every token looks at every other; the summary is the mean of the real states."""

    def __init__(self, config: TransformerEncoderConfig, vocabulary: int) -> None:
        super().__init__()
        self.embedding = build_embedding(vocabulary, config.width)
        self.positions = Positions(config, "encoder")
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()
        self.heads = config.heads
        self.reads_packed = config.attention_dropout == 0

    def forward(self, src: Tokens, record: Record | None = None) -> Memory:
        """src (B, S) -> states (B, S, D), summary (B, D). Packed: src (N,) -> states (N, D), summary (B, D)."""
        x = self.dropout(self.positions.tell(self.embedding(src.ids), src))
        visible: Visible | Spans
        if src.offsets is not None:
            visible = Spans(src, src)
        else:
            visible = Visible.real(src.mask, compute_dtype(x)).heads(self.heads)
        for index, layer in enumerate(self.layers):
            x = self.run_layer(layer, [layer], x, visible, record, f"encoder.layers.{index}")
        states = self.norm(x)
        layout = {"offsets": src.offsets, "rows": src.rows, "places": src.places}
        return Memory(states, src.lengths, src.longest, _mean(states, src), states, **layout)


class EncoderLayer(Block):
    """Self-attention, then the position-wise network."""

    def __init__(self, config: TransformerEncoderConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config.width, config.heads, config.attention_dropout)
        self.feed_forward = FeedForward(config)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(2))

    def forward(self, x: Tensor, visible: Visible | Spans, record: Record | None, path: str) -> Tensor:
        """x (B, S, D) -> (B, S, D)."""
        looking, thinking = self.residuals
        x = looking(x, lambda y: self.self_attention(y, visible, record, f"{path}.self_attention"))
        return thinking(x, self.feed_forward)


class TransformerDecoder(Decoder):
    """Each token looks at those before it and at the memory."""

    def __init__(self, config: TransformerDecoderConfig, vocabulary: int, memory_width: int) -> None:
        super().__init__()
        self.width = config.width
        self.heads = config.heads
        self.embedding = build_embedding(vocabulary, config.width)
        self.positions = Positions(config, "decoder")
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config, memory_width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()
        usual = all(isinstance(layer.cross_attention, CrossAttention) for layer in self.layers)
        self.reads_packed = usual and config.attention_dropout == 0
        self.is_one_graph = not config.attention.coverage  # with it the host leads from one position to the next

    def forward(self, tgt_in: Tokens, memory: Memory, record: Record | None = None) -> tuple[Tensor, Aux]:
        """tgt_in (B, T) -> features (B, T, D). Padding comes after the real tokens, so the past never holds any.

        Packed: tgt_in (N,) -> features (N, D).
        """
        x = self.dropout(self.positions.tell(self.embedding(tgt_in.ids), tgt_in))
        dtype = compute_dtype(x)
        memory = memory.to(dtype)
        past: Visible | Spans
        real: Visible | Spans
        if tgt_in.offsets is not None:
            past, real = Spans(tgt_in, tgt_in, causal=True), Spans(tgt_in, memory)
        else:
            past = Visible.past(tgt_in.longest, dtype, x.device)
            real = Visible.real(memory.mask, dtype).heads(self.heads)
        auxes: list[Aux] = []
        for index, layer in enumerate(self.layers):
            x, aux = self.run_layer(layer, [layer], x, memory, past, real, record, f"decoder.layers.{index}")
            auxes.append(aux)
        if record is not None:
            record["alignment"] = self._alignment(record).mean(1)
        return self.norm(x), of_layers(auxes)

    def start(self, memory: Memory, max_len: int, beam: int = 1) -> State:
        """Beams: caches (B, K, H, capacity, d) of each layer; sentences: what cross-attention looks at."""
        dtype = compute_dtype(memory.values)
        memory = memory.to(dtype)
        size = (memory.values.size(0), beam, self.heads, min(max_len, CACHE_BUCKET), self.width // self.heads)
        real = Visible.real(memory.mask, dtype)
        assert real.alive is not None
        state = State({}, {"bias": real.bias, "alive": real.alive})
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            across = layer.cross_attention.start(memory, beam, f"{index}.cross.")
            state.beams.update(across.beams)
            state.sentences.update(across.sentences)
            for name in ("keys", "values"):
                state.beams[f"{index}.{name}"] = memory.values.new_zeros(size, dtype=dtype)
        return state

    def step(
        self, token: Tensor, memory: Memory, state: State, time: int, record: Record | None = None
    ) -> tuple[Tensor, State]:
        """token (B, K) at position `time` -> features (B, K, D)."""
        for name in (f"{index}.{part}" for index in range(len(self.layers)) for part in ("keys", "values")):
            if state.beams[name].size(-2) <= time:
                state.beams[name] = F.pad(state.beams[name], (0, 0, 0, CACHE_BUCKET))
        x = self.positions(self.embedding(token)[:, :, None], time).squeeze(2)
        real = Visible(state.sentences["bias"], state.sentences["alive"]).heads(self.heads)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            x = layer.step(x, state, index, real, time, record)
        if record is not None:
            record["alignment"] = self._alignment(record).mean(2)
        return self.norm(x), state

    def _alignment(self, record: Record) -> Tensor:
        """Cross-attention averaged over layers."""
        paths = [f"decoder.layers.{index}.cross_attention" for index in range(len(self.layers))]
        return torch.stack([record[path] for path in paths]).mean(0)


class DecoderLayer(Block):
    """Masked self-attention, attention to the memory, then the position-wise network."""

    def __init__(self, config: TransformerDecoderConfig, memory_width: int) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config.width, config.heads, config.attention_dropout)
        self.cross_attention = build_cross_attention(
            config.attention, config.width, memory_width, config.heads, config.attention_dropout
        )
        self.feed_forward = FeedForward(config)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(3))

    def forward(
        self,
        x: Tensor,
        memory: Memory,
        past: Visible | Spans,
        real: Visible | Spans,
        record: Record | None,
        path: str,
    ) -> tuple[Tensor, Aux]:
        """x (B, T, D) -> (B, T, D), and what the loss needs of the attention to the memory."""
        aux: Aux = {}

        def look_across(y: Tensor) -> Tensor:
            attended, found = self.cross_attention(y, memory, real, record, f"{path}.cross_attention")
            aux.update(found)
            return attended

        looking_back, looking_across, thinking = self.residuals
        x = looking_back(x, lambda y: self.self_attention(y, past, record, f"{path}.self_attention"))
        x = looking_across(x, look_across)
        return thinking(x, self.feed_forward), aux

    def step(self, x: Tensor, state: State, index: int, real: Visible, time: int, record: Record | None) -> Tensor:
        """One position, x (B, K, D) -> (B, K, D); its keys and values of layer `index` are in the state."""
        path, cross = f"decoder.layers.{index}", f"{index}.cross."
        back = (state.beams[f"{index}.keys"], state.beams[f"{index}.values"])
        look_across = self.cross_attention.step
        looking_back, looking_across, thinking = self.residuals
        x = looking_back(x, lambda y: self.self_attention.step(y, *back, time, record, f"{path}.self_attention"))
        x = looking_across(x, lambda y: look_across(y, state, cross, real, time, record, f"{path}.cross_attention"))
        return thinking(x, self.feed_forward)


class Residual(nn.Module):
    """What a sublayer adds to its input: x + f(norm(x)) (`pre`), or norm(x + f(x)) as in the paper (`post`)."""

    def __init__(self, config: TransformerEncoderConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.norm = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        if self.pre:
            return x + self.dropout(sublayer(self.norm(x)))
        normed: Tensor = self.norm(x + self.dropout(sublayer(x)))
        return normed


class FeedForward(nn.Module):
    """The position-wise network: two linear maps with a non-linearity between."""

    def __init__(self, config: TransformerEncoderConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.width, config.feed_forward)
        self.outer = nn.Linear(config.feed_forward, config.width)
        self.activation: nn.Module = nn.ReLU(inplace=True) if config.activation == "relu" else nn.GELU()
        self.dropout = Dropout(config.activation_dropout)
        for linear in (self.inner, self.outer):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        return self.outer(self.dropout(self.activation(self.inner(x))))


def _mean(states: Tensor, src: Tokens) -> Tensor:
    """The mean of each sentence's real states: (B, S, D), or packed (N, D) -> (B, D)."""
    lengths = src.lengths.to(states.dtype).clamp(min=1)[:, None]
    if src.rows is not None:
        return states.new_zeros(src.lengths.size(0), states.size(1)).index_add(0, src.rows, states) / lengths
    return (states * src.mask.to(states.dtype)[:, :, None]).sum(1) / lengths
