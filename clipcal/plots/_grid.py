"""Grids of reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from clipcal._arrays import plain_labels
from clipcal._optional import import_optional
from clipcal._weights import check_weight, distinct_labels
from clipcal.plots._measure import measure, predictions_of
from clipcal.plots._names import as_text, draw_title, enlarge_figure, write
from clipcal.plots._reliability import ReliabilityDisplay
from clipcal.plots._reliability_parts import axis_labels

__all__ = ["ReliabilityGridDisplay"]

_CALLER = "ReliabilityGridDisplay.plot"
# Maximum length of the figure labels, as a fraction of the width or height of the figure.
_LABEL_FRACTION = 0.95


class ReliabilityGridDisplay:
    """Grid of reliability diagrams of several models, or of each class of one model.

    Use :meth:`from_estimators` to compare models, :meth:`from_predictions` to show all classes of one, and
    the constructor for existing displays.

    Parameters
    ----------
    displays : sequence of ReliabilityDisplay
        The diagrams, in row-major order; their names are the titles.

    n_columns : int, default=None
        Number of panels per row. By default, at most 4, such that rows are about equally long.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure drawn on.

    axes_ : ndarray of shape (n_rows, n_columns) of matplotlib.axes.Axes
        The axes of the panels. Axes without a diagram are invisible.

    See Also
    --------
    ReliabilityDisplay : One diagram.

    Examples
    --------
    >>> from clipcal.plots import ReliabilityGridDisplay
    >>> y_true = ["cat", "dog", "cow", "cat"]
    >>> y_prob = [[0.7, 0.1, 0.2], [0.3, 0.1, 0.6], [0.2, 0.6, 0.2], [0.6, 0.3, 0.1]]
    >>> grid = ReliabilityGridDisplay.from_predictions(y_true, y_prob, labels=["cat", "cow", "dog"], n_bins=2)
    >>> [ax.get_title() for ax in grid.axes_.flat]
    ['cat', 'cow', 'dog']
    """

    def __init__(self, displays: Sequence[ReliabilityDisplay], *, n_columns: int | None = None) -> None:
        self.displays = displays
        self.n_columns = n_columns

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        X: Any,
        y: ArrayLike,
        *,
        class_label: Any = None,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 15,
        strategy: Literal["uniform", "quantile"] = "uniform",
        band: float | None = None,
        random_state: Any = None,
        n_columns: int | None = None,
        figure: Any = None,
        **plot_kwargs: Any,
    ) -> ReliabilityGridDisplay:
        """Draw one diagram per fitted classifier on the same data.

        Parameters
        ----------
        estimators : dict of str to fitted classifier
            Classifiers with ``predict_proba`` and ``classes_``; the keys are the titles.

        X : object
            Input of the classifiers.

        y : array-like of shape (n_samples,)
            True labels.

        class_label : label, default=None
            Show the probabilities of this class. By default, those of the predicted class.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative.

        n_bins : int, default=15
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equal weight.

        band : float, default=None
            Coverage in (0, 1) of a band around the diagonals, such as 0.95.

        random_state : int, RandomState instance or None, default=None
            Random number generator or seed, used for the band with unequal weights.

        n_columns : int, default=None
            Panels in a row.

        figure : matplotlib.figure.Figure or SubFigure, default=None
            Figure to draw on. By default, a new figure is created.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`ReliabilityDisplay.plot`.

        Returns
        -------
        display : ReliabilityGridDisplay
            The display with its artists.

        Raises
        ------
        TypeError
            If `estimators` is not a mapping.
        """
        if not isinstance(estimators, Mapping):
            raise TypeError(
                f"estimators must map names to classifiers, such as {{'forest': clf}}; got {estimators!r}."
            )
        displays = [
            ReliabilityDisplay(
                **measure(
                    **predictions_of(estimator, X, y, sample_weight),
                    class_label=class_label,
                    n_bins=n_bins,
                    strategy=strategy,
                    band=band,
                    with_floor=plot_kwargs.get("show_details", False),
                    random_state=random_state,
                ),
                name=name,
            )
            for name, estimator in estimators.items()
        ]
        return cls(displays, n_columns=n_columns).plot(figure, **plot_kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_prob: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        class_labels: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 15,
        strategy: Literal["uniform", "quantile"] = "uniform",
        band: float | None = None,
        random_state: Any = None,
        n_columns: int | None = None,
        figure: Any = None,
        **plot_kwargs: Any,
    ) -> ReliabilityGridDisplay:
        """Draw one diagram per class, which compares its probabilities with its frequency.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels.

        y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
            Predicted probabilities. A 1-D array holds those of the second of two classes.

        labels : array-like of shape (n_classes,), default=None
            The label of each column, usually ``estimator.classes_``. By default, the sorted unique
            values of `y_true`, which must match the number of columns.

        class_labels : array-like, default=None
            The classes to show. By default, all classes.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative.

        n_bins : int, default=15
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equal weight.

        band : float, default=None
            Coverage in (0, 1) of a band around the diagonals, such as 0.95.

        random_state : int, RandomState instance or None, default=None
            Random number generator or seed, used for the band with unequal weights.

        n_columns : int, default=None
            Panels in a row.

        figure : matplotlib.figure.Figure or SubFigure, default=None
            Figure to draw on. By default, a new figure is created.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`ReliabilityDisplay.plot`.

        Returns
        -------
        display : ReliabilityGridDisplay
            The display with its artists.
        """
        if labels is None:
            every_label = np.ravel(plain_labels(y_true))
            kept = check_weight(sample_weight, len(every_label)) > 0
            n_columns = 2 if np.ndim(y_prob) == 1 else np.shape(y_prob)[1]
            labels = distinct_labels(every_label[kept], every_label, n_columns)
        displays = [
            ReliabilityDisplay(
                **measure(
                    y_true,
                    y_prob,
                    class_label=class_label,
                    labels=labels,
                    sample_weight=sample_weight,
                    n_bins=n_bins,
                    strategy=strategy,
                    band=band,
                    random_state=random_state,
                ),
                name=as_text(class_label),
            )
            for class_label in np.asarray(plain_labels(labels if class_labels is None else class_labels))
        ]
        return cls(displays, n_columns=n_columns).plot(figure, **plot_kwargs)

    def plot(self, figure: Any = None, **plot_kwargs: Any) -> ReliabilityGridDisplay:
        """Draw the diagrams.

        Parameters
        ----------
        figure : matplotlib.figure.Figure or SubFigure, default=None
            Figure to draw on. By default, a new figure is created, whose size depends on the number of
            panels.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`ReliabilityDisplay.plot` for each panel.

        Returns
        -------
        display : ReliabilityGridDisplay
            This object.

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        ValueError
            If there are no diagrams, or `n_columns` is not a positive number.
        """
        n_columns = self._columns()
        n_rows = -(-len(self.displays) // n_columns)
        pyplot = import_optional("matplotlib.pyplot", extra="plot", caller=_CALLER)
        is_new = figure is None
        if is_new:
            figure = pyplot.figure(figsize=(2.6 * n_columns, 3.2 * n_rows), layout="constrained", dpi=110)
        self.figure_ = figure
        self.axes_ = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        panels = list(self.axes_.flat)
        for display, ax in zip(self.displays, panels, strict=False):
            display.plot(ax, **plot_kwargs)
            name = plot_kwargs.get("name")
            draw_title(ax, name if name is not None else display.name, fontsize="medium")
        self._label_outer_panels(panels, n_columns)
        if is_new:
            rows = [max(row, key=lambda ax: ax.get_title().count("\n")) for row in self.axes_]
            enlarge_figure(rows)
        return self

    def _label_outer_panels(self, panels: Sequence[Any], n_columns: int) -> None:
        """Show tick labels on the outer panels only, and axis labels for the whole figure."""
        n_panels = len(self.displays)
        if len({str(display.class_label) for display in self.displays}) > 1:
            # The class names are in the titles.
            labels = ("Probability of the class", "Share of the class")
        else:
            labels = axis_labels(self.displays[0].class_label)
        box, points = self.figure_.bbox, 72 / self.figure_.figure.dpi
        write(self.figure_.supxlabel("", fontsize="medium"), labels[0], _LABEL_FRACTION * box.width * points)
        write(self.figure_.supylabel("", fontsize="medium"), labels[1], _LABEL_FRACTION * box.height * points)
        for position, ax in enumerate(panels):
            ax.set_visible(position < n_panels)
            ax.set(xlabel="", ylabel="")
            # If the last row is not full, the panels above its empty cells are outer panels as well.
            ax.tick_params(labelbottom=position + n_columns >= n_panels, labelleft=position % n_columns == 0)

    def _columns(self) -> int:
        n_panels = len(self.displays)
        if not n_panels:
            raise ValueError("displays is empty; pass at least one ReliabilityDisplay.")
        if self.n_columns is None:
            n_rows = -(-n_panels // 4)
            return -(-n_panels // n_rows)
        if self.n_columns < 1:
            raise ValueError(f"n_columns must be at least 1; got {self.n_columns!r}.")
        return min(self.n_columns, n_panels)
