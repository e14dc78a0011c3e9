"""The variable-length attention of PyTorch, with a kernel in plain steps where it has one for GPUs alone.

What is between our model and that kernel is the real thing: the operator, its gradient, its shapes for the compiler.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from tests.test_loss import PAIRS, batch
from tests.test_packed import CPU, model
from translate.models import spans
from translate.training.loss import Objective, TensorBatch

Batches = list[list[tuple[list[int], list[int]]]]


def sentences(starts: Tensor) -> Iterator[slice]:
    return (slice(start, end) for start, end in pairwise(starts.tolist()))


def weights_of(query: Tensor, keys: Tensor, scale: float, causal: bool) -> Tensor:
    """(Q, H, d), (K, H, d) -> (H, Q, K)."""
    scores = torch.einsum("qhd,khd->hqk", query, keys) * scale
    past = torch.ones_like(scores[0], dtype=torch.bool).tril()
    return scores.masked_fill(~past, -torch.inf).softmax(-1) if causal else scores.softmax(-1)


def check(starts: Tensor, longest: int, count: int, window: tuple[int, int], causal: bool) -> None:
    """What the kernel of a GPU relies on without looking."""
    assert starts.dtype == torch.int32
    assert starts[0] == 0
    assert starts[-1] == count
    assert starts.diff().min() >= 1
    assert starts.diff().max() <= longest
    assert window == ((-1, 0) if causal else (-1, -1))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Both directions in plain steps; the calls so far."""
    calls: list[str] = []

    def forth(query: Tensor, keys: Tensor, values: Tensor, of: Tensor, to: Tensor, *rest: Any, **named: Any) -> Any:
        calls.append("forth")
        most_q, most_k, dropout, causal = rest
        window = named["window_size_left"], named["window_size_right"]
        check(of, most_q, len(query), window, causal)
        check(to, most_k, len(keys), window, causal)
        assert (dropout, len(of)) == (0, len(to))
        out = torch.empty_like(query)
        for mine, theirs in zip(sentences(of), sentences(to), strict=True):
            weights = weights_of(query[mine], keys[theirs], named["scale"], causal)
            out[mine] = torch.einsum("hqk,khd->qhd", weights, values[theirs])
        return out, query.new_zeros(query.size(1), len(query), dtype=torch.float), None, None, None

    def back(of_out: Tensor, query: Tensor, keys: Tensor, values: Tensor, *rest: Any, **named: Any) -> Any:
        """With P the weights and o the gradient of the output: v gets P' o, and the scores P (o v' - sum(P o v'))."""
        calls.append("back")
        (of, to), causal, scale = rest[2:4], rest[7], named["scale"]
        of_query, of_keys, of_values = (torch.empty_like(tensor) for tensor in (query, keys, values))
        for mine, theirs in zip(sentences(of), sentences(to), strict=True):
            weights = weights_of(query[mine], keys[theirs], scale, causal)
            of_values[theirs] = torch.einsum("hqk,qhd->khd", weights, of_out[mine])
            of_weights = torch.einsum("qhd,khd->hqk", of_out[mine], values[theirs])
            of_scores = scale * weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True))
            of_query[mine] = torch.einsum("hqk,khd->qhd", of_scores, keys[theirs])
            of_keys[theirs] = torch.einsum("hqk,qhd->khd", of_scores, query[mine])
        return of_query, of_keys, of_values

    monkeypatch.setattr(spans, "kernel_takes", lambda _: True)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", forth)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_backward", back)
    return calls


def learnt(objective: Objective, pairs: list[tuple[list[int], list[int]]], *, packed: bool) -> list[Tensor]:
    """The loss and all gradients."""
    loss, _ = objective(TensorBatch.of(batch(pairs), CPU, packed))
    return [loss, *torch.autograd.grad(loss, list(objective.model.parameters()))]


def test_the_kernel_is_given_what_padded_attention_sees(kernel: list[str]) -> None:
    objective = Objective(model(), 0.1).train()
    packed = learnt(objective, PAIRS, packed=True)
    assert kernel == ["forth"] * 6 + ["back"] * 6  # two layers: within each side, and across
    torch.testing.assert_close(packed, learnt(objective, PAIRS, packed=False), rtol=0, atol=1e-10)


def test_with_it_the_model_is_still_one_graph(kernel: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    counter, compiler = CompileCounterWithBackend("aot_eager"), torch.compile

    def counted(function: Any, dynamic: bool) -> Any:
        return compiler(function, dynamic=dynamic, backend=counter, fullgraph=True)

    monkeypatch.setattr(torch, "compile", counted)
    torch._dynamo.reset()  # of what other tests compiled
    seq2seq = model(layers=1)
    compiled, plain = Objective(seq2seq, 0.1, compiled=True).train(), Objective(seq2seq, 0.1).train()
    long = [([5] * 300 + [2], [6] * 40), ([4, 2], [7] * 280)]
    texts: Batches = [PAIRS, PAIRS[:2], PAIRS * 21, long, PAIRS[1:] * 7]
    graphs = []
    for pairs in texts:
        found = learnt(compiled, pairs, packed=True)
        torch.testing.assert_close(found, learnt(plain, pairs, packed=False), rtol=0, atol=1e-10)
        graphs.append(counter.frame_count)
    assert kernel.count("forth") == kernel.count("back") == 3 * len(texts)
    assert 1 <= graphs[0] == graphs[-1]
