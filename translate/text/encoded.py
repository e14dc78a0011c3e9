"""Ids on disk: flat arrays and offsets, memory-mapped, with digests in a manifest.

RUN/data/manifest.json                    written last: without it there is no data
RUN/data/SPLIT/src_ids.npy  src_offsets.npy  tgt_ids.npy  tgt_offsets.npy
RUN/data/SPLIT/src_text.npy ...           UTF-8 in the same form, if the text is segmented anew each epoch
RUN/data/SPLIT.K.src  SPLIT.K.tgt         untouched text of corpus K of a split that is scored
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from translate.durable import digest_bytes, digest_file
from translate.errors import DataError, MissingInputError
from translate.run import RunDirectory
from translate.text.arrays import Ids, Integers, Sequences, mapped
from translate.text.tokenizer import EOS, Side, Tokenizer

LAYOUT = 1
"""Number of this layout; another number in the manifest means that the data is made anew."""
LINES_AT_ONCE = 4096


Pairs = NDArray[np.integer[Any]]
"""(E,) which pairs of a split, in a type that takes no more bytes than their numbers need."""


@dataclass(frozen=True)
class Examples:
    """Pairs as they are learnt from: example e is sequence rows[e] of both sides."""

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

    @property
    def mean_tgt_length(self) -> float:
        """Counting EOS."""
        return len(self.targets.items) / len(self) + 1

    def whole(self) -> Examples:
        """Every pair once, as it was encoded."""
        pairs = np.arange(len(self), dtype=np.int64)
        return Examples(self.sources, self.targets, pairs, pairs)

    def examples(self, pairs: Pairs, key: tuple[int, ...]) -> Examples:
        """The given pairs; those of a text that is segmented anew as a pure function of `key`."""
        rows = pairs.astype(np.int64)
        if self.texts is None:
            return Examples(self.sources, self.targets, rows, rows)
        sources = _segmented(self.texts, "src", rows, key, self.sources.items.dtype)
        targets = _segmented(self.texts, "tgt", rows, key, self.targets.items.dtype)
        return Examples(sources, targets, np.arange(len(rows), dtype=np.int64), rows)

    def pairs(self, seed: int, epoch: int) -> Pairs:
        """Which pairs an epoch sees, in no random order yet: a pure function of (seed, epoch).

        Weight 2.5 is every pair twice and half of them once more, drawn by (seed, epoch).
        """
        dtype = np.min_scalar_type(len(self))
        parts: list[Pairs] = []
        first = 0
        for corpus, (count, weight) in enumerate(zip(self.counts, self.weights, strict=True)):
            times, share = divmod(weight, 1.0)
            parts += [np.arange(first, first + count, dtype=dtype)] * int(times)
            drawn = round(share * count)
            if times == 0 and count:
                drawn = max(drawn, 1)  # no corpus vanishes
            if drawn:
                rng = np.random.Generator(np.random.PCG64([seed, epoch, corpus, 1]))
                parts.append(np.sort(rng.permutation(np.arange(first, first + count, dtype=dtype))[:drawn]))
            first += count
        if len(parts) == 1:
            return parts[0]  # not copied, for it may be large
        return np.concatenate([np.zeros(0, dtype), *parts])


def _segmented(texts: Texts, side: Side, pairs: Integers, key: tuple[int, ...], dtype: Any) -> Sequences:
    """The texts of `pairs` in a random segmentation, LINES_AT_ONCE to a seed so that memory stays bounded."""
    stored = texts.src if side == "src" else texts.tgt
    end = [EOS] if side == "src" else []
    parts: list[Sequences] = []
    for chunk, start in enumerate(range(0, len(pairs), LINES_AT_ONCE)):
        lines = [stored[int(i)].tobytes().decode() for i in pairs[start : start + LINES_AT_ONCE]]
        seed = np.random.SeedSequence([*key, chunk, ("src", "tgt").index(side)]).generate_state(1)[0]
        sampled = texts.tokenizer.sample(side, lines, texts.rate, int(seed) & 0x7FFFFFFF)
        parts.append(Sequences.of([ids + end for ids in sampled], dtype))
    return Sequences.joined(parts, dtype)


def read_manifest(run: RunDirectory) -> dict[str, Any] | None:
    """What the tokenize stage recorded, or None when there is nothing usable."""
    try:
        manifest = json.loads(run.manifest.read_bytes())
    except (OSError, ValueError):
        return None
    sound = isinstance(manifest, dict) and manifest.get("layout") == LAYOUT and "splits" in manifest
    return manifest if sound else None


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
        texts = Texts(mapped(directory, "src_text"), mapped(directory, "tgt_text"), tokenizer, split["sampling"])
    return EncodedSplit(
        mapped(directory, "src_ids"),
        mapped(directory, "tgt_ids"),
        tuple(corpus["kept"] for corpus in split["corpora"]),
        tuple(corpus["weight"] for corpus in split["corpora"]),
        texts,
    )


def _manifest_split(run: RunDirectory, name: str) -> dict[str, Any]:
    manifest = read_manifest(run)
    if manifest is None:
        raise MissingInputError(f"{run.manifest}: is not there or damaged; run translate tokenize first")
    if name not in manifest["splits"]:
        raise MissingInputError(f"run {run.root} has no data.{name}; describe it in the config and tokenize again")
    return manifest["splits"][name]


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


def described_files(
    run: RunDirectory, paths: Sequence[Path], digest: Callable[[Path], str] = digest_file
) -> dict[str, dict[str, Any]]:
    """Size and digest of files under RUN/data, by their path there."""
    return {
        path.relative_to(run.data).as_posix(): {"bytes": path.stat().st_size, "sha256": digest(path)} for path in paths
    }


def intact(run: RunDirectory, files: dict[str, dict[str, Any]], digest: Callable[[Path], str] = digest_file) -> bool:
    """Whether the files under RUN/data are still those described."""
    for name, known in files.items():
        path = run.data / name
        if not path.is_file() or path.stat().st_size != known["bytes"] or digest(path) != known["sha256"]:
            return False
    return True
