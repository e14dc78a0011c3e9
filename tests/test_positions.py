"""How positions are told: against the formulas, and what a model that is not told them cannot know."""

import math
from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor

from translate.config import (
    ConvDecoderConfig,
    ConvEncoderConfig,
    ModelConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
)
from translate.errors import DataError
from translate.models import build_model
from translate.models.positions import Positions, sinusoids
from translate.models.seq2seq import Encoder, Seq2Seq, Tokens

assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-10)
VOCABULARY, WIDTH = 13, 8
ORDER = torch.tensor([3, 0, 4, 1, 2])
PositionsName = Literal["sinusoidal", "learned", "none"]


def model_of(encoder: TransformerEncoderConfig | ConvEncoderConfig, decoder: TransformerDecoderConfig) -> Seq2Seq:
    torch.manual_seed(1)
    model = build_model(ModelConfig(encoder=encoder, decoder=decoder, tie="none"), VOCABULARY, VOCABULARY)
    for parameter in model.double().eval().parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def transformer(positions: PositionsName) -> Seq2Seq:
    part = {"layers": 2, "width": WIDTH, "heads": 2, "feed_forward": 12, "max_positions": 30}
    return model_of(
        TransformerEncoderConfig.model_validate(part | {"positions": positions}),
        TransformerDecoderConfig.model_validate(part),
    )


def tokens(ids: Tensor) -> Tokens:
    return Tokens(ids, torch.full((ids.size(0),), ids.size(1)), ids.size(1))


def ids(count: int = 3) -> Tensor:
    """Sentences of five different words."""
    generator = torch.Generator().manual_seed(2)
    return torch.stack([torch.randperm(VOCABULARY, generator=generator)[:5] for _ in range(count)])


def states(encoder: Encoder, src: Tensor) -> Tensor:
    return encoder(tokens(src)).states


def test_sinusoids_equal_the_papers_formula() -> None:
    table = sinusoids(50, 6)
    for position in (0, 1, 7, 49):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert float(table[position, 2 * i]) == pytest.approx(math.sin(angle), abs=1e-12)
            assert float(table[position, 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sinusoidal", "learned", "none"])
@pytest.mark.parametrize("conv", [False, True])
def test_embeddings_are_scaled_and_positions_added(kind: PositionsName, conv: bool) -> None:
    """From the first position on, or from any other, as a decoder's step has it."""
    shared = {"positions": kind, "max_positions": 9}
    config: TransformerEncoderConfig | ConvEncoderConfig
    if conv:
        config = ConvEncoderConfig.model_validate(shared | {"width": 20, "embedding": 6})
    else:
        config = TransformerEncoderConfig.model_validate(shared | {"width": 6, "heads": 2})
    positions = Positions(config, "encoder").double()
    embedded = torch.randn(2, 4, 6, dtype=torch.float64)
    for first in (0, 5):
        found = positions(embedded, first)
        for place in range(4):
            at = first + place
            told = torch.zeros(6, dtype=torch.float64)
            if kind == "sinusoidal":
                angles = [at / 10000 ** (2 * (i // 2) / 6) for i in range(6)]
                waves = [math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angles)]
                told = torch.tensor(waves, dtype=torch.float64)
            elif kind == "learned":
                told = positions.table[at]
            assert_equal(found[:, place], embedded[:, place] * math.sqrt(6) + told)
    assert len(list(positions.parameters())) == (kind == "learned")


@torch.no_grad()
def test_self_attention_without_positions_is_permutation_equivariant() -> None:
    """Words in another order have the same states, in that order: the encoder cannot know that they were moved."""
    encoder, src = transformer("none").encoder, ids()
    assert_equal(states(encoder, src[:, ORDER]), states(encoder, src)[:, ORDER])
    assert_equal(encoder(tokens(src[:, ORDER])).summary, encoder(tokens(src)).summary)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_positions_tell_the_order(kind: PositionsName) -> None:
    """Every word that stands elsewhere has another state."""
    encoder, src = transformer(kind).encoder, ids()
    moved, stayed = states(encoder, src[:, ORDER]), states(encoder, src)[:, ORDER]
    assert ((moved - stayed).abs().amax(-1) > 1e-3).all()


@torch.no_grad()
@pytest.mark.parametrize(("kind", "same"), [("none", True), ("sinusoidal", False)])
def test_a_bag_of_words_is_translated_the_same_in_every_order(kind: PositionsName, same: bool) -> None:
    """The whole model: attention to the source has no order of its own."""
    model, src, tgt_in = transformer(kind), ids(), tokens(ids()[:, :4])
    features, _ = model(tokens(src), tgt_in)
    moved, _ = model(tokens(src[:, ORDER]), tgt_in)
    assert torch.allclose(features, moved, rtol=0, atol=1e-10) == same


@torch.no_grad()
def test_a_decoder_without_positions_still_knows_that_there_is_more_behind_it() -> None:
    """The past grows, so masked self-attention tells some order; only what is before a word may be shuffled."""
    part = {"layers": 1, "width": WIDTH, "heads": 2, "feed_forward": 12}
    model = model_of(
        TransformerEncoderConfig.model_validate(part),
        TransformerDecoderConfig.model_validate(part | {"positions": "none"}),
    )
    memory, tgt = model.encoder(tokens(ids())), ids()
    features, _ = model.decoder(tokens(tgt), memory)
    shuffled, _ = model.decoder(tokens(tgt[:, torch.tensor([2, 0, 3, 1, 4])]), memory)
    assert_equal(shuffled[:, 4], features[:, 4])
    assert not torch.allclose(shuffled[:, 3], features[:, 3])


@torch.no_grad()
def test_convolutions_know_the_order_without_positions() -> None:
    """Neighbours and no more: a pair of words that moves together keeps its states where the window sees only it."""
    encoder = model_of(
        ConvEncoderConfig(layers=1, width=WIDTH, positions="none"), TransformerDecoderConfig(width=8, heads=2)
    ).encoder
    src = ids()
    assert not torch.allclose(states(encoder, src[:, ORDER]), states(encoder, src)[:, ORDER])
    later = torch.cat([torch.zeros_like(src[:, :1]), src], 1)
    assert_equal(states(encoder, later)[:, 2:], states(encoder, src)[:, 1:])  # shifted by one, the same states


@torch.no_grad()
@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_learned_positions_of_a_convolution_end_with_a_sentence(side: str) -> None:
    limit = {name: 4 if name == side else 30 for name in ("encoder", "decoder")}
    encoder = ConvEncoderConfig(layers=1, width=WIDTH, positions="learned", max_positions=limit["encoder"])
    decoder = ConvDecoderConfig(layers=1, width=WIDTH, positions="learned", max_positions=limit["decoder"])
    model = build_model(ModelConfig(encoder=encoder, decoder=decoder, tie="none"), VOCABULARY, VOCABULARY).eval()
    model(tokens(ids()[:, :4]), tokens(ids()[:, :4]))
    with pytest.raises(DataError, match=rf"reaches 5 pieces, but model\.{side}\.max_positions is 4"):
        model(tokens(ids()), tokens(ids()))
    if side == "decoder":
        memory = model.encoder(tokens(ids()))
        with pytest.raises(DataError, match=r"model\.decoder\.max_positions"):
            model.decoder.step(torch.zeros(3, 1, dtype=torch.long), memory, model.decoder.start(memory, 9), 4)
