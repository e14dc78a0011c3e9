import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from translate.config import CorpusConfig
from translate.errors import DataError, MissingInputError
from translate.text.corpus import corpus_name, corpus_names, read_pairs, source_files


def written(path: Path, data: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def sides(corpus: CorpusConfig, scratch: Path | None = None) -> list[tuple[str, str]]:
    return [(pair.src, pair.tgt) for pair in read_pairs(corpus, scratch)]


def test_plain_files_keep_their_lines_and_places(tmp_path: Path) -> None:
    src = written(tmp_path / "a.ko", "가\u2028나\n\n  다 \r\n")
    tgt = written(tmp_path / "a.en", "A\tB\n\nC")
    pairs = list(read_pairs(CorpusConfig(src=src, tgt=tgt)))
    assert [(p.src, p.tgt, p.line) for p in pairs] == [("가\u2028나", "A\tB", 1), ("", "", 2), ("  다 ", "C", 3)]
    assert {p.origin for p in pairs} == {src}


@pytest.mark.parametrize(("n", "m"), [(3, 4), (4, 3), (3, 0), (0, 3), (2, 20)])
def test_unequal_counts_stop_and_name_both(tmp_path: Path, n: int, m: int) -> None:
    src, tgt = written(tmp_path / "a.ko", "x\n" * n), written(tmp_path / "a.en", "y\n" * m)
    with pytest.raises(DataError, match=rf"a\.ko has {n} lines, .*a\.en has {m}"):
        sides(CorpusConfig(src=src, tgt=tgt))


def test_tsv_is_split_at_tabs_and_nowhere_else(tmp_path: Path) -> None:
    file = written(tmp_path / "a.tsv", '"he said\thi"\t3\nb, c\td\u2028e\t4\n')
    assert sides(CorpusConfig(file=file, format="tsv")) == [('"he said', 'hi"'), ("b, c", "d\u2028e")]
    swapped = CorpusConfig(file=file, format="tsv", src_field="3", tgt_field="1")
    assert sides(swapped) == [("3", '"he said'), ("4", "b, c")]


def test_tsv_columns_by_name(tmp_path: Path) -> None:
    file = written(tmp_path / "a.tsv", "id\ten\tko\n1\thi\t안녕\n")
    corpus = CorpusConfig(file=file, format="tsv", src_field="ko", tgt_field="en")
    assert [(p.src, p.tgt, p.line) for p in read_pairs(corpus)] == [("안녕", "hi", 2)]


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("a\tb\nc\n", (None, None), r"a\.tsv:2: found 1 columns, expected at least 2"),
        ("en\tko\na\tb\n", ("de", "en"), r"no column 'de'; the first line has 'en', 'ko'"),
        ("a\tb\n", ("0", "1"), "no column '0'"),
    ],
)
def test_bad_tsv_is_refused(tmp_path: Path, text: str, fields: tuple[str | None, str | None], message: str) -> None:
    file = written(tmp_path / "a.tsv", text)
    with pytest.raises(DataError, match=message):
        sides(CorpusConfig(file=file, format="tsv", src_field=fields[0], tgt_field=fields[1]))


