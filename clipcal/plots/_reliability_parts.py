"""Functions that draw the parts of a reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from clipcal._optional import import_optional
from clipcal.metrics import CalibrationBins
from clipcal.plots._names import as_text, room_of, write
from clipcal.plots._style import BLUE, INK, PALE, QUIET, VERMILLION, bare_spines

__all__ = [
    "axis_labels",
    "draw_accuracy",
    "draw_band",
    "draw_gaps",
    "draw_histogram",
    "draw_intervals",
    "frame",
    "write_text",
]

Floats = NDArray[np.float64]
Styles = Mapping[str, Any] | None

# Colours of over- and under-confidence.
_OVER = VERMILLION
_UNDER = BLUE
# The histogram is below 0 on the same y-axis, so that panels of a grid cannot overlap.
_HISTOGRAM_TOP = -0.13
_HISTOGRAM_BOTTOM = -0.42
# Width of a small panel in inches.
_SMALL = 1.2


def draw_accuracy(ax: Any, bins: CalibrationBins, kwargs: Styles) -> Any:
    """Draw the accuracies of non-empty bins as bars."""
    filled, width = bins.count > 0, np.diff(bins.edges)
    style = {"color": PALE, "edgecolor": "white", "linewidth": 0.6, "zorder": 1}
    return ax.bar(
        bins.edges[:-1][filled],
        bins.accuracy[filled],
        width=width[filled],
        align="edge",
        **{**style, **(kwargs or {})},
    )


def draw_gaps(ax: Any, bins: CalibrationBins, kwargs: Styles) -> Any:
    """Draw a hatched bar between accuracy and mean confidence."""
    filled = bins.count > 0
    over = bins.gaps[filled] > 0
    style = {"linewidth": 0.6, "zorder": 2}
    bars = ax.bar(
        bins.edges[:-1][filled],
        bins.gaps[filled],
        bottom=bins.accuracy[filled],
        width=np.diff(bins.edges)[filled],
        align="edge",
        **{**style, **(kwargs or {})},
    )
    for bar, is_over in zip(bars, over, strict=True):
        color = _OVER if is_over else _UNDER
        bar.set(facecolor=(color, 0.35), edgecolor=color, hatch="///" if is_over else "\\\\\\")
    return bars


def draw_band(ax: Any, bins: CalibrationBins, low: ArrayLike, high: ArrayLike) -> Any:
    """Draw the range of the accuracy of each bin for a calibrated model."""
    low, high = np.asarray(low), np.asarray(high)
    filled = bins.count > 0
    left, right = bins.edges[:-1][filled], bins.edges[1:][filled]
    # Two lines with a light fill, to distinguish the band from bars.
    style = {"color": INK, "linewidth": 1.1, "zorder": 2.6}
    ax.hlines([*low[filled], *high[filled]], [*left] * 2, [*right] * 2, **style)
    return ax.bar(
        left,
        (high - low)[filled],
        bottom=low[filled],
        width=right - left,
        align="edge",
        color=INK,
        alpha=0.1,
        linewidth=0,
        zorder=2.5,
    )


def draw_intervals(ax: Any, bins: CalibrationBins, ci: float) -> Any:
    """Draw Wilson intervals of the accuracies."""
    filled = bins.count > 0
    accuracy = bins.accuracy[filled]
    low, high = _wilson(accuracy, bins.effective_count[filled], ci)
    return ax.errorbar(
        bins.confidence[filled], accuracy, yerr=[accuracy - low, high - accuracy],
        fmt="none", ecolor=INK, elinewidth=0.9, capsize=1.5, zorder=4,
    )  # fmt: skip


def axis_labels(class_label: Any) -> tuple[str, str]:
    """Return the labels of the axes."""
    if class_label is None:
        return "Confidence", "Accuracy"
    name = as_text(class_label)
    return f"Probability of {name}", f"Share of {name}"


def frame(ax: Any, xlabel: str, ylabel: str, show_histogram: bool) -> None:
    """Set limits, ticks and labels."""
    ax.set(xlim=(0, 1), ylim=(_HISTOGRAM_BOTTOM if show_histogram else 0, 1), aspect="equal")
    ticks = np.linspace(0, 1, 3 if _is_small(ax) else 6)
    names = [f"{tick:.1f}".rstrip("0").rstrip(".") for tick in ticks]
    ax.set_xticks(ticks, names)
    ax.set_yticks(ticks, names)
    width, height = room_of(ax)
    write(ax.set_xlabel(""), xlabel, width)
    write(ax.set_ylabel(""), ylabel, height)
    bare_spines(ax)


def draw_histogram(ax: Any, bins: CalibrationBins) -> Any:
    """Draw the fraction of rows in each bin below the diagram."""
    share, width = bins.weight / bins.weight.sum(), np.diff(bins.edges)
    equal_width = np.allclose(width, width[0])
    # Bars of unequal width show the density, so that their areas are comparable.
    heights = share if equal_width else share / width
    drop = _HISTOGRAM_TOP - _HISTOGRAM_BOTTOM
    inset = ax.inset_axes([0, _HISTOGRAM_BOTTOM, 1, drop], transform=ax.transData)
    inset.bar(bins.edges[:-1], heights, width=width, align="edge", color=QUIET, linewidth=0)
    inset.set(xlim=(0, 1), ylim=(0, heights.max()), xticks=[], yticks=[])
    if equal_width and not _is_small(ax):
        inset.set_yticks([share.max()], [f"{share.max():.0%}"], fontsize="small", color=QUIET)
    inset.tick_params(length=0)
    inset.patch.set_visible(False)
    inset.spines[:].set_visible(False)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=3)
    return inset


def write_text(
    ax: Any, bins: CalibrationBins, interval: tuple[float, float] | None, details: Mapping[str, str]
) -> Any:
    """Draw the error, its two parts and details in a corner with few gaps."""
    offsetbox = import_optional("matplotlib.offsetbox", extra="plot", caller="ReliabilityDisplay.plot")
    rows: list[tuple[str, dict[str, Any]]] = [(f"ECE {bins.error:.3f}", {"color": INK, "weight": "bold"})]
    if interval is not None:
        rows.append((f"{interval[0]:.3f} to {interval[1]:.3f}", {"color": INK}))
    rows += [(f"over {bins.over:.3f}", {"color": _OVER}), (f"under {bins.under:.3f}", {"color": _UNDER})]
    rows += [(f"{name} {value}", {"color": QUIET}) for name, value in details.items()]
    lines = [offsetbox.TextArea(text, textprops={"size": "small", **style}) for text, style in rows]
    corner = _free_corner(bins)
    box = offsetbox.AnchoredOffsetbox(
        corner[0],
        child=offsetbox.VPacker(children=lines, pad=0, sep=2),
        pad=0.2,
        borderpad=0.15,
        bbox_to_anchor=corner[1],
        bbox_transform=ax.transData,
    )
    box.patch.set(facecolor="white", edgecolor="none", alpha=0.85)
    box.set_zorder(5)
    ax.add_artist(box)
    return box


def _is_small(ax: Any) -> bool:
    """Whether tick labels at each 0.2 would overlap."""
    return bool(room_of(ax)[0] < 72 * _SMALL)


def _free_corner(bins: CalibrationBins) -> tuple[str, tuple[int, int]]:
    """Return the corner in which the text covers fewer gaps."""
    filled = bins.count > 0
    left, right = bins.edges[:-1][filled], bins.edges[1:][filled]
    top = np.fmax(bins.accuracy, bins.confidence)[filled]
    bottom = np.fmin(bins.accuracy, bins.confidence)[filled]
    in_upper_left = ((left < 0.55) & (top > 0.65)).sum()
    in_lower_right = ((right > 0.45) & (bottom < 0.35)).sum()
    if in_upper_left <= in_lower_right:
        return "upper left", (0, 1)
    return "lower right", (1, 0)


def _wilson(share: Floats, count: Floats, ci: float) -> tuple[Floats, Floats]:
    """Return Wilson's interval of a binomial proportion."""
    z = ndtri(0.5 + ci / 2)
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.minimum(center - half, share), np.maximum(center + half, share)
