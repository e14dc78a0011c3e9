"""Recurrent encoder and decoder with attention.

The decoder follows Luong et al. (2015): a step of the recurrent layers gives a query h, attention gives a context c,
and the attentional vector tanh(W [c; h]) is the feature; with input feeding it also enters the next step. Without
attention the encoder's summary enters every step and h is the feature (Cho et al. 2014).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from translate.config import RnnDecoderConfig, RnnEncoderConfig, embedding_width
from translate.models import cells
from translate.models.attention import Attention, Visible, compute_dtype
from translate.models.cells import Hidden
from translate.models.dropout import Dropout
from translate.models.loop_matrix import LoopMatrix
from translate.models.seq2seq import Aux, Decoder, Encoder, Memory, Record, State, Tokens, build_embedding


class RnnEncoder(Encoder):
    """Reads real tokens only, in one or both directions; the summary is what each direction ends with."""

    def __init__(self, config: RnnEncoderConfig, vocabulary: int) -> None:
        super().__init__()
        inputs = embedding_width(config)
        directions = 2 if config.bidirectional else 1
        self.embedding = build_embedding(vocabulary, inputs)
        self.layers = nn.ModuleList()
        for _ in range(config.layers):
            self.layers.append(
                cells.build_layer(config.cell, inputs, config.width // directions, bidirectional=config.bidirectional)
            )
            inputs = config.width
        self.dropout = nn.ModuleList(Dropout(config.dropout) for _ in self.layers)

    def forward(self, src: Tokens, record: Record | None = None) -> Memory:
        """src (B, S) -> states (B, S, D), summary (B, D): forward state at the last, backward at the first token."""
        ids = pack_padded_sequence(src.ids, src.lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed, last = _with_data(ids, _embed(self.embedding, ids.data)), None
        for layer, dropout in zip(self.layers, self.dropout, strict=True):
            packed, last = layer(_with_data(packed, dropout(packed.data)))
        h = last[0] if isinstance(last, tuple) else last  # (directions, B, width of one)
        assert h is not None
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=src.longest)
        return Memory(states, src.lengths, src.longest, h.transpose(0, 1).flatten(1), states)


class RnnDecoder(Decoder):
    """Writes with or without attention, with or without input feeding.

    `forward` and `step` give the same numbers from the same weights; `forward` takes all that is known before the
    first step out of the loop, and without input feeding has no loop of its own.
    """

    def __init__(self, config: RnnDecoderConfig, vocabulary: int, memory_width: int) -> None:
        super().__init__()
        width = self.width = config.width
        self.attends = config.attention.score != "none"
        self.feeds = self.attends and config.input_feeding
        self.embedding = build_embedding(vocabulary, embedding_width(config))
        later = width if self.feeds else 0 if self.attends else memory_width
        inputs = [embedding_width(config) + later] + [width] * (config.layers - 1)
        self.layers = nn.ModuleList(cells.build_layer(config.cell, size, width) for size in inputs)
        self.initial = nn.ModuleList(_linear(memory_width, width, bias=True) for _ in inputs)
        self.dropout = nn.ModuleList(Dropout(config.dropout) for _ in inputs)  # on what enters each layer
        self.feature_dropout = Dropout(config.dropout)
        if self.attends:
            self.bridge = nn.Identity() if memory_width == width else _linear(memory_width, width, bias=False)
            self.attention = Attention(config.attention, width)
            self.combine = _linear(2 * width, width, bias=False)

    def forward(self, tgt_in: Tokens, memory: Memory, record: Record | None = None) -> tuple[Tensor, Aux]:
        """tgt_in (B, T) -> features (B, T, D)."""
        known = self._known(tgt_in.ids.t(), memory.summary)
        hidden = self._initial(memory.summary)
        if not self.attends:
            return self.feature_dropout(self._run(known, hidden)), {}
        keys, values, visible = self._prepare(memory)
        if self.feeds:
            features, weights = self._run_feeding(known, hidden, keys, values, visible)
        else:
            query = self._run(known, hidden)
            context, weights = self.attention.attend(query, keys, values, visible)
            features = torch.tanh(self.combine(_beside(context, query)))
        if record is not None:
            record["alignment"] = weights
        return self.feature_dropout(features), {}

    def start(self, memory: Memory, max_len: int, beam: int = 1) -> State:
        """Beams: each layer's state and the vector fed back; sentences: keys, values and what is visible."""
        beams, sentences = {}, {}
        for index, hidden in enumerate(self._initial(memory.summary)):
            for name, part in zip(cells.PARTS, hidden, strict=False):
                beams[f"{index}.{name}"] = part[:, None].repeat(1, beam, 1)
        if self.attends:
            keys, values, visible = self._prepare(memory)
            assert visible.alive is not None
            sentences = {"keys": keys, "values": values, "bias": visible.bias, "alive": visible.alive}
        if self.feeds:
            beams["fed"] = torch.zeros_like(beams["0.hidden"])
        return State(beams, sentences)

    def step(
        self, token: Tensor, memory: Memory, state: State, time: int, record: Record | None = None
    ) -> tuple[Tensor, State]:
        """token (B, K) -> features (B, K, D)."""
        beams, sentences = state.beams, state.sentences
        x = self._known(token.t(), memory.summary).transpose(0, 1)  # (B, K, .)
        if self.feeds:
            x = _beside(x, beams["fed"])
        for index, layer in enumerate(self.layers):
            names = [f"{index}.{name}" for name in cells.PARTS if f"{index}.{name}" in beams]
            hidden = cells.step(layer, x, tuple(beams[name] for name in names))
            beams.update(zip(names, hidden, strict=True))
            x = hidden[0]
        if not self.attends:
            return x, state
        visible = Visible(sentences["bias"], sentences["alive"])
        context, weights = self.attention.attend(x, sentences["keys"], sentences["values"], visible)
        features = torch.tanh(self.combine(_beside(context, x)))
        if self.feeds:
            beams["fed"] = features.to(x.dtype)
        if record is not None:
            record["alignment"] = weights
        return features, state

    def _known(self, ids: Tensor, summary: Tensor) -> Tensor:
        """What enters a step whatever the steps before it did: ids (T, B) -> (T, B, .)."""
        embedded: Tensor = self.dropout[0](_embed(self.embedding, ids))
        return embedded if self.attends else _beside(embedded, summary.expand(ids.size(0), -1, -1))

    def _initial(self, summary: Tensor) -> list[Hidden]:
        """Each layer starts at tanh(W summary), an LSTM's cell at 0."""
        dtype = self.embedding.weight.dtype  # the state is never kept in less, whatever the products come out in
        starts = [torch.tanh(linear(summary)).to(dtype) for linear in self.initial]
        return [cells.first_hidden(layer, h) for layer, h in zip(self.layers, starts, strict=True)]

    def _prepare(self, memory: Memory) -> tuple[Tensor, Tensor, Visible]:
        """Keys, values (B, S, D) and what is visible, once a sentence."""
        dtype = compute_dtype(memory.states)
        states = self.bridge(memory.states.to(dtype))
        values = states if memory.values is memory.states else self.bridge(memory.values.to(dtype))
        return self.attention.prepare(states), values, Visible.real(memory.mask, dtype)

    def _run(self, x: Tensor, hidden: list[Hidden]) -> Tensor:
        """All steps, layer by layer, where no step waits for what attention saw: x (T, B, .) -> h (B, T, D)."""
        for index, layer in enumerate(self.layers):
            x = cells.run(layer, x if index == 0 else self.dropout[index](x), hidden[index])
        return x.transpose(0, 1)

    def _run_feeding(
        self, known: Tensor, hidden: list[Hidden], keys: Tensor, values: Tensor, visible: Visible
    ) -> tuple[Tensor, Tensor]:
        """All layers, step by step: known (T, B, .) -> features (B, T, D), weights (B, T, S)."""
        dtype = values.dtype
        layers = [cells.LoopLayer(layer, None if i else known, dtype) for i, layer in enumerate(self.layers)]
        masks = [d.draw_scaled(hidden[0][0], known.size(0)) for d in self.dropout[1:] if isinstance(d, Dropout)]
        combine = LoopMatrix(self.combine.weight.t(), dtype)
        loop_keys = LoopMatrix(keys, dtype) if self.attention.score.is_product else keys
        loop_values = LoopMatrix(values, dtype)
        x = torch.zeros_like(hidden[0][0], dtype=dtype)
        features, weights = [], []
        for time in range(known.size(0)):
            for index, layer in enumerate(layers):
                mask = masks[index - 1] if index else None
                hidden[index] = layer(time, x if mask is None else x * mask[time], hidden[index])
                x = hidden[index][0]
            context, seen = self.attention.attend(x[:, None], loop_keys, loop_values, visible)
            x = torch.tanh(_beside(context.squeeze(1), x) @ combine)
            features.append(x)
            weights.append(seen)
        return torch.stack(features, 1), torch.cat(weights, 1)


def _embed(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    """Word vectors scaled to elements of about unit size, as the Transformer has them.

    Unscaled ones barely move the gates at first: learning then takes several times as many updates to begin.
    """
    vectors: Tensor = embedding(ids)
    return vectors * math.sqrt(embedding.embedding_dim)


def _beside(left: Tensor, right: Tensor) -> Tensor:
    """Two vectors in one, in the number format of the first."""
    return torch.cat([left, right.to(left.dtype)], -1)


def _with_data(packed: PackedSequence, data: Tensor) -> PackedSequence:
    return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


def _linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(linear.weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
