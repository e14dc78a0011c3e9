"""The one definition of a line, for every file and stream that is read or written.

A line ends at the byte 0x0A and nowhere else; one 0x0D directly before it is dropped; a last piece without 0x0A is a
line. Text is UTF-8 whatever the locale, gzip is known by its first bytes, a byte-order mark at the start is dropped.
"""

import contextlib
import errno
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from translate.errors import DataError, MissingInputError, StorageError

LONGEST_LINE = 64 * 2**20
"""Bytes; whatever has no line end for longer than this is not text, and must not fill the memory."""

GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
FOREIGN = (
    (b"\xff\xfe\x00\x00", "UTF-32 text", "convert it with: iconv -f utf-32 -t utf-8"),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "convert it with: iconv -f utf-32 -t utf-8"),
    (b"\xff\xfe", "UTF-16 text", "convert it with: iconv -f utf-16 -t utf-8"),
    (b"\xfe\xff", "UTF-16 text", "convert it with: iconv -f utf-16 -t utf-8"),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it first"),
    (b"BZh", "a bzip2 archive", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first"),
    (b"PAR1", "a Parquet file", "use format: parquet"),
    (b"ARROW1", "an Arrow file", "use format: arrow"),
)
"""First bytes, what they mean, what to do; a line that is text all the same (`PAR1 is ...`) is let through."""

BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
SURROGATES = re.compile("[\ud800-\udfff]")


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file, without their ends.

    Raises MissingInputError when there is no file to read, DataError (`file:line: ...`) for what is not UTF-8 text.
    """
    with opened(path) as stream:
        yield from parse_lines(stream, shown(path))


def count_lines(path: Path) -> int:
    """How many lines `read_lines` gives."""
    return sum(1 for _ in read_lines(path))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file opened for reading bytes. Raises MissingInputError (nothing to read) or StorageError (reading failed)."""
    try:
        if path.is_dir():
            raise MissingInputError(f"{shown(path)}: is a directory, expected a file")
        stream = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise MissingInputError(f"{shown(path)}: cannot be read ({reason}); check the path") from error
    with stream:
        try:
            yield stream
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise StorageError(f"{shown(path)}: reading failed half-way ({error.strerror})") from error


def parse_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """The lines of an open stream; `name` stands for it in messages. Reads no further than the line it gives."""
    number = 0
    try:
        source = _unpacked(stream)
        for raw in iter(lambda: source.readline(LONGEST_LINE + 1), b""):
            number += 1
            if number == 1:
                raw = _first_line(raw, name)
                if not raw:
                    return  # a byte-order mark and nothing else
            yield _decoded(raw, name, number)
    except EOFError as error:
        raise DataError(f"{name}: the gzip data is cut short after line {number}; get the file anew") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: the gzip data is damaged after line {number} ({error}); get the file anew") from error


def _unpacked(stream: BinaryIO) -> BinaryIO:
    buffered = stream if hasattr(stream, "peek") else io.BufferedReader(cast(io.RawIOBase, stream))
    if buffered.peek(len(GZIP)).startswith(GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=buffered))
    return buffered


def _first_line(raw: bytes, name: str) -> bytes:
    if raw.startswith(BYTE_ORDER_MARK):
        raw = raw[len(BYTE_ORDER_MARK) :]
    for magic, what, advice in FOREIGN:
        if raw.startswith(magic) and not _is_text(raw):
            raise DataError(f"{name}: found {what}, expected UTF-8 text; {advice}")
    if not raw.endswith(b"\n") and raw.rstrip(b"\r").count(b"\r") > 1:
        raise DataError(f"{name}: lines end in CR alone (old Macintosh); convert it with: tr '\\r' '\\n'")
    return raw


def _is_text(raw: bytes) -> bool:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return False
    return not BREAKS.search(text.rstrip("\r\n").replace("\t", ""))


def _decoded(raw: bytes, name: str, number: int) -> str:
    if len(raw) > LONGEST_LINE:
        limit = LONGEST_LINE // 2**20
        raise DataError(f"{name}:{number}: the line is longer than {limit} MiB; this does not look like text")
    if b"\0" in raw:
        hint = "is this UTF-16? then: iconv -f utf-16le -t utf-8" if raw.count(b"\0") > 1 else "remove it"
        raise DataError(f"{name}:{number}: byte {raw.index(0) + 1}: NUL byte, expected text; {hint}")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        found = "0x" + raw[error.start : error.end].hex().upper()
        raise DataError(
            f"{name}:{number}: byte {error.start + 1}: not UTF-8 ({found}); {_encoding_hint(raw, error)}"
        ) from error
    if text.endswith("\n"):
        text = text[:-2] if text.endswith("\r\n") else text[:-1]
    return text


def _encoding_hint(raw: bytes, error: UnicodeDecodeError) -> str:
    if error.reason == "unexpected end of data" and not raw.endswith(b"\n"):
        return "the file ends in the middle of a character: is it complete?"
    with contextlib.suppress(UnicodeDecodeError):
        if re.search("[가-힣]", raw.decode("cp949")):
            return "the line looks like CP949 (EUC-KR), convert the file with: iconv -f cp949 -t utf-8"
    if re.search(rb"[\x80-\x9f]", raw):
        return "find out the file's encoding and convert it with: iconv -f ENCODING -t utf-8"
    return "the line looks like Latin-1, convert the file with: iconv -f latin1 -t utf-8"


def line_bytes(lines: Iterable[str]) -> Iterator[bytes]:
    """Lines as the bytes of a file from which `read_lines` gives the same lines again, whatever is in them.

    A line must hold no line feed and no NUL.
    """
    first = True
    for line in lines:
        assert "\n" not in line, "a line cannot hold a line feed"
        mark = "\ufeff" if first and line.startswith("\ufeff") else ""  # the reader drops one mark at the start
        end = "\r\n" if line.endswith("\r") else "\n"  # and one CR before the end
        first = False
        yield (mark + line + end).encode()


def clean_line(text: str) -> str:
    """What an output line may hold: each run of control characters and line or paragraph separators is one space.

    Tabs count as control characters, so that output can be put in columns. The result is always valid UTF-8.
    """
    return SURROGATES.sub("\ufffd", BREAKS.sub(" ", text))


def shown(path: Path) -> str:
    """A path for a message: on one line and printable, whatever its bytes."""
    name = os.fspath(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
