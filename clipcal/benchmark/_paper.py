"""Published figures beside those of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clipcal.benchmark._aggregate import Estimate, Grid, Model
from clipcal.benchmark._metrics import METRICS
from clipcal.benchmark._results import Results
from clipcal.benchmark._tables import Row, Table, Value, joined_name
from clipcal.exceptions import ResultsError
from clipcal.metrics import harmonic_mean

__all__ = ["paper_table"]

_MEAN = "mean"
# Settings of a published figure that are compared to those of the plan, if an entry has them.
_SETTINGS = ("backbone", "n_shots", "seeds", "n_bins", "datasets")


def paper_table(results: Results, grids: Sequence[Grid]) -> Table | None:
    """Return a table of published figures, with those of the plan and what differs; None without any.

    Parameters
    ----------
    results : Results
        Results of a plan.
    grids : sequence of Grid
        Its cells.

    Returns
    -------
    table : Table or None

    Raises
    ------
    ResultsError
        If an entry has no method, protocol or metric, or no figure.
    """
    rows = [row for entry in results.paper for row in _rows(entry, results.plan["plan"], grids)]
    if not rows:
        return None
    return Table(
        "paper",
        "",
        "Published figures",
        "Difference: ours minus the published figure. Where settings differ, the figures are not comparable "
        "without care.",
        ("protocol", "model", "data set", "metric", "ours", "published", "difference", "source", "note"),
        tuple(rows),
    )


def _rows(entry: Mapping[str, Any], plan: Mapping[str, Any], grids: Sequence[Grid]) -> Iterator[Row]:
    for key in ("protocol", "method", "metric"):
        if key not in entry:
            raise ResultsError(f"An entry of paper has no {key!r}: {dict(entry)!r}.")
    metric, protocol = entry["metric"], entry["protocol"]
    if metric not in METRICS:
        raise ResultsError(f"paper: the metric {metric!r} is unknown; choose among {', '.join(METRICS)}.")
    dataset = entry.get("dataset", _MEAN)
    figures = _figures(entry, metric)
    wanted = (entry["method"], entry.get("regularizer", "none"), entry.get("calibrator", "none"))
    found = [
        (grid, model)
        for grid in grids
        if grid.protocol == protocol
        for model in grid.models
        if wanted == (model.method, model.regularizer, model.calibrator)
        and entry.get("n_shots", model.n_shots) == model.n_shots
    ]
    notes = [str(entry["note"])] if entry.get("note") else []
    label = Model(*wanted, 0).label
    for part, figure in figures.items():
        name = joined_name(metric) if part == "joined" else part
        columns = protocol, label, dataset, METRICS[metric].label + ("" if part == "all" else f", {name}")
        published = Value(figure, digits=METRICS[metric].digits)
        if not found:
            missing = Value(note="no such model in the plan")
            cells = (*columns, missing, published, Value(), str(entry.get("source", "")), "; ".join(notes))
            yield Row(cells, wanted[0], dataset)
        for grid, model in found:
            ours = _ours(grid, model, metric, part, dataset)
            number = None if ours.mean is None else METRICS[metric].scale * ours.mean
            digits = METRICS[metric].digits
            difference = None if number is None else number - figure
            flags = [*notes, *_flags(entry, plan, grid)]
            cells = (
                *columns,
                Value(number, digits=digits, note=ours.note),
                published,
                Value(difference, digits=digits, signed=True),
                str(entry.get("source", "")),
                "; ".join(flags),
            )
            yield Row(cells, wanted[0], dataset)


def _figures(entry: Mapping[str, Any], metric: str) -> dict[str, float]:
    """Return the published figures by part; the mean of base and new is computed from the two."""
    figures = {part: float(entry[part]) for part in ("all", "base", "new") if part in entry}
    if not figures:
        raise ResultsError(f"An entry of paper has none of the figures all, base and new: {dict(entry)!r}.")
    if "base" in figures and "new" in figures:
        base, new = figures["base"], figures["new"]
        figures["joined"] = harmonic_mean(base, new) if metric == "accuracy" else (base + new) / 2
    return figures


def _ours(grid: Grid, model: Model, metric: str, part: str, dataset: str) -> Estimate:
    if part == "joined":
        return grid.joined(model, None if dataset == _MEAN else dataset, metric)
    if dataset == _MEAN:
        return grid.over_datasets(model, part, metric)
    return grid.over_seeds(model, dataset, part, metric)


def _flags(entry: Mapping[str, Any], plan: Mapping[str, Any], grid: Grid) -> Iterator[str]:
    """Yield the settings in which the published figure differs from the plan."""
    for name in _SETTINGS:
        here = list(grid.averaged) if name == "datasets" else plan.get(name)
        if name in entry and entry[name] != here and entry[name] != _only(here):
            yield f"{name} differs: {entry[name]} there, {_only(here)} here"


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
