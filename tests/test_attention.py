"""Whole attentions against loops over sentences, heads, outputs, states and features, forwards and backwards."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.attention_by_hand import Attended, attend_by_hand
from tests.choices import SHARED, SIZES, Choice, covering, name_of, valid_choices
from translate.config import AttentionConfig
from translate.models.attention import Attention, Look, linear, of_layers
from translate.models.loop_matrix import LoopMatrix
from translate.models.seq2seq import Memory

assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-10)
B, T, S, D = 2, 3, 4, 4
LENGTHS = [4, 2]
"""The second sentence is shorter than what is written of it."""

PLAIN: Choice = {
    "score": "general",
    "scope": "global",
    "selection": "soft",
    "normalizer": "softmax",
    "features": "scalar",
    "coverage": False,
    "heads": 1,
}
SINGLY = [PLAIN] + [
    PLAIN | {name: value}
    for name, value in [
        *(("scope", name) for name in ("local_m", "local_p")),
        *(("selection", name) for name in ("hard", "gumbel")),
        ("normalizer", "sparsemax"),
        ("features", "multi_dimensional"),
        ("coverage", True),
        ("heads", 2),
    ]
]
CHOICES = {name_of(choice): choice for choice in [*SINGLY, *covering(valid_choices("conv"))]}


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def config_of(choice: Choice) -> AttentionConfig:
    return AttentionConfig.model_validate({name: choice[name] for name in (*SHARED, "coverage")} | SIZES)


def attention_of(choice: Choice, memory_width: int = D) -> Attention:
    """In float64 and evaluation mode, with no weight that is 0."""
    torch.manual_seed(5)
    attention = Attention(config_of(choice), D, memory_width, choice["heads"]).double().eval()
    for parameter in attention.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return attention


def memory_of(width: int, own_values: bool) -> Memory:
    states = random(B, S, width, seed=2).requires_grad_()
    values = random(B, S, width, seed=3).requires_grad_() if own_values else states
    return Memory(states, torch.tensor(LENGTHS), S, states[:, 0], values)


def by_hand(attention: Attention, query: Tensor, memory: Memory) -> Attended:
    """Sentence by sentence, padded again: context (B, T, D), weights (B, H, T, S), penalty (B, T)."""
    parameters = dict(attention.named_parameters())
    found = [
        attend_by_hand(
            attention.config,
            attention.heads,
            parameters,
            query[b],
            memory.states[b, :length],
            memory.values[b, :length],
        )
        for b, length in enumerate(LENGTHS)
    ]
    weights = [nn.functional.pad(one.weights, (0, S - length)) for one, length in zip(found, LENGTHS, strict=True)]
    return Attended(
        torch.stack([one.context for one in found]), torch.stack(weights), torch.stack([one.penalty for one in found])
    )


def totals(look: Look | Attended, penalty: Tensor) -> Tensor:
    """One number in which all that attention gives has its share."""
    weights = look.weights.view(B, -1, T, S)
    against = [random(*tensor.shape, seed=9) for tensor in (look.context, weights, penalty)]
    return (look.context * against[0]).sum() + (weights * against[1]).sum() + (penalty * against[2]).sum()


def gradients(total: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    """Zeros for what the total does not depend on."""
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return [torch.zeros_like(tensor) if grad is None else grad for grad, tensor in zip(found, wanted, strict=True)]


@pytest.mark.parametrize("own", [False, True], ids=["states", "values"])
@pytest.mark.parametrize("name", CHOICES)
def test_attention_and_its_gradients_equal_loops(name: str, own: bool) -> None:
    """With the states as values in the width of the query, and with values of their own in another."""
    choice = CHOICES[name]
    width = 5 if own else D
    attention, query, memory = attention_of(choice, width), random(B, T, D).requires_grad_(), memory_of(width, own)
    look = attention.attend_all(query, attention.prepare(memory))
    expected = by_hand(attention, query, memory)
    assert_equal(look.context, expected.context)
    assert_equal(look.weights.view(B, -1, T, S), expected.weights)
    assert set(look.aux) == ({"penalty"} if choice["coverage"] else set())
    penalty = look.aux.get("penalty", torch.zeros(B, T, dtype=torch.float64))
    assert_equal(penalty, expected.penalty)
    wanted = [query, memory.states, *([memory.values] if own else []), *attention.parameters()]
    ours, theirs = gradients(totals(look, penalty), wanted), gradients(totals(expected, expected.penalty), wanted)
    for one, other in zip(ours, theirs, strict=True):
        assert_equal(one, other)


def test_covered_grows_by_the_weights_and_repetition_is_penalised() -> None:
    """What See et al. (2017) have as formulas 10 and 12."""
    attention, query, memory = attention_of(PLAIN | {"coverage": True}), random(B, T, D), memory_of(D, False)
    look = attention.attend_all(query, attention.prepare(memory))
    covered = torch.zeros(B, S, dtype=torch.float64)
    for t in range(T):
        again = torch.minimum(look.weights[:, t], covered).sum(-1) * attention.config.coverage_weight
        assert_equal(look.aux["penalty"][:, t], again)
        covered = covered + look.weights[:, t]
    assert look.covered is not None
    assert_equal(look.covered.squeeze(1), covered)
    assert (look.aux["penalty"][:, 0] == 0).all()
    assert (look.aux["penalty"][:, 1:] > 0).all()


@pytest.mark.parametrize("heads", [1, 2])
def test_a_step_of_each_hypothesis_equals_all_at_once(heads: int) -> None:
    """Hypotheses of one sentence have each a coverage of their own."""
    attention, memory = attention_of(PLAIN | {"coverage": True, "heads": heads}), memory_of(D, False)
    queries = random(B, 2, T, D)  # two hypotheses
    state = attention.start(memory, 2, "x.")
    looks = [attention.step(queries[:, :, t], state, "x.", t) for t in range(T)]
    for beam in range(2):
        whole = attention.attend_all(queries[:, beam], attention.prepare(memory))
        for t, look in enumerate(looks):
            assert_equal(look.context[:, beam], whole.context[:, t])
            assert_equal(look.weights[:, beam], whole.weights[..., t, :])


class Halve(nn.Module):
    """Stands where dropout stands, to show the place."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


