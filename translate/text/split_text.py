"""The text of a split, which is read several times: to count it, to learn pieces from it, to encode and to copy it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from translate.config import CorpusConfig
from translate.errors import DataError
from translate.text.corpus import Pair, corpus_names, read_pairs
from translate.text.lines import shown
from translate.text.shards import Shard, shards_of


@dataclass
class SplitText:
    """The corpora of one split; none of their text is held."""

    name: str
    corpora: list[CorpusConfig]
    scratch: Path
    counts: list[int] = field(default_factory=list)
    """Pairs of each corpus, found by the first reading."""
    characters: int = 0

    def count(self) -> None:
        """Read everything once, so that whatever is wrong with the text is found before any work is done."""
        for name, corpus in zip(corpus_names(self.corpora), self.corpora, strict=True):
            blank = count = 0
            for pair in read_pairs(corpus, self.scratch):
                count += 1
                blank += not pair.tgt.strip()
                self.characters += len(pair.src) + len(pair.tgt)
            where = f"data.{self.name}: corpus {name} ({shown(Path(corpus.src or corpus.file or ''))})"
            if count == 0:
                raise DataError(f"{where} is empty; expected at least one pair")
            if blank == count:
                raise DataError(f"{where} has only blank lines on its target side; expected translations")
            self.counts.append(count)

    def read(self, k: int) -> Iterator[Pair]:
        """The pairs of corpus k. Raises DataError when they are not as many as the first time."""
        number = 0
        for pair in read_pairs(self.corpora[k], self.scratch):
            number += 1
            yield pair
        if number != self.counts[k]:
            name = corpus_names(self.corpora)[k]
            raise DataError(f"data.{self.name}: corpus {name} changed while it was read; run the same command again")

    def read_all(self) -> Iterator[Pair]:
        """The pairs of all corpora, one after the other."""
        for k in range(len(self.corpora)):
            yield from self.read(k)

    def shards(self) -> Iterator[tuple[int, int, Shard]]:
        """Corpus, number and text of each shard."""
        for k in range(len(self.corpora)):
            for number, shard in enumerate(shards_of(self.read(k))):
                yield k, number, shard
