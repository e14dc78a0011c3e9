"""What must hold for every encoder with every decoder, and for every two choices of attention together, in float64."""

from itertools import product

import pytest
import torch

from tests import invariants
from tests.choices import (
    Choice,
    Kind,
    all_choices,
    covering,
    decoder_of,
    encoder_for,
    name_of,
    pairs_of,
    valid_choices,
)
from tests.invariants import VOCABULARY, build, tokens
from translate.config import (
    ConvAttentionConfig,
    ConvDecoderConfig,
    ConvEncoderConfig,
    CrossAttentionConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    RnnAttentionConfig,
    RnnDecoderConfig,
    RnnEncoderConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
)
from translate.models import build_model
from translate.models.seq2seq import Record, Seq2Seq, Tokens

ENCODERS: dict[str, EncoderConfig] = {
    "lstm": RnnEncoderConfig(width=8, dropout=0.3),
    "gru-2-forward": RnnEncoderConfig(cell="gru", layers=2, width=6, embedding=5, bidirectional=False, dropout=0.3),
    "conv-5": ConvEncoderConfig(layers=2, width=8, embedding=6, kernel=5, dropout=0.3),
    "conv-learned": ConvEncoderConfig(layers=1, width=6, embedding=5, positions="learned", max_positions=9),
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
    "lstm-2-dot": RnnDecoderConfig(layers=2, width=8, input_feeding=False, attention=RnnAttentionConfig(score="dot")),
    "lstm-additive": RnnDecoderConfig(width=8, input_feeding=False, attention=RnnAttentionConfig(score="additive")),
    "lstm-2-before": RnnDecoderConfig(
        layers=2, width=8, dropout=0.3, attention=RnnAttentionConfig(score="additive", placement="before")
    ),
    "lstm-none": RnnDecoderConfig(
        width=8, embedding=5, input_feeding=False, attention=RnnAttentionConfig(score="none")
    ),
    "gru-2-additive-feeding": RnnDecoderConfig(
        cell="gru", layers=2, width=8, dropout=0.3, attention=RnnAttentionConfig(score="additive")
    ),
    "gru-scaled-feeding": RnnDecoderConfig(cell="gru", width=6, attention=RnnAttentionConfig(score="scaled_dot")),
    "gru-2-none": RnnDecoderConfig(
        cell="gru", layers=2, width=8, input_feeding=False, attention=RnnAttentionConfig(score="none")
    ),
    "conv-4": ConvDecoderConfig(layers=2, width=8, embedding=6, kernel=4, dropout=0.3),
    "conv-1-learned": ConvDecoderConfig(
        layers=2, width=8, kernel=1, positions="learned", max_positions=30, attention=ConvAttentionConfig(heads=2)
    ),
    "conv-none": ConvDecoderConfig(
        layers=2, width=8, embedding=5, positions="none", attention=ConvAttentionConfig(score="none")
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
    "pre-additive-none": TransformerDecoderConfig(
        layers=2, width=8, heads=2, feed_forward=12, positions="none", attention=CrossAttentionConfig(score="additive")
    ),
}

PAIRS = list(product(ENCODERS, DECODERS))


@pytest.fixture(params=PAIRS, ids=["+".join(pair) for pair in PAIRS])
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    encoder, decoder = request.param
    return build(ENCODERS[encoder], DECODERS[decoder])


def test_all_nine_pairs_of_architectures_are_here() -> None:
    kinds = {(ENCODERS[encoder].kind, DECODERS[decoder].kind) for encoder, decoder in PAIRS}
    assert kinds == set(product(["rnn", "conv", "transformer"], repeat=2))


def test_stepping_equals_teacher_forcing(model: Seq2Seq) -> None:
    invariants.stepping_equals_teacher_forcing(model)


def test_beams_go_on_from_their_parents(model: Seq2Seq) -> None:
    invariants.beams_go_on_from_their_parents(model)


def test_sentences_can_be_dropped(model: Seq2Seq) -> None:
    invariants.sentences_can_be_dropped(model)


def test_padding_and_neighbours_change_nothing(model: Seq2Seq) -> None:
    invariants.padding_and_neighbours_change_nothing(model)


def test_the_future_is_invisible(model: Seq2Seq) -> None:
    invariants.the_future_is_invisible(model)


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
    invariants.gradients_equal_finite_differences(model)


def test_recorded_weights_are_the_same_in_both_forms(model: Seq2Seq) -> None:
    invariants.recorded_weights_are_the_same_in_both_forms(model)


@torch.no_grad()
def test_recorded_weights_are_distributions_over_real_tokens(model: Seq2Seq) -> None:
    invariants.recorded_weights_are_shares_of_real_tokens(model)
    record: Record = {}
    model(tokens([5, 2, 4]), tokens([4, 4, 4], seed=1), record)
    kinds = (type(model.encoder).__name__, type(model.decoder).__name__)
    layers = [f"encoder.layers.{i}.self_attention" for i in range(9) if kinds[0] == "TransformerEncoder"]
    attends = getattr(model.decoder, "attends", True)
    assert ("alignment" in record) == attends
    assert {path for path in record if path.startswith("encoder.")} <= set(layers)


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


# --- every two choices of attention together

KINDS: tuple[Kind, ...] = ("rnn", "conv", "transformer")
COVERING: list[tuple[Kind, Choice]] = [(kind, choice) for kind in KINDS for choice in covering(valid_choices(kind))]


@pytest.fixture(params=COVERING, ids=[f"{kind}-{name_of(choice)}" for kind, choice in COVERING])
def attending(request: pytest.FixtureRequest) -> tuple[Seq2Seq, Choice]:
    kind, choice = request.param
    return build(encoder_for(kind, choice), decoder_of(kind, choice)), choice


@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_of_choices_is_covered_but_those_that_are_refused(kind: Kind) -> None:
    here = {pair for of, choice in COVERING if of == kind for pair in pairs_of(choice)}
    everywhere = {pair for choice in all_choices(kind) for pair in pairs_of(choice)}
    refused = {(("selection", name), ("features", "multi_dimensional")) for name in ("hard", "gumbel")}
    assert everywhere - here == refused


def test_choices_stepping_equals_teacher_forcing(attending: tuple[Seq2Seq, Choice]) -> None:
    invariants.stepping_equals_teacher_forcing(attending[0], steps=8)


def test_choices_beams_go_on_from_their_parents(attending: tuple[Seq2Seq, Choice]) -> None:
    invariants.beams_go_on_from_their_parents(attending[0], steps=4)


def test_choices_padding_and_neighbours_change_nothing(attending: tuple[Seq2Seq, Choice]) -> None:
    invariants.padding_and_neighbours_change_nothing(attending[0])


def test_choices_the_future_is_invisible(attending: tuple[Seq2Seq, Choice]) -> None:
    invariants.the_future_is_invisible(attending[0])


def test_choices_record_the_same_weights_in_both_forms(attending: tuple[Seq2Seq, Choice]) -> None:
    invariants.recorded_weights_are_the_same_in_both_forms(attending[0])


def test_choices_record_shares_of_real_tokens(attending: tuple[Seq2Seq, Choice]) -> None:
    """The Gaussian of local_p takes from the weights and nothing is given back, unless one state is chosen."""
    model, choice = attending
    whole = choice["scope"] != "local_p" or choice["selection"] != "soft"
    invariants.recorded_weights_are_shares_of_real_tokens(model, whole)


def test_choices_gradients_equal_finite_differences(attending: tuple[Seq2Seq, Choice]) -> None:
    """Of what is smooth: a choice jumps, and what stands for its gradient is tested in test_selection and test_loss."""
    model, choice = attending
    if choice["selection"] == "soft":
        invariants.gradients_equal_finite_differences(model)


def test_choices_train_in_bf16(attending: tuple[Seq2Seq, Choice]) -> None:
    invariants.training_runs_in_bf16(attending[0])


@torch.no_grad()
@pytest.mark.parametrize(("name", "value"), [("scope", "local_m"), ("selection", "hard"), ("normalizer", "sparsemax")])
def test_what_is_not_looked_at_does_not_matter(name: str, value: str) -> None:
    """Why `every word matters` is asked of the whole sentence under soft weights only.

    A decoder that knows the source by attention alone, and an encoder whose states are words by themselves: a state
    of weight 0 may be replaced, and no other may.
    """
    attention = ConvAttentionConfig.model_validate({"score": "general", "window": 1, name: value})
    model = build(
        ConvEncoderConfig(layers=1, width=8, kernel=1),
        ConvDecoderConfig(layers=1, width=8, kernel=2, attention=attention),
    )
    src, tgt, record = tokens([7]), tokens([1], seed=1), Record()
    features, _ = model(src, tgt, record)
    weights = record["alignment"][0, 0]
    assert (weights == 0).any()
    memory = model.encoder(src)
    for place in range(7):
        values = memory.values.clone()
        values[0, place] += 1.0
        moved = type(memory)(memory.states, memory.lengths, memory.longest, memory.summary, values)
        changed, _ = model.decoder(tgt, moved)
        assert torch.allclose(changed, features, rtol=0, atol=1e-12) == bool(weights[place] == 0)


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