@torch.no_grad()
@pytest.mark.parametrize("features", ["scalar", "multi_dimensional"])
def test_dropout_is_on_the_weights_that_mix_and_not_on_those_that_are_shown(features: str) -> None:
    attention = attention_of(PLAIN | {"features": features, "coverage": True})
    query, memory = random(B, T, D), memory_of(D, False)
    plain = attention.attend_all(query, attention.prepare(memory))
    attention.dropout = Halve()  # type: ignore[assignment]
    halved = attention.attend_all(query, attention.prepare(memory))
    assert_equal(halved.context, plain.context / 2)
    assert_equal(halved.weights, plain.weights)
    assert_equal(halved.aux["penalty"], plain.aux["penalty"])


@torch.no_grad()
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_a_sentence_without_words_gives_no_context(choice: Choice) -> None:
    """Search and batches never hold one; should one come up all the same, nothing becomes not-a-number."""
    attention, query = attention_of(choice | {"heads": 1}), random(1, T, D)
    states = random(1, S, D, seed=2)
    look = attention.attend_all(query, attention.prepare(Memory(states, torch.tensor([0]), S, states[:, 0], states)))
    assert_equal(look.weights, torch.zeros(1, T, S, dtype=torch.float64))
    assert_equal(look.context, torch.zeros(1, T, D, dtype=torch.float64))


def test_what_layers_tell_the_loss() -> None:
    """Penalties are added, choices keep a baseline each."""
    auxes = [{name: torch.full((2, 3), number) for name in ("choice", "baseline", "penalty")} for number in (1.0, 4.0)]
    found = of_layers(auxes)
    assert found["penalty"].tolist() == [[5.0] * 3] * 2
    assert found["choice"].tolist() == found["baseline"].tolist() == [[[1.0, 4.0]] * 3] * 2
    assert of_layers([{}, {}]) == {}


def test_projections_in_one_matrix_are_initialised_one_by_one() -> None:
    torch.manual_seed(0)
    both = linear(64, 64, parts=3)
    bound = (6 / 128) ** 0.5
    for part in both.weight.chunk(3):
        assert 0.95 * bound < part.abs().max().item() <= bound
    assert (both.bias == 0).all()
    assert linear(4, 4, bias=False).bias is None


@pytest.mark.parametrize("batched", [False, True])
def test_a_loop_matrix_has_the_gradients_of_a_plain_one(batched: bool) -> None:
    shape = (B, 5, 7) if batched else (5, 7)
    inputs = [random(B, T, 5, seed=i) if batched else random(B, 5, seed=i) for i in range(4)]
    found = []
    for wrapped in (False, True):
        matrix = random(*shape, seed=8).requires_grad_()
        factor = LoopMatrix(matrix, torch.float64) if wrapped else matrix
        state = inputs[0].clone().requires_grad_()
        h, total = state, torch.zeros((), dtype=torch.float64)
        for x in inputs:
            y = torch.tanh((x + h) @ factor)
            h, total = y[..., :5], total + y.square().sum()
        total.backward()
        found.append((matrix.grad, state.grad))
    assert_equal(found[0], found[1])
