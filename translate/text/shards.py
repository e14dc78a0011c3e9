"""Text in shards: pairs of one corpus that are encoded together, and kept in one file each until all of them are there.

RUN/data/shards/IDENTITY/begun.json           what was settled before the first shard
RUN/data/shards/IDENTITY/train.0.00000.npz    an encoded shard: corpus 0 of the training text, its first pairs

A shard's content depends on its text and on nothing before it, so shards can be encoded by several processes, in any
order. Its file appears whole or not at all, which is why a killed tokenize goes on after the shards it has finished.
"""

import io
import itertools
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.lib.npyio import NpzFile

from translate.config import CleaningConfig
from translate.durable import digest_bytes, durable_json, durable_write, remove_leftovers
from translate.errors import StorageError
from translate.text.arrays import Sequences, id_type
from translate.text.cleaning import KEPT, Cleaner, Codes, Keys, Marks, Reason, as_keys, code, pair_key
from translate.text.corpus import Pair
from translate.text.tokenizer import EOS, Tokenizer

PAIRS = 2**16
"""Pairs of a shard: seconds of work, and about 30 MB in the process that encodes it."""
CHARACTERS = 2**24
"""Characters after which a shard ends although it has fewer pairs, so that long lines do not fill the memory."""
LINES_AT_ONCE = 4096

Found = TypeVar("Found")


@dataclass(frozen=True)
class Places:
    """Where the pairs of a shard stand: from pair `first` on, in `origin` from `line` on, one pair a line."""

    runs: tuple[tuple[int, str, int], ...]
    """(first, origin, line)"""

    def __call__(self, i: int) -> str:
        """`origin:line` of pair i."""
        first, origin, line = next(run for run in reversed(self.runs) if run[0] <= i)
        return f"{origin}:{line + i - first}"


@dataclass(frozen=True)
class Shard:
    """Some pairs of a corpus in their order."""

    count: int
    src: bytes
    """The source lines with line feeds between them, in UTF-8."""
    tgt: bytes
    places: Places

    def digest(self) -> str:
        """SHA-256 of the text."""
        return digest_bytes(b"%d\n%b\n%b" % (self.count, self.src, self.tgt))


def shards_of(pairs: Iterable[Pair]) -> Iterator[Shard]:
    """A corpus in shards of PAIRS pairs, or fewer if their lines are very long."""
    gathered: list[Pair] = []
    characters = 0
    for pair in pairs:
        gathered.append(pair)
        characters += len(pair.src) + len(pair.tgt)
        if len(gathered) == PAIRS or characters >= CHARACTERS:
            yield _shard(gathered)
            gathered, characters = [], 0
    if gathered:
        yield _shard(gathered)


def _shard(pairs: list[Pair]) -> Shard:
    runs: list[tuple[int, str, int]] = []
    expected: tuple[str, int] | None = None
    for i, pair in enumerate(pairs):
        if (pair.origin, pair.line) != expected:
            runs.append((i, pair.origin, pair.line))
        expected = (pair.origin, pair.line + 1)
    src, tgt = ("\n".join(lines).encode() for lines in ((p.src for p in pairs), (p.tgt for p in pairs)))
    return Shard(len(pairs), src, tgt, Places(tuple(runs)))


@dataclass(frozen=True)
class Order:
    """How a shard is to be encoded, and where it goes."""

    path: Path
    key: str
    """What text and tokenizer the file is made from."""
    cleaning: CleaningConfig | None
    """None keeps every pair."""
    keep_text: bool
    """Whether the normalised text is kept beside the ids."""


@dataclass(frozen=True)
class EncodedShard:
    """What a shard of N pairs has become. Which of them were there before, in other shards too, is not yet known."""

    codes: Codes
    """(N,)"""
    keyed: Marks
    """(N,) whether a pair's text could be kept, so that it has a key."""
    keys: Keys
    """(keyed,)"""
    sides: dict[str, Sequences]
    """src_ids (each ends in EOS), tgt_ids, and if kept src_text and tgt_text, of the pairs whose code is KEPT."""

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The pairs of all parts, one after the other."""
        sides = {
            name: Sequences.joined([part.sides[name] for part in parts], side.items.dtype)
            for name, side in parts[0].sides.items()
        }
        codes, keyed, keys = (np.concatenate(arrays) for arrays in zip(*map(_marks, parts), strict=True))
        return cls(codes, keyed, keys, sides)

    def without(self, repeats: Marks) -> Self:
        """The same, but the keyed pairs that are marked (keyed,) are dropped as duplicates."""
        judged = self.codes[self.keyed]
        sides = {name: side.chosen(~repeats[judged == KEPT]) for name, side in self.sides.items()}
        codes = self.codes.copy()
        codes[self.keyed] = np.where(repeats, code(Reason.DUPLICATE), judged)
        return type(self)(codes, self.keyed, self.keys, sides)

    def write(self, path: Path, key: str) -> None:
        """Put it in place, durably."""
        arrays = {"key": np.array(key), "codes": self.codes, "keyed": self.keyed, "keys": self.keys}
        for name, side in self.sides.items():
            arrays |= {f"{name}.items": side.items, f"{name}.offsets": side.offsets}
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        durable_write(path, file.getvalue())

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote. Raises StorageError when it is no longer whole; then it is made anew the next time."""
        codes, keyed, keys, sides = _from_file(path, _arrays)
        return cls(codes, keyed, keys, sides)


