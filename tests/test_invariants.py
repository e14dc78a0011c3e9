"""What must hold for every encoder with every decoder, in float64."""

from collections.abc import Iterator
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

from translate.config import (
    AttentionConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    RnnDecoderConfig,
    RnnEncoderConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
)
from translate.models import build_model
from translate.models.seq2seq import Memory, Record, Seq2Seq, Tokens

VOCABULARY = 11
assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-10)

ENCODERS: dict[str, EncoderConfig] = {
    "lstm": RnnEncoderConfig(width=8, dropout=0.3),
    "gru-2-forward": RnnEncoderConfig(cell="gru", layers=2, width=6, embedding=5, bidirectional=False, dropout=0.3),
    "pre": TransformerEncoderConfig(layers=2, width=8, heads=2, feed_forward=12, dropout=0.3),
    "post": TransformerEncoderConfig(
        layers=1,
        width=12,
        heads=3,
        feed_forward=10,
        norm="post",
        activation="gelu",
        positions="learned",
        max_positions=9,
    ),
}

DECODERS: dict[str, DecoderConfig] = {
    "lstm-2-general-feeding": RnnDecoderConfig(layers=2, width=8, embedding=5, dropout=0.3),
    "lstm-2-dot": RnnDecoderConfig(layers=2, width=8, input_feeding=False, attention=AttentionConfig(score="dot")),
    "lstm-additive": RnnDecoderConfig(width=8, input_feeding=False, attention=AttentionConfig(score="additive")),
    "lstm-none": RnnDecoderConfig(width=8, embedding=5, input_feeding=False, attention=AttentionConfig(score="none")),
    "gru-2-additive-feeding": RnnDecoderConfig(
        cell="gru", layers=2, width=8, dropout=0.3, attention=AttentionConfig(score="additive")
    ),
    "gru-scaled-feeding": RnnDecoderConfig(cell="gru", width=6, attention=AttentionConfig(score="scaled_dot")),
    "gru-2-none": RnnDecoderConfig(
        cell="gru", layers=2, width=8, input_feeding=False, attention=AttentionConfig(score="none")
    ),
    "pre": TransformerDecoderConfig(layers=1, width=8, heads=2, feed_forward=12, dropout=0.3),
    "post": TransformerDecoderConfig(
        layers=2,
        width=12,
        heads=3,
        feed_forward=10,
        norm="post",
        activation="gelu",
        positions="learned",
        max_positions=30,
        attention_dropout=0.2,
        activation_dropout=0.2,
    ),
}

PAIRS = list(product(ENCODERS, DECODERS))


@pytest.fixture(params=PAIRS, ids=["+".join(pair) for pair in PAIRS])
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    encoder, decoder = request.param
    torch.manual_seed(7)
    config = ModelConfig(encoder=ENCODERS[encoder], decoder=DECODERS[decoder], tie="none")
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
def test_stepping_equals_teacher_forcing(model: Seq2Seq) -> None:
    src, tgt = tokens([5, 2, 4]), tokens([20, 20, 20], seed=1)
    memory = model.encoder(src)
    at_once, _ = model.decoder(tgt, memory)
    stepped = torch.cat(list(by_steps(model, tgt.ids, memory, 3)), 1)  # caches must outgrow a small guess
    assert_equal(stepped, at_once)


@torch.no_grad()
def test_beams_go_on_from_their_parents(model: Seq2Seq) -> None:
    batch, beam, steps = 3, 3, 7
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
def test_sentences_can_be_dropped(model: Seq2Seq) -> None:
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
def test_padding_and_neighbours_change_nothing(model: Seq2Seq) -> None:
    src, tgt = tokens([3, 6, 1], longest=8), tokens([4, 2, 7], longest=9, seed=1)
    memory = model.encoder(src)
    features, _ = model.decoder(tgt, memory)
    for row in range(3):
        alone = model.encoder(one(src, row))
        assert_equal(memory.states[row : row + 1, : alone.longest], alone.states)
        assert_equal(memory.summary[row : row + 1], alone.summary)
        expected, _ = model.decoder(one(tgt, row), alone)
        assert_equal(features[row : row + 1, : expected.size(1)], expected)


