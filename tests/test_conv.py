"""The convolutional models against torch's convolutions with torch's weight normalisation, sentence by sentence."""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tests.attention_by_hand import attend_by_hand
from translate.config import ConvAttentionConfig, ConvDecoderConfig, ConvEncoderConfig
from translate.models.conv import ConvDecoder, ConvEncoder, MultiStep, NormedLinear
from translate.models.dropout import Dropout
from translate.models.positions import sinusoids
from translate.models.seq2seq import Memory, Record, Tokens

VOCABULARY, WIDTH, EMBEDDING = 9, 8, 6
HALF = math.sqrt(1 / 2)
assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-10)
Module = TypeVar("Module", bound=nn.Module)
Arrange = Callable[[Tensor], Tensor]


def tokens(lengths: list[int], seed: int = 2) -> Tokens:
    longest = max(lengths)
    ids = torch.randint(0, VOCABULARY, (len(lengths), longest), generator=torch.Generator().manual_seed(seed))
    return Tokens(ids, torch.tensor(lengths), longest)


def shaken(module: Module) -> Module:
    """In float64 and evaluation mode, with every weight moved: no zero of the initialisation may hide anything."""
    torch.manual_seed(4)
    for parameter in module.double().eval().parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return module


class Halve(nn.Module):
    """Stands where dropout stands, to show the place."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def halve(module: nn.Module) -> None:
    for inner in list(module.modules()):
        for name, child in inner.named_children():
            if isinstance(child, Dropout) and child.p > 0:
                setattr(inner, name, Halve())


class Reference:
    """Torch's modules with the weights of a model of ours; `kept` is what is left where dropout stands.

    `copies` are our parameters, torch's, and how ours are arranged there.
    """

    def __init__(self, ours: ConvEncoder | ConvDecoder, kernel: int, kept: float) -> None:
        self.ours, self.kernel, self.kept = ours, kernel, kept
        self.copies: list[tuple[Tensor, Tensor, Arrange]] = []
        self.entry, self.exit = self.linear(ours.entry), self.linear(ours.exit)
        self.convolutions = [self.convolution(layer.linear) for layer in ours.layers]  # type: ignore[arg-type]

    def linear(self, ours: NormedLinear) -> nn.Module:
        outputs, inputs = ours.weight.shape
        return self._copied(nn.Linear(inputs, outputs), ours, lambda weight: weight)

    def convolution(self, ours: NormedLinear) -> nn.Module:
        """Our rows hold one neighbour after another, torch's have the neighbours last."""
        convolution = nn.Conv1d(WIDTH, 2 * WIDTH, self.kernel)
        return self._copied(convolution, ours, lambda weight: weight.unflatten(1, (self.kernel, WIDTH)).mT)

    def _copied(self, plain: nn.Linear | nn.Conv1d, ours: NormedLinear, arrange: Arrange) -> nn.Module:
        theirs = weight_norm(plain).double()
        norms = theirs.parametrizations.weight
        for own, copy, how in (
            (ours.weight, norms.original1, arrange),
            (ours.length, norms.original0, lambda length: length),
            (ours.bias, theirs.bias, lambda bias: bias),
        ):
            copy.data = how(own.data).reshape(copy.shape).clone()
            self.copies.append((own, copy, how))
        return theirs

    def inputs(self, ids: Tensor) -> Tensor:
        """ids (L,) -> (L, D)."""
        embedded = self.ours.embedding.weight[ids] * math.sqrt(EMBEDDING) + sinusoids(len(ids), EMBEDDING)
        return self.entry(embedded * self.kept)

    def gated(self, index: int, x: Tensor, before: int, after: int) -> Tensor:
        """One convolution with a gated linear unit, (L, D) -> (L, D)."""
        around = nn.functional.pad((x * self.kept).T, (before, after))
        y = self.convolutions[index](around[None])[0].T
        return y[:, :WIDTH] / (1 + torch.exp(-y[:, WIDTH:]))