def _arrays(file: NpzFile) -> tuple[Codes, Marks, Keys, dict[str, Sequences]]:
    names = [name.removesuffix(".items") for name in file.files if name.endswith(".items")]
    sides = {name: Sequences(file[f"{name}.items"], file[f"{name}.offsets"]) for name in names}
    return file["codes"], file["keyed"], file["keys"], sides


def read_keys(path: Path) -> Keys:
    """The keys of an encoded shard. Raises StorageError as `EncodedShard.read` does."""
    return _from_file(path, lambda file: file["keys"])


def _marks(part: EncodedShard) -> tuple[Codes, Marks, Keys]:
    return part.codes, part.keyed, part.keys


def _from_file(path: Path, read: Callable[[NpzFile], Found]) -> Found:
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            return read(file)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        path.unlink(missing_ok=True)
        raise StorageError(f"{path}: was damaged and is removed; run the same command again to make it anew") from error


def encode_shard(
    shard: Shard, order: Order, tokenizer: Tokenizer, threads: int, advance: Callable[[int], None]
) -> EncodedShard:
    """Normalise, judge and encode the pairs of a shard; `advance` is told how many more are done."""
    cleaner = Cleaner(order.cleaning) if order.cleaning is not None else None
    src, tgt = (side.decode().split("\n") for side in (shard.src, shard.tgt))
    parts = []
    for start in range(0, shard.count, LINES_AT_ONCE):
        rows = slice(start, start + LINES_AT_ONCE)
        parts.append(_encode_lines(src[rows], tgt[rows], tokenizer, cleaner, order.keep_text, threads))
        advance(len(src[rows]))
    return EncodedShard.joined(parts)


def _encode_lines(
    src: list[str], tgt: list[str], tokenizer: Tokenizer, cleaner: Cleaner | None, keep_text: bool, threads: int
) -> EncodedShard:
    pairs = [(tokenizer.normalize(s), tokenizer.normalize(t)) for s, t in zip(src, tgt, strict=True)]
    codes = np.zeros(len(pairs), dtype=np.uint8)
    if cleaner is not None:
        codes[:] = [code(cleaner.judge_text(s, t)) for s, t in pairs]
    keyed = codes == KEPT
    judged = list(itertools.compress(pairs, keyed))
    src_ids = tokenizer.encode_normalized("src", [s for s, _ in judged], threads)
    tgt_ids = tokenizer.encode_normalized("tgt", [t for _, t in judged], threads)
    if cleaner is not None:
        codes[keyed] = [code(cleaner.judge_lengths(len(s), len(t))) for s, t in zip(src_ids, tgt_ids, strict=True)]
    kept = codes[keyed] == KEPT
    sides = {
        "src_ids": Sequences.of(
            [[*ids, EOS] for ids in itertools.compress(src_ids, kept)], id_type(tokenizer.src_size)
        ),
        "tgt_ids": Sequences.of(list(itertools.compress(tgt_ids, kept)), id_type(tokenizer.tgt_size)),
    }
    if keep_text:
        texts = list(itertools.compress(judged, kept))
        sides["src_text"] = Sequences.of([s.encode() for s, _ in texts], np.uint8)
        sides["tgt_text"] = Sequences.of([t.encode() for _, t in texts], np.uint8)
    return EncodedShard(codes, keyed, as_keys(pair_key(s, t) for s, t in judged), sides)


class Shelf:
    """Where the encoded shards of a run wait for each other."""

    def __init__(self, data: Path, identity: str) -> None:
        self.all = data / "shards"
        self.directory = self.all / identity[:32]

    def begun(self) -> dict[str, Any] | None:
        """What `begin` was given, or None if no such work was begun; what other work has left is removed."""
        for path in self.all.glob("*"):
            if path != self.directory:
                shutil.rmtree(path, ignore_errors=True)
        try:
            known = json.loads((self.directory / "begun.json").read_bytes())
        except (OSError, ValueError):
            return None
        remove_leftovers(self.directory)
        return known if isinstance(known, dict) else None

    def begin(self, settled: dict[str, Any]) -> None:
        """Start anew, remembering what is settled."""
        shutil.rmtree(self.directory, ignore_errors=True)
        durable_json(self.directory / "begun.json", settled)

    def path(self, split: str, corpus: int, number: int) -> Path:
        """The file of a shard."""
        return self.directory / f"{split}.{corpus}.{number:05}.npz"

    def holds(self, order: Order) -> bool:
        """Whether a shard is there, made from the same."""
        try:
            return order.path.exists() and _from_file(order.path, lambda file: str(file["key"])) == order.key
        except StorageError:
            return False

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.all, ignore_errors=True)
