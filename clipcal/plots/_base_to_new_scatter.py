"""Scatter plot of a metric on base classes and on new classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._optional import import_optional
from clipcal.metrics import harmonic_mean
from clipcal.plots._names import as_text, draw_title, enlarge_figure, room_of, write
from clipcal.plots._style import PALE, QUIET, axes_of, bare_spines, legend_below, series_style

__all__ = ["BaseToNewDisplay"]

_MEANS = ("harmonic", "arithmetic")


class BaseToNewDisplay:
    """Scatter plot of a metric on new classes against the metric on base classes.

    Each method has one large marker at the mean of its runs, and a small, faint marker for each run. Methods
    above the diagonal have larger values on new classes.

    Parameters
    ----------
    method : array-like of shape (n_runs,)
        Name of the method of each run. Methods are drawn in order of first occurrence.

    base, new : array-like of shape (n_runs,)
        The metric on base and on new classes, such as accuracy or calibration error.

    metric_name : str, default=None
        Name of the metric, for the axis labels.

    name : str, default=None
        Title.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn on.

    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    points_ : dict of str to matplotlib.lines.Line2D
        The large marker of each method.

    run_points_ : dict of str to matplotlib.lines.Line2D
        The small markers of each method with several runs.

    line_ : matplotlib.lines.Line2D or None
        The diagonal.

    mean_lines_ : matplotlib.contour.ContourSet or None
        Lines of equal mean of base and new.

    legend_ : matplotlib.legend.Legend
        Names of the methods.

    Examples
    --------
    >>> from clipcal.plots import BaseToNewDisplay
    >>> records = [
    ...     {"method": "zero-shot", "base": 0.03, "new": 0.03},
    ...     {"method": "CoOp", "base": 0.02, "new": 0.12},
    ...     {"method": "CoOp", "base": 0.04, "new": 0.18},
    ... ]
    >>> display = BaseToNewDisplay.from_records(records, metric_name="ECE")
    >>> [round(float(value[0]), 2) for value in display.points_["CoOp"].get_data()]
    [0.03, 0.15]
    """

    def __init__(
        self,
        method: ArrayLike,
        base: ArrayLike,
        new: ArrayLike,
        *,
        metric_name: str | None = None,
        name: str | None = None,
    ) -> None:
        self.method = method
        self.base = base
        self.new = new
        self.metric_name = metric_name
        self.name = name

    @classmethod
    def from_records(
        cls,
        records: Iterable[Mapping[str, Any]],
        *,
        metric_name: str | None = None,
        name: str | None = None,
        ax: Any = None,
        **plot_kwargs: Any,
    ) -> BaseToNewDisplay:
        """Draw runs given as records.

        Parameters
        ----------
        records : iterable of dict
            One record per run, with the keys ``method``, ``base`` and ``new``. Other keys are ignored.

        metric_name : str, default=None
            Name of the metric, for the axis labels.

        name : str, default=None
            Title. By default, there is none.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`plot`.

        Returns
        -------
        display : BaseToNewDisplay
            The display with its artists.

        Raises
        ------
        ValueError
            If a record lacks a key.
        """
        columns: dict[str, list[Any]] = {"method": [], "base": [], "new": []}
        for position, record in enumerate(records):
            if missing := [key for key in columns if key not in record]:
                raise ValueError(
                    f"Record {position} lacks {missing}; its keys are {list(record)}. "
                    "Each record needs 'method', 'base' and 'new'."
                )
            for key, values in columns.items():
                values.append(record[key])
        return cls(**columns, metric_name=metric_name, name=name).plot(ax, **plot_kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        ref_line: bool = True,
        show_runs: bool = True,
        mean_lines: Literal["harmonic", "arithmetic"] | None = None,
        equal_scale: bool = True,
        marker_kwargs: Mapping[str, Any] | None = None,
        ref_kwargs: Mapping[str, Any] | None = None,
        legend_kwargs: Mapping[str, Any] | None = None,
    ) -> BaseToNewDisplay:
        """Draw the scatter plot.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        name : str, default=None
            Title. By default, the one passed to the constructor.

        ref_line : bool, default=True
            Whether to draw the diagonal.

        show_runs : bool, default=True
            Whether to draw the runs of methods with several runs.

        mean_lines : {"harmonic", "arithmetic"}, default=None
            Draw lines of equal mean of base and new. The harmonic mean, which is usual for accuracies,
            needs positive numbers.

        equal_scale : bool, default=True
            Whether both axes have the same limits. Otherwise each axis fits its own values, which shows
            more detail if the values on one axis vary little.

        marker_kwargs, ref_kwargs : dict, default=None
            Keyword arguments passed to ``Axes.plot`` (large markers, diagonal).

        legend_kwargs : dict, default=None
            Keyword arguments passed to ``Axes.legend``.

        Returns
        -------
        display : BaseToNewDisplay
            This object.

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        ValueError
            If the arrays are empty, differ in length or contain NaN or infinity, or if `mean_lines` is
            invalid.
        """
        runs = self._runs()
        everything = np.concatenate([pair.ravel() for pair in runs.values()])
        _check_mean_lines(mean_lines, everything)
        is_new = ax is None
        ax, self.figure_ = axes_of(ax, (4.2, 4.6), "BaseToNewDisplay.plot")
        self.ax_ = ax
        low, high = _padded(everything)
        if equal_scale:
            ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        else:
            pairs = np.concatenate(list(runs.values()), axis=1)
            ax.set(xlim=_padded(pairs[0]), ylim=_padded(pairs[1]))
        style = {"color": QUIET, "linestyle": (0, (4, 3)), "linewidth": 1.0, "zorder": 1}
        ends = [low, high]
        self.line_ = ax.plot(ends, ends, **{**style, **(ref_kwargs or {})})[0] if ref_line else None
        self.mean_lines_ = self._draw_mean_lines(mean_lines, low, high) if mean_lines else None
        self.points_: dict[str, Any] = {}
        self.run_points_: dict[str, Any] = {}
        for position, (method, pair) in enumerate(runs.items()):
            self._draw_method(method, pair, series_style(position, markersize=8), show_runs, marker_kwargs)
        self._label_axes()
        bare_spines(ax)
        draw_title(ax, name if name is not None else self.name)
        self.legend_ = legend_below(ax, list(self.points_.values()), list(self.points_), legend_kwargs)
        if is_new:
            enlarge_figure([ax])
        return self

    def _runs(self) -> dict[str, NDArray[np.float64]]:
        """Return an array of shape (2, n_runs_of_method) for each method."""
        method = np.asarray(self.method)
        base, new = (np.asarray(values, dtype=float) for values in (self.base, self.new))
        if method.ndim != 1 or not base.shape == new.shape == method.shape or not len(method):
            raise ValueError(
                "method, base and new must be 1d arrays of the same length, at least 1; "
                f"got the shapes {method.shape}, {base.shape} and {new.shape}."
            )
        pairs = np.array([base, new])
        if not np.isfinite(pairs).all():
            run = int(np.flatnonzero(~np.isfinite(pairs).all(axis=0))[0])
            raise ValueError(f"base and new must be finite; run {run} ({method[run]}) is not. Drop this run.")
        names = np.array([as_text(name) for name in method.tolist()], dtype=object)
        return {name: pairs[:, names == name] for name in dict.fromkeys(names)}

    def _label_axes(self) -> None:
        what = f"{as_text(self.metric_name)}, " if self.metric_name else ""
        width, height = room_of(self.ax_)
        write(self.ax_.set_xlabel(""), f"{what}base classes", width)
        # Axes of equal scales are square, so their height is at most the available width.
        write(self.ax_.set_ylabel(""), f"{what}new classes", min(width, height))

    def _draw_method(
        self,
        method: str,
        pair: NDArray[np.float64],
        style: dict[str, Any],
        show_runs: bool,
        kwargs: Mapping[str, Any] | None,
    ) -> None:
        look = {**style, "linestyle": "none"}
        if show_runs and pair.shape[1] > 1:
            (self.run_points_[method],) = self.ax_.plot(
                *pair,
                **{**look, "markersize": look["markersize"] * 0.45},
                alpha=0.4,
                markeredgewidth=0,
                zorder=2,
            )
        big = {**look, "markeredgecolor": "white", "markeredgewidth": 0.9, "zorder": 4, "clip_on": False}
        (self.points_[method],) = self.ax_.plot(*pair.mean(axis=1)[:, None], **{**big, **(kwargs or {})})

    def _draw_mean_lines(self, kind: str, low: float, high: float) -> Any:
        ticker = import_optional("matplotlib.ticker", extra="plot", caller="BaseToNewDisplay.plot")
        start = max(low, 1e-9) if kind == "harmonic" else low
        base, new = np.meshgrid(*[np.linspace(start, high, 100)] * 2)
        mean = harmonic_mean(base, new) if kind == "harmonic" else (base + new) / 2
        levels = [level for level in ticker.MaxNLocator(6).tick_values(low, high) if low < level < high]
        drawn = self.ax_.contour(base, new, mean, levels=levels, colors=PALE, linewidths=0.8, zorder=0.5)
        # Labels are on the diagonal, where the mean equals the coordinate and lines are furthest apart.
        places = [(level, level) for level in levels]
        self.ax_.clabel(drawn, fmt="%.3g", fontsize="x-small", colors=QUIET, manual=places, zorder=1.5)
        for text in drawn.labelTexts:
            text.set(rotation=0, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})
        return drawn


def _check_mean_lines(kind: str | None, values: NDArray[np.float64]) -> None:
    if kind is not None and kind not in _MEANS:
        raise ValueError(f"mean_lines must be 'harmonic', 'arithmetic' or None; got {kind!r}.")
    if kind == "harmonic" and values.min() <= 0:
        raise ValueError(
            f"The harmonic mean needs positive numbers; the smallest is {values.min():.3g}. "
            "Use mean_lines='arithmetic'."
        )


def _padded(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    # Axes of non-negative numbers do not extend below 0.
    return (max(low - pad, 0.0) if low >= 0 else low - pad), high + pad
