"""The reliability diagram: accuracy against confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import ArrayLike

from clipcal.metrics import CalibrationBins
from clipcal.plots._measure import measure, predictions_of
from clipcal.plots._names import as_text, draw_title, enlarge_figure
from clipcal.plots._reliability_parts import (
    axis_labels,
    draw_accuracy,
    draw_band,
    draw_gaps,
    draw_histogram,
    draw_intervals,
    frame,
    write_text,
)
from clipcal.plots._style import INK, axes_of

__all__ = ["ReliabilityDisplay"]


class ReliabilityDisplay:
    """Reliability diagram of top-label confidences or of one class, with a histogram below it.

    Create it with :meth:`from_estimator` or :meth:`from_predictions`. Grey bars show the accuracy of
    each bin of confidence. Gaps between accuracy and mean confidence are orange if the model is
    over-confident and blue if it is under-confident. Dots mark mean confidence and accuracy. Empty bins are
    not drawn.

    Parameters
    ----------
    bins : CalibrationBins
        The table to draw, from :func:`clipcal.metrics.calibration_bins` or, for a class,
        :func:`clipcal.metrics.class_calibration_bins`.

    name : str, default=None
        Title of the diagram.

    class_label : label, default=None
        The class of the table, for the axis labels. By default, the predicted class.

    band : tuple of two ndarrays of shape (n_bins,), default=None
        Range of the accuracy of each bin for a calibrated model, from
        :func:`clipcal.metrics.consistency_band`.

    interval : tuple of two floats, default=None
        Interval of the expected calibration error, from :func:`clipcal.metrics.calibration_interval`. It
        is shown below the error.

    floor : float, default=None
        Mean error of a calibrated model, from :func:`clipcal.metrics.calibration_error_floor`.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn on.

    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    bars_ : matplotlib.container.BarContainer
        Accuracy of the non-empty bins.

    gap_bars_ : matplotlib.container.BarContainer or None
        Gaps between accuracy and mean confidence.

    line_ : matplotlib.lines.Line2D or None
        The diagonal of perfect calibration.

    band_ : matplotlib.container.BarContainer or None
        Range of the accuracies for a calibrated model.

    errorbar_ : matplotlib.container.ErrorbarContainer or None
        Intervals of the accuracies.

    hist_ax_ : matplotlib.axes.Axes or None
        Inset axes with the fraction of rows in each bin, labeled with the largest fraction, or with the
        density if the bins differ in width.

    text_ : matplotlib.offsetbox.AnchoredOffsetbox or None
        Box with the expected calibration error and its two parts.

    See Also
    --------
    clipcal.metrics.calibration_bins : The values in the diagram.
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

    def __init__(
        self,
        bins: CalibrationBins,
        *,
        name: str | None = None,
        class_label: Any = None,
        band: tuple[ArrayLike, ArrayLike] | None = None,
        interval: tuple[float, float] | None = None,
        floor: float | None = None,
    ) -> None:
        self.bins = bins
        self.name = name
        self.class_label = class_label
        self.band = band
        self.interval = interval
        self.floor = floor

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        class_label: Any = None,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 15,
        strategy: Literal["uniform", "quantile"] = "uniform",
        band: float | None = None,
        interval: float | None = None,
        random_state: Any = None,
        name: str | None = None,
        ax: Any = None,
        **plot_kwargs: Any,
    ) -> ReliabilityDisplay:
        """Draw the diagram of a fitted classifier.

        Parameters
        ----------
        estimator : fitted classifier
            A classifier with ``predict_proba`` and ``classes_``.

        X : object
            Input of `estimator`.

        y : array-like of shape (n_samples,)
            True labels.

        class_label : label, default=None
            Compare the probabilities of this class with its frequency. By default, the probabilities of the
            predicted class are compared with its accuracy.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative.

        n_bins : int, default=15
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equal weight.

        band : float, default=None
            Coverage in (0, 1) of a band around the diagonal, such as 0.95: the range of the accuracy of each
            bin for a calibrated model.

        interval : float, default=None
            Confidence level in (0, 1) of an interval of the expected calibration error, which is added to the
            text. Not supported with `class_label`.

        random_state : int, RandomState instance or None, default=None
            Random number generator or seed, used for the interval and with unequal weights.

        name : str, default=None
            Title. By default, the class name of the estimator, and `class_label`.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
            The display with its artists.
        """
        kind = type(estimator).__name__
        title = kind if class_label is None else f"{kind}, {as_text(class_label)}"
        return cls.from_predictions(
            **predictions_of(estimator, X, y, sample_weight),
            class_label=class_label,
            n_bins=n_bins,
            strategy=strategy,
            band=band,
            interval=interval,
            random_state=random_state,
            name=title if name is None else name,
            ax=ax,
            **plot_kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_prob: ArrayLike,
        *,
        class_label: Any = None,
        labels: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 15,
        strategy: Literal["uniform", "quantile"] = "uniform",
        band: float | None = None,
        interval: float | None = None,
        random_state: Any = None,
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

        class_label : label, default=None
            Compare the probabilities of this class with its frequency. By default, the probabilities of the
            predicted class are compared with its accuracy.

        labels : array-like of shape (n_classes,), default=None
            The label of each column, usually ``estimator.classes_``.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative.

        n_bins : int, default=15
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equal weight.

        band : float, default=None
            Coverage in (0, 1) of a band around the diagonal, such as 0.95: the range of the accuracy of each
            bin for a calibrated model.

        interval : float, default=None
            Confidence level in (0, 1) of an interval of the expected calibration error, which is added to the
            text. Not supported with `class_label`.

        random_state : int, RandomState instance or None, default=None
            Random number generator or seed, used for the interval and with unequal weights.

        name : str, default=None
            Title. By default, `class_label`, if given.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
            The display with its artists.
        """
        found = measure(
            y_true,
            y_prob,
            class_label=class_label,
            labels=labels,
            sample_weight=sample_weight,
            n_bins=n_bins,
            strategy=strategy,
            band=band,
            interval=interval,
            with_floor=plot_kwargs.get("show_details", False),
            random_state=random_state,
        )
        if name is None and class_label is not None:
            name = as_text(class_label)
        return cls(**found, name=name).plot(ax, **plot_kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        ref_line: bool = True,
        show_gap: bool = True,
        show_histogram: bool = True,
        show_text: bool = True,
        show_details: bool = False,
        ci: float | None = None,
        bar_kwargs: Mapping[str, Any] | None = None,
        gap_kwargs: Mapping[str, Any] | None = None,
        ref_kwargs: Mapping[str, Any] | None = None,
    ) -> ReliabilityDisplay:
        """Draw the diagram.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        name : str, default=None
            Title. By default, the one passed to the constructor.

        ref_line : bool, default=True
            Whether to draw the diagonal.

        show_gap : bool, default=True
            Whether to draw the gaps.

        show_histogram : bool, default=True
            Whether to draw the fraction of rows in each bin below the diagram.

        show_text : bool, default=True
            Whether to show the expected calibration error and its parts from over- and
            under-confidence.

        show_details : bool, default=False
            Whether to add the number of rows and, if available, the mean error of a calibrated model with
            these confidences ("floor") to the text.

        ci : float, default=None
            Coverage in (0, 1) of Wilson intervals of the accuracies, such as 0.95.

        bar_kwargs, gap_kwargs, ref_kwargs : dict, default=None
            Keyword arguments passed to ``Axes.bar`` (accuracies, gaps) and ``Axes.plot`` (diagonal).

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
        is_new = ax is None
        size = (4.2, 5.0 if show_histogram else 4.2)
        ax, self.figure_ = axes_of(ax, size, "ReliabilityDisplay.plot")
        self.ax_, bins = ax, self.bins
        self.bars_ = draw_accuracy(ax, bins, bar_kwargs)
        self.gap_bars_ = draw_gaps(ax, bins, gap_kwargs) if show_gap else None
        self.band_ = draw_band(ax, bins, *self.band) if self.band is not None else None
        style = {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 1.0, "zorder": 3}
        self.line_ = ax.plot([0, 1], [0, 1], **{**style, **(ref_kwargs or {})})[0] if ref_line else None
        self.errorbar_ = draw_intervals(ax, bins, ci) if ci is not None else None
        filled = bins.count > 0
        ax.plot(
            bins.confidence[filled], bins.accuracy[filled],
            linestyle="none", marker="o", markersize=3, color=INK, zorder=4, clip_on=False,
        )  # fmt: skip
        frame(ax, *axis_labels(self.class_label), show_histogram)
        draw_title(ax, name if name is not None else self.name)
        self.hist_ax_ = draw_histogram(ax, bins) if show_histogram else None
        details = {"n": f"{bins.n_samples}"} if show_details else {}
        if show_details and self.floor is not None:
            details["floor"] = f"{self.floor:.3f}"
        self.text_ = write_text(ax, bins, self.interval, details) if show_text else None
        if is_new:
            enlarge_figure([ax])
        return self
