import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

import translate.stages.tokenization
import translate.text.fingerprint
from translate.config import Config
from translate.errors import ConfigError, DataError, MissingInputError
from translate.run import RunDirectory
from translate.stages.tokenization import TokenizationReport, tokenize
from translate.text.encoded import data_digest, load_split, raw_texts
from translate.text.lines import read_lines
from translate.text.tokenizer import Tokenizer, train_tokenizer

KO = ["나는", "너는", "그는", "학교에", "집에", "간다", "온다", "있다", "학생이다"]
EN = ["I", "you", "he", "to", "school", "home", "go", "come", "am", "student"]


def write_corpus(directory: Path, split: str, count: int, seed: int) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    rng = random.Random(seed)
    for words, ending in ((KO, "ko"), (EN, "en")):
        lines = [" ".join([*rng.choices(words, k=rng.randint(2, 7)), str(i)]) for i in range(count)]
        (directory / f"{split}.{ending}").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {"src": str(directory / f"{split}.ko"), "tgt": str(directory / f"{split}.en")}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    text = tmp_path / "text"
    return {
        "data": {
            "train": [write_corpus(text, "train", 200, 1)],
            "valid": [write_corpus(text, "valid", 20, 2)],
            "test": [write_corpus(text, "test", 10, 3)],
        },
        "tokenizer": {"vocab_size": 310},
    }


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run").create()


def made(settings: dict[str, Any], run: RunDirectory) -> TokenizationReport:
    return tokenize(Config.model_validate(settings), run)


def manifest(run: RunDirectory) -> Any:
    return json.loads(run.manifest.read_bytes())


def files(run: RunDirectory) -> dict[str, bytes]:
    return {str(p.relative_to(run.root)): p.read_bytes() for p in sorted(run.root.rglob("*")) if p.is_file()}


def append(path: str, lines: str) -> None:
    with Path(path).open("a", encoding="utf-8", newline="\n") as handle:
        handle.write(lines)


def test_arrays_hold_the_text(settings: dict[str, Any], run: RunDirectory) -> None:
    report = made(settings, run)
    assert not report.skipped
    tokenizer = Tokenizer.open(run.tokenizer)
    for name, count in (("train", 200), ("valid", 20), ("test", 10)):
        split = load_split(run, name)
        assert len(split) == count
        corpus = settings["data"][name][0]
        pairs = zip(read_lines(Path(corpus["src"])), read_lines(Path(corpus["tgt"])), strict=True)
        for i, (src, tgt) in enumerate(pairs):
            assert split.src(i).tolist() == tokenizer.encode_src(src)
            assert split.tgt(i).tolist() == tokenizer.encode_tgt(tgt)
    assert any("train: kept 200 of 200 pairs" in line for line in report.lines)
    assert any("310 pieces for both sides" in line for line in report.lines)


def test_second_time_nothing_is_done(settings: dict[str, Any], run: RunDirectory) -> None:
    first = made(settings, run)
    before, digest = files(run), data_digest(run)
    second = made(settings, run)
    assert second.skipped
    assert second.lines == first.lines
    assert files(run) == before
    assert data_digest(run) == digest
    settings["train"] = {"lr": 0.5}  # nothing to do with the text
    assert made(settings, run).skipped


def test_moved_files_are_the_same_text(settings: dict[str, Any], run: RunDirectory, tmp_path: Path) -> None:
    made(settings, run)
    (tmp_path / "text").rename(tmp_path / "elsewhere")
    moved = json.loads(json.dumps(settings).replace("/text/", "/elsewhere/"))
    assert made(moved, run).skipped


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer": {"vocab_size": 305}},
        {"tokenizer": {"vocab_size": 310, "kind": "bpe"}},
        {"tokenizer": {"vocab_size": 310, "sampling": 0.1}},
        {"data": {"normalization": "nfkc"}},
        {"data": {"cleaning": {"max_length": 9}}},
    ],
)
def test_other_settings_make_the_data_anew(settings: dict[str, Any], run: RunDirectory, change: dict[str, Any]) -> None:
    made(settings, run)
    changed = {**settings, **change, "data": {**settings["data"], **change.get("data", {})}}
    assert not made(changed, run).skipped
    assert made(changed, run).skipped


def test_other_text_or_damage_makes_the_data_anew(settings: dict[str, Any], run: RunDirectory) -> None:
    made(settings, run)
    digest = data_digest(run)
    for spoiled in ("data/train/tgt_ids.npy", "data/test.0.tgt", "tokenizer/joint.model"):
        path = run.root / spoiled
        data = bytearray(path.read_bytes())
        data[-2] ^= 1
        path.write_bytes(data)
        assert not made(settings, run).skipped
        assert data_digest(run) == digest
    run.manifest.write_text("{")
    assert not made(settings, run).skipped
    assert data_digest(run) == digest
    append(settings["data"]["train"][0]["src"], "나는 간다\n")
    append(settings["data"]["train"][0]["tgt"], "I go\n")
    assert not made(settings, run).skipped
    assert data_digest(run) != digest


