"""Histogram of the confidences of correct and wrong predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal.metrics import CalibrationBins, calibration_bins
from clipcal.plots._measure import predictions_of
from clipcal.plots._names import draw_title, enlarge_figure
from clipcal.plots._style import INK, PALE, VERMILLION, axes_of, bare_spines, legend_below

__all__ = ["ConfidenceHistogramDisplay"]


class ConfidenceHistogramDisplay:
    """Histogram of top-label confidences, split into correct and wrong predictions.

    Create it with :meth:`from_estimator` or :meth:`from_predictions`. A solid line marks the mean
    confidence, a dashed line the accuracy. The model is over-confident if the solid line is to the right.

    Parameters
    ----------
    bins : CalibrationBins
        The table to draw, from :func:`clipcal.metrics.calibration_bins`.

    name : str, default=None
        Title of the histogram.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn on.

    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    correct_bars_, wrong_bars_ : matplotlib.container.BarContainer
        Bars of correct and of wrong predictions.

    confidence_line_, accuracy_line_ : matplotlib.lines.Line2D
        The vertical lines.

    legend_ : matplotlib.legend.Legend
        The legend, with the values of the two means.

    See Also
    --------
    ReliabilityDisplay : Accuracy against confidence for each bin.

    Examples
    --------
    >>> from clipcal.plots import ConfidenceHistogramDisplay
    >>> y_true = [1, 0, 1, 1, 0, 0]
    >>> y_prob = [0.9, 0.3, 0.6, 0.8, 0.7, 0.1]
    >>> display = ConfidenceHistogramDisplay.from_predictions(y_true, y_prob, n_bins=5)
    >>> [text.get_text() for text in display.legend_.get_texts()]
    ['correct', 'wrong', 'mean confidence 0.767', 'accuracy 0.833']
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
        n_bins: int = 20,
        strategy: Literal["uniform", "quantile"] = "uniform",
        name: str | None = None,
        ax: Any = None,
        **plot_kwargs: Any,
    ) -> ConfidenceHistogramDisplay:
        """Draw the histogram of a fitted classifier.

        Parameters
        ----------
        estimator : fitted classifier
            A classifier with ``predict_proba`` and ``classes_``.

        X : object
            Input of `estimator`.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative.

        n_bins : int, default=20
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equal weight.

        name : str, default=None
            Title. By default, the class name of the estimator.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`plot`.

        Returns
        -------
        display : ConfidenceHistogramDisplay
            The display with its artists.
        """
        return cls.from_predictions(
            **predictions_of(estimator, X, y, sample_weight),
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
        n_bins: int = 20,
        strategy: Literal["uniform", "quantile"] = "uniform",
        name: str | None = None,
        ax: Any = None,
        **plot_kwargs: Any,
    ) -> ConfidenceHistogramDisplay:
        """Draw the histogram of given probabilities.

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

        n_bins : int, default=20
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equal weight.

        name : str, default=None
            Title. By default, there is none.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`plot`.

        Returns
        -------
        display : ConfidenceHistogramDisplay
            The display with its artists.
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
        stacked: bool = True,
        density: bool | None = None,
        correct_kwargs: Mapping[str, Any] | None = None,
        wrong_kwargs: Mapping[str, Any] | None = None,
        legend_kwargs: Mapping[str, Any] | None = None,
    ) -> ConfidenceHistogramDisplay:
        """Draw the histogram.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        name : str, default=None
            Title. By default, the one passed to the constructor.

        stacked : bool, default=True
            Whether to stack wrong on correct predictions, as fractions of all rows. Otherwise the two are
            overlaid, each as fractions of its own rows, which shows the shapes even if there are few errors.

        density : bool, default=None
            Whether to divide fractions by the width of the bin. By default, only if widths differ.

        correct_kwargs, wrong_kwargs : dict, default=None
            Keyword arguments passed to ``Axes.bar``.

        legend_kwargs : dict, default=None
            Keyword arguments passed to ``Axes.legend``.

        Returns
        -------
        display : ConfidenceHistogramDisplay
            This object.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        is_new = ax is None
        ax, self.figure_ = axes_of(ax, (4.5, 3.6), "ConfidenceHistogramDisplay.plot")
        self.ax_, edges = ax, self.bins.edges
        width = np.diff(edges)
        density = not np.allclose(width, width[0]) if density is None else density
        correct, wrong = self._heights(stacked)
        if density:
            correct, wrong = correct / width, wrong / width
        place = {"width": width, "align": "edge", "linewidth": 0.6}
        self.correct_bars_ = ax.bar(
            edges[:-1], correct, **{**place, "color": PALE, "edgecolor": "white", **(correct_kwargs or {})}
        )
        style = {"facecolor": (VERMILLION, 0.45), "edgecolor": VERMILLION, "hatch": "////"}
        bottom = correct if stacked else 0.0
        self.wrong_bars_ = ax.bar(
            edges[:-1], wrong, bottom=bottom, **{**place, **style, **(wrong_kwargs or {})}
        )
        self._mark_means()
        ax.set(xlim=(0, 1), xlabel="Confidence", ylabel=_height_label(stacked, density))
        bare_spines(ax)
        draw_title(ax, name if name is not None else self.name)
        self.legend_ = self._explain(legend_kwargs)
        if is_new:
            enlarge_figure([ax])
        return self

    def _heights(self, stacked: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        weight = self.bins.weight
        correct = weight * np.where(weight > 0, self.bins.accuracy, 0.0)
        wrong = weight - correct
        if stacked:
            return correct / weight.sum(), wrong / weight.sum()
        # Avoid a division by zero if there are no errors.
        return correct / (correct.sum() or 1.0), wrong / (wrong.sum() or 1.0)

    def _mark_means(self) -> None:
        bins = self.bins
        share = bins.weight / bins.weight.sum()
        filled = bins.weight > 0
        accuracy = float((share * bins.accuracy)[filled].sum())
        style: dict[str, Any] = {"color": INK, "linewidth": 1.3, "zorder": 3}
        self.confidence_line_ = self.ax_.axvline(accuracy + bins.mean_gap, linestyle="-", **style)
        self.accuracy_line_ = self.ax_.axvline(accuracy, linestyle=(0, (4, 2)), **style)

    def _explain(self, kwargs: Mapping[str, Any] | None) -> Any:
        confidence, accuracy = (line.get_xdata()[0] for line in (self.confidence_line_, self.accuracy_line_))
        handles = [self.correct_bars_, self.wrong_bars_, self.confidence_line_, self.accuracy_line_]
        labels = ["correct", "wrong", f"mean confidence {confidence:.3f}", f"accuracy {accuracy:.3f}"]
        return legend_below(self.ax_, handles, labels, kwargs)


def _height_label(stacked: bool, density: bool) -> str:
    if density:
        return "Density"
    return "Share of rows" if stacked else "Share of outcome"
