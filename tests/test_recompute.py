"""Gradient checkpointing changes memory and time, and not one bit of what is learnt."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.choices import Kind, covering, decoder_of, encoder_for, name_of, valid_choices
from tests.tiny import tiny_config, tiny_corpus
from translate.config import (
    ConvDecoderConfig,
    ConvEncoderConfig,
    ModelConfig,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
)
from translate.config.settings import Config
from translate.models import build_model
from translate.models.dropout import Dropout, Keyed
from translate.models.seq2seq import Seq2Seq, Side
from translate.run import RunDirectory
from translate.stages.training import train
from translate.text.batches import Batch
from translate.training.checkpoint import newest_sound
from translate.training.loss import Objective, TensorBatch

VOCABULARY = 23
TRANSFORMER: dict[str, Any] = {"layers": 2, "width": 8, "heads": 2, "feed_forward": 6, "dropout": 0.3}
DROPPED: dict[str, Any] = {"attention_dropout": 0.2, "activation_dropout": 0.2}
CONV: dict[str, Any] = {"layers": 3, "width": 8, "dropout": 0.3}
MODELS = {
    "transformer": ModelConfig(
        encoder=TransformerEncoderConfig(**TRANSFORMER, **DROPPED),
        decoder=TransformerDecoderConfig(**TRANSFORMER, **DROPPED),
    ),
    "conv": ModelConfig(encoder=ConvEncoderConfig(**CONV), decoder=ConvDecoderConfig(**CONV), tie="none"),
}
HARD = [
    (kind, choice)
    for kind in ("transformer", "conv")
    for choice in covering(one for one in valid_choices(kind) if one["selection"] != "soft")[:4]
]


def some_batch() -> Batch:
    rng = np.random.default_rng(3)
    src_lengths, tgt_lengths = np.array([7, 5, 2, 6]), np.array([4, 8, 1, 5])
    src, tgt_in, tgt_out = (rng.integers(4, VOCABULARY, (4, width)) for width in (7, 8, 8))
    return Batch(src, src_lengths, tgt_in, tgt_out, tgt_lengths, np.arange(4), int(tgt_lengths.sum()))


def calls_of(model: Seq2Seq) -> Counter[int]:
    """How often each layer of the model is run from now on."""
    counted: Counter[int] = Counter()

    def count(module: nn.Module, *_: object) -> None:
        counted[id(module)] += 1

    for side in (model.encoder, model.decoder):
        for layer in getattr(side, "layers", []):
            layer.register_forward_pre_hook(count)
    return counted


def learnt(config: ModelConfig, recompute: bool) -> tuple[float, dict[str, bytes], set[int], list[int]]:
    """Loss, gradients, how often layers ran, and where the counters of what draws stand at the end."""
    torch.manual_seed(1)
    model = build_model(config, VOCABULARY, VOCABULARY)
    model.encoder.recompute = model.decoder.recompute = recompute
    counted = calls_of(model)
    model.key_randomness(1, 2, 3)
    loss, _ = Objective(model, 0.1).train()(TensorBatch.of(some_batch(), torch.device("cpu")))
    loss.backward()
    gradients = {n: p.grad.numpy().tobytes() for n, p in model.named_parameters() if p.grad is not None}
    calls = [module.calls for module in model.modules() if isinstance(module, Keyed)]
    return loss.item(), gradients, set(counted.values()), calls


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_the_same_bits_and_every_layer_runs_twice(kind: str) -> None:
    kept, again = learnt(MODELS[kind], recompute=False), learnt(MODELS[kind], recompute=True)
    assert kept[:2] == again[:2]
    assert kept[3] == again[3]
    assert (kept[2], again[2]) == ({1}, {2})


@pytest.mark.parametrize(("kind", "choice"), HARD, ids=[f"{kind}-{name_of(choice)}" for kind, choice in HARD])
def test_what_was_sampled_is_sampled_again(kind: Kind, choice: dict[str, Any]) -> None:
    config = ModelConfig(encoder=encoder_for(kind, choice), decoder=decoder_of(kind, choice), tie="none")
    kept, again = learnt(config, recompute=False), learnt(config, recompute=True)
    assert kept[:2] == again[:2]
    assert again[2] >= {2}


@pytest.mark.parametrize("kind", MODELS)
def test_a_generator_draws_again_what_it_drew(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where masks come not of keys but of the device's generator; here that is the host's."""
    monkeypatch.setattr(Side, "draws_by_key", False)
    monkeypatch.setattr(Dropout, "forward", lambda self, x: F.dropout(x, self.p, training=self.training))
    kept, again = learnt(MODELS[kind], recompute=False), learnt(MODELS[kind], recompute=True)
    assert kept[:2] == again[:2]
    assert (kept[2], again[2]) == ({1}, {2})


@pytest.mark.parametrize("kind", MODELS)
def test_it_is_one_graph_to_the_compiler(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Side, "draws_by_key", False)
    monkeypatch.setattr(Dropout, "forward", lambda self, x: F.dropout(x, self.p, training=self.training))
    torch._dynamo.reset()
    model = build_model(MODELS[kind], VOCABULARY, VOCABULARY).train()
    model.encoder.recompute = model.decoder.recompute = True
    given = TensorBatch.of(some_batch(), torch.device("cpu"))
    compiled = torch.compile(model, dynamic=True, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    features, _ = compiled(given.src, given.tgt_in)
    torch.manual_seed(1)
    expected, _ = model(given.src, given.tgt_in)
    torch.testing.assert_close(features, expected)


def test_nothing_is_computed_again_where_nothing_is_learnt() -> None:
    model = build_model(MODELS["transformer"], VOCABULARY, VOCABULARY).eval()
    model.encoder.recompute = model.decoder.recompute = True
    counted = calls_of(model)
    Objective(model, 0.1).eval()(TensorBatch.of(some_batch(), torch.device("cpu")))[0].backward()
    assert set(counted.values()) == {1}


def test_a_run_may_switch_it_on_and_ends_with_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tiny_corpus(tmp_path / "corpus")

    def trained(name: str, *configs: Config) -> dict[str, bytes]:
        for config in configs:
            train(config, RunDirectory(tmp_path / name))
        saved, _ = newest_sound(RunDirectory(tmp_path / name))
        assert saved is not None
        return {key: saved.tensor(key).numpy().tobytes() for key in saved.names()}

    plain = trained("plain", tiny_config(corpus, max_steps=4))
    switched = trained("switched", tiny_config(corpus, max_steps=2), tiny_config(corpus, max_steps=4, recompute=True))
    assert switched == plain
    assert "warning" not in capsys.readouterr().err
