"""What must hold for every model, whatever it is made of: each function takes a model and asserts one thing."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from translate.config import DecoderConfig, EncoderConfig, ModelConfig
from translate.models import build_model
from translate.models.seq2seq import Memory, Record, Seq2Seq, Tokens

VOCABULARY = 11
assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-10)


def build(encoder: EncoderConfig, decoder: DecoderConfig) -> Seq2Seq:
    """A model in float64 and evaluation mode, each of whose weights counts."""
    torch.manual_seed(7)
    config = ModelConfig(encoder=encoder, decoder=decoder, tie="none")
    model = build_model(config, VOCABULARY, VOCABULARY + 2).double().eval()
    for parameter in model.parameters():  # nothing may hide behind a bias of zero
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def tokens(lengths: list[int], longest: int | None = None, seed: int = 0) -> Tokens:
    """Random ids, in the padding too: a model may not read them."""
    longest = longest or max(lengths)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (len(lengths), longest), generator=generator)
    return Tokens(ids, torch.tensor(lengths), longest)


def one(batch: Tokens, row: int) -> Tokens:
    """A sentence by itself, without padding."""
    length = int(batch.lengths[row])
    return Tokens(batch.ids[row : row + 1, :length], batch.lengths[row : row + 1], length)


def by_steps(
    model: Seq2Seq, ids: Tensor, memory: Memory, max_len: int, record: list[Record] | None = None
) -> Iterator[Tensor]:
    """Features (B, 1, D) of each step along ids (B, T)."""
    state = model.decoder.start(memory, max_len)
    for time in range(ids.size(1)):
        seen: Record | None = None if record is None else {}
        features, state = model.decoder.step(ids[:, time : time + 1], memory, state, time, seen)
        if record is not None and seen is not None:
            record.append(seen)
        yield features


@torch.no_grad()
def stepping_equals_teacher_forcing(model: Seq2Seq, steps: int = 20) -> None:
    src, tgt = tokens([5, 2, 4]), tokens([steps] * 3, seed=1)
    memory = model.encoder(src)
    at_once, _ = model.decoder(tgt, memory)
    stepped = torch.cat(list(by_steps(model, tgt.ids, memory, 3)), 1)  # caches must outgrow a small guess
    assert_equal(stepped, at_once)


@torch.no_grad()
def beams_go_on_from_their_parents(model: Seq2Seq, steps: int = 7) -> None:
    batch, beam = 3, 3
    generator = torch.Generator().manual_seed(3)
    memory = model.encoder(tokens([5, 2, 4]))
    repeated = memory.keep(torch.arange(batch).repeat_interleave(beam))
    state = model.decoder.start(memory, steps, beam)
    prefixes = torch.empty(batch, beam, 0, dtype=torch.long)
    for time in range(steps):
        token = torch.randint(0, VOCABULARY, (batch, beam), generator=generator)
        prefixes = torch.cat([prefixes, token[:, :, None]], 2)
        features, state = model.decoder.step(token, memory, state, time)
        written = Tokens(prefixes.flatten(0, 1), torch.full((batch * beam,), time + 1), time + 1)
        expected, _ = model.decoder(written, repeated)
        assert_equal(features, expected[:, -1].unflatten(0, (batch, beam)))
        parents = torch.randint(0, beam, (batch, beam), generator=generator)
        state = state.reorder(parents)
        prefixes = prefixes[torch.arange(batch)[:, None], parents]


@torch.no_grad()
def sentences_can_be_dropped(model: Seq2Seq) -> None:
    src, tgt, kept = tokens([5, 2, 4]), tokens([6, 6, 6], seed=1), torch.tensor([2, 0])
    memory = model.encoder(src)
    at_once, _ = model.decoder(tgt, memory)
    state, ids = model.decoder.start(memory, 6), tgt.ids
    for time in range(6):
        if time == 3:
            state, memory, ids, at_once = state.keep(kept), memory.keep(kept), ids[kept], at_once[kept]
        features, state = model.decoder.step(ids[:, time : time + 1], memory, state, time)
        assert_equal(features[:, 0], at_once[:, time])


@torch.no_grad()
def padding_and_neighbours_change_nothing(model: Seq2Seq) -> None:
    src, tgt = tokens([3, 6, 1], longest=8), tokens([4, 2, 7], longest=9, seed=1)
    memory = model.encoder(src)
    features, _ = model.decoder(tgt, memory)
    for row in range(3):
        alone = model.encoder(one(src, row))
        assert_equal(memory.states[row : row + 1, : alone.longest], alone.states)
        assert_equal(memory.values[row : row + 1, : alone.longest], alone.values)
        assert_equal(memory.summary[row : row + 1], alone.summary)
        expected, _ = model.decoder(one(tgt, row), alone)
        assert_equal(features[row : row + 1, : expected.size(1)], expected)


@torch.no_grad()
def the_future_is_invisible(model: Seq2Seq) -> None:
    src, tgt = tokens([4, 3]), tokens([6, 6], seed=1)
    features, _ = model(src, tgt)
    for time in range(6):
        ids = tgt.ids.clone()
        ids[:, time:] = (ids[:, time:] + 1) % VOCABULARY
        changed, _ = model(src, Tokens(ids, tgt.lengths, tgt.longest))
        assert_equal(changed[:, :time], features[:, :time])
        assert not torch.allclose(changed[:, time], features[:, time])


@torch.no_grad()
def recorded_weights_are_the_same_in_both_forms(model: Seq2Seq) -> None:
    src, tgt = tokens([5, 2, 4]), tokens([4, 4, 4], seed=1)
    whole: Record = {}
    memory = model.encoder(src, whole)
    recorded, _ = model.decoder(tgt, memory, whole)
    plain, _ = model.decoder(tgt, memory)
    assert_equal(recorded, plain)
    steps: list[Record] = []
    list(by_steps(model, tgt.ids, memory, 4, steps))
    decoders = {path for path in whole if not path.startswith("encoder.")}
    for time, seen in enumerate(steps):
        assert set(seen) == decoders
        for path, weights in seen.items():
            expected = whole[path][..., time, :]  # (B, S) or (B, H, S)
            if path.endswith("self_attention"):
                expected = expected[..., : time + 1]
            assert_equal(weights[:, 0], expected)


@torch.no_grad()
def recorded_weights_are_shares_of_real_tokens(model: Seq2Seq, whole: bool = True) -> None:
    """They sum to 1, or to at most 1 and more than 0 where they need not be the `whole`; padding has none."""
    src, tgt = tokens([5, 2, 4]), tokens([4, 4, 4], seed=1)
    record: Record = {}
    model(src, tgt, record)
    for path, weights in record.items():
        assert (weights >= 0).all()
        totals = weights.sum(-1)
        if whole or path.endswith("self_attention"):
            assert_equal(totals, torch.ones_like(totals))
        else:
            assert (totals > 0).all()
            assert (totals < 1 + 1e-10).all()
        if not path.startswith("decoder.") or path.endswith("cross_attention"):
            mask = src.mask.view(3, *[1] * (weights.dim() - 2), 5)
            assert (weights.masked_select(~mask.expand_as(weights)) == 0).all()


def gradients_equal_finite_differences(model: Seq2Seq) -> None:
    """In training mode, so with dropout: its masks are a function of the key."""
    model.train()
    src, tgt = tokens([3, 2], longest=4), tokens([3, 4], seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        weights = torch.randn(2, 4, VOCABULARY + 2, generator=generator, dtype=torch.float64)
        weights *= tgt.mask[:, :, None]

    def loss() -> Tensor:
        model.key_randomness(1, 2, 3)
        features, aux = model(src, tgt)
        penalty = (aux["penalty"] * tgt.mask).sum() if "penalty" in aux else 0.0
        return (model.project(features) * weights).sum() + penalty

    loss().backward()
    size = 1e-5
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            parameter.add_(direction, alpha=size)
            above = loss()
            parameter.add_(direction, alpha=-2 * size)
            below = loss()
            parameter.add_(direction, alpha=size)
        along = float((parameter.grad * direction).sum())
        assert along == pytest.approx(float(above - below) / (2 * size), rel=1e-5, abs=1e-6), name


def training_runs_in_bf16(model: Seq2Seq) -> None:
    """Under autocast every path runs forwards and backwards, and every weight has a finite gradient."""
    model.float().train()
    src, tgt = tokens([5, 2, 4]), tokens([4, 3, 4], seed=1)
    model.key_randomness(1, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        features, aux = model(src, tgt)
        loss = model.project(features).float().logsumexp(-1).sum()
    loss = loss + sum(tensor.float().sum() for tensor in aux.values())
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