@torch.no_grad()
def test_the_future_is_invisible(model: Seq2Seq) -> None:
    src, tgt = tokens([4, 3]), tokens([6, 6], seed=1)
    features, _ = model(src, tgt)
    for time in range(6):
        ids = tgt.ids.clone()
        ids[:, time:] = (ids[:, time:] + 1) % VOCABULARY
        changed, _ = model(src, Tokens(ids, tgt.lengths, tgt.longest))
        assert_equal(changed[:, :time], features[:, :time])
        assert not torch.allclose(changed[:, time], features[:, time])


@torch.no_grad()
def test_source_and_its_every_word_matter(model: Seq2Seq) -> None:
    src, tgt = tokens([4, 4]), tokens([3, 3], seed=1)
    features, _ = model(src, tgt)
    for place in range(4):
        ids = src.ids.clone()
        ids[:, place] = (ids[:, place] + 1) % VOCABULARY
        changed, _ = model(Tokens(ids, src.lengths, src.longest), tgt)
        assert ((changed - features).abs().amax((1, 2)) > 1e-8).all()


def test_gradients_equal_finite_differences(model: Seq2Seq) -> None:
    """In training mode, so with dropout: its masks are a function of the key."""
    model.train()
    src, tgt = tokens([3, 2], longest=4), tokens([3, 4], seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        weights = torch.randn(2, 4, VOCABULARY + 2, generator=generator, dtype=torch.float64)
        weights *= tgt.mask[:, :, None]

    def loss() -> Tensor:
        model.key_randomness(1, 2, 3)
        features, _ = model(src, tgt)
        return (model.project(features) * weights).sum()

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


@torch.no_grad()
def test_recorded_weights_are_the_same_in_both_forms(model: Seq2Seq) -> None:
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
def test_recorded_weights_are_distributions_over_real_tokens(model: Seq2Seq) -> None:
    src, tgt = tokens([5, 2, 4]), tokens([4, 4, 4], seed=1)
    record: Record = {}
    model(src, tgt, record)
    kinds = (type(model.encoder).__name__, type(model.decoder).__name__)
    layers = [f"encoder.layers.{i}.self_attention" for i in range(9) if kinds[0] == "TransformerEncoder"]
    attends = getattr(model.decoder, "attends", True)
    assert ("alignment" in record) == attends
    assert {path for path in record if path.startswith("encoder.")} <= set(layers)
    for path, weights in record.items():
        assert_equal(weights.sum(-1), torch.ones_like(weights.sum(-1)))
        if not path.startswith("decoder.") or path.endswith("cross_attention"):
            mask = src.mask.view(3, *[1] * (weights.dim() - 2), 5)
            assert (weights.masked_select(~mask.expand_as(weights)) == 0).all()


def test_bf16_training_follows_fp32(model: Seq2Seq) -> None:
    """Under autocast every path runs, forwards and backwards, and stays near what fp32 computes."""
    model.float()
    src, tgt = tokens([5, 2, 4]), tokens([4, 3, 4], seed=1)
    results = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            features, _ = model(src, tgt)
            loss = model.project(features).float().logsumexp(-1).sum()
        loss.backward()
        norms = [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
        results.append((features.detach().float(), torch.tensor(norms)))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=0.05, atol=0.1)
    torch.testing.assert_close(results[1][1].norm(), results[0][1].norm(), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("tie", ["all", "decoder", "none"])
def test_tied_matrices_are_one_parameter(tie: str) -> None:
    config = ModelConfig(
        encoder=RnnEncoderConfig(width=8),
        decoder=TransformerDecoderConfig(width=8, heads=2, layers=1),
        tie=tie,  # type: ignore[arg-type]
    )
    model = build_model(config, VOCABULARY, VOCABULARY)
    assert (model.output.weight is model.decoder.embedding.weight) == (tie != "none")
    assert (model.encoder.embedding.weight is model.decoder.embedding.weight) == (tie == "all")
    assert (model.output.bias is None) == (tie != "none")


def test_initialisation_is_the_callers_seed() -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(build_model(ModelConfig(), VOCABULARY, VOCABULARY).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert not torch.equal(models[0]["output.weight"], models[2]["output.weight"])
