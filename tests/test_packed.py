"""Sequences end to end: the same numbers as with padding, and nothing leaks from one to the next."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.test_loss import PAIRS, batch
from translate.config import ModelConfig
from translate.device import Machine
from translate.models import build_model
from translate.models.seq2seq import Seq2Seq, Tokens
from translate.models.spans import FILLED_TO, Spans, packed, unpacked
from translate.training.loss import Objective, TensorBatch, packs

CPU = torch.device("cpu")
PART = {"kind": "transformer", "layers": 2, "width": 8, "heads": 2, "feed_forward": 16, "dropout": 0.0}


def model(**changes: object) -> Seq2Seq:
    torch.manual_seed(3)
    part = PART | changes
    return build_model(ModelConfig.model_validate({"encoder": part, "decoder": part}), 11, 11).double()


def layout(lengths: list[int]) -> Tokens:
    counts = torch.tensor(lengths)
    rows = torch.arange(len(lengths)).repeat_interleave(counts)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    places = torch.arange(int(counts.sum())) - offsets[rows]
    return Tokens(torch.zeros(len(rows)), counts, max(lengths), offsets.int(), rows, places)


def by_sentence(query: Tensor, keys: Tensor, values: Tensor, q: list[int], k: list[int], causal: bool) -> Tensor:
    """softmax(q k / sqrt(d)) v, one sentence, head and query after another."""
    out, at_q, at_k = torch.zeros_like(query), 0, 0
    for length, size in zip(q, k, strict=True):
        for t in range(length):
            for head in range(query.size(1)):
                seen = slice(at_k, at_k + (t + 1 if causal else size))
                scores = keys[seen, head] @ query[at_q + t, head] / math.sqrt(query.size(2))
                out[at_q + t, head] = scores.softmax(0) @ values[seen, head]
        at_q, at_k = at_q + length, at_k + size
    return out


@pytest.mark.parametrize(("q", "k", "causal"), [([3, 1, 4], [2, 5, 1], False), ([3, 1, 4], [3, 1, 4], True)])
def test_attention_stays_within_its_sentence(q: list[int], k: list[int], causal: bool) -> None:
    torch.manual_seed(1)
    query = torch.randn(sum(q), 2, 4, dtype=torch.float64)
    keys, values = torch.randn(2, sum(k), 2, 4, dtype=torch.float64)
    found = Spans(layout(q), layout(k), causal).attend(query, keys, values, 0.5)
    torch.testing.assert_close(found, by_sentence(query, keys, values, q, k, causal))


def test_packing_and_back() -> None:
    of = layout([2, 3, 1])
    x = torch.arange(12.0).view(6, 2)
    block = unpacked(x, of)
    assert block.shape == (3, 3, 2)
    assert block[0, 2].tolist() == block[2, 1].tolist() == [0, 0]
    assert torch.equal(packed(block, of), x)


def test_a_batch_is_laid_end_to_end() -> None:
    given = TensorBatch.of(batch(PAIRS), CPU, packed=True)
    flat = [4, 5, 2, 9, 2, 4, 4, 4, 4, 2, 3, 2]
    assert given.src.ids.tolist() == flat + [0] * (FILLED_TO - len(flat))
    assert given.src.offsets is not None
    assert given.src.offsets.tolist() == [0, 3, 5, 10, 12, FILLED_TO]
    assert given.src.places is not None
    assert given.src.places[:12].tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3, 4, 0, 1]
    assert given.tgt_in.ids[: given.tokens].tolist() == [1, 6, 7, 8, 1, 4, 1, 5, 5, 10, 10, 4, 1]
    assert given.tgt_out.tolist() == [6, 7, 8, 2, 4, 2, 5, 5, 10, 10, 4, 2, 2]
    assert given.src.places[12:].count_nonzero() == 0
    assert given.src.longest == 5  # what fills up is not counted


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
def test_packed_equals_padded(norm: str, positions: str) -> None:
    results = []
    for together in (False, True):
        seq2seq = model(norm=norm, positions=positions)
        assert seq2seq.reads_packed
        objective = Objective(seq2seq, 0.1).train()
        seq2seq.key_randomness(1, 1, 0)
        loss, tokens = objective(TensorBatch.of(batch(PAIRS), CPU, packed=together))
        assert tokens == 13
        results.append((loss, torch.autograd.grad(loss, list(seq2seq.parameters()))))
    torch.testing.assert_close(*results, rtol=0, atol=1e-10)


@pytest.mark.parametrize("short", [0, 1], ids=["source", "target"])
def test_a_side_that_needs_no_filling_goes_with_one_that_does(short: int) -> None:
    """Both sides have one more sentence, whatever their lengths: attention takes them two by two."""
    full = [4, 5, 6, 2] if short else [4, 5, 6]  # four tokens of either side, 256 in all
    pairs = [([3, 2], full) if short == 0 else (full, [9])] * (FILLED_TO // 4)
    given = TensorBatch.of(batch(pairs), CPU, packed=True)
    assert given.src.offsets is not None
    assert given.tgt_in.offsets is not None
    assert given.src.offsets.shape == given.tgt_in.offsets.shape == (len(pairs) + 2,)
    assert min(given.src.lengths[-1], given.tgt_in.lengths[-1]) > 0  # to look at nothing is no number for some kernels
    results = []
    for together in (False, True):
        seq2seq = model()
        loss, _ = Objective(seq2seq, 0.1)(TensorBatch.of(batch(pairs), CPU, packed=together))
        results.append((loss, torch.autograd.grad(loss, list(seq2seq.parameters()))))
    torch.testing.assert_close(*results, rtol=0, atol=1e-10)


def test_what_fills_up_needs_no_positions_of_its_own() -> None:
    """Learned positions end with the longest sentence; 243 tokens that fill up must not ask for more."""
    seq2seq = model(positions="learned", max_positions=7)
    loss, _ = Objective(seq2seq, 0.1)(TensorBatch.of(batch(PAIRS), CPU, packed=True))
    again, _ = Objective(seq2seq, 0.1)(TensorBatch.of(batch(PAIRS), CPU))
    torch.testing.assert_close(loss, again)


def test_the_summary_is_the_same() -> None:
    seq2seq = model().eval()
    one, other = (seq2seq.encoder(TensorBatch.of(batch(PAIRS), CPU, packed=p).src) for p in (False, True))
    torch.testing.assert_close(other.summary[: len(PAIRS)], one.summary)
    states = [state for row, length in zip(one.states, one.lengths, strict=True) for state in row[:length]]
    torch.testing.assert_close(other.states[: len(states)], torch.stack(states))


def test_nothing_to_learn_is_no_loss() -> None:
    seq2seq = model()
    idle = batch(PAIRS[:1]).idle()
    assert np.count_nonzero(idle.tgt_lengths) == 0
    for together in (False, True):
        seq2seq.key_randomness(1, 1, 0)
        loss, tokens = Objective(seq2seq, 0.1).train()(TensorBatch.of(idle, CPU, packed=together))
        assert (loss.item(), tokens) == (0, 0)
        gradients = torch.autograd.grad(loss, list(seq2seq.parameters()))
        assert all(gradient.abs().sum() == 0 for gradient in gradients)  # and each is there, for ranks to exchange


@pytest.mark.parametrize(
    ("capability", "width", "heads", "taken"),
    [
        ((8, 0), 32, 4, True),
        ((9, 0), 192, 1, True),
        ((7, 5), 32, 4, False),
        ((8, 0), 40, 2, False),
        ((8, 0), 200, 1, False),
    ],
    ids=["narrow", "wide", "an old card", "not a multiple of 8", "too wide"],
)
def test_the_kernel_takes_some_cards_and_heads(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], width: int, heads: int, taken: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    machine = Machine("cuda", "bf16", 1, "highest")
    assert packs(model(width=width, heads=heads), machine) is taken
    assert not packs(model(width=width, heads=heads), replace(machine, precision="fp32"))


def test_what_needs_weights_or_neighbours_is_padded() -> None:
    assert not model(attention_dropout=0.1).reads_packed
    config = {"encoder": PART, "decoder": PART | {"attention": {"score": "additive"}}}
    assert not build_model(ModelConfig.model_validate(config), 11, 11).reads_packed
    rnn = {"kind": "rnn", "width": 8}
    for config in ({"encoder": rnn, "decoder": PART}, {"encoder": PART, "decoder": rnn}):
        assert not build_model(ModelConfig.model_validate(config), 11, 11).reads_packed
