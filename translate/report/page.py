"""Attention as a page: one file of HTML with inline SVG, its font and nothing from elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from translate.report.fonts import FAMILY, embedded, printable
from translate.report.heatmap import strongest
from translate.report.widths import ems
from translate.report.words import Weights

CELL, FONT = 26, 13
"""Pixels."""
VISIBLE = 0.001
"""Smaller weights are left white."""
MOST_CELLS = 200_000
"""Cells a page may hold and still open at once; later pictures are left out of a longer one."""
GRID_PIXELS = 1000
"""About the longer side of a grid of heads."""
SHADES = 20
"""Of a grid: cells of one shade are one path, which takes a tenth of the bytes."""
BAR = (10, 120)
"""Width and height of the colour scale."""

STYLE = """
body { font-family: "FAMILY", sans-serif; margin: 2em; color: #222; }
h1 { font-size: 1.2em; } p { margin: 0.3em 0; } select { font: inherit; margin: 1em 0; }
svg text { font-family: "FAMILY", sans-serif; font-size: 13px; fill: #222; }
rect.back { fill: #fff; stroke: #bbb; } rect.cell { fill: #08519c; } rect.cell:hover { stroke: #e6550d; }
g.head { fill: #08519c; cursor: pointer; } g.head:hover rect.back { stroke: #e6550d; }
"""
SCRIPT = """
const chosen = document.getElementById("chosen");
const show = () => document.querySelectorAll("section").forEach(
  (section, index) => { section.hidden = index !== chosen.selectedIndex; });
chosen.addEventListener("change", show);
document.querySelectorAll("g.head").forEach((head) => head.addEventListener("click", () => {
  const index = [...chosen.options].findIndex((option) => option.text === head.dataset.name);
  if (index >= 0) { chosen.selectedIndex = index; show(); }
}));
show();
"""


@dataclass(frozen=True)
class Picture:
    """One heat map: weights (T, S), its name in the selector, the labels `src` across and `tgt` down."""

    name: str
    weights: Weights
    src: Sequence[str]
    tgt: Sequence[str]

    @property
    def cells(self) -> int:
        """How many cells are drawn."""
        return int((self.weights >= VISIBLE).sum())

    def svg(self) -> str:
        """As an SVG element; a cell tells its weight when pointed at."""
        return svg(self)


@dataclass(frozen=True)
class Grid:
    """All heads at a glance: weights (H, T, S) by the name of their layer.

    A click on a head shows the picture of that head, if the page has one.
    """

    name: str
    layers: Mapping[str, Weights]

    @property
    def cells(self) -> int:
        """How many cells are drawn, in those of a single picture."""
        return sum(int((heads >= VISIBLE).sum()) for heads in self.layers.values()) // 10

    def svg(self) -> str:
        """As an SVG element."""
        return grid_svg(self)

    def picture_name(self, layer: str, head: int) -> str:
        """Of the head's own picture; `head` counts from 0."""
        return f"{self.name}, {layer}, head {head + 1}"


def write_page(title: str, lines: Sequence[str], pictures: Sequence[Picture | Grid]) -> str:
    """The page: a heading, lines of text, and the pictures, of which one is shown at a time.

    Without scripts all of them are shown. The page is well-formed XML.
    """
    shown = list(_that_fit(pictures))
    left_out = len(pictures) - len(shown)
    if left_out:
        lines = [*lines, f"{left_out} pictures are left out because the sentence is long; the JSON has their numbers."]
    labels = "".join("".join(_labels(picture)) for picture in shown)
    used = printable("".join((title, *lines, labels))) + "0123456789.←: head"
    options = "".join(f"<option>{_text(picture.name)}</option>" for picture in shown)
    sections = "\n".join(f"<section><h2>{_text(picture.name)}</h2>\n{picture.svg()}</section>" for picture in shown)
    paragraphs = "".join(f"<p>{_text(line)}</p>\n" for line in lines)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>\n'
        f"<title>{_text(title)}</title>\n"
        f"<style>{embedded(used)}\n{STYLE.replace('FAMILY', FAMILY)}</style></head>\n"
        f'<body><h1>{_text(title)}</h1>\n{paragraphs}<select id="chosen">{options}</select>\n'
        f"{sections}\n<script>{SCRIPT}</script></body></html>\n"
    )


def _labels(picture: Picture | Grid) -> Sequence[str]:
    if isinstance(picture, Grid):
        return (picture.name, *picture.layers)
    return (*picture.src, *picture.tgt, picture.name)


def _that_fit(pictures: Sequence[Picture | Grid]) -> Iterator[Picture | Grid]:
    """The first pictures, as many as the page can hold; at least one."""
    cells = 0
    for index, picture in enumerate(pictures):
        cells += picture.cells
        if index and cells > MOST_CELLS:
            return
        yield picture


def svg(picture: Picture) -> str:
    """One heat map as an SVG element; a cell tells its weight when pointed at."""
    rows, columns = picture.weights.shape
    left = 12 + max(_width(label) for label in picture.tgt)
    slanted = 0.71 * max(_width(label) for label in picture.src)
    top = 14 + slanted
    width = left + columns * CELL + max(slanted + 10, 70)
    height = top + max(rows * CELL, BAR[1]) + 10
    most = strongest(picture.weights)
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
                    f'height="{CELL}" fill-opacity="{weight / most:.3f}">'
                    f"<title>{_text(label)} ← {_text(picture.src[column])}: {weight:.3f}</title></rect>"
                )
    return "\n".join((*parts, *_bar(left + columns * CELL + 16, top, most), "</svg>"))


def grid_svg(grid: Grid) -> str:
    """A small heat map a head, a row of them a layer, all of one colour scale."""
    names, heads = list(grid.layers), max(len(heads) for heads in grid.layers.values())
    tgt, src = grid.layers[names[0]].shape[1:]
    cell = max(1.0, min(10.0, GRID_PIXELS / max(tgt * len(names), src * heads)))
    step_x, step_y, left, top = src * cell + 10, tgt * cell + 10, 20 + max(map(_width, names)), 24.0
    most = max(strongest(weights) for weights in grid.layers.values())
    width, height = left + max(heads * step_x, 60) + 70, top + max(len(names) * step_y, BAR[1] + 10)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" role="img">']
    for head in range(heads):
        x = left + head * step_x + src * cell / 2
        parts.append(
            f'<text x="{x:.0f}" y="{top - 8:.0f}" text-anchor="middle">{"head " * (head == 0)}{head + 1}</text>'
        )
    for row, name in enumerate(names):
        y = top + row * step_y
        parts.append(
            f'<text x="{left - 10:.0f}" y="{y + tgt * cell / 2 + 4:.0f}" text-anchor="end">{_text(name)}</text>'
        )
        for head, weights in enumerate(grid.layers[name]):
            place = f"translate({left + head * step_x:.0f} {y:.0f}) scale({cell:.2f})"
            own = _text(grid.picture_name(name, head))
            shades = "".join(_shades(weights, most))
            parts.append(
                f'<g class="head" data-name="{own}" transform="{place}"><title>{own}</title>'
                f'<rect class="back" width="{src}" height="{tgt}" vector-effect="non-scaling-stroke"/>{shades}</g>'
            )
    return "\n".join((*parts, *_bar(left + heads * step_x + 6, top, most), "</svg>"))


def _shades(weights: Weights, most: float) -> Iterator[str]:
    """The cells of a head, one path for each shade."""
    levels = np.ceil(weights * (SHADES / most) - 0.5).astype(int)
    for level in range(1, levels.max() + 1):
        cells = "".join(f"M{column} {row}h1v1h-1" for row, column in np.argwhere(levels == level))
        if cells:
            yield f'<path fill-opacity="{level / SHADES:.2f}" d="{cells}"/>'


def _bar(x: float, y: float, most: float) -> Iterator[str]:
    """The colour scale with its range."""
    width, height = BAR
    for index in range(SHADES):
        top = y + (SHADES - 1 - index) * height / SHADES
        yield (
            f'<rect x="{x:.0f}" y="{top:.0f}" width="{width}" height="{height / SHADES:.0f}" fill="#08519c" '
            f'fill-opacity="{(index + 1) / SHADES:.2f}"/>'
        )
    for value, place in ((most, y), (0.0, y + height)):
        yield f'<text x="{x + width + 5:.0f}" y="{place + 0.35 * FONT:.0f}">{value:.2f}</text>'


def _text(text: str) -> str:
    return escape(printable(text))


def _width(label: str) -> float:
    """About how many pixels a label takes."""
    return FONT * ems(label)
