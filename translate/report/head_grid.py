"""Attention of many heads as one picture: a small heat map each, a row of them a layer, one colour scale for all.

Where there is room the outer maps carry the pieces as labels. Where there is not, they carry numbers, and a larger map
beside them, the mean of all heads, says which piece has which number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from translate.report.fonts import families
from translate.report.heatmap import (
    BAR_INCHES,
    DOTS_PER_INCH,
    LEAST_BAR_INCHES,
    add_bar,
    label,
    new_figure,
    outline,
    paint,
    png,
    sizes,
    strongest,
    write_title,
)
from translate.report.words import Weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

GRID_INCHES = 20.0
"""Longest side of a grid: seen whole on a screen, its titles can still be read."""
CELL_INCHES = (0.3, 0.2)
"""Of the largest cells, and of the smallest whose pieces can be labelled."""
LABEL_POINTS = (10.0, 9.0)
NUMBER_POINTS = 9.0
HEAD_POINTS = 14.0
GAP_INCHES = 0.15
NUMBER_INCHES = 0.3
"""Least distance between the numbers of two pieces."""
KEY_SCALE = 0.75
"""Size of the cells of the map that names the pieces, as a share of one that stands alone."""
LEAST_KEY_INCHES = 0.2
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True)
class _Layout:
    """Where the maps go, in inches; the origin is the lower left corner of the last row's first map."""

    rows: int
    columns: int
    cell: float
    labelled: bool
    width: float
    """Of one map."""
    height: float

    @classmethod
    def of(cls, rows: int, columns: int, tgt: int, src: int) -> "_Layout":
        """The largest cells with which everything fits."""
        largest, least = CELL_INCHES
        room_x = (GRID_INCHES - columns * GAP_INCHES) / (src * columns)
        room_y = (GRID_INCHES - rows * GAP_INCHES) / (tgt * rows)
        cell = min(largest, room_x, room_y)
        labelled = cell >= least
        if not labelled:  # whole dots, so that all cells are alike
            cell = max(1, int(cell * DOTS_PER_INCH)) / DOTS_PER_INCH
        return cls(rows, columns, cell, labelled, src * cell, tgt * cell)

    @property
    def total(self) -> tuple[float, float]:
        """Width and height of the grid."""
        return (
            self.columns * (self.width + GAP_INCHES) - GAP_INCHES,
            self.rows * (self.height + GAP_INCHES) - GAP_INCHES,
        )

    def corner(self, row: int, column: int) -> tuple[float, float]:
        """Lower left corner of a map."""
        return column * (self.width + GAP_INCHES), (self.rows - 1 - row) * (self.height + GAP_INCHES)


def draw_heads(layers: Mapping[str, Weights], src: Sequence[str], tgt: Sequence[str], title: str = "") -> bytes:
    """PNG of one small heat map a head: `layers` maps a layer's name to its weights (H, T, S), one row each.

    `src` (S) are the pieces looked at, across; `tgt` (T) those that look, down; `title` stands below.
    """
    layout = _Layout.of(len(layers), max(len(heads) for heads in layers.values()), len(tgt), len(src))
    figure = new_figure()
    figure.set_size_inches(*layout.total)
    top = max(strongest(heads) for heads in layers.values())
    for row, heads in enumerate(layers.values()):
        for column, weights in enumerate(heads):
            axes = _add_axes(figure, layout.corner(row, column), (layout.width, layout.height))
            image = paint(axes, weights, top)
            _mark(axes, layout, src if row == 0 else (), tgt if column == 0 else ())
    _write_titles(figure, layout, list(layers))
    bottom = 0.0
    if layout.labelled:
        _add_bar_beside(figure, image, layout.total[0] + 0.3, layout.total[1])
    else:
        mean = np.concatenate([heads.astype(np.float64) for heads in layers.values()]).mean(0).astype(np.float32)
        bottom = _draw_key(figure, layout, mean, top, src, tgt)
    if title:
        write_title(figure, title, bottom - 0.25, max(layout.total[0], 4.0))
    return png(figure)