class ReferenceEncoder(Reference):
    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (S,) -> states and values (S, D)."""
        inputs = x = self.inputs(ids)
        for index in range(len(self.convolutions)):
            x = (x + self.gated(index, x, self.kernel // 2, self.kernel // 2)) * HALF
        states = self.exit(x)
        return states, (states + inputs) * HALF


class ReferenceDecoder(Reference):
    def __init__(self, ours: ConvDecoder, kernel: int, kept: float) -> None:
        super().__init__(ours, kernel, kept)
        self.decoder = ours
        if ours.attends:
            self.queries = [self.linear(across.query) for across in ours.across]  # type: ignore[arg-type]
            self.outputs = [self.linear(across.output) for across in ours.across]  # type: ignore[arg-type]
        else:
            self.summary = self.linear(ours.summary)

    def __call__(self, ids: Tensor, states: Tensor, values: Tensor, summary: Tensor) -> tuple[Tensor, list[Tensor]]:
        """ids (T,), states and values (S, E), summary (E,) -> features (T, D), weights (H, T, S) of each layer."""
        inputs = self.inputs(ids)
        if not self.decoder.attends:
            inputs = (inputs + self.summary(summary)) * HALF
        x, weights = inputs, []
        for index in range(len(self.convolutions)):
            y = self.gated(index, x, self.kernel - 1, 0)
            if self.decoder.attends:
                across = self.decoder.across[index]
                assert isinstance(across, MultiStep)
                attention = across.attention
                query = (self.queries[index](y) + inputs) * HALF
                seen = attend_by_hand(
                    attention.config, attention.heads, dict(attention.named_parameters()), query, states, values
                )
                y = (y + self.outputs[index](seen.context * math.sqrt(len(states)))) * HALF
                weights.append(seen.weights)
            x = (x + y) * HALF
        return self.exit(x) * self.kept, weights


def assert_same_gradients(found: Tensor, expected: Tensor, reference: Reference, shared: list[Tensor]) -> None:
    """Of the copied parameters and of what both models read."""
    against = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    own, copies, arrangements = zip(*reference.copies, strict=True)
    ours = torch.autograd.grad((found * against).sum(), [*own, *shared])
    theirs = torch.autograd.grad((expected * against).sum(), [*copies, *shared])
    for arrange, one, other in zip(arrangements, ours, theirs, strict=False):
        assert_equal(arrange(one).reshape(other.shape), other)
    for one, other in zip(ours[len(own) :], theirs[len(own) :], strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("dropout", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_encoder_equals_torchs_convolutions(kernel: int, dropout: bool) -> None:
    """With halves in dropout's stead its places are the paper's too: on the embeddings and before each convolution."""
    config = ConvEncoderConfig(layers=3, width=WIDTH, embedding=EMBEDDING, kernel=kernel, dropout=0.5)
    encoder = shaken(ConvEncoder(config, VOCABULARY))
    if dropout:
        halve(encoder)
    reference, src = ReferenceEncoder(encoder, kernel, 0.5 if dropout else 1.0), tokens([4, 7, 1])
    memory = encoder(src)
    found, expected = [], []
    for row, length in enumerate(src.lengths.tolist()):
        states, values = reference(src.ids[row, :length])
        found += [memory.states[row, :length], memory.values[row, :length], memory.summary[row : row + 1]]
        expected += [states, values, states.mean(0, keepdim=True)]
        assert_equal(found[-3:], expected[-3:])
    assert_same_gradients(torch.cat(found), torch.cat(expected), reference, [encoder.embedding.weight])


SETTINGS: dict[str, dict[str, object]] = {
    "dot": {},
    "none": {"score": "none"},
    "additive-heads": {"score": "additive", "heads": 2},
    "general-local-coverage": {"score": "general", "scope": "local_p", "window": 2, "coverage": True},
}


@pytest.mark.parametrize("dropout", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize("name", SETTINGS)
def test_decoder_equals_torchs_convolutions_and_loops_of_attention(name: str, kernel: int, dropout: bool) -> None:
    """For a memory of another width whose values are its own."""
    config = ConvDecoderConfig(
        layers=2,
        width=WIDTH,
        embedding=EMBEDDING,
        kernel=kernel,
        dropout=0.5,
        attention=ConvAttentionConfig.model_validate(SETTINGS[name]),
    )
    decoder = shaken(ConvDecoder(config, VOCABULARY, 5))
    if dropout:
        halve(decoder)
    reference, tgt, lengths = ReferenceDecoder(decoder, kernel, 0.5 if dropout else 1.0), tokens([6, 3]), [3, 4]
    states, values, summary = torch.randn(2, 4, 5), torch.randn(2, 4, 5), torch.randn(2, 5)
    shared = [tensor.double().requires_grad_() for tensor in (states, values, summary)]
    memory = Memory(shared[0], torch.tensor(lengths), 4, shared[2], shared[1])
    record: Record = {}
    features, _ = decoder(tgt, memory, record)
    found, expected = [], []
    for row, length in enumerate(tgt.lengths.tolist()):
        of = slice(0, lengths[row])
        outputs, weights = reference(tgt.ids[row, :length], shared[0][row, of], shared[1][row, of], shared[2][row])
        assert_equal(features[row, :length], outputs)
        found.append(features[row, :length])
        expected.append(outputs)
        for layer, one in enumerate(weights):
            seen = record[f"decoder.layers.{layer}.cross_attention"][row, :, :length, of]
            assert_equal(seen, one)
        if weights:
            assert_equal(record["alignment"][row, :length, of], torch.stack(weights).mean((0, 1)))
    assert set(record) == (
        {f"decoder.layers.{layer}.cross_attention" for layer in range(2)} | {"alignment"} if decoder.attends else set()
    )
    read = shared[:2] if decoder.attends else shared[2:]
    inner = [parameter for name, parameter in decoder.named_parameters() if ".attention." in name]
    assert_same_gradients(torch.cat(found), torch.cat(expected), reference, [decoder.embedding.weight, *read, *inner])


def test_a_normed_matrix_begins_as_an_ordinary_one_of_the_papers_size() -> None:
    """N(0, gain (1 - dropout) / inputs), and the length of each row is what it is."""
    torch.manual_seed(1)
    linear = NormedLinear(400, 300, dropout=0.2, gain=4.0)
    assert linear.weight.std().item() == pytest.approx(math.sqrt(4 * 0.8 / 400), rel=0.01)
    assert abs(linear.weight.mean().item()) < 1e-3
    x = torch.randn(5, 400)
    torch.testing.assert_close(linear(x), x @ linear.weight.T, rtol=1e-5, atol=1e-5)
    linear.length.data.mul_(3.0)
    torch.testing.assert_close(linear(x), 3 * x @ linear.weight.T, rtol=1e-5, atol=1e-5)
    linear.weight.data.mul_(7.0)  # only its direction counts
    torch.testing.assert_close(linear(x), 3 / 7 * x @ linear.weight.T, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_many_layers_neither_fade_nor_blow_up() -> None:
    """What the square roots and the initialisation are for, at the dropout that is the default."""
    torch.manual_seed(1)
    src = tokens([40, 40])
    for layers in (1, 4, 12):
        config = ConvEncoderConfig(layers=layers, width=128)
        memory = ConvEncoder(config, VOCABULARY).eval()(src)
        assert 0.4 < memory.states.std().item() < 2.5
        assert 0.4 < memory.values.std().item() < 2.5


@torch.no_grad()
def test_the_encoder_sees_as_far_as_its_windows_reach() -> None:
    """layers * (kernel - 1) / 2 words to either side."""
    encoder = shaken(ConvEncoder(ConvEncoderConfig(layers=2, width=WIDTH, kernel=3), VOCABULARY))
    src = tokens([9])
    states = encoder(src).states[0]
    ids = src.ids.clone()
    ids[0, 4] = (ids[0, 4] + 1) % VOCABULARY
    changed = (encoder(Tokens(ids, src.lengths, src.longest)).states[0] - states).abs().amax(-1) > 1e-9
    assert changed.tolist() == [2 <= place <= 6 for place in range(9)]
