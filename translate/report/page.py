"""Attention as a page: one file of HTML with inline SVG, its font and nothing from elsewhere."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from translate.report.fonts import FAMILY, embedded, printable
from translate.report.words import Weights

CELL, FONT = 26, 13
"""Pixels."""
VISIBLE = 0.001
"""Smaller weights are left white."""
MOST_CELLS = 200_000
"""Cells a page may hold and still open at once; later pictures are left out of a longer one."""

STYLE = """
body { font-family: "FAMILY", sans-serif; margin: 2em; color: #222; }
h1 { font-size: 1.2em; } p { margin: 0.3em 0; } select { font: inherit; margin: 1em 0; }
svg text { font-family: "FAMILY", sans-serif; font-size: 13px; fill: #222; }
rect.back { fill: #fff; stroke: #bbb; } rect.cell { fill: #08519c; } rect.cell:hover { stroke: #e6550d; }
"""
SCRIPT = """
const chosen = document.getElementById("chosen");
const show = () => document.querySelectorAll("section").forEach(
  (section, index) => { section.hidden = index !== chosen.selectedIndex; });
chosen.addEventListener("change", show);
show();
"""


@dataclass(frozen=True)
class Picture:
    """One heat map: weights (T, S), its name in the selector and its labels."""

    name: str
    weights: Weights
    src: Sequence[str]
    tgt: Sequence[str]


def write_page(title: str, lines: Sequence[str], pictures: Sequence[Picture]) -> str:
    """The page: a heading, lines of text, and the pictures, of which one is shown at a time.

    Without scripts all of them are shown. The page is well-formed XML.
    """
    shown = list(_that_fit(pictures))
    left_out = len(pictures) - len(shown)
    if left_out:
        lines = [*lines, f"{left_out} pictures are left out because the sentence is long; the JSON has their numbers."]
    labels = "".join("".join((*picture.src, *picture.tgt, picture.name)) for picture in shown)
    used = printable("".join((title, *lines, labels))) + "0123456789.←:"
    options = "".join(f"<option>{_text(picture.name)}</option>" for picture in shown)
    sections = "\n".join(f"<section><h2>{_text(picture.name)}</h2>\n{svg(picture)}</section>" for picture in shown)
    paragraphs = "".join(f"<p>{_text(line)}</p>\n" for line in lines)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>\n'
        f"<title>{_text(title)}</title>\n"
        f"<style>{embedded(used)}\n{STYLE.replace('FAMILY', FAMILY)}</style></head>\n"
        f'<body><h1>{_text(title)}</h1>\n{paragraphs}<select id="chosen">{options}</select>\n'
        f"{sections}\n<script>{SCRIPT}</script></body></html>\n"
    )


def _that_fit(pictures: Sequence[Picture]) -> Iterator[Picture]:
    """The first pictures, as many as the page can hold; at least one."""
    cells = 0
    for index, picture in enumerate(pictures):
        cells += int((picture.weights >= VISIBLE).sum())
        if index and cells > MOST_CELLS:
            return
        yield picture


def svg(picture: Picture) -> str:
    """One heat map as an SVG element; a cell tells its weight when pointed at."""
    rows, columns = picture.weights.shape
    left = 12 + max(_width(label) for label in picture.tgt)
    slanted = 0.71 * max(_width(label) for label in picture.src)
    top = 14 + slanted
    width, height = left + columns * CELL + slanted + 10, top + rows * CELL + 10
    strongest = max(float(picture.weights.max()), 1e-6)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" role="img">',
        f'<rect class="back" x="{left:.0f}" y="{top:.0f}" width="{columns * CELL}" height="{rows * CELL}"/>',
    ]
    for column, label in enumerate(picture.src):
        place = f"translate({left + (column + 0.6) * CELL:.0f} {top - 6:.0f}) rotate(-45)"
        parts.append(f'<text transform="{place}">{_text(label)}</text>')
    for row, label in enumerate(picture.tgt):
        y = top + (row + 0.5) * CELL + 0.35 * FONT
        parts.append(f'<text x="{left - 6:.0f}" y="{y:.0f}" text-anchor="end">{_text(label)}</text>')
        for column, weight in enumerate(picture.weights[row]):
            if weight >= VISIBLE:
                parts.append(
                    f'<rect class="cell" x="{left + column * CELL:.0f}" y="{top + row * CELL:.0f}" width="{CELL}" '
                    f'height="{CELL}" fill-opacity="{weight / strongest:.3f}">'
                    f"<title>{_text(label)} ← {_text(picture.src[column])}: {weight:.3f}</title></rect>"
                )
    return "\n".join((*parts, "</svg>"))


def _text(text: str) -> str:
    return escape(printable(text))


def _width(label: str) -> float:
    """About how many pixels a label takes: East Asian characters are as wide as they are high."""
    return sum(FONT * (1.0 if unicodedata.east_asian_width(character) in "WF" else 0.6) for character in label)
