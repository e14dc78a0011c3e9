"""From encoded shards to the arrays of a split, with what can only be known once all of them are there.

That is which pairs stood before, in this corpus or in an earlier one, and which pairs of a scored split are in the
training text too. One shard is in memory at a time; what grows with the text is the mark of a repeated pair, one byte.
On disk a pair has its key, 16 bytes, until the arrays are made.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from translate.text.arrays import SequenceWriter
from translate.text.cleaning import Account, Keys, Marks, repeated
from translate.text.shards import EncodedShard, Places, read_keys


@dataclass(frozen=True)
class Finished:
    """An encoded shard of a split."""

    corpus: int
    path: Path
    places: Places


@dataclass
class Joined:
    """What became of one corpus."""

    account: Account
    src_pieces: int = 0
    """Of the pairs that were kept, without EOS."""
    tgt_pieces: int = 0

    def facts(self, weight: float) -> dict[str, Any]:
        """For JSON, with the weight that the corpus has."""
        pieces = {"src_pieces": self.src_pieces, "tgt_pieces": self.tgt_pieces}
        return {**self.account.facts(), "weight": weight, **pieces}


def join(
    shards: Sequence[Finished],
    names: Sequence[str],
    directory: Path,
    report: Callable[[int], None],
    *,
    drop_repeated: bool,
) -> tuple[list[Joined], list[Path]]:
    """Put the arrays of a split in place -> what became of each corpus, and the files.

    `names` are those of the corpora; `report` is told how many more pairs are done.
    """
    marks = repeated(lambda: keys_of(shards)) if drop_repeated else None
    corpora = [Joined(Account(name)) for name in names]
    writers: dict[str, SequenceWriter] = {}
    first = 0
    with contextlib.ExitStack() as stack:
        for shard in shards:
            encoded = EncodedShard.read(shard.path)
            if marks is not None:
                encoded = encoded.without(marks[first : first + len(encoded.keys)])
            first += len(encoded.keys)
            _enter(corpora[shard.corpus], encoded, shard.places)
            for name, side in encoded.sides.items():
                if name not in writers:
                    writers[name] = stack.enter_context(SequenceWriter(directory, name, side.items.dtype))
                writers[name].add(side)
            report(len(encoded.codes))
        for corpus in corpora:
            corpus.account.close()
        return corpora, [path for writer in writers.values() for path in writer.write()]


def _enter(corpus: Joined, encoded: EncodedShard, places: Places) -> None:
    src, tgt = encoded.sides["src_ids"], encoded.sides["tgt_ids"]
    corpus.account.enter(encoded.codes, places)
    corpus.src_pieces += len(src.items) - len(src)
    corpus.tgt_pieces += len(tgt.items)


def keys_of(shards: Sequence[Finished]) -> Iterator[Keys]:
    """The keys of each shard."""
    return (read_keys(shard.path) for shard in shards)


def share_within(scored: Sequence[Finished], train: Sequence[Finished]) -> float:
    """Share of the different pairs of a scored split that are in the training text too, dropped there or not."""
    known = np.unique(np.concatenate(list(keys_of(scored))))
    found: Marks = np.zeros(len(known), dtype=np.bool_)
    for keys in keys_of(train):
        found |= np.isin(known, keys)
    return float(found.mean())
