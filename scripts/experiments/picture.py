"""Pictures of results: one style, colours that colour-blind readers tell apart, markers besides."""

import io
from typing import TYPE_CHECKING, Any

from options import Options

from translate.durable import durable_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE, GREY = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999",
)  # fmt: skip
"""Okabe and Ito's colours."""
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, BLACK, SKY)
MARKERS = "osD^vPX"
DOTS_PER_INCH = 130


def panels(rows: int, columns: int, width: float, height: float) -> "tuple[Figure, Any]":
    """A figure without a window system, and its axes (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(color="0.9", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def logarithmic(axis: Any, form: str) -> None:
    """Make the upright axis logarithmic, with plain numbers at 1, 2 and 5 of each power of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(form)
    axis.yaxis.set_minor_locator(NullLocator())


def save(figure: "Figure", name: str, options: Options) -> None:
    """Write docs/pictures/NAME.png; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    path = options.docs / "pictures" / f"{name}.png"
    durable_write(path, buffer.getvalue())
    print(f"picture: {path}")
