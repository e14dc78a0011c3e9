"""Recurrent encoder and decoder with attention.

The decoder follows Luong et al. (2015): a step of the recurrent layers gives a query h, attention gives a context c,
and the attentional vector tanh(W [c; h]) is the feature; with input feeding it also enters the next step. Or it
attends before the step, as Bahdanau et al. (2015): the query is the state so far, and the context enters the step.
Without attention the encoder's summary enters every step and h is the feature (Cho et al. 2014).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from translate.config import RnnDecoderConfig, RnnEncoderConfig, embedding_width
from translate.models import cells, fed_lstm
from translate.models.attention import Attention, Look, Prepared
from translate.models.cells import Hidden
from translate.models.dropout import Dropout
from translate.models.loop_matrix import LoopMatrix
from translate.models.seq2seq import (
    Aux,
    Compiler,
    Decoder,
    Encoder,
    Memory,
    Record,
    State,
    Tokens,
    build_embedding,
    sent,
)


class RnnEncoder(Encoder):
    """Reads real tokens only, in one or both directions; the summary is what each direction ends with."""

    is_one_graph = False  # sentences are sorted on the host, and the layers are cuDNN's

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
        lengths = src.lengths.cpu() if src.host_lengths is None else src.host_lengths
        ids = _packed(src.ids, lengths)
        packed, last = _with_data(ids, _embed(self.embedding, ids.data)), None
        for layer, dropout in zip(self.layers, self.dropout, strict=True):
            with cells.wide_enough(packed.data):
                packed, last = layer(_with_data(packed, dropout(packed.data)))
        h = last[0] if isinstance(last, tuple) else last  # (directions, B, width of one)
        assert h is not None
        states = _unpacked(packed, src.longest)
        return Memory(states, src.lengths, src.longest, h.transpose(0, 1).flatten(1), states)


class RnnDecoder(Decoder):
    """Writes with or without attention, with or without input feeding.

    `forward` and `step` give the same numbers from the same weights; `forward` takes all that is known before the
    first step out of the loop, and without input feeding has no loop of its own.
    """

    is_one_graph = False  # unrolled, it would be another for every length

    def __init__(self, config: RnnDecoderConfig, vocabulary: int, memory_width: int) -> None:
        super().__init__()
        width = self.width = config.width
        self.attends = config.attention.score != "none"
        self.before = self.attends and config.attention.placement == "before"
        self.feeds = self.attends and config.input_feeding and not self.before
        self.embedding = build_embedding(vocabulary, embedding_width(config))
        later = width if self.feeds or self.before else 0 if self.attends else memory_width
        inputs = [embedding_width(config) + later] + [width] * (config.layers - 1)
        self.layers = nn.ModuleList(cells.build_layer(config.cell, size, width) for size in inputs)
        self.initial = nn.ModuleList(_linear(memory_width, width, bias=True) for _ in inputs)
        self.dropout = nn.ModuleList(Dropout(config.dropout) for _ in inputs)  # on what enters each layer
        self.feature_dropout = Dropout(config.dropout)
        if self.attends:
            self.attention = Attention(config.attention, width, memory_width, config.attention.heads)
            self.combine = _linear(2 * width, width, bias=False)
        # `_run_fed` and `_run_loop` agree where both can be used; the first is faster.
        self.by_hand = self.feeds and config.cell == "lstm" and self.attention.is_plain_product
        self.walk = fed_lstm.PLAIN

    def forward(self, tgt_in: Tokens, memory: Memory, record: Record | None = None) -> tuple[Tensor, Aux]:
        """tgt_in (B, T) -> features (B, T, D)."""
        known = self._known(tgt_in.ids.t(), memory.summary)
        hidden = self._initial(memory.summary)
        if not self.attends:
            return self.feature_dropout(self._run(known, hidden)), {}
        prepared = self.attention.prepare(memory)
        if self.feeds and self.by_hand:
            features, look = self._run_fed(known, hidden, prepared)
        elif self.feeds or self.before:
            features, look = self._run_loop(known, hidden, self.attention.in_loop(prepared))
        else:
            query = self._run(known, hidden)
            look = self.attention.attend_all(query, prepared)
            if look.covered is None and "choice" in look.aux:  # no later step will know what this one chose
                look.aux["lone_choice"] = look.aux.pop("choice")
            features = torch.tanh(self.combine(_beside(look.context, query)))
        if record is not None:
            self._write_down(look, record, heads_at=1)
        return self.feature_dropout(features), look.aux

    def compile_steps(self, compiled: Compiler) -> None:
        """Both directions of `_run_fed`; the other loops stay as they are."""
        self.walk = fed_lstm.Walk(compiled(fed_lstm.PLAIN.forth), compiled(fed_lstm.PLAIN.back))

    def start(self, memory: Memory, max_len: int, beam: int = 1) -> State:
        """Beams: each layer's state and the vector fed back; sentences: what attention looks at."""
        beams = {}
        for index, hidden in enumerate(self._initial(memory.summary)):
            for name, part in zip(cells.PARTS, hidden, strict=False):
                beams[f"{index}.{name}"] = part[:, None].repeat(1, beam, 1)
        state = self.attention.start(memory, beam, "") if self.attends else State({}, {})
        state.beams.update(beams)
        if self.feeds:
            state.beams["fed"] = torch.zeros_like(beams["0.hidden"])
        return state

    def step(
        self, token: Tensor, memory: Memory, state: State, time: int, record: Record | None = None
    ) -> tuple[Tensor, State]:
        """token (B, K) -> features (B, K, D)."""
        beams = state.beams
        x = self._known(token.t(), memory.summary).transpose(0, 1)  # (B, K, .)
        look = self.attention.step(beams[f"{len(self.layers) - 1}.hidden"], state, "", time) if self.before else None
        if look is not None:
            x = _beside(x, look.context)
        elif self.feeds:
            x = _beside(x, beams["fed"])
        for index, layer in enumerate(self.layers):
            names = [f"{index}.{name}" for name in cells.PARTS if f"{index}.{name}" in beams]
            hidden = cells.step(layer, x, tuple(beams[name] for name in names))
            beams.update(zip(names, hidden, strict=True))
            x = hidden[0]
        if not self.attends:
            return x, state
        look = look or self.attention.step(x, state, "", time)
        features = torch.tanh(self.combine(_beside(look.context, x)))
        if self.feeds:
            beams["fed"] = features.to(x.dtype)
        if record is not None:
            self._write_down(look, record, heads_at=2)
        return features, state

    def _write_down(self, look: Look, record: Record, heads_at: int) -> None:
        several = self.attention.heads > 1
        record["alignment"] = look.weights.mean(heads_at) if several else look.weights
        if several:
            record["decoder.attention"] = look.weights

    def _known(self, ids: Tensor, summary: Tensor) -> Tensor:
        """What enters a step whatever the steps before it did: ids (T, B) -> (T, B, .)."""
        embedded: Tensor = self.dropout[0](_embed(self.embedding, ids))
        return embedded if self.attends else _beside(embedded, summary.expand(ids.size(0), -1, -1))

    def _initial(self, summary: Tensor) -> list[Hidden]:
        """Each layer starts at tanh(W summary), an LSTM's cell at 0."""
        dtype = self.embedding.weight.dtype  # the state is never kept in less, whatever the products come out in
        starts = [torch.tanh(linear(summary)).to(dtype) for linear in self.initial]
        return [cells.first_hidden(layer, h) for layer, h in zip(self.layers, starts, strict=True)]

    def _run(self, x: Tensor, hidden: list[Hidden]) -> Tensor:
        """All steps, layer by layer, where no step waits for what attention saw: x (T, B, .) -> h (B, T, D)."""
        for index, layer in enumerate(self.layers):
            x = cells.run(layer, x if index == 0 else self.dropout[index](x), hidden[index])
        return x.transpose(0, 1)

    def _run_loop(self, known: Tensor, hidden: list[Hidden], prepared: Prepared) -> tuple[Tensor, Look]:
        """All layers, step by step: known (T, B, .) -> features (B, T, D)."""
        dtype = prepared.bias.dtype
        layers = [cells.LoopLayer(layer, None if i else known, dtype) for i, layer in enumerate(self.layers)]
        masks = [d.draw_scaled(hidden[0][0], known.size(0)) for d in self.dropout[1:] if isinstance(d, Dropout)]
        combine = LoopMatrix(self.combine.weight.t(), dtype)
        x = torch.zeros_like(hidden[0][0], dtype=dtype)
        features: list[Tensor] = []
        looks: list[Look] = []
        for time in range(known.size(0)):
            covered = looks[-1].covered if looks else None
            if self.before:
                looks.append(self.attention.attend(hidden[-1][0][:, None], prepared, time, covered))
                x = looks[-1].context.squeeze(1)
            for index, layer in enumerate(layers):
                mask = masks[index - 1] if index else None
                hidden[index] = layer(time, x if mask is None else x * mask[time], hidden[index])
                x = hidden[index][0]
            if not self.before:
                looks.append(self.attention.attend(x[:, None], prepared, time, covered))
            x = torch.tanh(_beside(looks[-1].context.squeeze(1), x) @ combine)
            features.append(x)
        return torch.stack(features, 1), Look.joined(looks)

    def _run_fed(self, known: Tensor, hidden: list[Hidden], prepared: Prepared) -> tuple[Tensor, Look]:
        """`_run_loop` for LSTM layers that feed and look by an inner product, with the way back written by hand."""
        layers: list[fed_lstm.Layer] = []
        for index, (layer, dropout, (first, _)) in enumerate(zip(self.layers, self.dropout, hidden, strict=True)):
            weight_ih, weight_hh, bias_ih, bias_hh = layer.parameters()
            now, later = weight_ih.split([known.size(-1) if index == 0 else 0, self.width], 1)
            added, mask = bias_ih + bias_hh, None
            if index == 0:
                added = F.linear(known, now, added)
            elif isinstance(dropout, Dropout):
                mask = dropout.draw_scaled(first, known.size(0))
            layers.append(fed_lstm.Layer(torch.cat([later, weight_hh], 1).t(), added, first, mask))
        matrix, steps = self.combine.weight.t(), known.size(0)
        features, contexts, weights = fed_lstm.run(layers, prepared, matrix, steps, self.walk)
        return features, Look(contexts, weights, {})


