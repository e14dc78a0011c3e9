"""Tables in English and Korean, between the marks that a page has for them."""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from record import Result

from translate.durable import durable_text

Language = Literal["en", "ko"]
PAGES: dict[Language, str] = {"en": "attention.md", "ko": "attention.ko.md"}


class Text(NamedTuple):
    """The same in both languages."""

    en: str
    ko: str

    def __call__(self, language: Language) -> str:
        """In one of them."""
        return self.en if language == "en" else self.ko


def same(text: str) -> Text:
    """A name or a number, which is the same in both."""
    return Text(text, text)


@dataclass
class Table:
    """A first column of text and others of numbers."""

    columns: Sequence[Text]
    rows: list[list[Text]] = field(default_factory=list)

    def add(self, label: Text | str, *cells: str) -> None:
        """A row: what it is about, then numbers."""
        self.rows.append([same(label) if isinstance(label, str) else label, *map(same, cells)])

    def markdown(self, language: Language) -> str:
        """In Markdown."""
        lines = [[column(language) for column in self.columns], ["---", *["---:"] * (len(self.columns) - 1)]]
        lines += [[cell(language) for cell in row] for row in self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass
class Block:
    """What an experiment puts on the page: a picture, tables, and beside them how they came about."""

    name: str
    caption: Text
    tables: Sequence[Table]
    notes: Sequence[Text]

    def markdown(self, language: Language) -> str:
        """The block without its marks."""
        picture = f"![{self.caption(language)}](pictures/{self.name}.png)"
        tables = [table.markdown(language) for table in self.tables]
        return "\n\n".join([picture, *tables, "\n".join(f"- {note(language)}" for note in self.notes)])

    def publish(self, docs: Path) -> None:
        """Put it on both pages; print it where a page or its marks are absent."""
        for language, name in PAGES.items():
            if not replace(docs / name, self.name, self.markdown(language)):
                print(f"{docs / name} has no place for {self.name}:\n\n{self.markdown(language)}\n")


def replace(page: Path, name: str, text: str) -> bool:
    """Put text between `<!-- begin: NAME -->` and `<!-- end: NAME -->`; False if the page has no such place."""
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    marks = re.compile(rf"(<!-- begin: {re.escape(name)} -->\n).*?(<!-- end: {re.escape(name)} -->)", re.DOTALL)
    after, count = marks.subn(lambda match: f"{match[1]}{text}\n{match[2]}", before)
    if count and after != before:
        durable_text(page, after)
    return count > 0


def number(value: float | None, digits: int = 1) -> str:
    """A number of a table; a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample; 0 for one value."""
    if len(values) < 2:
        return 0.0
    return float((sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1)) ** 0.5)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and with several values the standard deviation."""
    if not values:
        return number(None)
    shown = number(mean(values), digits)
    return shown if len(values) == 1 else f"{shown} ± {number(deviation(values), digits)}"


def made_of(results: Iterable[Result], command: str, details: Text) -> list[Text]:
    """How the numbers came about: `details` say data, config and seeds; the rest stands in the results."""
    found = list(results)
    dates = sorted({result["date"] for result in found})
    machines = sorted({result["machine"] + f", {result.get('precision', 'fp32')}" for result in found})
    seconds = [result["train_seconds"] for result in found if "train_seconds" in result]
    signatures = sorted({result["signature"] for result in found if "signature" in result})
    period = " – ".join(sorted({dates[0], dates[-1]})) if dates else ""
    facts = " · ".join([f"`python scripts/experiments/{command}.py`", *machines, period])
    notes = [details]
    if seconds:
        low, high = f"{min(seconds):.0f}", f"{max(seconds):.0f}"
        wall = Text(f"{low} to {high}", f"{low}–{high}") if low != high else same(low)
        notes.append(Text(f"Wall time of a training: {wall.en} s.", f"학습 한 번에 걸린 시간은 {wall.ko}초이다."))
    notes.append(same(facts))
    if signatures:
        notes.append(same(f"sacreBLEU {', '.join(f'`{signature}`' for signature in signatures)}"))
    return notes


def missing(names: Sequence[str]) -> list[Text]:
    """Which runs are not there yet, if any."""
    if not names:
        return []
    print(f"not there yet: {', '.join(names)}", file=sys.stderr)
    listed = ", ".join(f"`{name}`" for name in names)
    return [Text(f"Not there yet: {listed}.", f"아직 없는 실행: {listed}.")]
