"""inspect attention: what it writes and says for a trained RNN and a trained Transformer, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from tests.tiny import tiny_config, tiny_corpus
from translate.config import Config
from translate.decoding.translator import padded
from translate.errors import DataError, MissingInputError, OutputError
from translate.models.seq2seq import Record
from translate.run import RunDirectory
from translate.stages.inspection import inspect_attention
from translate.stages.training import train
from translate.text.tokenizer import BOS
from translate.training.checkpoint import load_model

PNG = b"\x89PNG\r\n\x1a\n"
SENTENCE = "나는 책을 읽는다"
Runs = Callable[[str], RunDirectory]


def model_of(kind: str) -> dict[str, Any]:
    if kind == "transformer":
        part = {"kind": "transformer", "layers": 2, "width": 16, "heads": 2, "feed_forward": 32}
        return {"encoder": part, "decoder": part}
    none = kind == "none"
    decoder = {"kind": "rnn", "width": 16, "attention": {"score": "none" if none else "general"}}
    return {
        "encoder": {"kind": "rnn", "width": 16},
        "decoder": decoder | {"input_feeding": not none},
        "tie": "decoder",
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run of each kind, trained for two steps when first asked for."""
    place = tmp_path_factory.mktemp("inspection")
    corpus = tiny_corpus(place / "corpus")

    def trained(kind: str) -> RunDirectory:
        run = RunDirectory(place / kind)
        if not run.root.exists():
            config = tiny_config(corpus, max_steps=2, validate_every=2, save_every=2, average=0, ema=0.0)
            settings = config.model_dump()
            settings["model"] = model_of(kind)
            train(Config.model_validate(settings), run)
        return run

    return trained


@pytest.mark.parametrize("kind", ["rnn", "transformer"])
def test_pictures_page_and_numbers_lie_in_the_run(runs: Runs, kind: str) -> None:
    run = runs(kind)
    report = inspect_attention(run, SENTENCE)
    assert set(report.paths) == {"picture", "page", "numbers"} | ({"heads"} if kind == "transformer" else set())
    assert sorted(run.inspect.iterdir()) == sorted(report.paths.values())
    assert report.paths["picture"].name.startswith("나는-책을-읽는다-")
    assert report.paths["picture"].read_bytes().startswith(PNG)
    page = report.paths["page"].read_text(encoding="utf-8")
    sections = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n")).iter("section")
    assert len(list(sections)) == (2 + 2 * 2 if kind == "transformer" else 2)
    assert json.loads(report.paths["numbers"].read_text(encoding="utf-8")) == report.to_json()
    assert report.summary()[0] == f"{SENTENCE} → {report.translation}"
    assert f"picture: {report.paths['picture']}" in report.summary()


@pytest.mark.parametrize("kind", ["rnn", "transformer"])
def test_numbers_are_those_of_the_model(runs: Runs, kind: str) -> None:
    run = runs(kind)
    report = inspect_attention(run, SENTENCE, "I read book")
    numbers = report.to_json()
    assert numbers["translation"] == "I read book"
    assert numbers["words"]["src"] == ["나는", "책을", "읽는다", "</s>"]
    assert numbers["words"]["tgt"] == ["I", "read", "book", "</s>"]
    for grid in (numbers["pieces"], numbers["words"]):
        weights = np.array(grid["weights"])
        assert weights.shape == (len(grid["tgt"]), len(grid["src"]))
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-4)
    loaded = load_model(run, "best", torch.device("cpu"))
    src = loaded.tokenizer.encode_src(SENTENCE)
    tgt_in = [BOS, *loaded.tokenizer.encode_tgt("I read book")]
    record: Record = {}
    with torch.no_grad():
        loaded.model(padded([src], torch.device("cpu")), padded([tgt_in], torch.device("cpu")), record)
    np.testing.assert_allclose(numbers["pieces"]["weights"], record["alignment"][0], atol=1e-5)
    if kind == "transformer":
        heads = np.array(list(numbers["heads"].values()))
        assert heads.shape == (2, 2, len(tgt_in), len(src))
        np.testing.assert_allclose(heads.mean((0, 1)), numbers["pieces"]["weights"], atol=1e-5)
    else:
        assert numbers["heads"] == {}


def test_output_is_named_by_the_user(runs: Runs, tmp_path: Path) -> None:
    report = inspect_attention(runs("transformer"), SENTENCE, output=tmp_path / "new" / "a.b.png")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["a.b-heads.png", "a.b.html", "a.b.json", "a.b.png"]
    assert report.paths["picture"] == tmp_path / "new" / "a.b.png"


def test_names_of_sentences_differ_and_stay_in_the_directory(runs: Runs) -> None:
    run = runs("rnn")
    texts = ["../../etc/passwd", "물을 " * 50, "?!.", SENTENCE, SENTENCE + ".", ".hidden"]
    paths = [inspect_attention(run, text, "I").paths["picture"] for text in texts]
    assert len(set(paths)) == len(texts)
    for path in paths:
        assert path.parent == run.inspect
        assert not path.name.startswith(".")
        assert len(path.name.encode()) < 200


def test_settings_choose_the_search(runs: Runs) -> None:
    run = runs("rnn")
    settings = load_model(run, "best", torch.device("cpu")).config
    short = settings.model_copy(update={"decode": settings.decode.model_copy(update={"max_length": 1})})
    assert len(inspect_attention(run, SENTENCE, config=short).tgt) <= 2


@pytest.mark.parametrize(
    ("kind", "sentence", "target", "error", "message"),
    [
        ("none", SENTENCE, None, DataError, "model.decoder.attention.score is none"),
        ("rnn", " \n ", None, DataError, "the sentence is blank"),
        ("rnn", SENTENCE, " ", DataError, "the target is blank"),
    ],
)
def test_refusals(
    runs: Runs, kind: str, sentence: str, target: str | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        inspect_attention(runs(kind), sentence, target, tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


def test_a_directory_is_no_output(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a directory"):
        inspect_attention(runs("rnn"), SENTENCE, output=tmp_path)


def test_a_run_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        inspect_attention(RunDirectory(tmp_path), SENTENCE)
