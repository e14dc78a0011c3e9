"""Attention against explicit loops over sentences, positions and heads."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from translate.config import AttentionConfig
from translate.models.attention import (
    Additive,
    Attention,
    CrossAttention,
    General,
    MultiHead,
    SelfAttention,
    Visible,
    build_score,
)
from translate.models.loop_matrix import LoopMatrix
from translate.models.seq2seq import Record

assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-12)
B, Q, S, D = 2, 3, 4, 6


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


def explicit_score(name: str, score: object, query: Tensor, memory: Tensor) -> Tensor:
    """The score of one query (D,) and one memory vector (D,), by its formula."""
    if name == "dot":
        return sum((query[i] * memory[i] for i in range(D)), torch.zeros(()))
    if name == "scaled_dot":
        return (query * memory).sum() / math.sqrt(D)
    if name == "general":
        assert isinstance(score, General)
        return query @ (score.key.weight @ memory)
    assert isinstance(score, Additive)
    inner = torch.tanh(score.query.weight @ query + score.key.weight @ memory + score.key.bias)
    return score.v.weight[0] @ inner


@pytest.mark.parametrize("name", ["dot", "scaled_dot", "general", "additive"])
def test_scores_equal_their_formulas(name: str) -> None:
    score = build_score(AttentionConfig(score=name), D).double()  # type: ignore[arg-type]
    if isinstance(score, Additive):
        score.key.bias.data.normal_()
    query, memory = random(B, Q, D), random(B, S, D)
    scores = score(query, score.prepare(memory))
    for b in range(B):
        for q in range(Q):
            for s in range(S):
                expected = explicit_score(name, score, query[b, q], memory[b, s])
                assert_equal(scores[b, q, s], expected)


@pytest.mark.parametrize("name", ["dot", "scaled_dot", "general", "additive"])
def test_context_is_the_average_of_real_values(name: str) -> None:
    attention = Attention(AttentionConfig(score=name), D).double()  # type: ignore[arg-type]
    query, memory, values = random(B, Q, D), random(B, S, D), random(B, S, D)
    lengths = [4, 2]
    mask = torch.arange(S) < torch.tensor(lengths)[:, None]
    keys = attention.prepare(memory)
    context, weights = attention.attend(query, keys, values, Visible.real(mask, torch.float64))
    for b in range(B):
        for q in range(Q):
            scores = [explicit_score(name, attention.score, query[b, q], memory[b, s]).exp() for s in range(lengths[b])]
            expected = torch.zeros(D, dtype=torch.float64)
            for s, exponential in enumerate(scores):
                share = exponential / sum(scores)
                assert_equal(weights[b, q, s], share)
                expected = expected + share * values[b, s]
            assert_equal(context[b, q], expected)
    assert (weights[1, :, 2:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_sentence_without_real_tokens_gets_no_weight(dtype: torch.dtype) -> None:
    mask = torch.tensor([[False, False], [True, False]])
    visible = Visible.real(mask, dtype)
    scores = torch.randn(2, 1, 2).to(dtype).requires_grad_()
    weights = visible.softmax(scores + visible.bias)
    assert weights.tolist() == [[[0.0, 0.0]], [[1.0, 0.0]]]
    weights.sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def explicit_multi_head(
    module: MultiHead, query: Tensor, keys: Tensor, values: Tensor, sees: Tensor
) -> tuple[Tensor, Tensor]:
    """query (Q, D), keys and values (S, D), sees (Q, S) -> output (Q, D), weights (H, Q, S), element by element."""
    width = query.size(-1) // module.heads
    weights = torch.zeros(module.heads, query.size(0), keys.size(0), dtype=torch.float64)
    joined = torch.zeros_like(query)
    for h in range(module.heads):
        part = slice(h * width, (h + 1) * width)
        for q in range(query.size(0)):
            shown = [s for s in range(keys.size(0)) if sees[q, s]]
            scores = [(query[q, part] @ keys[s, part] / math.sqrt(width)).exp() for s in shown]
            for s, exponential in zip(shown, scores, strict=True):
                weights[h, q, s] = exponential / sum(scores)
                joined[q, part] += weights[h, q, s] * values[s, part]
    return joined @ module.output.weight.T + module.output.bias, weights


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_equals_loops(causal: bool) -> None:
    module = SelfAttention(D, 2, 0.0).double()
    module.qkv.bias.normal_()
    x, lengths = random(B, S, D), torch.tensor([4, 3])
    mask = torch.arange(S) < lengths[:, None]
    visible = Visible.past(S, torch.float64, x.device) if causal else Visible.real(mask, torch.float64)
    record: Record = {}
    attended = module(x, visible.heads(2), record, "here")
    for b in range(B):
        q, k, v = (x[b] @ module.qkv.weight.T + module.qkv.bias).split(D, dim=-1)
        sees = torch.ones(S, S, dtype=torch.bool).tril() if causal else mask[b].expand(S, S)
        output, weights = explicit_multi_head(module, q, k, v, sees)
        assert_equal(attended[b], output)
        assert_equal(record["here"][b], weights)


@torch.no_grad()
def test_cross_attention_equals_loops_for_a_memory_of_another_width() -> None:
    module = CrossAttention(D, 5, 3, 0.0).double()
    x, memory, lengths = random(B, Q, D), random(B, S, 5), torch.tensor([2, 4])
    mask = torch.arange(S) < lengths[:, None]
    record: Record = {}
    keys, values = module.prepare(memory)
    attended = module(x, keys, values, Visible.real(mask, torch.float64).heads(3), record, "here")
    for b in range(B):
        q = x[b] @ module.query.weight.T + module.query.bias
        k, v = (memory[b] @ module.key_value.weight.T + module.key_value.bias).split(D, dim=-1)
        output, weights = explicit_multi_head(module, q, k, v, mask[b].expand(Q, S))
        assert_equal(attended[b], output)
        assert_equal(record["here"][b], weights)


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


@pytest.mark.parametrize("batched", [False, True])
def test_a_loop_matrix_has_the_gradients_of_a_plain_one(batched: bool) -> None:
    shape = (B, 5, 7) if batched else (5, 7)
    inputs = [random(B, Q, 5) if batched else random(B, 5) for _ in range(4)]
    found = []
    for wrapped in (False, True):
        generator = torch.Generator().manual_seed(1)
        matrix = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        factor = LoopMatrix(matrix, torch.float64) if wrapped else matrix
        state = inputs[0].clone().requires_grad_()
        h, total = state, torch.zeros((), dtype=torch.float64)
        for x in inputs:
            y = torch.tanh((x + h) @ factor)
            h, total = y[..., :5], total + y.square().sum()
        total.backward()
        found.append((matrix.grad, state.grad))
    assert_equal(found[0], found[1])
