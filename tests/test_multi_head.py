"""The Transformer's attention against loops over heads, positions and keys, and against `Attention` itself."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from translate.config import CrossAttentionConfig
from translate.models.attention import Attention
from translate.models.multi_head import (
    AnyCrossAttention,
    CrossAttention,
    MultiHead,
    SelfAttention,
    build_cross_attention,
)
from translate.models.scope import Visible
from translate.models.seq2seq import Memory, Record

assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-12)
B, Q, S, D = 2, 3, 4, 6


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


def memory_of(states: Tensor, lengths: list[int]) -> Memory:
    return Memory(states, torch.tensor(lengths), states.size(1), states[:, 0], states)


def explicit_multi_head(
    module: MultiHead, query: Tensor, keys: Tensor, values: Tensor, sees: Tensor
) -> tuple[Tensor, Tensor]:
    """query (Q, D), keys and values (S, D), sees (Q, S) -> output (Q, D), weights (H, Q, S), element by element."""
    width, zero = query.size(-1) // module.heads, torch.zeros((), dtype=torch.float64)
    heads, rows = [], []
    for h in range(module.heads):
        part = slice(h * width, (h + 1) * width)
        contexts = []
        for q in range(query.size(0)):
            shown = [s for s in range(keys.size(0)) if sees[q, s]]
            scores = {s: (query[q, part] @ keys[s, part] / math.sqrt(width)).exp() for s in shown}
            shares = [scores[s] / sum(scores.values()) if s in scores else zero for s in range(keys.size(0))]
            contexts.append(sum((shares[s] * values[s, part] for s in shown), torch.zeros(width, dtype=torch.float64)))
            rows.append(torch.stack(shares))
        heads.append(torch.stack(contexts))
    output = torch.cat(heads, 1) @ module.output.weight.T + module.output.bias
    return output, torch.stack(rows).view(module.heads, query.size(0), keys.size(0))


def assert_same_gradients(module: MultiHead, inputs: list[Tensor], found: Tensor, expected: Tensor) -> None:
    wanted, against = [*inputs, *module.parameters()], random(*found.shape)
    ours = torch.autograd.grad((found * against).sum(), wanted)
    theirs = torch.autograd.grad((expected * against).sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_equals_loops(causal: bool) -> None:
    module = SelfAttention(D, 2, 0.0).double()
    module.qkv.bias.data.normal_()
    module.output.bias.data.normal_()
    x, lengths = random(B, S, D).requires_grad_(), torch.tensor([4, 3])
    mask = torch.arange(S) < lengths[:, None]
    visible = Visible.past(S, torch.float64, x.device) if causal else Visible.real(mask, torch.float64)
    record: Record = {}
    attended = module(x, visible.heads(2), record, "here")
    outputs = []
    for b in range(B):
        q, k, v = (x[b] @ module.qkv.weight.T + module.qkv.bias).split(D, dim=-1)
        sees = torch.ones(S, S, dtype=torch.bool).tril() if causal else mask[b].expand(S, S)
        output, weights = explicit_multi_head(module, q, k, v, sees)
        assert_equal(record["here"][b], weights)
        outputs.append(output)
    assert_equal(attended, torch.stack(outputs))
    assert_same_gradients(module, [x], attended, torch.stack(outputs))


def test_cross_attention_equals_loops_for_a_memory_of_another_width() -> None:
    module = CrossAttention(D, 5, 3, 0.0).double()
    module.key_value.bias.data.normal_()
    x, states, lengths = random(B, Q, D).requires_grad_(), random(B, S, 5).requires_grad_(), [2, 4]
    memory = memory_of(states, lengths)
    record: Record = {}
    attended, aux = module(x, memory, Visible.real(memory.mask, torch.float64).heads(3), record, "here")
    assert aux == {}
    outputs = []
    for b in range(B):
        q = x[b] @ module.query.weight.T + module.query.bias
        k, v = (states[b] @ module.key_value.weight.T + module.key_value.bias).split(D, dim=-1)
        output, weights = explicit_multi_head(module, q, k, v, memory.mask[b].expand(Q, S))
        assert_equal(record["here"][b], weights)
        outputs.append(output)
    assert_equal(attended, torch.stack(outputs))
    assert_same_gradients(module, [x, states], attended, torch.stack(outputs))


@torch.no_grad()
def test_the_fused_kernel_computes_the_same() -> None:
    """The body that a GPU runs, run here."""
    module = SelfAttention(D, 2, 0.0).double()
    query, keys, values = random(B * 2, S, 3), random(B * 2, S, 3), random(B * 2, S, 3)
    masked = Visible.real(torch.arange(S) < torch.tensor([4, 0])[:, None], torch.float64).heads(2)
    for visible in (masked, Visible.past(S, torch.float64, query.device)):
        biased = torch.baddbmm(visible.bias, query, keys.transpose(1, 2), alpha=3**-0.5)
        expected = visible.softmax(biased) @ values
        assert_equal(module._fused(query, keys, values, visible), expected)


@pytest.mark.parametrize("heads", [2, 3])
def test_the_fast_kind_and_the_general_one_are_the_same(heads: int) -> None:
    """With copied weights: outputs, recorded weights, gradients, and step by step."""
    fast = CrossAttention(D, 5, heads, 0.0).double()
    general = AnyCrossAttention(CrossAttentionConfig(), D, 5, heads, 0.0).double()
    for parameter in fast.parameters():
        parameter.data.normal_()
    attention = general.attention
    key, value = fast.key_value.weight.data.chunk(2)
    key_bias, value_bias = fast.key_value.bias.data.chunk(2)
    attention.load_state_dict(
        {
            **{f"query.{name}": tensor for name, tensor in fast.query.state_dict().items()},
            **{f"output.{name}": tensor for name, tensor in fast.output.state_dict().items()},
            "key.weight": key, "key.bias": key_bias, "value.weight": value, "value.bias": value_bias,
        }
    )  # fmt: skip
    x, states = random(B, Q, D).requires_grad_(), random(B, S, 5).requires_grad_()
    memory = memory_of(states, [4, 2])
    visible = Visible.real(memory.mask, torch.float64).heads(heads)
    against, found = random(B, Q, D), []
    for module in (fast, general):
        record: Record = {}
        attended, _ = module(x, memory, visible, record, "here")
        gradients = torch.autograd.grad((attended * against).sum(), [x, states])
        state, steps = module.start(memory, 2, "x."), []
        for time in range(Q):
            seen: Record = {}
            both = x[:, time : time + 1].expand(-1, 2, -1)  # two hypotheses
            steps.append((module.step(both, state, "x.", visible, time, seen, "here"), seen["here"]))
            assert_equal(steps[-1][1][:, 1], record["here"][:, :, time])
            assert_equal(steps[-1][0][:, 1], attended[:, time])
        found.append((attended, record["here"], gradients, steps))
    assert_equal(found[0], found[1])


def test_one_head_records_its_dimension_all_the_same() -> None:
    module = AnyCrossAttention(CrossAttentionConfig(score="additive"), D, D, 1, 0.0).double()
    memory, record = memory_of(random(B, S, D), [4, 2]), Record()
    visible = Visible.real(memory.mask, torch.float64)
    module(random(B, Q, D), memory, visible, record, "all")
    module.step(random(B, 2, D), module.start(memory, 2, ""), "", visible, 0, record, "step")
    assert record["all"].shape == (B, 1, Q, S)
    assert record["step"].shape == (B, 2, 1, S)


def test_the_general_kind_is_built_only_where_it_is_asked_for() -> None:
    def built(**settings: object) -> type:
        return type(build_cross_attention(CrossAttentionConfig.model_validate(settings), D, D, 2, 0.0))

    assert built() is CrossAttention
    assert built(score="scaled_dot") is CrossAttention
    for settings in (
        {"score": "dot"}, {"scope": "local_m"}, {"selection": "gumbel"}, {"normalizer": "sparsemax"},
        {"features": "multi_dimensional"}, {"coverage": True},
    ):  # fmt: skip
        assert built(**settings) is AnyCrossAttention


def test_projections_are_initialised_one_by_one() -> None:
    """Queries, keys and values share a matrix but not the bound of their uniform distribution."""
    attention = SelfAttention(64, 4, 0.0)
    bound = math.sqrt(6 / 128)
    for part in attention.qkv.weight.chunk(3):
        assert 0.95 * bound < part.abs().max().item() <= bound
    heads = Attention(CrossAttentionConfig(), 64, 32, 4)
    assert 0.95 * bound < heads.query.weight.abs().max().item() <= bound
