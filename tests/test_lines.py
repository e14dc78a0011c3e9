import gzip
import io
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from translate.errors import DataError, MissingInputError
from translate.text.lines import LONGEST_LINE, clean_line, count_lines, line_bytes, parse_lines, read_lines, shown

SEPARATORS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
ALPHABET = st.sampled_from([*SEPARATORS, "\r\n", " ", "\t", "a", "é", "한", "🙂", "\ufeff", "\u200b"])


def parsed(data: bytes) -> list[str]:
    return list(parse_lines(io.BytesIO(data), "text"))


def expected_lines(data: bytes) -> list[str]:
    """The definition, word for word, on bytes."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    pieces = data.split(b"\n")
    last = pieces.pop()
    lines = [piece.removesuffix(b"\r") for piece in pieces] + ([last] if last else [])
    return [line.decode() for line in lines]


@settings(max_examples=300, deadline=None)
@given(st.lists(ALPHABET).map("".join))
def test_a_line_ends_at_line_feed_and_nowhere_else(text: str) -> None:
    data = text.encode()
    if "\n" not in text and text.rstrip("\r").count("\r") > 1:
        return  # taken for an old Macintosh file, below
    expected = expected_lines(data)
    assert parsed(data) == expected
    assert parsed(gzip.compress(data)) == expected
    if not text.startswith("\ufeff"):
        assert len(parsed(data)) == data.count(b"\n") + (not data.endswith(b"\n") and data != b"")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]))))
@example(["\ufeff\ufeffa", "\ufeffb", "c\r", "\r", ""])
def test_lines_written_are_lines_read(lines: list[str]) -> None:
    data = b"".join(line_bytes(lines))
    if "PK\x03\x04" in "".join(lines[:1]):
        return
    assert parsed(data) == lines


def test_stream_is_read_no_further_than_the_line_given() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb", buffering=0) as writer:
        lines = parse_lines(reader, "stdin")
        for i in range(3):
            writer.write(f"line {i}\n".encode())
            assert next(lines) == f"line {i}"  # would wait for ever if it wanted more


def test_two_gzip_members_are_one_text(tmp_path: Path) -> None:
    path = tmp_path / "no-ending"
    path.write_bytes(gzip.compress(b"a\nb") + gzip.compress(b"c\nd\n"))
    assert list(read_lines(path)) == ["a", "bc", "d"]
    assert count_lines(path) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ok\nab\x80c\n", r"^text:2: byte 3: not UTF-8 \(0x80\)"),
        (b"ok\n\xea\xb0\x80\xed\x95", r"^text:2: byte 4: not UTF-8 \(0xED95\); the file ends in the middle"),
        (b"\xc0\xaf\n", r"^text:1: byte 1: not UTF-8 \(0xC0\)"),
        (b"\xed\xa0\x80\n", r"^text:1: byte 1: not UTF-8"),
        (b"\xf4\x90\x80\x80\n", r"^text:1: byte 1: not UTF-8"),
        ("naïve\n".encode("latin-1"), r"byte 3: not UTF-8 \(0xEF\).*Latin-1"),
        ("안녕하세요\n".encode("cp949"), "looks like CP949"),
        ("ab\n".encode("utf-16"), "found UTF-16 text"),
        (b"\xfe\xff\x00a", "found UTF-16 text"),
        ("ab\n".encode("utf-32"), "found UTF-32 text"),
        ("ab\ncd\n".encode("utf-16-le"), r"^text:1: byte 2: NUL byte.*UTF-16"),
        (b"1\n2\n3\n4\n5\n6\na\0b\n", r"^text:7: byte 2: NUL byte"),
        (b"one\rtwo\rthree\r", "lines end in CR alone"),
        (b"PK\x03\x04\x14\x00", "a zip archive"),
        (b"BZh91AY&SY\x9c\n", "a bzip2 archive"),
        (b"PAR1\x15\x04\x15\x10\n", "a Parquet file"),
        (b"\x89PNG\r\n\x1a\n", "text:1: byte 1"),
        (gzip.compress(b"a\n" * 9999)[:-12], "gzip data is cut short"),
        (gzip.compress(b"a\nb\n") + b"garbage", "gzip data is damaged after line 2"),
        (gzip.compress(b"a\nb\n")[:10] + b"\xff\xff\xff\xff", "gzip data is damaged"),
    ],
)
def test_what_is_not_text_is_refused_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parsed(data)


def test_lines_before_a_bad_one_are_given() -> None:
    lines = parse_lines(io.BytesIO(b"good\nb\xffd\n"), "stdin")
    assert next(lines) == "good"
    with pytest.raises(DataError, match="stdin:2"):
        next(lines)


@pytest.mark.parametrize("text", ["PAR1 is text", "BZh", "one\rtwo", "﷿", "\ufeff\ufeffinner mark stays"])
def test_text_that_only_looks_odd_is_read(text: str) -> None:
    assert parsed(text.encode()) == [text.removeprefix("\ufeff")]


def test_endless_line_does_not_fill_the_memory() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:] = b"x" * len(buffer)
            self.given += len(buffer)
            return len(buffer)

    source = Endless()
    with pytest.raises(DataError, match="text:1: the line is longer than 64 MiB"):
        list(parse_lines(io.BufferedReader(source), "text"))
    assert source.given < LONGEST_LINE + 2**20


def test_missing_input_is_said(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path / "none", tmp_path, loop, tmp_path / ("x" * 5000), tmp_path / "nul\0"):
        with pytest.raises(MissingInputError):
            list(read_lines(path))


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=[])))
def test_output_line_is_one_line_of_valid_text(text: str) -> None:
    cleaned = clean_line(text)
    cleaned.encode()
    assert len(cleaned.splitlines()) <= 1
    assert not [c for c in cleaned if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs")]
    kept = re.sub(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]", "", text)
    assert re.sub(r"[\s\ufffd]", "", cleaned) == kept


def test_control_characters_become_one_space() -> None:
    assert clean_line("a\r\nb\x1b[31mc\0d\x85e\u2028f\tg") == "a b [31mc d e f g"


def test_path_in_a_message_is_printable() -> None:
    assert shown(Path("한 글/a\nb\udcff")) == r"한 글/a\nb\udcff"
