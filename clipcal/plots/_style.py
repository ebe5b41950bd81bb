"""Colours, lines and legends that all displays share.

The colours are Okabe and Ito's, which stay apart for every common kind of colour blindness. In grey print
some of them meet, so curves and points also differ in dashes and markers, and areas in hatches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._optional import import_optional

__all__ = [
    "BLUE",
    "INK",
    "PALE",
    "QUIET",
    "VERMILLION",
    "Series",
    "axes_of",
    "bare_spines",
    "legend_below",
    "series_style",
]

BLUE = "#0072B2"
VERMILLION = "#D55E00"
PALE = "#C4CAD1"
INK = "#2B2F36"
QUIET = "#6F7680"

Series = dict[str, Any]

_COLORS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", INK)
_DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
# With the factor by which each is drawn larger, so that all seem of one size.
_MARKERS = (
    ("o", 1.0),
    ("s", 0.9),
    ("^", 1.15),
    ("D", 0.85),
    ("v", 1.15),
    ("P", 1.2),
    ("X", 1.15),
    ("<", 1.15),
)


def series_style(position: int, *, markersize: float = 6.0) -> Series:
    """Return the look of a curve; colours, dashes and markers repeat with different periods."""
    marker, size = _MARKERS[position % len(_MARKERS)]
    return {
        "color": _COLORS[position % len(_COLORS)],
        "linestyle": _DASHES[position % len(_DASHES)],
        "marker": marker,
        "markersize": markersize * size,
    }


def axes_of(ax: Any, figsize: tuple[float, float], caller: str) -> tuple[Any, Any]:
    """Return the given axes, or those of a new figure, and the figure they are in."""
    pyplot = import_optional("matplotlib.pyplot", extra="plot", caller=caller)
    if ax is None:
        _, ax = pyplot.subplots(figsize=figsize, layout="constrained")
    return ax, ax.figure


def bare_spines(ax: Any) -> None:
    """Leave only the two spines that carry a scale."""
    ax.spines[["top", "right"]].set_visible(False)


def legend_below(
    ax: Any, handles: Sequence[Any], labels: Sequence[str], kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Add a legend that covers no data.

    It stands below the axis label, in as many columns as fit. A figure without a layout engine would cut it
    off there, so in such a figure matplotlib picks the emptiest corner of the axes.
    """
    style: dict[str, Any] = {"fontsize": "small", "frameon": False, "handlelength": 2.2}
    # A SubFigure's figure is the whole one; a Figure's is itself.
    if ax.figure.figure.get_layout_engine() is None:
        style.update(loc="best", frameon=True, framealpha=0.85, edgecolor="none")
    else:
        style.update(_below(ax, labels))
    return ax.legend(handles, labels, **{**style, **(kwargs or {})})


def _below(ax: Any, labels: Sequence[str]) -> dict[str, Any]:
    transforms = import_optional("matplotlib.transforms", extra="plot", caller="A legend")
    root = ax.figure.figure
    label_size = ax.xaxis.label.get_size()
    drop = 10 + 2.6 * label_size
    # A letter is about half as wide as it is high; a handle with its gaps takes four times the height.
    width = ax.get_position().width * ax.figure.bbox.width / root.dpi
    letters = 72 * width / (0.85 * label_size)
    return {
        "loc": "upper left",
        "bbox_to_anchor": (0, 0),
        "bbox_transform": ax.transAxes + transforms.ScaledTranslation(0, -drop / 72, root.dpi_scale_trans),
        "borderaxespad": 0,
        "ncols": next(n for n in range(len(labels), 0, -1) if n == 1 or _columns_width(labels, n) <= letters),
        "columnspacing": 1.2,
        "borderpad": 0,
    }


def _columns_width(labels: Sequence[str], n_columns: int) -> float:
    """Estimate the width of a legend, in heights of a letter; infinite where columns would stay uneven."""
    n_rows = -(-len(labels) // n_columns)
    if -(-len(labels) // n_rows) != n_columns:
        return float("inf")
    columns = [labels[start : start + n_rows] for start in range(0, len(labels), n_rows)]
    return sum(0.5 * max(map(len, column)) + 4 for column in columns)
