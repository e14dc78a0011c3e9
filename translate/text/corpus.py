"""Sentence pairs from plain file pairs, TSV, JSON Lines, Parquet, Arrow, and datasets of the Hugging Face Hub."""

import contextlib
import itertools
import json
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from translate.config import CorpusConfig
from translate.errors import DataError, MissingInputError
from translate.text.lines import count_lines, opened, read_lines, shown

ROWS_AT_ONCE = 1024
LINE_ENDS = re.compile("\r\n|[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Pair:
    """A source sentence, its translation, and where they stand."""

    src: str
    tgt: str
    origin: str
    line: int


def read_pairs(corpus: CorpusConfig, scratch: Path | None = None) -> Iterator[Pair]:
    """The pairs of a corpus in order; `scratch` is where a Hub dataset may be cached.

    Raises MissingInputError for what is not there, DataError (`file:line: ...`) for what is not as it should be;
    unequal files are found at the end of the shorter one.
    """
    match corpus.format:
        case "text":
            assert corpus.src is not None
            assert corpus.tgt is not None
            return _read_text(Path(corpus.src), Path(corpus.tgt))
        case "tsv":
            return _read_tsv(_file(corpus), corpus.src_field, corpus.tgt_field)
        case "jsonl":
            return _read_jsonl(_file(corpus), *_fields(corpus))
        case "parquet":
            return _read_tables([_file(corpus)], *_fields(corpus), _parquet_tables)
        case "arrow":
            return _read_tables(_arrow_files(_file(corpus)), *_fields(corpus), _arrow_tables)
        case "hub":
            return _read_hub(corpus, scratch)


def source_files(corpus: CorpusConfig) -> list[Path]:
    """The files a corpus is read from, each checked to be there and a regular file; none for a Hub dataset."""
    match corpus.format:
        case "text":
            files = [Path(side) for side in (corpus.src, corpus.tgt) if side is not None]
        case "hub":
            files = []
        case "arrow":
            files = _arrow_files(_file(corpus))
        case _:
            files = [_file(corpus)]
    for path in files:
        require_regular(path)
    return files


def corpus_name(corpus: CorpusConfig) -> str:
    """What reports call a corpus: its `name`, or its file's name without the endings of format and language."""
    if corpus.name is not None:
        return corpus.name
    if corpus.format == "text":
        assert corpus.src is not None
        return Path(corpus.src).name.removesuffix(".gz").rsplit(".", 1)[0]
    if corpus.format == "hub":
        parts = [_hub_name(corpus).rsplit("/", 1)[-1], corpus.subset, corpus.split]
        return "-".join(part for part in parts if part)
    return _file(corpus).name.removesuffix(".gz").rsplit(".", 1)[0]


def corpus_names(corpora: Sequence[CorpusConfig]) -> list[str]:
    """One name for each corpus, no two alike: where file names agree the folders' names stand in, or else a number."""
    names = [corpus_name(corpus) for corpus in corpora]
    folders = [Path(corpus.src or corpus.file or "").parent.name for corpus in corpora]
    for i, name in enumerate(list(names)):
        if names.count(name) == len(names) > 1 and all(folders) and len(set(folders)) == len(folders):
            return folders
        if name in names[:i]:
            names[i] = f"{name}-{i + 1}"
    return names


def _file(corpus: CorpusConfig) -> Path:
    assert corpus.file is not None
    return Path(corpus.file)


def _fields(corpus: CorpusConfig) -> tuple[str, str]:
    return corpus.src_field or "src", corpus.tgt_field or "tgt"


def require_regular(path: Path) -> None:
    """Raise MissingInputError or DataError unless the path is a regular file that may be read."""
    with contextlib.suppress(OSError, ValueError):  # `opened` says it better
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise DataError(f"{shown(path)}: is not a regular file; it is read more than once, so copy it into one")
    with opened(path):
        pass


# Plain text, TSV, JSON Lines


def _read_text(src: Path, tgt: Path) -> Iterator[Pair]:
    origin = shown(src)
    pairs = itertools.zip_longest(read_lines(src), read_lines(tgt))
    for line, (src_line, tgt_line) in enumerate(pairs, 1):
        if src_line is None or tgt_line is None:
            raise DataError(
                f"{origin} has {count_lines(src)} lines, {shown(tgt)} has {count_lines(tgt)}; "
                "line N of one must translate line N of the other, so they must be equal"
            )
        yield Pair(src_line, tgt_line, origin, line)


def _read_tsv(path: Path, src_field: str | None, tgt_field: str | None) -> Iterator[Pair]:
    origin = shown(path)
    fields = (src_field or "1", tgt_field or "2")
    numbered = all(field.isascii() and field.isdigit() for field in fields)
    header: list[str] = []
    columns = [] if not numbered else [_column(field, header, origin) for field in fields]
    for line, text in enumerate(read_lines(path), 1):
        cells = text.split("\t")
        if not columns:
            header = cells
            columns = [_column(field, header, origin) for field in fields]
            continue
        if len(cells) <= max(columns):
            raise DataError(f"{origin}:{line}: found {len(cells)} columns, expected at least {max(columns) + 1}")
        yield Pair(one_line(cells[columns[0]]), one_line(cells[columns[1]]), origin, line)


def _column(field: str, header: list[str], origin: str) -> int:
    """Index of a column given by its name in the header, or by its number from 1."""
    if field in header:
        return header.index(field)
    if field.isascii() and field.isdigit() and int(field) >= 1:
        return int(field) - 1
    found = f"the first line has {', '.join(map(repr, header))}" if header else "columns are numbered from 1"
    raise DataError(f"{origin}: there is no column {field!r}; {found}")


def _read_jsonl(path: Path, src_field: str, tgt_field: str) -> Iterator[Pair]:
    origin = shown(path)
    for line, text in enumerate(read_lines(path), 1):
        where = f"{origin}:{line}"
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: byte {error.colno}: not JSON ({error.msg}); expected one object a line"
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: cannot be read as JSON ({error})") from error
        yield Pair(field_text(record, src_field, where), field_text(record, tgt_field, where), origin, line)


def field_text(record: Any, field: str, where: str) -> str:
    """The text in a field of a record; `a.b` is field b of field a, unless there is a field of that whole name."""
    value = record
    for part in [field] if isinstance(record, dict) and field in record else field.split("."):
        if not isinstance(value, dict) or part not in value:
            found = ", ".join(map(repr, value)) if isinstance(value, dict) else f"no fields, but {_kind(value)}"
            raise DataError(f"{where}: there is no field {field!r} (found {found}); set src_field and tgt_field")
        value = value[part]
    if not isinstance(value, str):
        raise DataError(f"{where}: field {field!r} holds {_kind(value)}, expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: field {field!r} holds half of a surrogate pair, which is no character") from error
    return one_line(value)


def one_line(text: str) -> str:
    """A field as a line: line ends and NUL inside it become spaces."""
    return LINE_ENDS.sub(" ", text)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


# Parquet, Arrow, Hub


def _read_tables(files: list[Path], src_field: str, tgt_field: str, tables: Any) -> Iterator[Pair]:
    for path in files:
        yield from _table_pairs(tables(path, (src_field, tgt_field)), src_field, tgt_field, shown(path))


def _table_pairs(tables: Iterable[Any], src_field: str, tgt_field: str, origin: str) -> Iterator[Pair]:
    line = 0
    for table in tables:
        for record in table.to_pylist():
            line += 1
            where = f"{origin}: row {line}"
            yield Pair(field_text(record, src_field, where), field_text(record, tgt_field, where), origin, line)


def _top_columns(names: Sequence[str], fields: Sequence[str], origin: str) -> list[str]:
    """The columns that hold the fields. Raises DataError when there is none."""
    tops = [field if field in names else field.split(".")[0] for field in fields]
    for field, top in zip(fields, tops, strict=True):
        if top not in names:
            found = ", ".join(map(repr, names))
            raise DataError(f"{origin}: there is no column {field!r} (found {found}); set src_field and tgt_field")
    return list(dict.fromkeys(tops))


def _parquet_tables(path: Path, fields: Sequence[str]) -> Iterator[Any]:
    import pyarrow.parquet

    with opened(path) as stream, _refusing_damage(path, "Parquet"):
        file = pyarrow.parquet.ParquetFile(stream)
        columns = _top_columns(file.schema_arrow.names, fields, shown(path))
        yield from file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)


