"""A worked calculation as it is written down: sections of text, formulas and tables, for a terminal or in Markdown."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from translate.errors import UsageError
from translate.report.widths import cells

Form = Literal["text", "markdown", "json"]

MARKED = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
"""Characters that mean something in Markdown."""


@dataclass(frozen=True)
class Formula:
    """A line or several that are shown as they are."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head; the first column holds names, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Section:
    """A heading, then prose (str), formulas and tables."""

    title: str
    blocks: list[str | Formula | Table] = field(default_factory=list)


@dataclass(frozen=True)
class Board:
    """A calculation: its title, its sections, and its numbers for a program to read."""

    title: str
    sections: Sequence[Section]
    numbers: Mapping[str, Any]

    def show(self, form: Form) -> str:
        """All of it as text, or the numbers as JSON; ends in a line end."""
        match form:
            case "text":
                return as_text(self.title, self.sections)
            case "markdown":
                return as_markdown(self.title, self.sections)
            case "json":
                return json.dumps(self.numbers, ensure_ascii=False) + "\n"


def form_of(numbers: bool, markdown: bool) -> Form:
    """What --json and --markdown ask for. Raises UsageError for both."""
    if numbers and markdown:
        raise UsageError("--json and --markdown exclude each other: give one of them")
    return "json" if numbers else "markdown" if markdown else "text"


def as_text(title: str, sections: Sequence[Section]) -> str:
    """For a terminal."""
    parts = [title]
    for section in sections:
        parts.append(f"\n{section.title}\n{'-' * cells(section.title)}")
        for block, following in zip(section.blocks, [*section.blocks[1:], None], strict=True):
            match block:
                case str():
                    parts.append(block)
                case Formula(text):
                    parts.append(_indented(text.split("\n")))
                case Table():
                    parts.append(_indented(_aligned(block)) + ("\n" if following is not None else ""))
    return "\n".join(parts) + "\n"


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """For a page: formulas as code, tables as tables."""
    parts = [f"# {_escaped(title)}"]
    for section in sections:
        parts.append(f"## {_escaped(section.title)}")
        for block in section.blocks:
            match block:
                case str():
                    parts.append(_escaped(block))
                case Formula(text):
                    parts.append(f"```\n{text}\n```")
                case Table(head, rows):
                    rule = f"| --- |{' ---: |' * (len(head) - 1)}"
                    parts.append("\n".join((_row(head), rule, *map(_row, rows))))
    return "\n\n".join(parts) + "\n"


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _aligned(table: Table) -> list[str]:
    """Names to the left, numbers to the right, a rule below the head."""
    rows = [table.head, *table.rows]
    widths = [max(cells(row[column]) for row in rows) for column in range(len(table.head))]
    lines = []
    for row in rows:
        first, *others = (" " * (width - cells(cell)) for width, cell in zip(widths, row, strict=True))
        numbers = (room + cell for room, cell in zip(others, row[1:], strict=True))
        lines.append("  ".join((row[0] + first, *numbers)))
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]


def _row(row: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, row))} |"


def _escaped(text: str) -> str:
    return MARKED.sub(r"\\\1", text)