def test_json_lines_with_nested_and_dotted_fields(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"translation": {"de": "Hallo\r\nWelt", "en": "Hello\0"}}]
    file = written(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    corpus = CorpusConfig(file=file, format="jsonl", src_field="translation.de", tgt_field="translation.en")
    assert sides(corpus) == [("Hallo Welt", "Hello ")]
    file = written(tmp_path / "b.jsonl", '{"src": "a\u2028b", "t.en": "c"}\n')
    assert sides(CorpusConfig(file=file, format="jsonl", tgt_field="t.en")) == [("a\u2028b", "c")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"src": "a"', r"a\.jsonl:2: byte \d+: not JSON"),
        ("", r"a\.jsonl:2: byte 1: not JSON"),
        ('{"src": "a"}', r"a\.jsonl:2: there is no field 'tgt' \(found 'src'\)"),
        ('["a", "b"]', r"a\.jsonl:2: there is no field 'src' \(found no fields, but a list\)"),
        ('{"src": "a", "tgt": null}', "'tgt' holds null, expected text"),
        ('{"src": 3, "tgt": "b"}', "'src' holds a number, expected text"),
        ('{"src": "\\ud83d", "tgt": "b"}', "half of a surrogate pair"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_bad_json_lines_are_refused_with_their_place(tmp_path: Path, line: str, message: str) -> None:
    file = written(tmp_path / "a.jsonl", '{"src": "a", "tgt": "b"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        sides(CorpusConfig(file=file, format="jsonl"))


ROWS: dict[str, list[Any]] = {
    "id": [1, 2, 3],
    "text": [{"ko": "가", "en": "a\nb"}, {"ko": "나", "en": "c"}, {"ko": "다", "en": "d"}],
}
BOTH = [("가", "a b"), ("나", "c"), ("다", "d")]


def parquet(path: Path, rows: dict[str, list[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(rows), path)


def arrow_stream(path: Path, rows: dict[str, list[Any]]) -> None:
    import pyarrow as pa

    table = pa.table(rows)
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def arrow_file(path: Path, rows: dict[str, list[Any]]) -> None:
    import pyarrow as pa

    table = pa.table(rows)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


@pytest.mark.parametrize("write", [parquet, arrow_stream, arrow_file])
def test_tables_with_nested_fields(tmp_path: Path, write: Callable[[Path, dict[str, list[Any]]], None]) -> None:
    path = tmp_path / "table"
    write(path, ROWS)
    kind = "parquet" if write is parquet else "arrow"
    corpus = CorpusConfig(file=str(path), format=kind, src_field="text.ko", tgt_field="text.en")  # type: ignore[arg-type]
    assert sides(corpus) == BOTH
    assert [pair.line for pair in read_pairs(corpus)] == [1, 2, 3]
    wrong = corpus.model_copy(update={"tgt_field": "en"})
    with pytest.raises(DataError, match=r"no column 'en' \(found 'id', 'text'\)"):
        sides(wrong)
    wrong = corpus.model_copy(update={"tgt_field": "id"})
    with pytest.raises(DataError, match="row 1: field 'id' holds a number"):
        sides(wrong)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read as"):
        sides(corpus)


def test_directory_of_arrow_files(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    arrow_stream(tmp_path / "set" / "data-00001.arrow", {"src": ["c"], "tgt": ["d"]})
    arrow_stream(tmp_path / "set" / "data-00000.arrow", {"src": ["a"], "tgt": ["b"]})
    corpus = CorpusConfig(file=str(tmp_path / "set"), format="arrow")
    assert sides(corpus) == [("a", "b"), ("c", "d")]
    assert [path.name for path in source_files(corpus)] == ["data-00000.arrow", "data-00001.arrow"]


def test_hub_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(name: str, subset: str | None, **options: Any) -> Any:
        asked.append((name, subset, options))
        made = datasets.Dataset.from_dict(ROWS)
        return made if options["split"] else datasets.DatasetDict(train=made, test=made)

    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = CorpusConfig(
        file="someone/set", format="hub", subset="ko-en", split="train", src_field="text.ko", tgt_field="text.en"
    )
    assert sides(corpus, tmp_path) == BOTH
    options = {"split": "train", "revision": None, "cache_dir": str(tmp_path)}
    assert asked == [("someone/set", "ko-en", options)]
    assert source_files(corpus) == []
    with pytest.raises(DataError, match="set 'split' to one of train, test"):
        sides(corpus.model_copy(update={"split": None}), tmp_path)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(ConnectionError("offline\nmore"), MissingInputError), (ValueError("Unknown split"), DataError)],
)
def test_hub_failures_are_sentences(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, expected: type[Exception]
) -> None:
    import datasets

    def load(*_: Any, **__: Any) -> Any:
        raise failure

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(expected, match=r"^dataset someone/set: .*(offline\)|Unknown split)"):
        sides(CorpusConfig(file="someone/set", format="hub"))


def test_source_files_must_be_regular(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        source_files(CorpusConfig(file=str(tmp_path / "pipe"), format="tsv"))
    with pytest.raises(MissingInputError, match="No such file"):
        source_files(CorpusConfig(src=str(tmp_path / "a"), tgt=str(tmp_path / "b")))
    with pytest.raises(MissingInputError, match="is a directory"):
        source_files(CorpusConfig(file=str(tmp_path), format="jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match=r"without \.arrow files"):
        source_files(CorpusConfig(file=str(tmp_path / "empty"), format="arrow"))


def test_names_tell_corpora_apart() -> None:
    def corpus(src: str, name: str | None = None) -> CorpusConfig:
        return CorpusConfig(src=src, tgt="x.en", name=name)

    assert corpus_name(corpus("data/multi30k/test_2016.de.gz")) == "test_2016"
    assert corpus_name(corpus("a.de", "mine")) == "mine"
    assert corpus_name(CorpusConfig(file="org/set", format="hub", subset="a", split="test")) == "set-a-test"
    assert corpus_names([corpus("kss/test.ko"), corpus("news/test.ko")]) == ["kss", "news"]
    assert corpus_names([corpus("a/x.ko"), corpus("a/x.ko"), corpus("a/y.ko")]) == ["x", "x-2", "y"]
    assert corpus_names([corpus("kss/test.ko")]) == ["test"]
