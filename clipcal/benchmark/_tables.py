"""Tables of benchmark results, independent of a file format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clipcal.benchmark._aggregate import NOT_PLANNED, Estimate, Grid, Model
from clipcal.benchmark._comparisons import compare, pairs_are_datasets
from clipcal.benchmark._metrics import METRICS, TABLE_METRICS

__all__ = [
    "NO_NUMBER",
    "TITLES",
    "Row",
    "Table",
    "Value",
    "comparison_table",
    "dataset_tables",
    "estimate_of",
    "joined_name",
    "summary_table",
    "title_of",
    "value_of",
]

NO_NUMBER = "\N{EN DASH}"
TITLES = {
    "base-to-new": "Base to new classes",
    "few-shot": "Few-shot classification",
    "cross-dataset": "Transfer to other data sets",
    "domain-generalization": "Domain generalization",
}


@dataclass(frozen=True)
class Value:
    """A number of a table, in the unit in which it is shown.

    Parameters
    ----------
    number : float or None
        The number; None if there is none.
    spread : float or None
        What is shown after ±.
    digits : int
        Number of decimals that are shown.
    signed : bool
        Whether positive numbers are shown with their sign.
    note : str
        Why there is no number.
    """

    number: float | None = None
    spread: float | None = None
    digits: int = 2
    signed: bool = False
    note: str = ""

    @property
    def text(self) -> str:
        """The rounded number; a dash if there is none."""
        if self.number is None:
            return NO_NUMBER
        shown = f"{self.number:+.{self.digits}f}" if self.signed else f"{self.number:.{self.digits}f}"
        return shown if self.spread is None else f"{shown} ± {self.spread:.{self.digits}f}"

    def __str__(self) -> str:
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclass(frozen=True)
class Row:
    """A row of a table; the method and the data set are for filters."""

    cells: tuple[str | Value, ...]
    method: str = ""
    dataset: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Parameters
    ----------
    name : str
        Name of its files, without suffix.
    protocol : str
        Name of the protocol; empty if it has several.
    title, caption : str
        What it shows, and how its numbers are made.
    columns : tuple of str
        Headers.
    rows : tuple of Row
        The rows.
    """

    name: str
    protocol: str
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def value_of(estimate: Estimate, metric: str, spread: str = "std") -> Value:
    """Return an estimate of a metric in the unit of tables."""
    scale, digits = METRICS[metric].scale, METRICS[metric].digits
    if estimate.mean is None:
        return Value(note=estimate.note)
    width = estimate.std if spread == "std" else estimate.half_width
    return Value(scale * estimate.mean, None if width is None else scale * width, digits)


def summary_table(grid: Grid, spread: str = "std") -> Table:
    """Return the averages over data sets, one row for each model.

    Parameters
    ----------
    grid : Grid
        The cells of a protocol.
    spread : {"std", "ci95"}, default="std"
        What is shown after ±.

    Returns
    -------
    table : Table
    """
    columns = list(_columns(grid))
    rows = []
    for model in grid.models:
        cells = [value_of(estimate_of(grid, model, *column), column[0], spread) for column in columns]
        rows.append(Row((*_names(grid, model), *cells), model.method))
    caption = f"{_described(grid)} {_about_spread(spread)} {_about(grid, *TABLE_METRICS)}"
    headers = tuple(_header(grid, *column) for column in columns)
    title = f"{title_of(grid)}: averages"
    return Table(
        f"{grid.protocol}_summary",
        grid.protocol,
        title,
        caption,
        (*_name_columns(grid), *headers),
        tuple(rows),
    )


def dataset_tables(
    grid: Grid, spread: str = "std", metrics: Sequence[str] = TABLE_METRICS
) -> Iterator[Table]:
    """Yield a table with a column for each data set, for each metric and half of the classes.

    Parameters
    ----------
    grid : Grid
        The cells of a protocol.
    spread : {"std", "ci95"}, default="std"
        What is shown after ±.
    metrics : sequence of str
        The metrics.

    Yields
    ------
    table : Table
    """
    for metric in metrics:
        for part in (*grid.parts, *(["joined"] if len(grid.parts) > 1 else [])):
            name = joined_name(metric) if part == "joined" else part
            rows = []
            for model in grid.models:
                found = [estimate_of(grid, model, metric, part, dataset) for dataset in grid.datasets]
                found.append(estimate_of(grid, model, metric, part))
                cells = [value_of(one, metric, spread) for one in found]
                rows.append(Row((*_names(grid, model), *cells), model.method))
            detail = "" if name == "all" else f", {name}"
            yield Table(
                f"{grid.protocol}_{metric}" + ("" if part == "all" else f"_{name.replace(' ', '-').lower()}"),
                grid.protocol,
                f"{title_of(grid)}: {METRICS[metric].label}{detail}",
                f"{_average_column(grid)} {_about_spread(spread)} {_about(grid, metric)}",
                (*_name_columns(grid), *grid.datasets, "average"),
                tuple(rows),
            )


