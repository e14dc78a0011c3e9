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
from translate.__main__ import main
from translate.config import Config
from translate.decoding.translator import padded
from translate.errors import DataError, MissingInputError, OutputError, UsageError
from translate.models.seq2seq import Record
from translate.run import RunDirectory
from translate.stages.inspection import inspect_attention, inspect_sentences
from translate.stages.training import train
from translate.text.tokenizer import BOS
from translate.training.checkpoint import load_model

PNG = b"\x89PNG\r\n\x1a\n"
SENTENCE = "나는 책을 읽는다"
Runs = Callable[[str], RunDirectory]


def model_of(kind: str) -> dict[str, Any]:
    part = {"kind": "transformer", "layers": 2, "width": 16, "heads": 2, "feed_forward": 32}
    if kind == "transformer":
        return {"encoder": part, "decoder": part}
    if kind == "transformer-conv":
        return {"encoder": part, "decoder": {"kind": "conv", "layers": 2, "width": 16}}
    none = kind == "none"
    attention = {"score": "none" if none else "general", "heads": 4 if kind == "rnn-heads" else 1}
    decoder = {"kind": "rnn", "width": 16, "attention": attention}
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
    assert len(list(sections)) == (2 + 1 + 2 * 2 if kind == "transformer" else 2)
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


def recorded(run: RunDirectory, target: str) -> Record:
    """What teacher forcing records of SENTENCE and a translation."""
    loaded = load_model(run, "best", torch.device("cpu"))
    src, tgt = loaded.tokenizer.encode_src(SENTENCE), loaded.tokenizer.encode_tgt(target)
    record: Record = {}
    with torch.no_grad():
        loaded.model(padded([src], torch.device("cpu")), padded([[BOS, *tgt]], torch.device("cpu")), record)
    return record


def test_a_transformer_looks_at_itself(runs: Runs, tmp_path: Path) -> None:
    run = runs("transformer")
    report = inspect_attention(run, SENTENCE, "I read book", tmp_path / "a.png", which="all")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a-decoder.png", "a-encoder.png", "a-heads.png", "a.html", "a.json", "a.png",
    ]  # fmt: skip
    assert f"encoder: {tmp_path / 'a-encoder.png'}" in report.summary()
    assert f"decoder: {tmp_path / 'a-decoder.png'}" in report.summary()
    numbers = report.to_json()
    record = recorded(run, "I read book")
    assert {*numbers["heads"], "alignment"} == {*record}
    for path, heads in numbers["heads"].items():
        np.testing.assert_allclose(heads, record[path][0], atol=1e-5)
    src, tgt, tgt_in = (numbers["pieces"][side] for side in ("src", "tgt", "tgt_in"))
    assert tgt_in == ["<s>", *tgt[:-1]]
    for layer in (0, 1):
        assert np.shape(numbers["heads"][f"encoder.layers.{layer}.self_attention"]) == (2, len(src), len(src))
        masked = np.array(numbers["heads"][f"decoder.layers.{layer}.self_attention"])
        assert masked.shape == (2, len(tgt), len(tgt_in))
        np.testing.assert_array_equal(np.triu(masked, 1), 0)
    sides = {view.name: (view.src, view.tgt) for view in report.views}
    assert sides == {"heads": (src, tgt), "encoder": (src, src), "decoder": (tgt_in, tgt)}
    page = report.paths["page"].read_text(encoding="utf-8")
    names = [option.text for option in ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n")).iter("option")]
    assert names[:5] == ["by pieces", "by words", "heads", "encoder", "decoder"]
    assert len(names) == 5 + 3 * 2 * 2
    assert names[-1] == "decoder, layer 2, head 2"


@pytest.mark.parametrize("which", ["encoder", "decoder"])
def test_one_of_the_two_alone(runs: Runs, which: str) -> None:
    run = runs("transformer")
    report = inspect_attention(run, SENTENCE, "I", which=which)
    assert set(report.paths) == {"picture", "page", "numbers"}
    assert report.paths["picture"].name.endswith(f"-{which}.png")
    numbers = report.to_json()
    assert [*numbers["heads"]] == [f"{which}.layers.{layer}.self_attention" for layer in (0, 1)]
    assert "words" not in numbers
    assert "weights" not in numbers["pieces"]
    assert json.loads(report.paths["numbers"].read_text(encoding="utf-8")) == numbers


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("rnn-heads", {"decoder.attention": 4}),
        ("transformer-conv", {f"decoder.layers.{layer}.cross_attention": 1 for layer in (0, 1)}),
    ],
)
def test_heads_of_other_decoders(runs: Runs, kind: str, shapes: dict[str, int]) -> None:
    report = inspect_attention(runs(kind), SENTENCE, "I read")
    assert report.paths["heads"].read_bytes().startswith(PNG)
    numbers = report.to_json()
    size = (len(numbers["pieces"]["tgt"]), len(numbers["pieces"]["src"]))
    assert {path: np.shape(heads) for path, heads in numbers["heads"].items()} == {
        path: (heads, *size) for path, heads in shapes.items()
    }
    heads = np.array(list(numbers["heads"].values()))
    np.testing.assert_allclose(heads.mean((0, 1)), numbers["pieces"]["weights"], atol=1e-5)


