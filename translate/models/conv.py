"""The convolutional encoder and decoder (Gehring et al. 2017, Convolutional sequence to sequence learning).

A layer sees `kernel` neighbours at once: it joins them to one vector, multiplies it by a weight-normalised matrix, and
lets one half of the result gate the other (gated linear unit, Dauphin et al. 2017). Every layer of the decoder attends
to the source anew. Sums of two things are multiplied by sqrt(1/2), which keeps their variance.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from translate.config import ConvDecoderConfig, ConvEncoderConfig, embedding_width
from translate.models.attention import Attention, of_layers
from translate.models.dropout import Dropout
from translate.models.positions import Positions
from translate.models.seq2seq import Aux, Decoder, Encoder, Memory, Record, State, Tokens, build_embedding


class ConvEncoder(Encoder):
    """Each state sees layers * (kernel - 1) / 2 words to either side; the summary is the mean of the real states.

    What attention averages is the state and the word itself: memory.values = (states + inputs) * sqrt(1/2).
    """

    def __init__(self, config: ConvEncoderConfig, vocabulary: int) -> None:
        super().__init__()
        self.embedding = build_embedding(vocabulary, embedding_width(config))
        self.positions = Positions(config, "encoder")
        self.dropout = Dropout(config.dropout)
        self.entry = NormedLinear(embedding_width(config), config.width, config.dropout)
        self.layers = nn.ModuleList(GatedConvolution(config) for _ in range(config.layers))
        self.exit = NormedLinear(config.width, config.width)
        self.reach = config.kernel // 2

    def forward(self, src: Tokens, record: Record | None = None) -> Memory:
        """src (B, S) -> states (B, S, D), summary (B, D)."""
        real = src.mask[:, :, None]
        inputs = x = self.entry(self.dropout(self.positions(self.embedding(src.ids), 0)))
        for layer in self.layers:
            x = self.run_layer(self._layer, [layer], layer, x, real)
        states = self.exit(x)
        count = src.lengths.clamp(min=1)[:, None]
        summary = (states * real).sum(1) / count
        return Memory(states, src.lengths, src.longest, summary, halved(states + inputs))

    def _layer(self, layer: nn.Module, x: Tensor, real: Tensor) -> Tensor:
        """x (B, S, D) -> (B, S, D). Padding is zeroed before: a window at the end of a sentence reaches into it."""
        around = F.pad(x * real, (0, 0, self.reach, self.reach))
        return halved(x + layer(around))


class ConvDecoder(Decoder):
    """Each position sees layers * (kernel - 1) words before it, and in every layer the source.

    The query is the layer's output and the input word together. A context is multiplied by sqrt(S), since the average
    of S states has less variance than one. Without attention the encoder's summary is added to every input.
    """

    def __init__(self, config: ConvDecoderConfig, vocabulary: int, memory_width: int) -> None:
        super().__init__()
        width = self.width = config.width
        self.before = config.kernel - 1
        self.attends = config.attention.score != "none"
        self.embedding = build_embedding(vocabulary, embedding_width(config))
        self.positions = Positions(config, "decoder")
        self.dropout = Dropout(config.dropout)
        self.entry = NormedLinear(embedding_width(config), width, config.dropout)
        self.layers = nn.ModuleList(GatedConvolution(config) for _ in range(config.layers))
        if self.attends:
            self.across = nn.ModuleList(MultiStep(config, memory_width) for _ in range(config.layers))
            self.is_one_graph = not config.attention.coverage  # with it the host leads from one position to the next
        else:
            self.summary = NormedLinear(memory_width, width)
        self.exit = NormedLinear(width, width)
        self.feature_dropout = Dropout(config.dropout)

    def forward(self, tgt_in: Tokens, memory: Memory, record: Record | None = None) -> tuple[Tensor, Aux]:
        """tgt_in (B, T) -> features (B, T, D)."""
        inputs = x = self._inputs(tgt_in.ids, 0, memory)
        auxes: list[Aux] = []
        for index, layer in enumerate(self.layers):
            drawing = [layer, self.across[index]] if self.attends else [layer]
            x, aux = self.run_layer(self._layer, drawing, index, x, inputs, memory, record)
            auxes.append(aux)
        if record is not None and self.attends:
            record["alignment"] = self._alignment(record).mean(1)
        return self.feature_dropout(self.exit(x)), of_layers(auxes)

    def _layer(
        self, index: int, x: Tensor, inputs: Tensor, memory: Memory, record: Record | None
    ) -> tuple[Tensor, Aux]:
        """x and inputs (B, T, D) -> (B, T, D), and what the loss needs of the attention."""
        y: Tensor = self.layers[index](F.pad(x, (0, 0, self.before, 0)))
        aux: Aux = {}
        if self.attends:
            y, aux = self.across[index](y, inputs, memory, record, _path(index))
        return halved(x + y), aux

    def start(self, memory: Memory, max_len: int, beam: int = 1) -> State:
        """Beams: what the next window of each layer will see, (B, K, kernel - 1, D); sentences: as attention has it."""
        state = State({}, {})
        dtype = self.entry.weight.dtype
        for index in range(len(self.layers)):
            if self.attends:
                started = self._across(index).attention.start(memory, beam, f"{index}.cross.")
                state.beams.update(started.beams)
                state.sentences.update(started.sentences)
            size = (memory.states.size(0), beam, self.before, self.width)
            state.beams[f"{index}.window"] = memory.states.new_zeros(size, dtype=dtype)
        return state

    def step(
        self, token: Tensor, memory: Memory, state: State, time: int, record: Record | None = None
    ) -> tuple[Tensor, State]:
        """token (B, K) at position `time` -> features (B, K, D)."""
        inputs = x = self._inputs(token[:, :, None], time, memory)  # (B, K, 1, D)
        for index, layer in enumerate(self.layers):
            window = torch.cat([state.beams[f"{index}.window"], x.to(self.entry.weight.dtype)], 2)
            state.beams[f"{index}.window"] = window[:, :, 1:]
            y = layer(window)
            if self.attends:
                y = self._across(index).step(y.squeeze(2), inputs.squeeze(2), memory, state, index, time, record)
                y = y[:, :, None]
            x = halved(x + y)
        if record is not None and self.attends:
            record["alignment"] = self._alignment(record).mean(2)
        return self.exit(x).squeeze(2), state

    def _inputs(self, ids: Tensor, first: int, memory: Memory) -> Tensor:
        """ids (B, ..., L) from position `first` on -> (B, ..., L, D)."""
        inputs: Tensor = self.entry(self.dropout(self.positions(self.embedding(ids), first)))
        if self.attends:
            return inputs
        summary: Tensor = self.summary(memory.summary)
        return halved(inputs + summary.view(-1, *[1] * (inputs.dim() - 2), self.width))

    def _across(self, index: int) -> "MultiStep":
        across = self.across[index]
        assert isinstance(across, MultiStep)
        return across

    def _alignment(self, record: Record) -> Tensor:
        """Attention averaged over layers."""
        return torch.stack([record[_path(index)] for index in range(len(self.layers))]).mean(0)


class GatedConvolution(nn.Module):
    """A window of `kernel` vectors -> one: dropout, one matrix, and half of its output gates the other half."""

    def __init__(self, config: ConvEncoderConfig | ConvDecoderConfig) -> None:
        super().__init__()
        self.kernel = config.kernel
        self.dropout = Dropout(config.dropout)
        self.linear = NormedLinear(config.kernel * config.width, 2 * config.width, config.dropout, gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        """(..., L + kernel - 1, D) -> (..., L, D)."""
        length = x.size(-2) - self.kernel + 1
        x = self.dropout(x)
        windows = torch.cat([x[..., k : k + length, :] for k in range(self.kernel)], -1)
        return F.glu(self.linear(windows), -1)


class MultiStep(nn.Module):
    """The attention of one decoder layer, and what it makes of the layer's output."""

    def __init__(self, config: ConvDecoderConfig, memory_width: int) -> None:
        super().__init__()
        self.attention = Attention(config.attention, config.width, memory_width, config.attention.heads)
        self.query = NormedLinear(config.width, config.width)
        self.output = NormedLinear(config.width, config.width)

    def forward(
        self, y: Tensor, inputs: Tensor, memory: Memory, record: Record | None, path: str
    ) -> tuple[Tensor, Aux]:
        """y and inputs (B, T, D) -> (B, T, D); records (B, H, T, S)."""
        look = self.attention.attend_all(self._ask(y, inputs), self.attention.prepare(memory))
        if record is not None:
            record[path] = look.weights if self.attention.heads > 1 else look.weights[:, None]
        return self._answer(y, look.context, memory), look.aux

    def step(
        self,
        y: Tensor,
        inputs: Tensor,
        memory: Memory,
        state: State,
        index: int,
        time: int,
        record: Record | None,
    ) -> Tensor:
        """One position of each hypothesis, y and inputs (B, K, D) -> (B, K, D); records (B, K, H, S)."""
        look = self.attention.step(self._ask(y, inputs), state, f"{index}.cross.", time)
        if record is not None:
            record[_path(index)] = look.weights if self.attention.heads > 1 else look.weights[:, :, None]
        return self._answer(y, look.context, memory)

    def _ask(self, y: Tensor, inputs: Tensor) -> Tensor:
        asked: Tensor = halved(self.query(y) + inputs)
        return asked

    def _answer(self, y: Tensor, context: Tensor, memory: Memory) -> Tensor:
        answer: Tensor = self.output(context * memory.lengths[:, None, None].to(context.dtype).sqrt())
        return halved(y + answer)


class NormedLinear(nn.Module):
    """W x + b with each row of W as a length g and a direction v (Salimans & Kingma 2016).

    Begins at N(0, gain (1 - dropout) / inputs): dropout before it and a gate behind it are made up for.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.normal_(self.weight, std=math.sqrt(gain * (1.0 - dropout) / inputs))
        self.length = nn.Parameter(self.weight.detach().norm(dim=1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        scale = self.length / torch.linalg.vector_norm(self.weight, dim=1)
        return F.linear(x, self.weight * scale[:, None], self.bias)


def _path(index: int) -> str:
    return f"decoder.layers.{index}.cross_attention"


def halved(x: Tensor) -> Tensor:
    """x of any shape with half its variance, so that a sum of two has that of one.

    The factor is no constant of the module: torch.compile would make it an input, which a checkpoint does not get.
    """
    return x * math.sqrt(0.5)
