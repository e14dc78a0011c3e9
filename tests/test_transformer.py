"""The Transformer against torch.nn.Transformer with copied weights, and its positions against the formula."""

import math
from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from translate.config import ModelConfig, TransformerDecoderConfig, TransformerEncoderConfig
from translate.errors import DataError
from translate.models import build_model
from translate.models.dropout import Dropout
from translate.models.multi_head import CrossAttention, SelfAttention
from translate.models.positions import sinusoids
from translate.models.seq2seq import Seq2Seq, Tokens
from translate.models.transformer import (
    DecoderLayer,
    EncoderLayer,
    Residual,
    TransformerDecoder,
    TransformerEncoder,
)

VOCABULARY, WIDTH = 13, 8
assert_equal = partial(torch.testing.assert_close, rtol=0.0, atol=1e-10)


def tokens(lengths: list[int], seed: int = 0) -> Tokens:
    longest = max(lengths)
    ids = torch.randint(0, VOCABULARY, (len(lengths), longest), generator=torch.Generator().manual_seed(seed))
    return Tokens(ids, torch.tensor(lengths), longest)


def build(norm: Literal["pre", "post"], activation: Literal["relu", "gelu"]) -> Seq2Seq:
    torch.manual_seed(1)
    model = build_model(
        ModelConfig(
            encoder=TransformerEncoderConfig(
                layers=2, width=WIDTH, heads=2, feed_forward=12, norm=norm, activation=activation
            ),
            decoder=TransformerDecoderConfig(
                layers=3, width=WIDTH, heads=4, feed_forward=10, norm=norm, activation=activation
            ),
        ),
        VOCABULARY,
        VOCABULARY,
    ).double()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


