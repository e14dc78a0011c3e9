"""Word links in Pharaoh format, and how far they are from links that people made (Och & Ney 2003).

A line stands for a sentence pair: `0-0 1-2` links source word 0 with target word 0 and source word 1 with target word
2, counted from 0. In a gold file `0-1` is a sure link, and `0?1` or `0p1` a possible one.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from translate.errors import DataError
from translate.text.lines import read_lines, shown
from translate.text.words import Link

LINK = re.compile("([0-9]{1,9})([-?p])([0-9]{1,9})")


def pharaoh(links: Iterable[Link]) -> str:
    """Links as a line, sorted by source word."""
    return " ".join(f"{src}-{tgt}" for src, tgt in sorted(links))


@dataclass(frozen=True)
class Gold:
    """The links of a sentence pair that people made; a sure link is a possible one as well."""

    sure: frozenset[Link]
    possible: frozenset[Link]

    @classmethod
    def parse(cls, line: str, where: str) -> Self:
        """From a line in Pharaoh format; `where` stands for it in a DataError."""
        sure: set[Link] = set()
        possible: set[Link] = set()
        for text in line.split():
            match = LINK.fullmatch(text)
            if match is None:
                raise DataError(
                    f"{where}: found {text[:40]!r}, expected links such as 0-1 (sure) or 0?1 (possible), "
                    "source word first, counted from 0"
                )
            link = (int(match[1]), int(match[3]))
            possible.add(link)
            if match[2] == "-":
                sure.add(link)
        return cls(frozenset(sure), frozenset(possible))


def read_gold(path: Path, pairs: Sequence[tuple[str, str]]) -> list[Gold]:
    """The gold links of sentence pairs. Raises DataError unless there is a line a pair and a word for each end."""
    gold: list[Gold] = []
    for number, line in enumerate(read_lines(path), 1):
        where = f"{shown(path)}:{number}"
        gold.append(Gold.parse(line, where))
        if number <= len(pairs):
            _check(gold[-1], pairs[number - 1], where)
    if len(gold) != len(pairs):
        raise DataError(
            f"{shown(path)}: has {len(gold)} lines for {len(pairs)} sentence pairs, expected a line for each, "
            "blank where nothing is linked"
        )
    if not any(each.sure for each in gold):
        raise DataError(f"{shown(path)}: has no sure link, such as 0-1, so there is nothing to find")
    return gold


def _check(gold: Gold, pair: tuple[str, str], where: str) -> None:
    for side, name in enumerate(("source", "target")):
        count = len(pair[side].split())
        for link in sorted(gold.possible):
            if link[side] >= count:
                raise DataError(
                    f"{where}: the link {link[0]}-{link[1]} goes beyond the {name}, which has {count} words, counted "
                    "from 0; check that the file belongs to this text"
                )


@dataclass(frozen=True)
class AlignmentScore:
    """Counts over all sentences: links A that were found, gold links S and P, and what they share."""

    links: int = 0
    sure: int = 0
    possible: int = 0
    in_sure: int = 0
    in_possible: int = 0

    @property
    def precision(self) -> float:
        """|A and P| / |A|; 0 where no link was found."""
        return self.in_possible / self.links if self.links else 0.0

    @property
    def recall(self) -> float:
        """|A and S| / |S|."""
        return self.in_sure / self.sure if self.sure else 0.0

    @property
    def error_rate(self) -> float:
        """AER = 1 - (|A and S| + |A and P|) / (|A| + |S|) (Och & Ney 2003); 0 is best, and 1 worst."""
        if not self.links + self.sure:
            return 0.0
        return 1 - (self.in_sure + self.in_possible) / (self.links + self.sure)

    def __add__(self, other: "AlignmentScore") -> "AlignmentScore":
        mine, theirs = asdict(self), asdict(other)
        return AlignmentScore(**{name: mine[name] + theirs[name] for name in mine})

    def __str__(self) -> str:
        return (
            f"AER = {100 * self.error_rate:.2f}  precision {100 * self.precision:.2f}, recall {100 * self.recall:.2f}"
            f"  ({self.links} links; gold: {self.sure} sure, {self.possible - self.sure} only possible)"
        )

    def to_json(self) -> dict[str, Any]:
        """Counts and rates as plain values for JSON."""
        return {"aer": self.error_rate, "precision": self.precision, "recall": self.recall} | asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{name: value[name] for name in ("links", "sure", "possible", "in_sure", "in_possible")})


def alignment_score(links: Sequence[Iterable[Link]], gold: Sequence[Gold]) -> AlignmentScore:
    """Compare the links of each sentence with its gold links, and sum up."""
    total = AlignmentScore()
    for found, known in zip(links, gold, strict=True):
        chosen = set(found)
        total += AlignmentScore(
            len(chosen), len(known.sure), len(known.possible), len(chosen & known.sure), len(chosen & known.possible)
        )
    return total
