"""Several reliability diagrams in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .._optional import import_optional
from ._reliability import ReliabilityDisplay

__all__ = ["save_reliability_grid"]


def save_reliability_grid(rows: Sequence[Sequence[ReliabilityDisplay]], path: str | Path) -> None:
    """Draw reliability diagrams in rows of equal length, and save the picture.

    Parameters
    ----------
    rows : sequence of sequences of ReliabilityDisplay
        The diagrams; their names are the titles.
    path : str or Path
        Where to write; the ending decides the format.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    matplotlib_figure = import_optional("matplotlib.figure", extra="plot", caller="save_reliability_grid")
    n_columns = len(rows[0])
    # A Figure of its own, so that neither pyplot's state nor a display is needed.
    figure = matplotlib_figure.Figure(
        figsize=(2.6 * n_columns, 3.2 * len(rows)), layout="constrained", dpi=110
    )
    axes = figure.subplots(len(rows), n_columns, sharex=True, sharey=True, squeeze=False)
    for displays, row_axes in zip(rows, axes, strict=True):
        for display, ax in zip(displays, row_axes, strict=True):
            display.plot(ax=ax)
            ax.label_outer()
    figure.savefig(path)