def _add_axes(figure: "Figure", corner: tuple[float, float], size: tuple[float, float]) -> "Axes":
    """Axes at a place in inches."""
    total_x, total_y = figure.get_size_inches()
    return figure.add_axes((corner[0] / total_x, corner[1] / total_y, size[0] / total_x, size[1] / total_y))


def _mark(axes: "Axes", layout: _Layout, src: Sequence[str], tgt: Sequence[str]) -> None:
    """The pieces of the outer maps, or the numbers of some of them."""
    if layout.labelled:
        (largest, least), (points, least_points) = CELL_INCHES, LABEL_POINTS
        share = (layout.cell - least) / (largest - least)
        label(axes, src, tgt, least_points + share * (points - least_points))
        return
    step = next((step for step in STEPS if step * layout.cell >= NUMBER_INCHES), STEPS[-1])
    axes.xaxis.tick_top()
    axes.tick_params(length=2, pad=1, color="0.7", labelsize=NUMBER_POINTS, labelfontfamily=families()[0])
    for axis, count in ((axes.xaxis, len(src)), (axes.yaxis, len(tgt))):
        numbers = range(step, count + 1, step)
        axis.set_ticks([number - 1 for number in numbers], [str(number) for number in numbers])
    outline(axes)


def _write_titles(figure: "Figure", layout: _Layout, names: Sequence[str]) -> None:
    """`head 1`, `head 2` above the columns, the names of the layers left of the rows, clear of the labels."""
    first = figure.axes[0].get_tightbbox(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    assert first is not None
    left, high = first.x0 / figure.dpi, first.y1 / figure.dpi
    total_x, total_y = layout.total
    font: dict[str, Any] = {"family": families(), "fontsize": HEAD_POINTS}
    for column in range(layout.columns):
        x = layout.corner(0, column)[0] + layout.width / 2
        figure.text(x / total_x, (high + 0.08) / total_y, f"head {column + 1}", ha="center", va="bottom", **font)
    for row, name in enumerate(names):
        y = layout.corner(row, 0)[1] + layout.height / 2
        figure.text((left - 0.1) / total_x, y / total_y, name, ha="right", va="center", rotation=90, **font)


def _add_bar_beside(figure: "Figure", image: "AxesImage", left: float, height: float) -> None:
    """The colour scale at the right of something `height` inches high, level with its top."""
    bar = max(LEAST_BAR_INCHES, min(height, BAR_INCHES[1]))
    add_bar(figure, image, (left, height - bar), bar)


def _draw_key(
    figure: "Figure", layout: _Layout, mean: Weights, top: float, src: Sequence[str], tgt: Sequence[str]
) -> float:
    """The mean of all heads (T, S) with every piece named and numbered; returns how far down it reaches.

    It stands right of a grid that is higher than wide, else below it.
    """
    cell, points = sizes(mean.shape)
    cell = max(KEY_SCALE * cell, LEAST_KEY_INCHES)
    width, height = len(src) * cell, len(tgt) * cell
    across, down = ([f"{number} {name}" for number, name in enumerate(side, start=1)] for side in (src, tgt))
    beside = layout.total[1] >= layout.total[0]
    axes = _add_axes(figure, (0, 0), (width, height))
    image = paint(axes, mean, top)
    label(axes, across, down, points)
    extent = axes.get_tightbbox(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    assert extent is not None
    above, before = extent.y1 / figure.dpi - height, -extent.x0 / figure.dpi
    x = layout.total[0] + 0.4 + before if beside else 0.0
    y = layout.total[1] - height if beside else -above - 0.9 - height
    total_x, total_y = layout.total
    axes.set_position((x / total_x, y / total_y, width / total_x, height / total_y))
    bar = max(LEAST_BAR_INCHES, min(height, BAR_INCHES[1]))
    add_bar(figure, image, (x + width + 0.2, y), bar)
    font: dict[str, Any] = {"family": families(), "fontsize": HEAD_POINTS}
    figure.text(x / total_x, (y + height + above + 0.1) / total_y, "mean of all heads", va="bottom", **font)
    return min(0.0, y)
