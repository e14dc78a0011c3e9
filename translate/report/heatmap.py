"""Attention as a picture: PNG heat maps, source pieces across, target pieces down.

matplotlib is imported here and nowhere else, and only when something is drawn; no window system is needed.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from translate.report.fonts import families, printable
from translate.report.words import Weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "Blues"
NUMBERED = 16
"""Longest side of a heat map whose cells have their weights written in them."""
SHORT, LONG = 30, 80
"""Up to SHORT pieces the cells have their full size; from LONG on the smallest."""
CELL_INCHES = (0.42, 0.2)
FONT_POINTS = (11.0, 8.0)
DOTS_PER_INCH = 150
MOST_DOTS = 6_000
"""Longest side of a picture, so that no sentence is too long to draw."""


def draw(weights: Weights, src: Sequence[str], tgt: Sequence[str], title: str = "") -> bytes:
    """PNG of weights (T, S) with the labels `src` (S) above and `tgt` (T) on the left."""
    assert weights.shape == (len(tgt), len(src)), f"weights {weights.shape}, labels ({len(tgt)}, {len(src)})"
    figure = _figure()
    cell, points = _sizes(weights.shape)
    height, width = weights.shape[0] * cell, weights.shape[1] * cell
    figure.set_size_inches(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    top = max(float(weights.max()), 1e-6)
    image = axes.imshow(weights, cmap=COLOURS, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    _label(axes, src, tgt, points)
    if max(weights.shape) <= NUMBERED:
        _write_numbers(axes, weights, top)
    bar = figure.add_axes((1 + 0.15 / width, 0, 0.12 / width, min(1, 2.5 / height)))
    figure.colorbar(image, cax=bar)
    bar.tick_params(labelsize=8)
    if title:
        axes.set_xlabel(printable(title), family=families(), fontsize=11, labelpad=10, parse_math=False)
    return _png(figure)


def draw_heads(layers: Mapping[str, Weights], src: Sequence[str], tgt: Sequence[str], title: str = "") -> bytes:
    """PNG of one small heat map a head: `layers` maps a layer's name to its weights (H, T, S), one row each."""
    figure = _figure()
    rows, columns = len(layers), max(len(heads) for heads in layers.values())
    cell, points = (0.7 * size for size in _sizes((len(tgt), len(src))))
    height, width = len(tgt) * cell, len(src) * cell
    step_x, step_y = width + 0.2, height + 0.35
    total_x, total_y = columns * step_x, rows * step_y
    figure.set_size_inches(total_x, total_y)
    for row, (name, heads) in enumerate(layers.items()):
        for column, weights in enumerate(heads):
            place = (
                column * step_x / total_x,
                1 - (row * step_y + height) / total_y,
                width / total_x,
                height / total_y,
            )
            axes = figure.add_axes(place)
            axes.imshow(weights, cmap=COLOURS, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
            _label(axes, src if row == 0 else (), tgt if column == 0 else (), points)
            axes.set_xlabel(f"{name}, head {column + 1}", family=families(), fontsize=8, labelpad=3)
    if title:
        figure.text(0, -0.1 / total_y, printable(title), family=families(), fontsize=11, va="top", parse_math=False)
    return _png(figure)


def _figure() -> "Figure":
    """A figure of its own canvas, without the global state of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    return figure


def _sizes(shape: tuple[int, ...]) -> tuple[float, float]:
    """Inches of a cell and points of a label for weights of this shape: smaller for long sentences, never tiny."""
    share = min(max((max(shape) - SHORT) / (LONG - SHORT), 0.0), 1.0)
    (cell, least_cell), (points, least_points) = CELL_INCHES, FONT_POINTS
    return cell + share * (least_cell - cell), points + share * (least_points - points)


def _label(axes: "Axes", src: Sequence[str], tgt: Sequence[str], points: float) -> None:
    """Put the labels on: sources above, slanted so that long ones do not run into each other."""
    font: dict[str, Any] = {"family": families(), "fontsize": points, "parse_math": False}
    axes.tick_params(length=0, pad=3)
    axes.xaxis.tick_top()
    slant = 90 if len(src) > LONG else 45
    place: dict[str, Any] = {"ha": "center"} if slant == 90 else {"ha": "left", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(src)), [printable(label) for label in src], rotation=slant, **place, **font)
    axes.set_yticks(range(len(tgt)), [printable(label) for label in tgt], **font)
    for spine in axes.spines.values():
        spine.set_color("0.7")


def _write_numbers(axes: "Axes", weights: Weights, top: float) -> None:
    """Write the weights that can be told from nothing into their cells."""
    for row, values in enumerate(weights):
        for column, weight in enumerate(values):
            if weight >= 0.05:
                colour = "white" if weight > 0.6 * top else "0.2"
                axes.text(column, row, f"{weight:.2f}", ha="center", va="center", fontsize=7, color=colour)


def _png(figure: "Figure") -> bytes:
    """Render with everything around the axes in view; characters no font has become boxes without a word."""
    buffer = io.BytesIO()
    longest = max(figure.get_size_inches()) + 3
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(
            buffer, format="png", dpi=min(DOTS_PER_INCH, MOST_DOTS / longest), bbox_inches="tight", pad_inches=0.15
        )
    return buffer.getvalue()
