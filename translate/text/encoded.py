"""Ids on disk: flat arrays and offsets, memory-mapped, with digests in a manifest.

RUN/data/manifest.json                    written last: without it there is no data
RUN/data/SPLIT/src_ids.npy  src_offsets.npy  tgt_ids.npy  tgt_offsets.npy
RUN/data/SPLIT/src_text.npy ...           UTF-8 in the same form, if the text is segmented anew each epoch
RUN/data/SPLIT.K.src  SPLIT.K.tgt         untouched text of corpus K of a split that is scored
"""

import io
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from translate.errors import DataError, MissingInputError
from translate.run import RunDirectory, creating, digest_bytes, digest_file, durable_write
from translate.text.tokenizer import EOS, Side, Tokenizer

LAYOUT = 1
"""Number of this layout; another number in the manifest means that the data is made anew."""
CHUNK = 2**20
LINES_AT_ONCE = 4096

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
    def of(cls, lists: Sequence[Sequence[int]], dtype: Any) -> "Sequences":
        """From lists of ids."""
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        items = np.fromiter(itertools.chain.from_iterable(lists), dtype, int(lengths.sum()))
        return cls(items, _offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Ids:
        return self.items[self.offsets[i] : self.offsets[i + 1]]

    def lengths(self, rows: Integers | None = None) -> Integers:
        """(N,), or of the sequences `rows` (B,) alone."""
        return np.diff(self.offsets) if rows is None else self.offsets[rows + 1] - self.offsets[rows]

    def padded(self, rows: Integers, width: int, shift: int = 0) -> Integers:
        """The sequences `rows` (B,), each from column `shift` on -> (B, width), zeros elsewhere."""
        block = np.zeros((len(rows), width), dtype=np.int64)
        columns = np.arange(width) - shift
        filled = (columns >= 0) & (columns < self.lengths(rows)[:, None])
        block[filled] = self.items[(self.offsets[rows][:, None] + columns)[filled]]
        return block


@dataclass(frozen=True)
class Epoch:
    """The examples of one epoch before they are shuffled: example e is sequence rows[e] of both sides."""

    sources: Sequences
    targets: Sequences
    rows: Integers
    """(E,)"""
    pairs: Integers
    """(E,) the split's pair that an example is; rows differ from it only where text was segmented anew."""

    def __len__(self) -> int:
        return len(self.rows)

    def src_lengths(self) -> Integers:
        """(E,) with EOS."""
        return self.sources.lengths(self.rows)

    def tgt_lengths(self) -> Integers:
        """(E,) counting EOS."""
        return self.targets.lengths(self.rows) + 1


@dataclass(frozen=True)
class Texts:
    """Normalised text of both sides as UTF-8, and how to segment it anew."""

    src: Sequences
    tgt: Sequences
    tokenizer: Tokenizer
    rate: float


@dataclass(frozen=True)
class EncodedSplit:
    """The pairs of one split: source ids end in EOS, target ids have neither BOS nor EOS."""

    sources: Sequences
    targets: Sequences
    counts: tuple[int, ...]
    """Pairs of each corpus; the corpora lie one after the other."""
    weights: tuple[float, ...]
    """How often a pair of each corpus is seen in an epoch."""
    texts: Texts | None = None
    """Present if the text is segmented anew each epoch."""

    def __len__(self) -> int:
        return len(self.sources)

    def src(self, i: int) -> Ids:
        """(S,) source ids of pair i, with EOS."""
        return self.sources[i]

    def tgt(self, i: int) -> Ids:
        """(T,) target ids of pair i, without BOS and EOS."""
        return self.targets[i]

    @property
    def src_lengths(self) -> Integers:
        """(N,) with EOS."""
        return self.sources.lengths()

    @property
    def tgt_lengths(self) -> Integers:
        """(N,) counting EOS, which the target ids leave out."""
        return self.targets.lengths() + 1

    def whole(self) -> Epoch:
        """Every pair once, as it was encoded."""
        pairs = np.arange(len(self), dtype=np.int64)
        return Epoch(self.sources, self.targets, pairs, pairs)

    def epoch(self, seed: int, epoch: int) -> Epoch:
        """The examples of an epoch: a pure function of (seed, epoch)."""
        pairs = self._weighted_pairs(seed, epoch)
        if self.texts is None:
            return Epoch(self.sources, self.targets, pairs, pairs)
        sources = _segmented(self.texts, "src", pairs, (seed, epoch), self.sources.items.dtype)
        targets = _segmented(self.texts, "tgt", pairs, (seed, epoch), self.targets.items.dtype)
        return Epoch(sources, targets, np.arange(len(pairs), dtype=np.int64), pairs)

    def _weighted_pairs(self, seed: int, epoch: int) -> Integers:
        """Weight 2.5 is every pair twice and half of them once more, drawn by (seed, epoch)."""
        parts: list[Integers] = []
        first = 0
        for corpus, (count, weight) in enumerate(zip(self.counts, self.weights, strict=True)):
            times, share = divmod(weight, 1.0)
            parts += [np.arange(first, first + count, dtype=np.int64)] * int(times)
            drawn = round(share * count)
            if times == 0 and count:
                drawn = max(drawn, 1)  # no corpus vanishes
            if drawn:
                rng = np.random.Generator(np.random.PCG64([seed, epoch, corpus, 1]))
                parts.append(first + np.sort(rng.permutation(count)[:drawn]))
            first += count
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _segmented(texts: Texts, side: Side, pairs: Integers, key: tuple[int, int], dtype: Any) -> Sequences:
    """The texts of `pairs` in a random segmentation, LINES_AT_ONCE to a seed so that memory stays bounded."""
    stored = texts.src if side == "src" else texts.tgt
    end = [EOS] if side == "src" else []
    parts: list[Sequences] = []
    for chunk, start in enumerate(range(0, len(pairs), LINES_AT_ONCE)):
        lines = [stored[int(i)].tobytes().decode() for i in pairs[start : start + LINES_AT_ONCE]]
        seed = np.random.SeedSequence([*key, chunk, ("src", "tgt").index(side)]).generate_state(1)[0]
        sampled = texts.tokenizer.sample(side, lines, texts.rate, int(seed) & 0x7FFFFFFF)
        parts.append(Sequences.of([ids + end for ids in sampled], dtype))
    if not parts:
        return Sequences.of([], dtype)
    lengths = np.concatenate([part.lengths() for part in parts])
    return Sequences(np.concatenate([part.items for part in parts]), _offsets(lengths))


def _offsets(lengths: Integers) -> Integers:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


class SequenceWriter:
    """Collects sequences in a nameless temporary file and puts them in place as two arrays."""

    def __init__(self, directory: Path, name: str, dtype: Any) -> None:
        self.items_path = directory / f"{name}.npy"
        self.offsets_path = directory / f"{name.removesuffix('_ids')}_offsets.npy"
        self.dtype = np.dtype(dtype)
        self.lengths: list[Integers] = []
        with creating(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self.spool: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by `close`

    def add(self, sequences: Sequences) -> None:
        """Append sequences."""
        self.lengths.append(sequences.lengths())
        with creating(self.items_path):
            self.spool.write(np.ascontiguousarray(sequences.items, self.dtype).tobytes())

    def close(self) -> int:
        """Write both arrays durably and return how many items there are."""
        offsets = _offsets(np.concatenate(self.lengths) if self.lengths else np.zeros(0, dtype=np.int64))
        durable_write(self.items_path, itertools.chain([_npy_header(self.dtype, int(offsets[-1]))], self._spooled()))
        durable_write(
            self.offsets_path, itertools.chain([_npy_header(offsets.dtype, len(offsets))], [offsets.tobytes()])
        )
        self.spool.close()
        return int(offsets[-1])

    def _spooled(self) -> Iterator[bytes]:
        self.spool.seek(0)
        yield from iter(lambda: self.spool.read(CHUNK), b"")


def _npy_header(dtype: np.dtype[Any], count: int) -> bytes:
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)})
    return header.getvalue()