def _arrow_files(path: Path) -> list[Path]:
    """An Arrow file, or those of a dataset saved to a directory."""
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.arrow"))
    if not files:
        raise MissingInputError(f"{shown(path)}: is a directory without .arrow files")
    return files


def _arrow_tables(path: Path, fields: Sequence[str]) -> Iterator[Any]:
    import pyarrow.ipc

    with opened(path) as stream, _refusing_damage(path, "Arrow"):
        in_file_format = stream.read(6) == b"ARROW1"
        stream.seek(0)
        reader = pyarrow.ipc.open_file(stream) if in_file_format else pyarrow.ipc.open_stream(stream)
        columns = _top_columns(reader.schema.names, fields, shown(path))
        count = reader.num_record_batches if in_file_format else None
        batches = iter(reader) if count is None else (reader.get_batch(i) for i in range(count))
        for batch in batches:
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                yield batch.slice(start, ROWS_AT_ONCE).select(columns)


@contextlib.contextmanager
def _refusing_damage(path: Path, what: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{shown(path)}: cannot be read as {what} ({_first_line(error)})") from error


def _hub_name(corpus: CorpusConfig) -> str:
    assert corpus.file is not None
    return corpus.file


def _read_hub(corpus: CorpusConfig, scratch: Path | None) -> Iterator[Pair]:
    name = _hub_name(corpus)
    dataset = _load_hub(corpus, scratch)
    fields = _fields(corpus)
    columns = _top_columns(dataset.column_names, fields, name)
    tables = dataset.select_columns(columns).with_format("arrow").iter(ROWS_AT_ONCE)
    yield from _table_pairs(tables, *fields, name)


def _load_hub(corpus: CorpusConfig, scratch: Path | None) -> Any:
    import datasets
    import huggingface_hub

    name = _hub_name(corpus)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()  # it would tell each of its attempts
    try:
        loaded = datasets.load_dataset(
            name,
            corpus.subset,
            split=corpus.split,
            revision=corpus.revision,
            cache_dir=str(scratch) if scratch else None,
        )
    except (OSError, RuntimeError) as error:  # no network, or no such dataset
        raise MissingInputError(
            f"dataset {name}: cannot be loaded from the Hub ({_first_line(error)}); "
            "check the name and the network, or download it and use format: parquet"
        ) from error
    except ValueError as error:  # no such subset or split
        raise DataError(f"dataset {name}: {_first_line(error)}") from error
    if isinstance(loaded, datasets.Dataset):
        return loaded
    if len(loaded) != 1:
        raise DataError(f"dataset {name}: set 'split' to one of {', '.join(loaded)}")
    return next(iter(loaded.values()))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n", 1)[0]
