"""Attention as a picture: a PNG heat map, what is looked at across, who looks down.

Pictures of many heads are in `head_grid.py`. matplotlib is imported where something is drawn and nowhere else; no
window system is needed.
"""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from translate.report.fonts import families, printable
from translate.report.widths import wrapped
from translate.report.words import Weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLOURS = "Blues"
NUMBERED = 16
"""Longest side of a heat map whose cells have their weights written in them."""
SHORT, LONG = 30, 80
"""Up to SHORT pieces the cells have their full size; from LONG on the smallest."""
CELL_INCHES = (0.42, 0.2)
FONT_POINTS = (11.0, 8.0)
TITLE_POINTS = 11.0
BAR_INCHES = (0.12, 2.5)
"""Width and most height of the bar that states the colour scale."""
LEAST_BAR_INCHES = 1.0
DOTS_PER_INCH = 150
MOST_DOTS = 6_000
"""Longest side of a picture, so that no sentence is too long to draw."""


def draw(weights: Weights, src: Sequence[str], tgt: Sequence[str], title: str = "") -> bytes:
    """PNG of weights (T, S) with the labels `src` (S) above and `tgt` (T) on the left; `title` stands below."""
    assert weights.shape == (len(tgt), len(src)), f"weights {weights.shape}, labels ({len(tgt)}, {len(src)})"
    figure = new_figure()
    cell, points = sizes(weights.shape)
    height, width = weights.shape[0] * cell, weights.shape[1] * cell
    figure.set_size_inches(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    top = strongest(weights)
    image = paint(axes, weights, top)
    label(axes, src, tgt, points)
    if max(weights.shape) <= NUMBERED:
        _write_numbers(axes, weights, top)
    bar_height = max(LEAST_BAR_INCHES, min(height, BAR_INCHES[1]))
    bottom = min(0.0, height - bar_height)  # of a flat picture the bar hangs down: above it are slanted labels
    add_bar(figure, image, (width + 0.15, bottom), bar_height)
    if title:
        write_title(figure, title, bottom - 0.1, max(width, 4.0))
    return png(figure)


def strongest(weights: Weights) -> float:
    """The upper end of the colour scale: the largest weight."""
    return max(float(weights.max()), 1e-6)


def paint(axes: "Axes", weights: Weights, top: float) -> "AxesImage":
    """One heat map, white at 0 and darkest at `top`."""
    return axes.imshow(weights, cmap=COLOURS, vmin=0, vmax=top, aspect="auto", interpolation="nearest")


def new_figure() -> "Figure":
    """A figure of its own canvas, without the global state of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    return figure


def sizes(shape: tuple[int, ...]) -> tuple[float, float]:
    """Inches of a cell and points of a label for weights of this shape: smaller for long sentences, never tiny."""
    share = min(max((max(shape) - SHORT) / (LONG - SHORT), 0.0), 1.0)
    (cell, least_cell), (points, least_points) = CELL_INCHES, FONT_POINTS
    return cell + share * (least_cell - cell), points + share * (least_points - points)


def label(axes: "Axes", src: Sequence[str], tgt: Sequence[str], points: float) -> None:
    """Put the labels on: sources above, slanted so that long ones do not run into each other."""
    font: dict[str, Any] = {"family": families(), "fontsize": points, "parse_math": False}
    axes.tick_params(length=0, pad=3)
    axes.xaxis.tick_top()
    slant = 90 if len(src) > LONG else 45
    place: dict[str, Any] = {"ha": "center"} if slant == 90 else {"ha": "left", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(src)), [printable(label) for label in src], rotation=slant, **place, **font)
    axes.set_yticks(range(len(tgt)), [printable(label) for label in tgt], **font)
    outline(axes)


def outline(axes: "Axes") -> None:
    """A thin frame, since most of a heat map is white."""
    for spine in axes.spines.values():
        spine.set_color("0.7")


def add_bar(figure: "Figure", image: "AxesImage", place: tuple[float, float], height: float) -> None:
    """The colour scale with its range, its lower left corner at `place`, in inches."""
    total_x, total_y = figure.get_size_inches()
    width = BAR_INCHES[0]
    axes = figure.add_axes((place[0] / total_x, place[1] / total_y, width / total_x, height / total_y))
    low, high = image.get_clim()
    bar = figure.colorbar(image, cax=axes, ticks=[low, (low + high) / 2, high], format="%.2f")
    bar.set_label("weight", family=families(), fontsize=TITLE_POINTS - 1)
    axes.tick_params(labelsize=TITLE_POINTS - 2)


def write_title(figure: "Figure", title: str, top: float, width: float) -> None:
    """Lines of text below the picture, `top` inches above its origin, wrapped to a width in inches."""
    total_y = figure.get_size_inches()[1]
    text = wrapped(printable_lines(title), width * 72 / TITLE_POINTS)
    font: dict[str, Any] = {"family": families(), "fontsize": TITLE_POINTS, "parse_math": False, "linespacing": 1.4}
    figure.text(0, top / total_y, text, va="top", **font)


def printable_lines(text: str) -> str:
    """`printable`, with the line ends kept."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _write_numbers(axes: "Axes", weights: Weights, top: float) -> None:
    """Write the weights that can be told from nothing into their cells."""
    for row, values in enumerate(weights):
        for column, weight in enumerate(values):
            if weight >= 0.05:
                colour = "white" if weight > 0.6 * top else "0.2"
                axes.text(column, row, f"{weight:.2f}", ha="center", va="center", fontsize=7, color=colour)


def png(figure: "Figure") -> bytes:
    """Render with everything around the axes in view; characters no font has become boxes without a word."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        around = figure.get_tightbbox()  # in inches, labels and all
        longest = max(around.width, around.height) + 0.4
        figure.savefig(
            buffer, format="png", dpi=min(DOTS_PER_INCH, MOST_DOTS / longest), bbox_inches="tight", pad_inches=0.15
        )
    return buffer.getvalue()
