"""The reliability diagram: what the model claimed against how often it was right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import ArrayLike

from clipcal.metrics import CalibrationBins
from clipcal.plots._measure import measure, predictions_of
from clipcal.plots._names import as_text, entitle, grow
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

    It is best made by :meth:`from_estimator` or :meth:`from_predictions`. Grey bars show the accuracy of
    each bin of confidence. Where a model claims more than it delivers, an orange gap stands on the bar up
    to the mean confidence; where it claims less, a blue gap covers the top of the bar. Dots mark mean
    confidence and accuracy. Nothing is drawn for empty bins.

    Parameters
    ----------
    bins : CalibrationBins
        The table to draw, from :func:`clipcal.metrics.calibration_bins` or, for a class,
        :func:`clipcal.metrics.class_calibration_bins`.

    name : str, default=None
        Title of the diagram.

    class_label : label, default=None
        The class that the table is of, for the axis labels; by default the predicted one.

    band : tuple of two ndarrays of shape (n_bins,), default=None
        Lowest and highest accuracy of each bin that calibrated predictions would show by chance, from
        :func:`clipcal.metrics.consistency_band`.

    interval : tuple of two floats, default=None
        Interval of the expected calibration error, written below it; from
        :func:`clipcal.metrics.calibration_interval`.

    floor : float, default=None
        Mean error of calibrated predictions, from :func:`clipcal.metrics.calibration_error_floor`.

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

    band_ : matplotlib.container.BarContainer or None
        What calibrated predictions would show by chance.

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
            With ``predict_proba`` and ``classes_``.

        X : object
            Whatever `estimator` predicts for.

        y : array-like of shape (n_samples,)
            True labels.

        class_label : label, default=None
            Show the probabilities of this class against how often it is the true one; by default those
            of the predicted class against how often it is right.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative.

        n_bins : int, default=15
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equal weight.

        band : float, default=None
            Coverage, between 0 and 1, of a band around the diagonal, such as 0.95: the accuracies that
            calibrated predictions would show by chance, bin by bin.

        interval : float, default=None
            Confidence level, between 0 and 1, of an interval written below the expected calibration
            error. Not for a class.

        random_state : int, RandomState instance or None, default=None
            For the interval, and where weights are unequal.

        name : str, default=None
            Title; by default the name of the estimator's class, and `class_label`.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; by default a new figure is made.

        **plot_kwargs : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
            The display, already drawn.
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
            Show the probabilities of this class against how often it is the true one; by default those
            of the predicted class against how often it is right.

        labels : array-like of shape (n_classes,), default=None
            The label of each column, usually ``estimator.classes_``.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative.

        n_bins : int, default=15
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equal weight.

        band : float, default=None
            Coverage, between 0 and 1, of a band around the diagonal, such as 0.95: the accuracies that
            calibrated predictions would show by chance, bin by bin.

        interval : float, default=None
            Confidence level, between 0 and 1, of an interval written below the expected calibration
            error. Not for a class.

        random_state : int, RandomState instance or None, default=None
            For the interval, and where weights are unequal.

        name : str, default=None
            Title; by default `class_label`, if there is one.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; by default a new figure is made.

        **plot_kwargs : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
            The display, already drawn.
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

        show_details : bool, default=False
            Whether to add to the text the number of rows and, where it is known, the error that
            calibrated predictions with these confidences would show on average ("floor").

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
        entitle(ax, name if name is not None else self.name)
        self.hist_ax_ = draw_histogram(ax, bins) if show_histogram else None
        details = {"n": f"{bins.n_samples}"} if show_details else {}
        if show_details and self.floor is not None:
            details["floor"] = f"{self.floor:.3f}"
        self.text_ = write_text(ax, bins, self.interval, details) if show_text else None
        if is_new:
            grow([ax])
        return self
