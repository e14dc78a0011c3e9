"""Many sequences end to end in one flat array with offsets: in memory, and on disk as two .npy files."""

import io
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from translate.durable import creating, durable_write
from translate.errors import DataError

CHUNK = 2**20
"""Bytes copied at once."""

Ids = NDArray[np.integer[Any]]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Many sequences end to end: number i is items[offsets[i] : offsets[i + 1]]."""

    items: Ids
    """(N_tok,)"""
    offsets: Integers
    """(N + 1,)"""

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]], dtype: Any) -> Self:
        """From lists of ids."""
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        items = np.fromiter(itertools.chain.from_iterable(lists), dtype, int(lengths.sum()))
        return cls(items, offsets_of(lengths))

    @classmethod
    def joined(cls, parts: Sequence[Self], dtype: Any) -> Self:
        """The sequences of all parts, one after the other."""
        lengths = [part.lengths() for part in parts]
        items = [np.asarray(part.items, dtype) for part in parts]
        return cls(
            np.concatenate([np.zeros(0, dtype), *items]),
            offsets_of(np.concatenate([np.zeros(0, np.int64), *lengths])),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Ids:
        return self.items[self.offsets[i] : self.offsets[i + 1]]

    def lengths(self, rows: Integers | None = None) -> Integers:
        """(N,), or of the sequences `rows` (B,) alone."""
        return np.diff(self.offsets) if rows is None else self.offsets[rows + 1] - self.offsets[rows]

    def chosen(self, marks: NDArray[np.bool_]) -> Self:
        """The sequences that are marked (N,), in their order."""
        if marks.all():
            return self
        lengths = self.lengths()
        return type(self)(self.items[np.repeat(marks, lengths)], offsets_of(lengths[marks]))

    def padded(self, rows: Integers, width: int, shift: int = 0) -> Integers:
        """The sequences `rows` (B,), each from column `shift` on -> (B, width), zeros elsewhere."""
        block = np.zeros((len(rows), width), dtype=np.int64)
        columns = np.arange(width) - shift
        filled = (columns >= 0) & (columns < self.lengths(rows)[:, None])
        block[filled] = self.items[(self.offsets[rows][:, None] + columns)[filled]]
        return block


def offsets_of(lengths: Integers) -> Integers:
    """Where sequences of these lengths (N,) begin, and where the last one ends; (N + 1,)."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


class SequenceWriter:
    """Collects sequences in nameless temporary files and puts them in place as two arrays; holds none of them."""

    def __init__(self, directory: Path, name: str, dtype: Any) -> None:
        self.items_path = directory / f"{name}.npy"
        self.offsets_path = directory / f"{name.removesuffix('_ids')}_offsets.npy"
        self.dtype = np.dtype(dtype)
        self.count = self.total = 0
        with creating(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self.items: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by its owner
            self.offsets: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115

    def add(self, sequences: Sequences) -> None:
        """Append sequences."""
        ends = self.total + offsets_of(sequences.lengths())
        with creating(self.items_path):
            self.items.write(np.ascontiguousarray(sequences.items, self.dtype).tobytes())
            self.offsets.write(ends[1:].tobytes())
        self.count += len(sequences)
        self.total = int(ends[-1])

    def write(self) -> list[Path]:
        """Put both arrays in place, durably; their paths."""
        start = np.zeros(1, dtype=np.int64)
        offsets = [_npy_header(start.dtype, self.count + 1), start.tobytes()]
        durable_write(self.items_path, itertools.chain([_npy_header(self.dtype, self.total)], _spooled(self.items)))
        durable_write(self.offsets_path, itertools.chain(offsets, _spooled(self.offsets)))
        return [self.items_path, self.offsets_path]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.items.close()
        self.offsets.close()


def _spooled(spool: IO[bytes]) -> Iterator[bytes]:
    spool.seek(0)
    yield from iter(lambda: spool.read(CHUNK), b"")


def _npy_header(dtype: np.dtype[Any], count: int) -> bytes:
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)})
    return header.getvalue()


def id_type(size: int) -> type[np.uint16] | type[np.int32]:
    """The smaller of the two stored types that holds ids below `size`."""
    return np.uint16 if size <= 2**16 else np.int32


def mapped(directory: Path, name: str) -> Sequences:
    """What a SequenceWriter of that name wrote there, memory-mapped. Raises DataError when it is no array."""
    path = directory / f"{name}.npy"
    try:
        offsets = np.load(directory / f"{name.removesuffix('_ids')}_offsets.npy", mmap_mode="r")
        items = np.load(path, mmap_mode="r" if offsets[-1] else None)  # nothing cannot be mapped
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged; run translate tokenize again") from error
    return Sequences(np.asarray(items), np.asarray(offsets))
