"""Colours, line styles and legends of all displays.

The colours are those of Okabe and Ito, which are distinguishable with all common kinds of colour blindness.
Some are similar in greyscale, so curves also differ in dashes, points in markers, and areas in hatches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipcal._optional import import_optional
from clipcal.plots._names import as_text, room_of, write

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

# Widths in a legend, in units of the font size: a handle with its margins, and the minimum width of names.
_HANDLE = 4
_NARROWEST = 8

_COLORS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", INK)
_DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
# Markers, with factors that make their sizes look equal.
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
    """Return the style of a curve; colours, dashes and markers repeat with different periods."""
    marker, size = _MARKERS[position % len(_MARKERS)]
    return {
        "color": _COLORS[position % len(_COLORS)],
        "linestyle": _DASHES[position % len(_DASHES)],
        "marker": marker,
        "markersize": markersize * size,
    }


def axes_of(ax: Any, figsize: tuple[float, float], caller: str) -> tuple[Any, Any]:
    """Return the given axes, or those of a new figure, and their figure."""
    pyplot = import_optional("matplotlib.pyplot", extra="plot", caller=caller)
    if ax is None:
        _, ax = pyplot.subplots(figsize=figsize, layout="constrained")
    return ax, ax.figure


def bare_spines(ax: Any) -> None:
    """Hide the top and right spines."""
    ax.spines[["top", "right"]].set_visible(False)


def legend_below(
    ax: Any,
    handles: Sequence[Any],
    names: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    spelled: Sequence[bool] | None = None,
    room: float | None = None,
) -> Any:
    """Add a legend outside the axes.

    The legend is below the axis label, with as many columns as fit. A figure without a layout engine would
    cut it off, so in such figures it is placed inside the axes with ``loc="best"``.

    `spelled` says which names are literal; the others are labels that follow matplotlib's rules. By default,
    all are literal, and the available width `room`, in points, is that of the axes before the layout.
    """
    room = room_of(ax)[0] if room is None else room
    labels = [as_text(name) for name in names]
    spelled = [True] * len(labels) if spelled is None else spelled
    style: dict[str, Any] = {"fontsize": "small", "frameon": False, "handlelength": 2.2}
    # `figure` of a SubFigure is the root figure, and `figure` of a Figure is the figure itself.
    if ax.figure.figure.get_layout_engine() is None:
        style.update(loc="best", frameon=True, framealpha=0.85, edgecolor="none")
    else:
        style.update(_below(ax, labels, room))
    style.update(kwargs or {})
    # Names are set later: some versions of matplotlib skip entries that begin with an underscore.
    entries = ["name" if exact else label for label, exact in zip(labels, spelled, strict=True)]
    legend = ax.legend(handles, entries, **style)
    # Names in several columns are known to fit.
    is_single = style.get("ncols", style.get("ncol", 1)) == 1
    for text, label, exact in zip(legend.get_texts(), labels, spelled, strict=True):
        if exact:
            letter = text.get_size()
            write(text, label, max(room - _HANDLE * letter, _NARROWEST * letter) if is_single else None)
    return legend


def _below(ax: Any, labels: Sequence[str], room: float) -> dict[str, Any]:
    transforms = import_optional("matplotlib.transforms", extra="plot", caller="A legend")
    root = ax.figure.figure
    label_size = ax.xaxis.label.get_size()
    drop = 10 + (2.6 + 1.2 * ax.xaxis.label.get_text().count("\n")) * label_size
    letters = room / (0.85 * label_size)
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
    """Estimate the width of a legend in units of the font size; infinite if a column would be empty."""
    n_rows = -(-len(labels) // n_columns)
    if -(-len(labels) // n_rows) != n_columns:
        return float("inf")
    columns = [labels[start : start + n_rows] for start in range(0, len(labels), n_rows)]
    # The mean width of a letter is about half of the font size.
    longest = [max(len(line) for label in column for line in label.split("\n")) for column in columns]
    return sum(0.5 * n_letters + _HANDLE for n_letters in longest)