class SplitWriter:
    """Puts encoded pairs in place as the arrays of a split."""

    def __init__(self, directory: Path, tokenizer: Tokenizer, keep_text: bool) -> None:
        self.src = SequenceWriter(directory, "src_ids", id_type(tokenizer.src_size))
        self.tgt = SequenceWriter(directory, "tgt_ids", id_type(tokenizer.tgt_size))
        self.texts = [SequenceWriter(directory, f"{side}_text", np.uint8) for side in ("src", "tgt") if keep_text]

    def add(self, rows: Sequence[tuple[list[int], list[int], str, str]]) -> None:
        """Append pairs: source ids and target ids, both without EOS, and the normalised texts they are made of."""
        self.src.add(Sequences.of([[*row[0], EOS] for row in rows], self.src.dtype))
        self.tgt.add(Sequences.of([row[1] for row in rows], self.tgt.dtype))
        for side, writer in enumerate(self.texts):
            writer.add(Sequences.of([row[2 + side].encode() for row in rows], np.uint8))

    def close(self) -> list[Path]:
        """Write all arrays durably; their paths."""
        writers = [self.src, self.tgt, *self.texts]
        for writer in writers:
            writer.close()
        return [path for writer in writers for path in (writer.items_path, writer.offsets_path)]


def id_type(size: int) -> type[np.uint16] | type[np.int32]:
    """The smaller of the two stored types that holds ids below `size`."""
    return np.uint16 if size <= 2**16 else np.int32


