"""The page of a report for the browser: one file without further files and without network access."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipcal._optional import import_optional
from clipcal.benchmark._aggregate import Estimate, Grid, Model
from clipcal.benchmark._facts import completeness, warnings_of
from clipcal.benchmark._metrics import METRICS
from clipcal.benchmark._results import Results
from clipcal.benchmark._tables import Table, estimate_of, joined_name, title_of
from clipcal.metrics import calibration_bins

__all__ = ["diagrams_of", "embedded_json", "heat_maps_of", "page_of"]

_FOLDER = Path(__file__).parent / "report_page"
_SCRIPTS = ("tables.js", "heat_map.js", "reliability.js")
# Means in heat maps have two decimals more than are shown, so that sorting does not depend on rounding.
_EXTRA_DIGITS = 2
# Confidences and accuracies of bins are embedded as integers.
_UNIT = 10_000


def page_of(results: Results, grids: Sequence[Grid], tables: Sequence[Table]) -> str:
    """Return the HTML page of a report.

    Parameters
    ----------
    results : Results
        Results of a plan.
    grids : sequence of Grid
        Its cells.
    tables : sequence of Table
        The tables of the page; those without a protocol follow the others.

    Returns
    -------
    page : str

    Raises
    ------
    ImportError
        If jinja2 is not installed.
    """
    jinja2 = import_optional("jinja2", extra="report", caller="The report of a benchmark")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [
        {
            "protocol": grid.protocol,
            "title": title_of(grid),
            "datasets": grid.datasets,
            "tables": [table for table in tables if table.protocol == grid.protocol],
        }
        for grid in grids
    ]
    data = [{**heat_maps_of(grid), "diagrams": diagrams_of(results, grid)} for grid in grids]
    page: str = environment.get_template("template.html").render(
        title=results.plan["name"],
        complete=completeness(results),
        warnings=warnings_of(results),
        sections=sections,
        tables=[table for table in tables if not table.protocol],
        methods=list(dict.fromkeys(model.method for grid in grids for model in grid.models)),
        datasets=list(dict.fromkeys(name for grid in grids for name in grid.datasets)),
        data=embedded_json(data),
        style=_read("page.css"),
        scripts="\n".join(map(_read, _SCRIPTS)),
    )
    return page


def embedded_json(data: Any) -> str:
    """Return JSON that cannot end the script element of a page, whatever the strings in it."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def heat_maps_of(grid: Grid) -> dict[str, Any]:
    """Return the means over seeds of all metrics; the place of a missing mean holds what is missing."""
    present = {name for metrics in grid.metrics.values() for name in metrics}
    metrics = [name for name in METRICS if name in present]
    parts = [*grid.parts, *(["joined"] if len(grid.parts) > 1 else [])]
    return {
        "protocol": grid.protocol,
        "models": [
            {"label": model.label, "method": model.method, "shots": model.n_shots} for model in grid.models
        ],
        "datasets": grid.datasets,
        "parts": parts,
        "metrics": [
            {
                "id": name,
                "label": METRICS[name].label,
                "joined": joined_name(name),
                "about": METRICS[name].about.format(n_bins=grid.n_bins),
                "digits": METRICS[name].digits,
                "higher": METRICS[name].higher_is_better,
            }
            for name in metrics
        ],
        "values": [[_rows(grid, name, part) for part in parts] for name in metrics],
    }


def _rows(grid: Grid, metric: str, part: str) -> list[list[float | str]]:
    columns = (*grid.datasets, None)
    return [
        [_number(estimate_of(grid, model, metric, part, dataset), metric) for dataset in columns]
        for model in grid.models
    ]


def _number(estimate: Estimate, metric: str) -> float | str:
    if estimate.mean is None:
        return estimate.note
    return round(METRICS[metric].scale * estimate.mean, METRICS[metric].digits + _EXTRA_DIGITS)


def diagrams_of(results: Results, grid: Grid) -> dict[str, Any]:
    """Return the bins of confidence of each finished cell that has predictions.

    Parameters
    ----------
    results : Results
        Results of a plan.
    grid : Grid
        The cells of a protocol.

    Returns
    -------
    diagrams : dict
        For each data set and part a list with, for each cell: index of the model, seed, calibration error in
        percent, and the flat list of index, count, mean confidence and accuracy of its bins. Empty bins are
        left out; means are in units of 1 / 10,000.
    """
    places = {model: index for index, model in enumerate(grid.models)}
    cells: dict[str, dict[str, list[Any]]] = {}
    for found in results.cells:
        cell = found["cell"]
        if cell["protocol"] == grid.protocol and results.has_predictions(found["key"]):
            bins = _bins(results, found["key"], grid.n_bins)
            row = [places[Model.of(cell)], cell["seed"], *bins]
            cells.setdefault(cell["dataset"], {}).setdefault(cell["classes"], []).append(row)
    return {"n_bins": grid.n_bins, "cells": cells}


def _bins(results: Results, key: str, n_bins: int) -> tuple[float, list[int]]:
    found = results.predictions(key)
    labels = np.arange(len(found.classes))
    bins = calibration_bins(found.y_true, found.y_prob.astype(np.float64), labels=labels, n_bins=n_bins)
    (filled,) = np.nonzero(bins.count)
    columns = (
        filled,
        bins.count[filled],
        np.rint(_UNIT * bins.confidence[filled]),
        np.rint(_UNIT * bins.accuracy[filled]),
    )
    flat: list[int] = np.stack(columns, axis=1).astype(int).ravel().tolist()
    return round(100 * bins.error, 4), flat


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