class Halve(nn.Module):
    """Stands where dropout stands, to show the place."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def copy_attention(theirs: nn.MultiheadAttention, ours: SelfAttention | CrossAttention) -> None:
    together = [ours.qkv] if isinstance(ours, SelfAttention) else [ours.query, ours.key_value]
    theirs.in_proj_weight.data = torch.cat([linear.weight.data for linear in together])
    theirs.in_proj_bias.data = torch.cat([linear.bias.data for linear in together])
    theirs.out_proj.load_state_dict(ours.output.state_dict())


def copy_layer(
    theirs: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer, ours: EncoderLayer | DecoderLayer
) -> None:
    copy_attention(theirs.self_attn, ours.self_attention)
    if isinstance(theirs, nn.TransformerDecoderLayer) and isinstance(ours, DecoderLayer):
        assert isinstance(ours.cross_attention, CrossAttention)
        copy_attention(theirs.multihead_attn, ours.cross_attention)
    theirs.linear1.load_state_dict(ours.feed_forward.inner.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.outer.state_dict())
    for index, residual in enumerate(ours.residuals, 1):
        assert isinstance(residual, Residual)
        getattr(theirs, f"norm{index}").load_state_dict(residual.norm.state_dict())


def reference(model: Seq2Seq, norm: str, activation: str) -> nn.Transformer:
    """torch's own Transformer with the model's weights; the paper's has no norm after the last layer."""
    options = {"batch_first": True, "norm_first": norm == "pre", "activation": activation, "dropout": 0.0}
    final = {"norm": None} if norm == "post" else {}
    encoder_layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, **options)  # type: ignore[arg-type]
    decoder_layer = nn.TransformerDecoderLayer(WIDTH, 4, 10, **options)  # type: ignore[arg-type]
    norms = [None, None] if final else [nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)]
    encoder = nn.TransformerEncoder(encoder_layer, 2, norms[0], enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(decoder_layer, 3, norms[1])
    theirs = nn.Transformer(WIDTH, 2, custom_encoder=encoder, custom_decoder=decoder, batch_first=True).double()
    for side, ours in ((encoder, model.encoder), (decoder, model.decoder)):
        assert isinstance(ours, TransformerEncoder | TransformerDecoder)
        for their_layer, our_layer in zip(side.layers, ours.layers, strict=True):
            copy_layer(their_layer, our_layer)  # type: ignore[arg-type]
        if side.norm is not None:
            side.norm.load_state_dict(ours.norm.state_dict())
    return theirs


def embed(part: TransformerEncoder | TransformerDecoder, ids: Tensor) -> Tensor:
    return part.embedding(ids) * math.sqrt(WIDTH) + sinusoids(ids.size(1), WIDTH)


@torch.no_grad()
@pytest.mark.parametrize("dropout", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_equals_torchs_transformer(
    norm: Literal["pre", "post"], activation: Literal["relu", "gelu"], dropout: bool
) -> None:
    """Whole models of uneven depth; with halves in dropout's stead, its places are the paper's too."""
    model = build(norm, activation).eval()
    theirs = reference(model, norm, activation).train()
    if dropout:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, Dropout) and not isinstance(module, SelfAttention | CrossAttention):
                    setattr(module, name, Halve())
        for module in list(theirs.modules()):
            for name, _ in module.named_children():
                if name.startswith("dropout"):
                    setattr(module, name, Halve())
    encoder, decoder = model.encoder, model.decoder
    assert isinstance(encoder, TransformerEncoder)
    assert isinstance(decoder, TransformerDecoder)
    src, tgt = tokens([5, 3, 6]), tokens([4, 6, 2], seed=1)
    embedded = [embed(encoder, src.ids), embed(decoder, tgt.ids)]
    if dropout:
        embedded = [x / 2 for x in embedded]
    future = torch.ones(6, 6, dtype=torch.bool).triu(1)
    expected = theirs(*embedded, tgt_mask=future, src_key_padding_mask=~src.mask, memory_key_padding_mask=~src.mask)
    features, aux = model(src, tgt)
    assert aux == {}
    assert_equal(features[tgt.mask], expected[tgt.mask])


def test_the_summary_is_the_mean_of_real_states() -> None:
    model, src = build("pre", "relu"), tokens([5, 3])
    memory = model.eval().encoder(src)
    for row, length in enumerate([5, 3]):
        assert_equal(memory.summary[row], memory.states[row, :length].mean(0))


@torch.no_grad()
def test_sinusoids_grow_with_the_sequence_and_are_not_saved() -> None:
    model = build("pre", "relu").eval()
    short = model(tokens([4]), tokens([3]))[0]
    long = model(tokens([4]), tokens([300]))[0]  # longer than anything seen before
    assert long.isfinite().all()
    assert not any("sinusoid" in name or "position" in name for name in model.state_dict())
    assert_equal(model(tokens([4]), tokens([3]))[0], short)


@pytest.mark.parametrize("side", ["encoder", "decoder"])
@torch.no_grad()
def test_learned_positions_end_with_a_sentence(side: str) -> None:
    config = ModelConfig(
        encoder=TransformerEncoderConfig(
            layers=1, width=8, heads=2, positions="learned", max_positions=5 if side == "encoder" else 50
        ),
        decoder=TransformerDecoderConfig(
            layers=1, width=8, heads=2, positions="learned", max_positions=5 if side == "decoder" else 50
        ),
    )
    model = build_model(config, VOCABULARY, VOCABULARY).eval()
    model(tokens([5]), tokens([5]))
    with pytest.raises(DataError, match=rf"reaches 6 pieces, but model\.{side}\.max_positions is 5"):
        model(tokens([6]), tokens([6]))
    if side == "decoder":
        memory = model.encoder(tokens([4]))
        state = model.decoder.start(memory, 9)
        with pytest.raises(DataError, match=r"model\.decoder\.max_positions"):
            model.decoder.step(torch.zeros(1, 1, dtype=torch.long), memory, state, 5)


def test_embeddings_have_the_width_of_the_model() -> None:
    embedding = build("pre", "relu").decoder.embedding.weight
    assert embedding.shape == (VOCABULARY, WIDTH)