def read_manifest(run: RunDirectory) -> dict[str, Any] | None:
    """What the tokenize stage recorded, or None when there is nothing usable."""
    try:
        manifest = json.loads(run.manifest.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("layout") == LAYOUT else None


def load_split(run: RunDirectory, name: str) -> EncodedSplit:
    """A split, memory-mapped. Raises MissingInputError when it was not made, DataError when it is not whole."""
    split = _manifest_split(run, name)
    directory = run.data / name
    for file, known in split["files"].items():
        path = run.data / file
        if not path.is_file() or path.stat().st_size != known["bytes"]:
            raise DataError(f"{path}: is damaged or missing; run translate tokenize again")
    texts = None
    if split["sampling"]:
        tokenizer = Tokenizer.open(run.tokenizer)
        texts = Texts(_mapped(directory, "src_text"), _mapped(directory, "tgt_text"), tokenizer, split["sampling"])
    return EncodedSplit(
        _mapped(directory, "src_ids"),
        _mapped(directory, "tgt_ids"),
        tuple(corpus["kept"] for corpus in split["corpora"]),
        tuple(corpus["weight"] for corpus in split["corpora"]),
        texts,
    )


def _manifest_split(run: RunDirectory, name: str) -> dict[str, Any]:
    manifest = read_manifest(run)
    if manifest is None:
        raise MissingInputError(f"{run.manifest}: is not there or damaged; run translate tokenize first")
    if name not in manifest["splits"]:
        raise MissingInputError(f"run {run.root} has no data.{name}")
    return manifest["splits"][name]


def _mapped(directory: Path, name: str) -> Sequences:
    path = directory / f"{name}.npy"
    try:
        offsets = np.load(directory / f"{name.removesuffix('_ids')}_offsets.npy", mmap_mode="r")
        items = np.load(path, mmap_mode="r" if offsets[-1] else None)  # nothing cannot be mapped
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged; run translate tokenize again") from error
    return Sequences(np.asarray(items), np.asarray(offsets))


@dataclass(frozen=True)
class RawText:
    """The untouched text of one corpus of a split."""

    name: str
    src: Path
    tgt: Path


def raw_texts(run: RunDirectory, name: str) -> list[RawText]:
    """The corpora of a split that is scored. Raises MissingInputError when there is none."""
    corpora = _manifest_split(run, name)["corpora"]
    return [
        RawText(corpus["name"], run.data / f"{name}.{k}.src", run.data / f"{name}.{k}.tgt")
        for k, corpus in enumerate(corpora)
    ]


def data_digest(run: RunDirectory) -> str:
    """SHA-256 over all that training reads: arrays, weights, tokenizer. Raises MissingInputError when not made."""
    train, valid = _manifest_split(run, "train"), _manifest_split(run, "valid")
    manifest = read_manifest(run)
    assert manifest is not None
    facts = [manifest["tokenizer"]["digest"]]
    for split in (train, valid):
        facts += [split["files"], split["sampling"], [corpus["weight"] for corpus in split["corpora"]]]
    return digest_bytes(json.dumps(facts, sort_keys=True).encode())


def described_files(run: RunDirectory, paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Size and digest of files under RUN/data, by their path there."""
    return {
        path.relative_to(run.data).as_posix(): {"bytes": path.stat().st_size, "sha256": digest_file(path)}
        for path in paths
    }


def intact(run: RunDirectory, files: dict[str, dict[str, Any]]) -> bool:
    """Whether the files under RUN/data are still those described."""
    for name, known in files.items():
        path = run.data / name
        if not path.is_file() or path.stat().st_size != known["bytes"] or digest_file(path) != known["sha256"]:
            return False
    return True
