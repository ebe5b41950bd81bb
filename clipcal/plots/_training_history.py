"""Plot of the training history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clipcal._optional import import_optional
from clipcal.plots._names import draw_title, enlarge_figure
from clipcal.plots._style import INK, PALE, QUIET, axes_of, bare_spines, legend_below, series_style

__all__ = ["TrainingHistoryDisplay"]

_NO_TERMS = {"epoch", "learning_rate", "accuracy"}
_TOTAL = "loss"
# Height of the inset for the learning rate, as a fraction of the axes. An inset works on given axes and needs
# no second scale over the losses.
_STRIP = 0.17


class TrainingHistoryDisplay:
    """Terms of the training loss and the learning rate of each epoch.

    Parameters
    ----------
    history : sequence of dict
        One record per epoch, such as ``history_`` of a fitted
        :class:`~clipcal.classifiers.PromptTunedCLIPClassifier`. ``loss`` is the sum of all other entries
        except ``epoch``, ``learning_rate`` and ``accuracy``.

    name : str, default=None
        Title.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn on.

    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    lines_ : dict of str to matplotlib.lines.Line2D
        The curve of each term.

    rate_ax_ : matplotlib.axes.Axes or None
        Inset axes at the top with the learning rate.

    rate_line_ : matplotlib.lines.Line2D or None
        The learning rate.

    legend_ : matplotlib.legend.Legend
        Names of the curves.

    Examples
    --------
    >>> from clipcal.plots import TrainingHistoryDisplay
    >>> history = [
    ...     {"epoch": 0, "learning_rate": 1e-5, "loss": 1.9, "cross_entropy": 1.5, "dor": 0.4},
    ...     {"epoch": 1, "learning_rate": 2e-3, "loss": 1.1, "cross_entropy": 0.9, "dor": 0.2},
    ... ]
    >>> sorted(TrainingHistoryDisplay(history).plot().lines_)
    ['cross_entropy', 'dor', 'loss']
    """

    def __init__(self, history: Sequence[Mapping[str, float]], *, name: str | None = None) -> None:
        self.history = history
        self.name = name

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, name: str | None = None, ax: Any = None, **plot_kwargs: Any
    ) -> TrainingHistoryDisplay:
        """Draw the history of a fitted classifier.

        Parameters
        ----------
        estimator : fitted classifier
            A classifier with ``history_``.

        name : str, default=None
            Title. By default, the class name of the estimator.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`plot`.

        Returns
        -------
        display : TrainingHistoryDisplay
            The display with its artists.

        Raises
        ------
        ValueError
            If `estimator` has no ``history_``.
        """
        kind = type(estimator).__name__
        history = getattr(estimator, "history_", None)
        if history is None:
            raise ValueError(
                f"This {kind} has no history_: it is not fitted, or its fit has no training loop. "
                "Pass a fitted PromptTunedCLIPClassifier."
            )
        return cls(history, name=kind if name is None else name).plot(ax, **plot_kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        terms: Sequence[str] | None = None,
        show_learning_rate: bool = True,
        line_kwargs: Mapping[str, Any] | None = None,
        rate_kwargs: Mapping[str, Any] | None = None,
        legend_kwargs: Mapping[str, Any] | None = None,
    ) -> TrainingHistoryDisplay:
        """Draw the history.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        name : str, default=None
            Title. By default, the one passed to the constructor.

        terms : sequence of str, default=None
            Entries of the records to draw. By default, all terms of the loss.

        show_learning_rate : bool, default=True
            Whether to draw the learning rate in an inset at the top.

        line_kwargs, rate_kwargs : dict, default=None
            Keyword arguments passed to ``Axes.plot`` (terms, learning rate).

        legend_kwargs : dict, default=None
            Keyword arguments passed to ``Axes.legend``.

        Returns
        -------
        display : TrainingHistoryDisplay
            This object.

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        ValueError
            If there are no records, or if a term is missing in one.
        """
        is_new, terms = ax is None, self._terms(terms)
        ax, self.figure_ = axes_of(ax, (4.5, 3.6), "TrainingHistoryDisplay.plot")
        self.ax_ = ax
        epochs = [record["epoch"] for record in self.history]
        self.lines_: dict[str, Any] = {}
        for position, term in enumerate(term for term in terms if term != _TOTAL):
            self._draw(term, epochs, series_style(position), line_kwargs)
        if _TOTAL in terms:
            self._draw(_TOTAL, epochs, {"color": INK, "linewidth": 2.0, "zorder": 1.9}, line_kwargs)
        ax.set(xlabel="Epoch", ylabel="Loss")
        ticker = import_optional("matplotlib.ticker", extra="plot", caller="TrainingHistoryDisplay.plot")
        ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=7))
        bare_spines(ax)
        draw_title(ax, name if name is not None else self.name)
        self.rate_ax_, self.rate_line_ = None, None
        if show_learning_rate and all("learning_rate" in record for record in self.history):
            self._draw_rate(epochs, rate_kwargs)
        shown = list(dict.fromkeys(terms))
        handles = [self.lines_[term] for term in shown]
        labels = ["cross-entropy" if term == "cross_entropy" else term for term in shown]
        if self.rate_line_ is not None:
            handles.append(self.rate_line_)
            labels.append("learning rate")
        self.legend_ = legend_below(ax, handles, labels, legend_kwargs)
        if is_new:
            enlarge_figure([ax])
        return self

    def _terms(self, terms: Sequence[str] | None) -> list[str]:
        if not self.history:
            raise ValueError("history is empty; train for at least one epoch.")
        there = [key for key in self.history[0] if key not in _NO_TERMS]
        wanted = there if terms is None else list(terms)
        if not wanted or not all(term in record for record in self.history for term in wanted):
            raise ValueError(f"terms={terms!r} are not in all records of history; pass some of {there}.")
        return wanted

    def _draw(
        self, term: str, epochs: Sequence[float], style: dict[str, Any], kwargs: Mapping[str, Any] | None
    ) -> None:
        # A line with a single point is invisible without a marker.
        style = {"linewidth": 1.5, **style, "marker": "o" if len(epochs) == 1 else None}
        values = [record[term] for record in self.history]
        (self.lines_[term],) = self.ax_.plot(epochs, values, **{**style, **(kwargs or {})})

    def _draw_rate(self, epochs: Sequence[float], kwargs: Mapping[str, Any] | None) -> None:
        low, high = self.ax_.get_ylim()
        ticks = [tick for tick in self.ax_.get_yticks() if low <= tick <= high]
        self.ax_.set_ylim(low, low + (high - low) / (1 - _STRIP))
        self.ax_.set_yticks(ticks)
        strip = self.ax_.inset_axes([0, 1 - _STRIP, 1, _STRIP], sharex=self.ax_)
        rates = np.array([record["learning_rate"] for record in self.history])
        style = {"color": QUIET, "linewidth": 1.2, "linestyle": (0, (3, 1.5))}
        if len(epochs) == 1:
            style["marker"] = "o"
        (self.rate_line_,) = strip.plot(epochs, rates, **{**style, **(kwargs or {})})
        top = rates.max()
        strip.set_ylim(0, top * 1.1 or 1.0)
        strip.set_yticks([top], [f"{top:.2g}"], fontsize="small", color=QUIET)
        strip.tick_params(length=0, labelbottom=False)
        strip.patch.set_visible(False)
        strip.spines[["left", "right", "top"]].set_visible(False)
        strip.spines["bottom"].set(color=PALE, linewidth=0.8)
        self.rate_ax_ = strip