def test_two_runs_of_the_same_text_are_the_same_bytes(
    settings: dict[str, Any], run: RunDirectory, tmp_path: Path
) -> None:
    made(settings, run)
    other = RunDirectory(tmp_path / "other").create()
    made(settings, other)
    assert files(run) == files(other)


def test_windows_line_ends_change_nothing(settings: dict[str, Any], run: RunDirectory, tmp_path: Path) -> None:
    made(settings, run)
    for split in settings["data"].values():
        for path in map(Path, split[0].values()):
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    other = RunDirectory(tmp_path / "other").create()
    made(settings, other)
    assert data_digest(run) == data_digest(other)


def test_every_dropped_pair_is_accounted_for(settings: dict[str, Any], run: RunDirectory) -> None:
    train = settings["data"]["train"][0]
    first = next(read_lines(Path(train["src"]))), next(read_lines(Path(train["tgt"])))
    long = "나는 " * 50
    append(train["src"], f"간다\n\u3000\u200b\n{first[0]}\n{long}\n{'집에 ' * 12}\n \nsame\n")
    append(train["tgt"], f"\ngo\n{first[1]}\nlong\nhe\n \nsame\n")
    settings["data"]["cleaning"] = {"max_length": 40, "keep_identical": False}
    made(settings, run)
    [corpus] = manifest(run)["splits"]["train"]["corpora"]
    assert corpus["dropped"] == {"empty": 3, "source equals target": 1, "duplicate": 1, "too long": 1, "ratio": 1}
    assert corpus["read"] == 207
    assert corpus["kept"] == 200 == len(load_split(run, "train"))
    places = {reason: [int(place.rsplit(":", 1)[1]) for place in found] for reason, found in corpus["examples"].items()}
    assert places == {
        "empty": [201, 202, 206],
        "duplicate": [203],
        "too long": [204],
        "ratio": [205],
        "source equals target": [207],
    }


def test_scored_text_is_kept_as_it_is(settings: dict[str, Any], run: RunDirectory, tmp_path: Path) -> None:
    second = write_corpus(tmp_path / "more", "test", 3, 4)
    odd = "  ﬁ\u2028\u200b \t각 "
    append(second["src"], f"\n{odd}\n")
    append(second["tgt"], f"{odd}\r\r\n\n")
    settings["data"]["test"].append(second)
    made(settings, run)
    texts = raw_texts(run, "test")
    assert [text.name for text in texts] == ["text", "more"]
    for text, corpus in zip(texts, settings["data"]["test"], strict=True):
        assert list(read_lines(text.src)) == list(read_lines(Path(corpus["src"])))
        assert list(read_lines(text.tgt)) == list(read_lines(Path(corpus["tgt"])))
    split = load_split(run, "test")
    assert len(split) == 15  # blank lines are kept: lines and pairs must go on fitting together
    assert split.src_lengths[13] == split.tgt_lengths[14] == 1


def test_json_lines_with_line_ends_inside_stay_one_line_each(
    settings: dict[str, Any], run: RunDirectory, tmp_path: Path
) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps({"src": f"a\n{i}", "tgt": "b\r\nc\0"}) + "\n" for i in range(3)))
    settings["data"]["test"] = [{"file": str(path), "format": "jsonl"}]
    made(settings, run)
    [text] = raw_texts(run, "test")
    assert list(read_lines(text.src)) == ["a 0", "a 1", "a 2"]
    assert list(read_lines(text.tgt)) == ["b c "] * 3


def test_unequal_files_stop_before_anything_is_learnt(settings: dict[str, Any], run: RunDirectory) -> None:
    append(settings["data"]["test"][0]["tgt"], "one more\n")
    with pytest.raises(DataError, match=r"test\.ko has 10 lines, .*test\.en has 11"):
        made(settings, run)
    assert not run.tokenizer.exists()
    assert not run.manifest.exists()


def test_what_cannot_be_used_is_refused(settings: dict[str, Any], run: RunDirectory, tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str, **data: Any) -> None:
        with pytest.raises(error, match=match):
            made({**settings, "data": {**settings["data"], **data}}, run)

    train = settings["data"]["train"][0]
    empty = tmp_path / "empty"
    empty.touch()
    link = tmp_path / "link.ko"
    link.symlink_to(train["src"])
    refused(DataError, r"data\.train: corpus empty .* is empty", train=[{"src": str(empty), "tgt": str(empty)}])
    refused(MissingInputError, r"none: cannot be read", test=[{"src": "none", "tgt": "none"}])
    refused(DataError, r"data\.valid uses the training file .*link\.ko", valid=[{**train, "src": str(link)}])
    refused(DataError, r"no pair is left after cleaning .*200 too long", cleaning={"max_length": 1})
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size: found 20"):
        made({**settings, "tokenizer": {"vocab_size": 20}}, run)
    assert not run.manifest.exists()


