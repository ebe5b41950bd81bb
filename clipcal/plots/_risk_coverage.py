"""The risk-coverage curve: the error rate of the most confident predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._optional import import_optional
from clipcal.metrics import area_under_risk_coverage, risk_coverage_curve
from clipcal.plots._measure import predictions_of
from clipcal.plots._names import as_text, enlarge_figure
from clipcal.plots._style import QUIET, axes_of, bare_spines, legend_below, series_style

__all__ = ["RiskCoverageDisplay"]

_CALLER = "RiskCoverageDisplay.plot"
_IDEAL = (0, (1, 1.2))
_RANDOM = (0, (7, 3))
# The risk below this coverage is ignored for the y-limits: a single error among few rows gives a high risk.
_SCALE_FROM = 0.1


class RiskCoverageDisplay:
    """Error rate of the most confident rows against the fraction of these rows.

    Create it with :meth:`from_estimator` or :meth:`from_predictions`. Thin lines of the same colour show the
    optimal order of the rows, with all errors last, and a random order. Use ``ax=display.ax_`` to add other
    models to the same axes. The y-limits are set by the risk at coverages of at least 0.1; spikes at lower
    coverages, which come from few rows, may be cut off.

    Parameters
    ----------
    coverage : array-like of shape (n_thresholds,)
        Fractions of rows, increasing to 1.

    risk : array-like of shape (n_thresholds,)
        Error rates of these rows. The last one is that of all rows.

    area : float, default=None
        Area under the curve, for the label.

    name : str, default=None
        Name of the model, for the label.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn on.

    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    line_ : matplotlib.lines.Line2D
        The curve.

    ideal_line_, random_line_ : matplotlib.lines.Line2D or None
        The curves of the optimal and of a random order.

    legend_ : matplotlib.legend.Legend
        Names and areas of all curves on the axes.

    See Also
    --------
    clipcal.metrics.risk_coverage_curve : The values in the plot.
    clipcal.metrics.area_under_risk_coverage : The area.

    References
    ----------
    .. [1] Y. Geifman, R. El-Yaniv. "Selective classification for deep neural networks", NeurIPS 2017.
       :arxiv:`1705.08500`

    Examples
    --------
    >>> from clipcal.plots import RiskCoverageDisplay
    >>> y_true, y_prob = [1, 0, 1, 1], [0.95, 0.4, 0.3, 0.8]
    >>> display = RiskCoverageDisplay.from_predictions(y_true, y_prob, name="A model")
    >>> display.line_.get_label()
    'A model (AURC 0.146)'
    """

    def __init__(
        self, coverage: ArrayLike, risk: ArrayLike, *, area: float | None = None, name: str | None = None
    ) -> None:
        self.coverage = coverage
        self.risk = risk
        self.area = area
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        name: str | None = None,
        ax: Any = None,
        **plot_kwargs: Any,
    ) -> RiskCoverageDisplay:
        """Draw the curve of a fitted classifier.

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

        name : str, default=None
            Name of the model. By default, the class name of the estimator.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`plot`.

        Returns
        -------
        display : RiskCoverageDisplay
            The display with its artists.
        """
        return cls.from_predictions(
            **predictions_of(estimator, X, y, sample_weight),
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
        name: str | None = None,
        ax: Any = None,
        **plot_kwargs: Any,
    ) -> RiskCoverageDisplay:
        """Draw the curve of given probabilities.

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

        name : str, default=None
            Name of the model. By default, there is none.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`plot`.

        Returns
        -------
        display : RiskCoverageDisplay
            The display with its artists.
        """
        curve = risk_coverage_curve(y_true, y_prob, labels=labels, sample_weight=sample_weight)
        area = area_under_risk_coverage(y_true, y_prob, labels=labels, sample_weight=sample_weight)
        return cls(curve.coverage, curve.risk, area=area, name=name).plot(ax, **plot_kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        show_ideal: bool = True,
        show_random: bool = True,
        curve_kwargs: Mapping[str, Any] | None = None,
        legend_kwargs: Mapping[str, Any] | None = None,
    ) -> RiskCoverageDisplay:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created. If the axes have curves, the next unused
            colour is used and the legend is replaced.

        name : str, default=None
            Name of the model. By default, the one passed to the constructor.

        show_ideal : bool, default=True
            Whether to draw the curve of the optimal order of the rows.

        show_random : bool, default=True
            Whether to draw the error rate of all rows, which is the risk of a random order at any coverage.

        curve_kwargs : dict, default=None
            Keyword arguments passed to ``Axes.plot``. A ``label`` replaces name and area, and follows
            matplotlib's rules: text between dollar signs is a formula, and a leading underscore hides the
            curve from the legend.

        legend_kwargs : dict, default=None
            Keyword arguments passed to ``Axes.legend``.

        Returns
        -------
        display : RiskCoverageDisplay
            This object.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        is_own = ax is None
        ax, self.figure_ = axes_of(ax, (4.5, 3.8), _CALLER)
        is_new = not ax.lines
        self.ax_ = ax
        coverage, risk = np.asarray(self.coverage), np.asarray(self.risk)
        style = {**_next_style(ax), "linewidth": 1.7, "label": self._label(name), "zorder": 3}
        # A line with a single point is invisible.
        style["marker"] = "o" if len(coverage) == 1 else None
        (self.line_,) = ax.plot(coverage, risk, **{**style, **(curve_kwargs or {})})
        self.line_.clipcal_name = style["label"]
        error = float(risk[-1])
        self.ideal_line_ = self._reference(*_ideal(error), "best order", _IDEAL) if show_ideal else None
        level = [error, error]
        self.random_line_ = self._reference([0, 1], level, "random order", _RANDOM) if show_random else None
        top = 1.08 * float(risk[coverage >= _SCALE_FROM].max()) or 0.01
        ax.set(xlim=(0, 1), ylim=(0, top if is_new else max(top, ax.get_ylim()[1])))
        ax.set(xlabel="Coverage", ylabel="Risk (error rate)")
        bare_spines(ax)
        self.legend_ = self._explain(legend_kwargs)
        if is_own:
            enlarge_figure([ax])
        return self

    def _reference(self, coverage: ArrayLike, risk: ArrayLike, label: str, dashes: Any) -> Any:
        # The underscore hides the line from the legend, which has one grey line for all models.
        look = {"color": self.line_.get_color(), "linewidth": 1.0, "linestyle": dashes, "zorder": 2}
        return self.ax_.plot(coverage, risk, label=f"_{label}", **look)[0]

    def _label(self, name: str | None) -> str:
        name = name if name is not None else self.name
        name = None if name is None else as_text(name)
        if self.area is None:
            return name or "a model"
        area = f"AURC {self.area:.3f}"
        return f"{name} ({area})" if name else area

    def _explain(self, kwargs: Mapping[str, Any] | None) -> Any:
        lines = import_optional("matplotlib.lines", extra="plot", caller=_CALLER)
        handles, _ = self.ax_.get_legend_handles_labels()
        # matplotlib hides labels that begin with an underscore, but names of models may begin with one.
        handles += [line for line in self.ax_.lines if _is_model(line) and line not in handles]
        order = {artist: place for place, artist in enumerate(self.ax_.lines)}
        handles.sort(key=lambda artist: order.get(artist, len(order)))
        labels = [artist.get_label() for artist in handles]
        spelled = [_is_model(artist) for artist in handles]
        there = {line.get_label() for line in self.ax_.lines if not _is_model(line)}
        for dashes, label in ((_IDEAL, "best order"), (_RANDOM, "random order")):
            if f"_{label}" in there:
                handles.append(lines.Line2D([], [], color=QUIET, linewidth=1.0, linestyle=dashes))
                labels.append(label)
                spelled.append(True)
        return legend_below(self.ax_, handles, labels, kwargs, spelled=spelled)


def _is_model(artist: Any) -> bool:
    """Whether a curve is labeled with the literal name of a model, and not with a label of the user."""
    return hasattr(artist, "clipcal_name") and artist.clipcal_name == artist.get_label()


def _next_style(ax: Any) -> dict[str, Any]:
    """Return the first style whose colour is not used on the axes."""
    used = {line.get_color() for line in ax.lines}
    for position in range(len(used) + 1):
        style = series_style(position)
        if style["color"] not in used:
            break
    return style


def _ideal(error: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the curve of the optimal order, in which the fraction `error` of wrong rows comes last."""
    rising = np.linspace(1.0 - error, 1.0, 100)
    rising = rising[rising > 0]
    coverage = np.append(0.0, rising) if error < 1.0 else rising
    return coverage, np.append(np.zeros(len(coverage) - len(rising)), (rising - (1.0 - error)) / rising)
