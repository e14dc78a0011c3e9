"""The recurrent models against loops over torch's cells, with attention by hand."""

import math
from functools import partial
from itertools import product
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from tests.attention_by_hand import attend_by_hand
from translate.config import RnnAttentionConfig, RnnDecoderConfig, RnnEncoderConfig
from translate.models.cells import build_layer
from translate.models.rnn import RnnDecoder, RnnEncoder
from translate.models.seq2seq import Memory, Record, Tokens

VOCABULARY = 9
assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-10)
Cell = Literal["lstm", "gru"]


def tokens(lengths: list[int]) -> Tokens:
    longest = max(lengths)
    ids = torch.randint(0, VOCABULARY, (len(lengths), longest), generator=torch.Generator().manual_seed(2))
    return Tokens(ids, torch.tensor(lengths), longest)


def shaken(module: nn.Module) -> None:
    """Move every weight, so that no zero of the initialisation hides anything."""
    for parameter in module.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))


@torch.no_grad()
@pytest.mark.parametrize(("cell", "bidirectional"), [*product(["lstm", "gru"], [False, True])])
def test_encoder_equals_torchs_stack_sentence_by_sentence(cell: Cell, bidirectional: bool) -> None:
    torch.manual_seed(3)
    config = RnnEncoderConfig(cell=cell, layers=2, width=8, embedding=5, bidirectional=bidirectional)
    encoder = RnnEncoder(config, VOCABULARY).double().eval()
    shaken(encoder)
    kind = nn.LSTM if cell == "lstm" else nn.GRU
    stack = kind(5, 4 if bidirectional else 8, num_layers=2, bidirectional=bidirectional).double()
    stack.load_state_dict(
        {
            name.replace("_l0", f"_l{index}"): tensor
            for index, layer in enumerate(encoder.layers)
            for name, tensor in layer.state_dict().items()
        }
    )
    src = tokens([3, 6, 1])
    memory = encoder(src)
    for row, length in enumerate(src.lengths.tolist()):
        states, last = stack(encoder.embedding(src.ids[row, :length]) * 5**0.5)
        assert_equal(memory.states[row, :length], states)
        top = (last[0] if cell == "lstm" else last)[-2 if bidirectional else -1 :]
        assert_equal(memory.summary[row], top.flatten())
        summary = torch.cat([states[-1, :4], states[0, 4:]]) if bidirectional else states[-1]
        assert_equal(memory.summary[row], summary)


def explicit_context(decoder: RnnDecoder, queries: list[Tensor], states: Tensor) -> Tensor:
    """What the last of a sentence's queries so far sees."""
    attention = decoder.attention
    parameters = dict(attention.named_parameters())
    seen = attend_by_hand(attention.config, attention.heads, parameters, torch.stack(queries), states, states)
    return seen.context[-1]


def explicit_decoder(decoder: RnnDecoder, cell: Cell, ids: list[int], states: Tensor, summary: Tensor) -> Tensor:
    """One sentence, one step after another, with torch's cells: ids, states (S, D_enc), summary (D_enc,) -> (T, D)."""
    cells = []
    for layer in decoder.layers:
        assert isinstance(layer, nn.LSTM | nn.GRU)
        kind = nn.LSTMCell if cell == "lstm" else nn.GRUCell
        one = kind(layer.input_size, layer.hidden_size).double()
        one.load_state_dict({name.removesuffix("_l0"): tensor for name, tensor in layer.state_dict().items()})
        cells.append(one)
    h = [torch.tanh(linear(summary)) for linear in decoder.initial]
    c = [torch.zeros_like(start) for start in h]
    fed, features, queries = torch.zeros(decoder.width, dtype=torch.float64), [], []
    for token in ids:
        x = decoder.embedding.weight[token] * math.sqrt(5)
        if not decoder.attends:
            x = torch.cat([x, summary])
        elif decoder.before:
            queries.append(h[-1])
            context = explicit_context(decoder, queries, states)
            x = torch.cat([x, context])
        elif decoder.feeds:
            x = torch.cat([x, fed])
        for index, one in enumerate(cells):
            if isinstance(one, nn.LSTMCell):
                h[index], c[index] = one(x, (h[index], c[index]))
            else:
                h[index] = one(x, h[index])
            x = h[index]
        if decoder.attends:
            if not decoder.before:
                queries.append(x)
                context = explicit_context(decoder, queries, states)
            x = fed = torch.tanh(decoder.combine.weight @ torch.cat([context, x]))
        features.append(x)
    return torch.stack(features)


def assert_equals_loop(config: RnnDecoderConfig, memory_width: int) -> None:
    torch.manual_seed(4)
    decoder = RnnDecoder(config, VOCABULARY, memory_width).double().eval()
    shaken(decoder)
    lengths, tgt = torch.tensor([4, 2, 5]), tokens([6, 3, 5])
    states = torch.randn(3, 5, memory_width, dtype=torch.float64)
    summary = torch.randn(3, memory_width, dtype=torch.float64)
    features, aux = decoder(tgt, Memory(states, lengths, 5, summary, states))
    assert set(aux) == ({"penalty"} if config.attention.coverage else set())
    for row in range(3):
        ids = tgt.ids[row, : tgt.lengths[row]].tolist()
        expected = explicit_decoder(decoder, config.cell, ids, states[row, : lengths[row]], summary[row])
        assert_equal(features[row, : len(ids)], expected)


SCORES = ["none", "dot", "scaled_dot", "general", "additive"]
VARIANTS = [v for v in product(["lstm", "gru"], SCORES, [False, True], [6, 8]) if not (v[1] == "none" and v[2])]


