"""Validation against what it claims: the likelihood sentence by sentence, and sacreBLEU of greedy translations."""

import dataclasses
import math
from pathlib import Path

import pytest
import sacrebleu
import torch

import translate.training.validation
from tests.tiny import tiny_config, tiny_corpus, write_corpus
from translate.config import Config, DecodeConfig
from translate.decoding.scorer import Scorer
from translate.decoding.translator import Translator
from translate.models.seq2seq import Tokens
from translate.run import RunDirectory
from translate.stages.training import train
from translate.training.checkpoint import Learner
from translate.training.loop import Loop
from translate.training.validation import Validator, first_lines

CPU = torch.device("cpu")
SENTENCES, LONGEST = 9, 18


def proceed() -> None:
    """No signal has come."""


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tiny_corpus(tmp_path_factory.mktemp("corpus"))
    write_corpus(directory, "more", 3, 8)
    return directory


@pytest.fixture(scope="module")
def loop(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """The loop of a run with two validation corpora, of 12 and of 3 pairs, after learning to write words."""
    train_settings = {"lr": 2e-2, "update_tokens": 400, "max_steps": 40, "validate_every": 40, "save_every": 40}
    settings = tiny_config(corpus, **train_settings, validate_sentences=SENTENCES).model_dump()
    settings["data"]["valid"].append({"src": str(corpus / "more.src"), "tgt": str(corpus / "more.tgt")})
    for part in settings["model"].values():
        if isinstance(part, dict):
            part |= {"width": 32, "dropout": 0.1}
    settings["tokenizer"]["vocab_size"] = 90
    settings["decode"]["max_length"] = LONGEST
    found: list[Loop] = []
    original = Loop.train

    def watched(self: Loop) -> str:
        found.append(self)
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "train", watched)
        train(Config.model_validate(settings), RunDirectory(tmp_path_factory.mktemp("run") / "run"))
    return found[0]


@pytest.fixture
def learner(loop: Loop) -> Learner:
    """In training mode, as the loop has it between validations."""
    loop.learner.model.train()
    return loop.learner


@pytest.fixture
def validator(loop: Loop) -> Validator:
    assert isinstance(loop.validate, Validator)
    return loop.validate


def likelihood(learner: Learner, src: str, tgt: str) -> tuple[float, int]:
    """Log-likelihood of one pair of lines in nats, and how many tokens it has; nothing is padded."""
    src_ids, tgt_ids = learner.tokenizer.encode_src(src), learner.tokenizer.encode_tgt(tgt)
    tgt_in, tgt_out = [1, *tgt_ids], [*tgt_ids, 2]

    def tokens(ids: list[int]) -> Tokens:
        return Tokens(torch.tensor([ids]), torch.tensor([len(ids)]), len(ids))

    with torch.no_grad():
        features, _ = learner.model.eval()(tokens(src_ids), tokens(tgt_in))
        log_probs = learner.model.project(features)[0].double().log_softmax(-1)
    return sum(float(log_probs[place, token]) for place, token in enumerate(tgt_out)), len(tgt_out)


@pytest.mark.parametrize("batch_tokens", [4096, 40, 1])
def test_the_loss_is_the_likelihood_of_every_pair_of_every_corpus(
    batch_tokens: int, learner: Learner, validator: Validator, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translate.training.validation, "LOSS_BATCH_TOKENS", batch_tokens)
    loss = validator(learner, proceed).loss
    src, tgt = (lines(corpus / f"valid.{side}") + lines(corpus / f"more.{side}") for side in ("src", "tgt"))
    found = [likelihood(learner, *pair) for pair in zip(src, tgt, strict=True)]
    assert len(found) == 15
    assert loss == pytest.approx(-sum(one for one, _ in found) / sum(count for _, count in found), rel=1e-6)


def greedy(learner: Learner, src: list[str], beam: int = 1) -> list[str]:
    learner.model.eval()
    translator = Translator(
        Scorer([learner.model]), learner.tokenizer, DecodeConfig(beam=beam, max_length=LONGEST), CPU
    )
    return [found[0].text for found in translator.translate(src)]


@pytest.mark.parametrize("evaluate", [{}, {"lowercase": True}, {"tokenize": "char"}])
def test_bleu_is_sacrebleu_of_greedy_translations(
    evaluate: dict[str, object], learner: Learner, validator: Validator
) -> None:
    hyps = greedy(learner, list(validator.src))
    refs = [f"{hyp} end!" if number % 2 else f"The {hyp.swapcase()}" for number, hyp in enumerate(hyps)]
    config = Config.model_validate({**validator.config.model_dump(), "evaluate": evaluate})
    expected = sacrebleu.corpus_bleu(
        hyps, [refs], lowercase=config.evaluate.lowercase, tokenize=config.evaluate.tokenize, force=True
    ).score
    learner.model.train()
    found = dataclasses.replace(validator, config=config, refs=refs)(learner, proceed).bleu
    assert found == pytest.approx(expected, abs=1e-9)
    assert 1 < expected < 99
    assert greedy(learner, list(validator.src), beam=4) != hyps  # another search would give other translations


def test_translated_lines_are_taken_in_turn_from_the_corpora(validator: Validator, corpus: Path) -> None:
    valid, more = ([lines(corpus / f"{name}.{side}") for side in ("src", "tgt")] for name in ("valid", "more"))
    for found, one, other in zip((validator.src, validator.refs), valid, more, strict=True):
        assert found == [one[0], other[0], one[1], other[1], one[2], other[2], one[3], one[4], one[5]]


@pytest.mark.parametrize(
    ("sources", "count", "expected"),
    [
        ([["a", "b", "c"]], 2, ["a", "b"]),
        ([["a", "b"], ["1", "2", "3", "4"], ["x"]], 6, ["a", "1", "x", "b", "2", "3"]),
        ([["a"], ["1"]], 9, ["a", "1"]),
        ([["a"], [], ["1", "2"]], 9, ["a", "1", "2"]),
        ([["a"]], 0, []),
        ([], 5, []),
    ],
)
def test_first_lines(sources: list[list[str]], count: int, expected: list[str]) -> None:
    assert first_lines(sources, count) == expected


def test_without_sentences_there_is_a_loss_and_no_bleu(learner: Learner, validator: Validator) -> None:
    found = dataclasses.replace(validator, src=[], refs=[])(learner, proceed)
    assert found.bleu is None
    assert found.step == learner.progress.step == 40
    assert math.isfinite(found.loss)


def test_validation_is_asked_often_whether_to_go_on_and_changes_nothing(
    learner: Learner, validator: Validator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translate.training.validation, "LOSS_BATCH_TOKENS", 1)
    assert len(validator.split) == 15
    before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 20:
            raise KeyboardInterrupt

    validator(learner, proceed)
    validator.loss(learner.model, check)
    assert asked == 15  # once a batch of one pair
    with pytest.raises(KeyboardInterrupt):
        validator(learner, check)
    asked = 30
    validator.bleu(learner.model, learner.tokenizer, check)
    assert asked > 30
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.tensors().items())