def _embed(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    """Word vectors scaled to elements of about unit size, as the Transformer has them.

    Unscaled ones barely move the gates at first: learning then takes several times as many updates to begin.
    """
    vectors: Tensor = embedding(ids)
    return vectors * math.sqrt(embedding.embedding_dim)


def _beside(left: Tensor, right: Tensor) -> Tensor:
    """Two vectors in one, in the number format of the first."""
    return torch.cat([left, right.to(left.dtype)], -1)


def _packed(ids: Tensor, lengths: Tensor) -> PackedSequence:
    """ids (B, S) as `pack_padded_sequence` packs them, with lengths (B,) on the host, but without waiting for a GPU."""
    falling, order = lengths.sort(descending=True)
    order = sent(order, ids.device)
    packed = pack_padded_sequence(ids.index_select(0, order), falling, batch_first=True)
    return PackedSequence(packed.data, packed.batch_sizes, order)


def _unpacked(packed: PackedSequence, longest: int) -> Tensor:
    """The way back, (B, S, D). In its own order PyTorch would put the lengths too, and wait for the GPU to do so."""
    states, _ = pad_packed_sequence(PackedSequence(packed.data, packed.batch_sizes), True, total_length=longest)
    assert packed.unsorted_indices is not None
    return states.index_select(0, packed.unsorted_indices)


def _with_data(packed: PackedSequence, data: Tensor) -> PackedSequence:
    return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


def _linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(linear.weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