def test_failure_leaves_no_data_of_an_earlier_text(settings: dict[str, Any], run: RunDirectory) -> None:
    made(settings, run)
    append(settings["data"]["train"][0]["src"], "\0\n")
    with pytest.raises(DataError, match=r"train\.ko:201: byte 1: NUL"):
        made(settings, run)
    with pytest.raises(MissingInputError, match="run translate tokenize first"):
        load_split(run, "train")


def test_scored_pairs_in_the_training_text_are_reported(settings: dict[str, Any], run: RunDirectory) -> None:
    for side in ("src", "tgt"):
        lines = list(read_lines(Path(settings["data"]["train"][0][side])))[:4]
        append(settings["data"]["valid"][0][side], "".join(f" {line}\n" for line in lines))
    report = made(settings, run)
    assert [line for line in report.lines if "warning" in line] == [
        "warning: 16.7% of the pairs of data.valid are in the training text too: its scores will flatter"
    ]


def test_ready_models_are_used_as_they_are(settings: dict[str, Any], run: RunDirectory, tmp_path: Path) -> None:
    made({**settings, "tokenizer": {"vocab_size": 305, "joint": False}}, run)
    ready = RunDirectory(tmp_path / "ready").create()
    src, tgt = str(run.tokenizer / "src.model"), str(run.tokenizer / "tgt.model")
    made({**settings, "tokenizer": {"src_model": src, "tgt_model": tgt}}, ready)
    assert Tokenizer.open(ready.tokenizer).digest == Tokenizer.open(run.tokenizer).digest
    made({**settings, "tokenizer": {"model": src}}, ready)
    tokenizer = Tokenizer.open(ready.tokenizer)
    assert tokenizer.joint
    assert tokenizer.tgt_model == Path(src).read_bytes()
    with pytest.raises(MissingInputError):
        made({**settings, "tokenizer": {"model": str(tmp_path / "none.model")}}, ready)


def test_sampling_keeps_the_training_text(settings: dict[str, Any], run: RunDirectory) -> None:
    made({**settings, "tokenizer": {"vocab_size": 310, "sampling": 0.5}}, run)
    train, valid = load_split(run, "train"), load_split(run, "valid")
    assert valid.texts is None
    assert train.texts is not None
    tokenizer = Tokenizer.open(run.tokenizer)
    epoch = train.examples(train.pairs(1, 0), (1, 0))
    lines = read_lines(Path(settings["data"]["train"][0]["tgt"]))
    assert [tokenizer.decode_tgt(epoch.targets[i]) for i in range(200)] == list(lines)
    assert any(epoch.targets[i].tolist() != train.tgt(i).tolist() for i in range(200))


def test_unchanged_text_and_arrays_are_not_read_again(
    settings: dict[str, Any], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At ten million pairs reading them would take longer than training may take to start."""
    monkeypatch.setattr(translate.text.fingerprint, "SETTLED", 0)
    monkeypatch.setattr(translate.text.fingerprint, "WORTHWHILE", 0)
    made(settings, run)
    time.sleep(0.02)  # the clock of a file system ticks
    assert made(settings, run).skipped
    monkeypatch.setattr(translate.text.fingerprint, "digest_file", lambda path: pytest.fail(f"{path} was read"))
    assert made(settings, run).skipped


def test_pieces_are_learnt_from_a_bounded_share_of_the_text(
    settings: dict[str, Any], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[str] = []

    def noted(text: Any, *rest: Any) -> Any:
        learnt.extend(text(("src",)))
        return train_tokenizer(text, *rest)

    monkeypatch.setattr(translate.stages.tokenization, "train_tokenizer", noted)
    lines = list(read_lines(Path(settings["data"]["train"][0]["src"])))
    both = sum(len(line) for side in ("src", "tgt") for line in read_lines(Path(settings["data"]["train"][0][side])))
    for name, limit, stride in (("MOST_PAIRS", 70, 3), ("MOST_CHARACTERS", both // 2 + 1, 2), ("MOST_PAIRS", 200, 1)):
        learnt.clear()
        with monkeypatch.context() as patch:
            patch.setattr(translate.stages.tokenization, name, limit)
            report = made(settings, run)
        run.manifest.unlink()
        assert learnt == lines[::stride]
        said = [line for line in report.lines if "pieces were learnt" in line]
        assert said == [f"warning: pieces were learnt from one pair in {stride} of 200"] * (stride > 1)