@torch.no_grad()
@pytest.mark.parametrize(("cell", "score", "feeding", "memory_width"), VARIANTS)
def test_decoder_equals_a_loop_over_cells(cell: Cell, score: str, feeding: bool, memory_width: int) -> None:
    attention = RnnAttentionConfig(score=score)  # type: ignore[arg-type]
    assert_equals_loop(
        RnnDecoderConfig(cell=cell, layers=2, width=8, embedding=5, input_feeding=feeding, attention=attention),
        memory_width,
    )


@torch.no_grad()
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("placement", "feeding"), [("before", True), ("after", True), ("after", False)])
@pytest.mark.parametrize(
    "settings",
    [
        {"score": "additive"}, {"score": "cosine", "heads": 2}, {"coverage": True}, {"selection": "hard"},
        {"scope": "local_m", "window": 1, "normalizer": "sparsemax"},
        {"scope": "local_p", "window": 1, "features": "multi_dimensional", "coverage": True},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)  # fmt: skip
def test_decoder_attends_before_or_after_its_step(
    cell: Cell, placement: str, feeding: bool, settings: dict[str, object]
) -> None:
    """Bahdanau's order, or Luong's, in which what was seen is fed to the next step or not."""
    attention = RnnAttentionConfig.model_validate(settings | {"placement": placement})
    assert_equals_loop(
        RnnDecoderConfig(cell=cell, layers=2, width=8, embedding=5, input_feeding=feeding, attention=attention), 6
    )


@torch.no_grad()
def test_the_alignment_is_the_mean_of_the_heads() -> None:
    torch.manual_seed(4)
    decoder = RnnDecoder(RnnDecoderConfig(width=8, attention=RnnAttentionConfig(heads=4)), VOCABULARY, 8).eval()
    states = torch.randn(2, 3, 8)
    memory, record = Memory(states, torch.tensor([3, 2]), 3, states[:, 0], states), Record()
    decoder(tokens([4, 4]), memory, record)
    assert record["decoder.attention"].shape == (2, 4, 4, 3)
    torch.testing.assert_close(record["alignment"], record["decoder.attention"].mean(1))
    state, seen = decoder.start(memory, 1, 2), Record()
    decoder.step(torch.zeros(2, 2, dtype=torch.long), memory, state, 0, seen)
    assert seen["decoder.attention"].shape == (2, 2, 4, 3)
    torch.testing.assert_close(seen["alignment"], seen["decoder.attention"].mean(2))


@pytest.mark.parametrize("placement", ["before", "after"])
def test_only_luongs_order_feeds_the_attentional_vector(placement: str) -> None:
    attention = RnnAttentionConfig.model_validate({"placement": placement})
    decoder = RnnDecoder(RnnDecoderConfig(width=8, attention=attention), VOCABULARY, 8)
    states = torch.randn(1, 3, 8)
    state = decoder.start(Memory(states, torch.tensor([3]), 3, states[:, 0], states), 5)
    assert ("fed" in state.beams) == decoder.feeds == (placement == "after")


@torch.no_grad()
def test_values_of_their_own_are_what_is_averaged() -> None:
    torch.manual_seed(5)
    config = RnnDecoderConfig(width=8, attention=RnnAttentionConfig(score="dot"), input_feeding=False)
    decoder = RnnDecoder(config, VOCABULARY, 6).double().eval()
    states, values = torch.randn(2, 1, 3, 6, dtype=torch.float64)
    memory = Memory(states, torch.tensor([3]), 3, torch.zeros(1, 6, dtype=torch.float64), values)
    record: Record = {}
    features, _ = decoder(tokens([1]), memory, record)
    query = decoder._run(decoder._known(tokens([1]).ids.t(), memory.summary), decoder._initial(memory.summary))
    context = record["alignment"] @ decoder.attention.bridge(values)
    expected = torch.tanh(torch.cat([context, query], -1) @ decoder.combine.weight.T)
    assert_equal(features, expected)


def test_dropout_between_layers_is_the_same_in_the_loop_and_out_of_it() -> None:
    """With nothing fed back that matters, both ways of running the layers drop what enters the upper one."""
    torch.manual_seed(6)
    results = []
    for feeding in (False, True):
        config = RnnDecoderConfig(layers=2, width=8, dropout=0.5, input_feeding=feeding)
        decoder = RnnDecoder(config, VOCABULARY, 8).double().train()
        for index, module in enumerate(decoder.dropout):
            module.key = (1, index)  # type: ignore[assignment]
        decoder.feature_dropout.key = (2,)
        results.append(decoder)
    plain, fed = results
    state = plain.state_dict()
    columns = torch.zeros(32, 8, dtype=torch.float64)  # the weights of what is fed back
    state["layers.0.weight_ih_l0"] = torch.cat([state["layers.0.weight_ih_l0"], columns], 1)
    fed.load_state_dict(state)
    states = torch.randn(2, 3, 8, dtype=torch.float64)
    memory = Memory(states, torch.tensor([3, 2]), 3, states[:, 0], states)
    assert_equal(fed(tokens([4, 4]), memory)[0], plain(tokens([4, 4]), memory)[0])


def test_an_lstm_begins_by_remembering_and_gates_are_initialised_alone() -> None:
    layer = build_layer("lstm", 16, 8)
    assert isinstance(layer.weight_hh_l0, Tensor)
    assert isinstance(layer.bias_ih_l0, Tensor)
    assert layer.bias_ih_l0.split(8)[1].tolist() == [1.0] * 8
    assert layer.bias_ih_l0.sum().item() == 8.0
    for gate in layer.weight_hh_l0.split(8):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), rtol=0, atol=1e-5)
