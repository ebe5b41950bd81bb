"""Plot of the feature divergence before and after tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from clipcal._optional import import_optional
from clipcal.metrics import feature_divergence
from clipcal.plots._names import draw_title, enlarge_figure, room_of, width_of, write_ticks
from clipcal.plots._style import INK, axes_of, bare_spines, legend_below, series_style

__all__ = ["FeatureDivergenceDisplay"]

# Maximum width of method names beside the axes, as a fraction of the width of the axes.
_NAME_SHARE = 0.6
# Width in points that a new figure reserves for them.
_NAME_MARGIN = 100.0


class FeatureDivergenceDisplay:
    """Feature divergence before and after tuning, with a row per method and a line per group of classes.

    Hollow markers show zero-shot values, filled markers tuned values. Filled markers to the right of the
    hollow ones are associated with over-confidence, filled markers to the left with under-confidence.

    Parameters
    ----------
    before : dict of str to float
        Zero-shot divergence of each group of classes, such as ``{"base": 0.51, "new": 0.55}``.

    after : dict of str to dict of str to float
        Divergence of each tuned method, such as ``{"CoOp": {"base": 0.78, "new": 0.83}}``, with the groups
        of `before`.

    name : str, default=None
        Title.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn on.

    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    lines_ : dict of (str, str) to matplotlib.lines.Line2D
        The line of each method and group, from before to after.

    legend_ : matplotlib.legend.Legend
        Names of the groups, and the meaning of hollow and filled markers.

    See Also
    --------
    clipcal.metrics.feature_divergence : The metric in the plot.

    References
    ----------
    .. [1] S. Wang, Y. Li, H. Wei, "Understanding and Mitigating Miscalibration in Prompt Tuning for
       Vision-Language Models", ICML 2025, arXiv:2410.02681.

    Examples
    --------
    >>> from clipcal.plots import FeatureDivergenceDisplay
    >>> before = {"base": [[1, 0.2], [1, 0.4]], "new": [[1, 0.5], [1, 0.6]]}
    >>> after = {"CoOp": {"base": [[1, 0], [0, 1]], "new": [[1, 0.1], [0.2, 1]]}}
    >>> display = FeatureDivergenceDisplay.from_text_features(before, after)
    >>> round(display.after["CoOp"]["base"], 3)
    1.414
    """

    def __init__(
        self,
        before: Mapping[str, float],
        after: Mapping[str, Mapping[str, float]],
        *,
        name: str | None = None,
    ) -> None:
        self.before = before
        self.after = after
        self.name = name

    @classmethod
    def from_text_features(
        cls,
        before: Mapping[str, ArrayLike],
        after: Mapping[str, Mapping[str, ArrayLike]],
        *,
        n_neighbors: int = 5,
        metric: str = "euclidean",
        name: str | None = None,
        ax: Any = None,
        **plot_kwargs: Any,
    ) -> FeatureDivergenceDisplay:
        """Compute and draw the divergence of text features.

        Parameters
        ----------
        before : dict of str to array-like of shape (n_classes, n_features)
            Zero-shot text features of each group of classes, such as
            ``{"base": clf.text_features_, "new": clf.with_classes(new).text_features_}``.

        after : dict of str to dict of str to array-like of shape (n_classes, n_features)
            Text features of each tuned method.

        n_neighbors : int, default=5
            Number of neighbors; see :func:`clipcal.metrics.feature_divergence`.

        metric : {"euclidean", "cosine"}, default="euclidean"
            Distance between unit vectors.

        name : str, default=None
            Title. By default, there is none.

        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created.

        **plot_kwargs : dict
            Keyword arguments passed to :meth:`plot`.

        Returns
        -------
        display : FeatureDivergenceDisplay
            The display with its artists.
        """

        def divergences(features: Mapping[str, ArrayLike]) -> dict[str, float]:
            return {
                group: feature_divergence(rows, n_neighbors=n_neighbors, metric=metric)
                for group, rows in features.items()
            }

        values = {method: divergences(features) for method, features in after.items()}
        return cls(divergences(before), values, name=name).plot(ax, **plot_kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        line_kwargs: Mapping[str, Any] | None = None,
        legend_kwargs: Mapping[str, Any] | None = None,
    ) -> FeatureDivergenceDisplay:
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on. By default, a new figure is created, whose height depends on the number of
            methods.

        name : str, default=None
            Title. By default, the one passed to the constructor.

        line_kwargs : dict, default=None
            Keyword arguments passed to ``Axes.plot``.

        legend_kwargs : dict, default=None
            Keyword arguments passed to ``Axes.legend``.

        Returns
        -------
        display : FeatureDivergenceDisplay
            This object.

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        ValueError
            If there is no method, or if the groups of a method differ from those of `before`.
        """
        self._check()
        is_new = ax is None
        size = (4.5, 1.5 + self._row_height() * len(self.after))
        ax, self.figure_ = axes_of(ax, size, "FeatureDivergenceDisplay.plot")
        self.ax_ = ax
        self.lines_: dict[tuple[str, str], Any] = {}
        for row, method in enumerate(self.after):
            for position, group in enumerate(self.before):
                self._draw(row, method, position, group, line_kwargs)
        room = self._name_rows(is_new)
        ax.set_ylim(len(self.after) - 0.5, -0.5)
        # Separators between methods.
        for edge in range(len(self.after) - 1):
            ax.axhline(edge + 0.5, color="0.88", linewidth=0.8, zorder=0.5)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("Feature divergence")
        ax.margins(x=0.06)
        bare_spines(ax)
        ax.spines["left"].set_visible(False)
        draw_title(ax, name if name is not None else self.name, room=room)
        self.legend_ = self._explain(legend_kwargs, room)
        if is_new:
            enlarge_figure([ax])
        return self

    def _row_height(self) -> float:
        return 0.22 * len(self.before) + 0.12

    def _name_rows(self, is_new: bool) -> float:
        """Label the rows with the methods, and return the remaining width in points.

        New figures are enlarged for long names.
        """
        width = room_of(self.ax_)[0]
        labels = write_ticks(self.ax_.yaxis, list(self.after), _NAME_SHARE * width)
        names = max(map(width_of, labels))
        wider = max(names - _NAME_MARGIN, 0.0) if is_new else 0.0
        if is_new:
            # Names of several lines must not overlap.
            most = max(label.get_text().count("\n") for label in labels) + 1.5
            higher = max(1.2 * labels[0].get_size() * most / 72 - self._row_height(), 0.0)
            size = self.figure_.get_size_inches()
            self.figure_.set_size_inches(size[0] + wider / 72, size[1] + higher * len(self.after))
        # About half of the margin lies outside the initial position of the axes.
        return min(width, max(width + wider + _NAME_MARGIN / 2 - names, width / 2))

    def _check(self) -> None:
        if not self.after or not self.before:
            raise ValueError(
                "before or after is empty; pass before={'base': ...} and after={'a method': {'base': ...}}."
            )
        for method, values in self.after.items():
            if set(values) != set(self.before):
                raise ValueError(
                    f"after[{method!r}] has the groups {sorted(values)}, "
                    f"but before has {sorted(self.before)}. Pass the same groups in both."
                )

    def _draw(
        self, row: int, method: str, position: int, group: str, kwargs: Mapping[str, Any] | None
    ) -> None:
        n_groups = len(self.before)
        height = row + 0.56 * ((position + 0.5) / n_groups - 0.5) * (n_groups > 1)
        values = [self.before[group], self.after[method][group]]
        style = _group_style(position)
        (line,) = self.ax_.plot(values, [height] * 2, **{**style, "markevery": [1], **(kwargs or {})})
        self.lines_[method, group] = line
        # A white marker on the start of the line, distinguishable in greyscale print.
        self.ax_.plot(values[:1], [height], **{**style, "markerfacecolor": "white", "linestyle": "none"})

    def _explain(self, kwargs: Mapping[str, Any] | None, room: float) -> Any:
        lines = import_optional("matplotlib.lines", extra="plot", caller="FeatureDivergenceDisplay.plot")
        first = next(iter(self.after))
        handles = [self.lines_[first, group] for group in self.before]
        plain = {"color": INK, "marker": "o", "linestyle": "none", "markersize": 6}
        handles += [lines.Line2D([], [], **plain, markerfacecolor="white"), lines.Line2D([], [], **plain)]
        labels = [*self.before, "zero-shot", "tuned"]
        return legend_below(self.ax_, handles, labels, kwargs, room=room)


def _group_style(position: int) -> dict[str, Any]:
    return {**series_style(position), "linestyle": "-", "linewidth": 2.0}