def comparison_table(grid: Grid) -> Table | None:
    """Return the comparisons of models with and without a loss term; None if there are none.

    Parameters
    ----------
    grid : Grid
        The cells of a protocol.

    Returns
    -------
    table : Table or None
    """
    rows = []
    for model in grid.models:
        for metric in TABLE_METRICS if model.baseline in grid.models else ():
            for part in grid.parts:
                found = compare(grid, model, part, metric)
                if found.note == NOT_PLANNED:
                    continue
                scale = METRICS[metric].scale
                number, low, high = (
                    None if end is None else scale * end for end in (found.difference, found.low, found.high)
                )
                cells: list[str | Value] = [
                    *_names(grid, model),
                    _of_part(METRICS[metric].label, part),
                    Value(number, signed=True, note=found.note if number is None else ""),
                    Value(low, signed=True),
                    Value(high, signed=True),
                    Value(found.pvalue, digits=4, note=found.note if number is not None else ""),
                    Value(found.n_pairs or None, digits=0),
                ]
                rows.append(Row(tuple(cells), model.method))
    if not rows:
        return None
    return Table(
        f"{grid.protocol}_comparisons",
        grid.protocol,
        f"{title_of(grid)}: with and without the loss term",
        "Difference to the same method and calibrator without the loss term, in percentage points. The 95 % "
        "interval of the mean difference is from the t distribution, the p-value from the two-sided Wilcoxon "
        f"signed-rank test; it is not corrected for the number of tests. {_about_pairs(grid)}",
        (*_name_columns(grid), "metric", "difference", "low", "high", "p-value", "pairs"),
        tuple(rows),
    )


def joined_name(metric: str) -> str:
    """Return the name of the mean of base and new classes."""
    return "HM" if metric == "accuracy" else "mean"


def estimate_of(grid: Grid, model: Model, metric: str, part: str, dataset: str | None = None) -> Estimate:
    """Return the mean on a data set, or (None) the average over data sets, of a part of the classes.

    The part ``"joined"`` is the mean of base and new classes.
    """
    if part == "joined":
        return grid.joined(model, dataset, metric)
    if dataset is None:
        return grid.over_datasets(model, part, metric)
    return grid.over_seeds(model, dataset, part, metric)


def title_of(grid: Grid) -> str:
    """Return the title of a protocol."""
    return TITLES.get(grid.protocol, grid.protocol)


def _columns(grid: Grid) -> Iterator[tuple[str, str, str | None]]:
    """Yield metric, part and data set (None for the average) of the columns of a summary."""
    for metric in TABLE_METRICS:
        if grid.source in grid.datasets:
            yield metric, "all", grid.source
        for part in grid.parts if grid.averaged else ():
            yield metric, part, None
        if len(grid.parts) > 1:
            yield metric, "joined", None


def _header(grid: Grid, metric: str, part: str, dataset: str | None) -> str:
    label = METRICS[metric].label
    if grid.source is not None:
        return f"{label}, {'source' if dataset else 'targets'}"
    return _of_part(label, joined_name(metric) if part == "joined" else part)


def _of_part(label: str, part: str) -> str:
    return label if part == "all" else f"{label}, {part}"


def _many_shots(grid: Grid) -> bool:
    return len({model.n_shots for model in grid.models if model.n_shots}) > 1


def _name_columns(grid: Grid) -> tuple[str, ...]:
    return ("model", "shots") if _many_shots(grid) else ("model",)


def _names(grid: Grid, model: Model) -> tuple[str | Value, ...]:
    shots: tuple[Any, ...] = (Value(model.n_shots, digits=0),) if _many_shots(grid) else ()
    return (model.label, *shots)


def _described(grid: Grid) -> str:
    n = len(grid.averaged)
    over = f"Means over {n} data set{'s' * (n != 1)} of means over seeds"
    if grid.source is not None:
        over += f", without the data set of the training, {grid.source}"
    if len(grid.parts) > 1:
        over += "; HM is the harmonic mean of the two means, and errors have their arithmetic mean"
    return f"{over}."


def _average_column(grid: Grid) -> str:
    left_out = f", without {grid.source}" if grid.source is not None else ""
    joined = (
        " For HM and the mean of errors, base and new classes are averaged first."
        if len(grid.parts) > 1
        else ""
    )
    return f"Means over seeds; the last column is the mean over data sets{left_out}.{joined}"


def _about_spread(spread: str) -> str:
    if spread == "std":
        return "After ±: population standard deviation over seeds."
    return "After ±: 1.96 standard deviations over seeds, divided by the root of their number."


def _about(grid: Grid, *metrics: str) -> str:
    return " ".join(METRICS[metric].about.format(n_bins=grid.n_bins) for metric in metrics)


def _about_pairs(grid: Grid) -> str:
    if pairs_are_datasets(grid):
        return "Each data set is one pair, of means over seeds."
    return (
        "Each data set and seed is one pair, as there are fewer than six data sets; the result holds for "
        "these data sets only."
    )