def test_all_there_is_of_a_conv_decoder(runs: Runs) -> None:
    report = inspect_attention(runs("transformer-conv"), SENTENCE, "I read", which="all")
    assert set(report.paths) == {"picture", "heads", "encoder", "page", "numbers"}


def test_several_sentences(runs: Runs) -> None:
    sentences = [SENTENCE, "너는 물을 마신다"]
    reports = list(inspect_sentences(runs("rnn"), sentences))
    assert [report.sentence for report in reports] == sentences
    assert len({report.paths["picture"] for report in reports}) == 2
    alone = inspect_attention(runs("rnn"), sentences[1])
    assert alone.to_json() == reports[1].to_json()


def test_the_command_takes_several_sentences(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(runs("transformer").root)
    assert main(["inspect", "attention", "--run", run, SENTENCE, "너는", "--json", "--which", "encoder"]) == 0
    out, err = capsys.readouterr()
    lines = out.rstrip("\n").split("\n")
    assert [json.loads(line)["sentence"] for line in lines] == [SENTENCE, "너는"]
    assert err.count("picture: ") == 2
    assert main(["inspect", "attention", "--run", run, SENTENCE]) == 0
    assert capsys.readouterr().out.startswith(f"{SENTENCE} → ")


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


@pytest.mark.parametrize(
    ("kind", "which", "error", "message"),
    [
        ("rnn", "encoder", DataError, r"model\.encoder\.kind is rnn, and only a Transformer looks at itself; choose"),
        ("transformer-conv", "decoder", DataError, r"model\.decoder\.kind is conv, and only a Transformer"),
        ("none", "all", DataError, r"model\.decoder\.attention\.score is none"),
        ("rnn", "heads", UsageError, "--which heads: expected cross, encoder, decoder or all"),
    ],
)
def test_attention_that_is_not_there(
    runs: Runs, kind: str, which: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        inspect_attention(runs(kind), SENTENCE, output=tmp_path / "picture.png", which=which)
    assert not list(tmp_path.iterdir())


def test_what_goes_with_one_sentence_only(runs: Runs, tmp_path: Path) -> None:
    two = [SENTENCE, "너는"]
    with pytest.raises(UsageError, match="--target goes with one sentence, found 2: give one, or leave --target out"):
        next(inspect_sentences(runs("rnn"), two, target="I"))
    with pytest.raises(UsageError, match="--output goes with one sentence, found 2"):
        next(inspect_sentences(runs("rnn"), two, output=tmp_path / "a.png"))
    before = sorted(runs("rnn").inspect.iterdir())
    with pytest.raises(DataError, match="the sentence is blank"):
        list(inspect_sentences(runs("rnn"), ["새 문장", " "]))
    assert sorted(runs("rnn").inspect.iterdir()) == before


def test_a_directory_is_no_output(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a directory"):
        inspect_attention(runs("rnn"), SENTENCE, output=tmp_path)


def test_a_run_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        inspect_attention(RunDirectory(tmp_path), SENTENCE)
