"""The reliability diagram: what the model claimed against how often it was right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from .._optional import import_optional
from ..metrics import CalibrationBins, calibration_bins

__all__ = ["ReliabilityDisplay"]

# Okabe and Ito's vermillion and blue stay apart for every common kind of colour blindness; the hatches
# keep the two apart in grey print.
_OVER = "#D55E00"
_UNDER = "#0072B2"
_ACCURACY = "#C4CAD1"
_INK = "#2B2F36"
_QUIET = "#6F7680"

# The histogram lives below 0 on the same axis, so that panels of a grid cannot run into each other.
_HISTOGRAM_TOP = -0.13
_HISTOGRAM_BOTTOM = -0.42


class ReliabilityDisplay:
    """Reliability diagram of top-label confidences, with a histogram below it.

    It is best made by :meth:`from_estimator` or :meth:`from_predictions`. Grey bars show the accuracy of
    each bin of confidence. Where a model claims more than it delivers, an orange gap stands on the bar up
    to the mean confidence; where it claims less, a blue gap covers the top of the bar. Dots mark mean
    confidence and accuracy. Nothing is drawn for empty bins.

    Parameters
    ----------
    bins : CalibrationBins
        The table to draw, from :func:`clipcal.metrics.calibration_bins`.

    name : str, default=None
        Title of the diagram.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn on.

    figure_ : matplotlib.figure.Figure
        The figure that holds them.

    bars_ : matplotlib.container.BarContainer
        Accuracy of the bins that are not empty.

    gap_bars_ : matplotlib.container.BarContainer or None
        Gaps between accuracy and mean confidence.

    line_ : matplotlib.lines.Line2D or None
        The diagonal of perfect calibration.

    errorbar_ : matplotlib.container.ErrorbarContainer or None
        Intervals of the accuracies.

    hist_ax_ : matplotlib.axes.Axes or None
        Inset axes with the share of rows in each bin (the number beside it is that of the fullest bin),
        or with their density if the bins are not of equal width.

    text_ : matplotlib.offsetbox.AnchoredOffsetbox or None
        Box with the expected calibration error and its two parts.

    See Also
    --------
    clipcal.metrics.calibration_bins : The numbers in the diagram.
    sklearn.calibration.CalibrationDisplay : Calibration curves of binary classifiers.

    References
    ----------
    .. [1] M. H. DeGroot, S. E. Fienberg. "The comparison and evaluation of forecasters", The
       Statistician 32, 1983. :doi:`10.2307/2987588`

    Examples
    --------
    >>> from clipcal.plots import ReliabilityDisplay
    >>> y_true = [1, 0, 1, 1, 0, 0]
    >>> y_prob = [0.9, 0.3, 0.6, 0.8, 0.7, 0.1]
    >>> display = ReliabilityDisplay.from_predictions(y_true, y_prob, n_bins=5, name="A model")
    >>> round(display.bins.error, 4)
    0.1333
    >>> display.ax_.get_title()
    'A model'
    """

    def __init__(self, bins: CalibrationBins, *, name: str | None = None) -> None:
        self.bins = bins
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 15,
        strategy: Literal["uniform", "quantile"] = "uniform",
        name: str | None = None,
        ax: Any = None,
        **plot_kwargs: Any,
    ) -> ReliabilityDisplay:
        """Draw the diagram of a fitted classifier.

        Parameters
        ----------
        estimator : fitted classifier
            With ``predict_proba`` and ``classes_``.

        X : object
            Whatever `estimator` predicts for.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative.

        n_bins : int, default=15
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equal weight.

        name : str, default=None
            Title; by default the name of the estimator's class.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; by default a new figure is made.

        **plot_kwargs : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
            The display, already drawn.
        """
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            labels=estimator.classes_,
            sample_weight=sample_weight,
            n_bins=n_bins,
            strategy=strategy,
            name=type(estimator).__name__ if name is None else name,
            ax=ax,
            **plot_kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_prob: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 15,
        strategy: Literal["uniform", "quantile"] = "uniform",
        name: str | None = None,
        ax: Any = None,
        **plot_kwargs: Any,
    ) -> ReliabilityDisplay:
        """Draw the diagram of given probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels.

        y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
            Predicted probabilities. A 1-D array holds those of the second of two classes.

        labels : array-like of shape (n_classes,), default=None
            The label of each column, usually ``estimator.classes_``.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative.

        n_bins : int, default=15
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equal weight.

        name : str, default=None
            Title; by default there is none.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; by default a new figure is made.

        **plot_kwargs : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
            The display, already drawn.
        """
        bins = calibration_bins(
            y_true, y_prob, labels=labels, sample_weight=sample_weight, n_bins=n_bins, strategy=strategy
        )
        return cls(bins, name=name).plot(ax, **plot_kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        ref_line: bool = True,
        show_gap: bool = True,
        show_histogram: bool = True,
        show_text: bool = True,
        ci: float | None = None,
        bar_kwargs: Mapping[str, Any] | None = None,
        gap_kwargs: Mapping[str, Any] | None = None,
        ref_kwargs: Mapping[str, Any] | None = None,
    ) -> ReliabilityDisplay:
        """Draw the diagram.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; by default a new figure is made.

        name : str, default=None
            Title; by default the one given at construction.

        ref_line : bool, default=True
            Whether to draw the diagonal.

        show_gap : bool, default=True
            Whether to draw the gaps.

        show_histogram : bool, default=True
            Whether to draw the share of rows in each bin, below the diagram.

        show_text : bool, default=True
            Whether to write the expected calibration error, and how much of it is over- and
            under-confidence.

        ci : float, default=None
            Coverage, between 0 and 1, of Wilson intervals drawn around the accuracies, such as 0.95.

        bar_kwargs, gap_kwargs, ref_kwargs : dict, default=None
            Further arguments for ``Axes.bar`` (accuracies, gaps) and ``Axes.plot`` (diagonal).

        Returns
        -------
        display : ReliabilityDisplay
            This object.

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        ValueError
            If `ci` is not between 0 and 1.
        """
        if ci is not None and not 0 < ci < 1:
            raise ValueError(f"ci must lie between 0 and 1, such as ci=0.95; got {ci!r}.")
        pyplot = import_optional("matplotlib.pyplot", extra="plot", caller="ReliabilityDisplay.plot")
        if ax is None:
            _, ax = pyplot.subplots(figsize=(4.2, 5.0 if show_histogram else 4.2), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure

        filled = self.bins.count > 0
        self.bars_ = self._draw_bars(filled, bar_kwargs)
        self.gap_bars_ = self._draw_gaps(filled, gap_kwargs) if show_gap else None
        style = {"color": _INK, "linestyle": (0, (4, 3)), "linewidth": 1.0, "zorder": 3}
        self.line_ = ax.plot([0, 1], [0, 1], **{**style, **(ref_kwargs or {})})[0] if ref_line else None
        self.errorbar_ = self._draw_intervals(filled, ci) if ci is not None else None
        ax.plot(
            self.bins.confidence[filled], self.bins.accuracy[filled],
            linestyle="none", marker="o", markersize=3, color=_INK, zorder=4, clip_on=False,
        )  # fmt: skip
        self._frame(name if name is not None else self.name, show_histogram)
        self.hist_ax_ = self._draw_histogram() if show_histogram else None
        self.text_ = self._write_text() if show_text else None
        return self

    def _draw_bars(self, filled: NDArray[np.bool_], kwargs: Mapping[str, Any] | None) -> Any:
        edges = self.bins.edges
        style = {"color": _ACCURACY, "edgecolor": "white", "linewidth": 0.6, "zorder": 1}
        return self.ax_.bar(
            edges[:-1][filled],
            self.bins.accuracy[filled],
            width=np.diff(edges)[filled],
            align="edge",
            **{**style, **(kwargs or {})},
        )

    def _draw_gaps(self, filled: NDArray[np.bool_], kwargs: Mapping[str, Any] | None) -> Any:
        edges, gaps = self.bins.edges, self.bins.gaps[filled]
        colors = np.where(gaps > 0, _OVER, _UNDER)
        style = {"linewidth": 0.6, "zorder": 2}
        bars = self.ax_.bar(
            edges[:-1][filled],
            gaps,
            bottom=self.bins.accuracy[filled],
            width=np.diff(edges)[filled],
            align="edge",
            **{**style, **(kwargs or {})},
        )
        for bar, color, over in zip(bars, colors, gaps > 0, strict=True):
            bar.set(facecolor=(color, 0.35), edgecolor=color, hatch="///" if over else "\\\\\\")
        return bars

    def _draw_intervals(self, filled: NDArray[np.bool_], ci: float) -> Any:
        low, high = _wilson(self.bins.accuracy[filled], self.bins.effective_count[filled], ci)
        accuracy = self.bins.accuracy[filled]
        return self.ax_.errorbar(
            self.bins.confidence[filled], accuracy, yerr=[accuracy - low, high - accuracy],
            fmt="none", ecolor=_INK, elinewidth=0.9, capsize=1.5, zorder=4,
        )  # fmt: skip

    def _frame(self, name: str | None, show_histogram: bool) -> None:
        ax = self.ax_
        ax.set(xlim=(0, 1), ylim=(_HISTOGRAM_BOTTOM if show_histogram else 0, 1), aspect="equal")
        ticks = np.linspace(0, 1, 6)
        ax.set_xticks(ticks, [f"{tick:.1f}".rstrip("0").rstrip(".") for tick in ticks])
        ax.set_yticks(ticks, [f"{tick:.1f}".rstrip("0").rstrip(".") for tick in ticks])
        ax.set_xlabel("Confidence")
        ax.set_ylabel("Accuracy")
        ax.spines[["top", "right"]].set_visible(False)
        if name is not None:
            ax.set_title(name)

    def _draw_histogram(self) -> Any:
        bins = self.bins
        share, width = bins.weight / bins.weight.sum(), np.diff(bins.edges)
        equal_width = np.allclose(width, width[0])
        # Bars of unequal width must show density, or the wide ones would seem to hold the most.
        heights = share if equal_width else share / width
        drop = _HISTOGRAM_TOP - _HISTOGRAM_BOTTOM
        inset = self.ax_.inset_axes([0, _HISTOGRAM_BOTTOM, 1, drop], transform=self.ax_.transData)
        inset.bar(bins.edges[:-1], heights, width=width, align="edge", color=_QUIET, linewidth=0)
        inset.set(xlim=(0, 1), ylim=(0, heights.max()), xticks=[], yticks=[])
        if equal_width:
            inset.set_yticks([share.max()], [f"{share.max():.0%}"], fontsize="small", color=_QUIET)
        inset.tick_params(length=0)
        inset.patch.set_visible(False)
        inset.spines[:].set_visible(False)
        self.ax_.axhline(0, color=_INK, linewidth=0.8, zorder=3)
        return inset

    def _write_text(self) -> Any:
        offsetbox = import_optional("matplotlib.offsetbox", extra="plot", caller="ReliabilityDisplay.plot")
        rows = [
            (f"ECE {self.bins.error:.3f}", {"color": _INK, "weight": "bold"}),
            (f"over {self.bins.over:.3f}", {"color": _OVER}),
            (f"under {self.bins.under:.3f}", {"color": _UNDER}),
        ]
        lines = [offsetbox.TextArea(text, textprops={"size": "small", **style}) for text, style in rows]
        # The upper left is free unless bars rise far above the diagonal; the lower ends of bars, which the
        # box covers then, carry no information.
        corner = ("upper left", (0, 1)) if self.bins.mean_gap > -0.1 else ("lower right", (1, 0))
        box = offsetbox.AnchoredOffsetbox(
            corner[0],
            child=offsetbox.VPacker(children=lines, pad=0, sep=2),
            pad=0.2,
            borderpad=0.15,
            bbox_to_anchor=corner[1],
            bbox_transform=self.ax_.transData,
        )
        box.patch.set(facecolor="white", edgecolor="none", alpha=0.85)
        box.set_zorder(5)
        self.ax_.add_artist(box)
        return box


def _wilson(
    share: NDArray[np.float64], count: NDArray[np.float64], ci: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Wilson's interval of a binomial share, which stays inside [0, 1]."""
    z = ndtri(0.5 + ci / 2)
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.minimum(center - half, share), np.maximum(center + half, share)
