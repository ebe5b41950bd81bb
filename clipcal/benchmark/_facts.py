"""What a report says about its cells: what is missing, versions, data, backbones and run times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from clipcal.benchmark._aggregate import Model
from clipcal.benchmark._results import Results
from clipcal.benchmark._tables import Row, Table, Value

__all__ = ["cell_records", "completeness", "environment_table", "problem_table", "run_records", "warnings_of"]


class _Variant(NamedTuple):
    value: str
    n_cells: int


def completeness(results: Results) -> str:
    """Return a sentence that tells how many cells of the plan are finished."""
    n = len(results.plan["cells"])
    text = f"{len(results.cells)} of {n} cells are finished"
    if results.failed or results.missing:
        text += f"; {len(results.failed)} failed and {len(results.missing)} have not been run. "
        text += "Means that would lack a value are not shown"
    return text + "."


def warnings_of(results: Results) -> list[str]:
    """Return what may make the cells incomparable, such as different versions."""
    told = []
    for name, variants in _versions(results).items():
        if len(variants) > 1:
            told.append(f"Cells were computed with different versions of {name}: {_listed(variants)}.")
    for name, variants in _backbones(results).items():
        if len(variants) > 1:
            told.append(f"Cells were computed with different backbones ({name}): {_listed(variants)}.")
    for (dataset, part), digests in _test_digests(results).items():
        if len(digests) > 1:
            told.append(f"The test images of {dataset} ({part}) differ between cells.")
    return told


def problem_table(results: Results) -> Table | None:
    """Return the cells that failed or have not been run; None if there are none."""
    rows = []
    for state, found in (("failed", results.failed), ("not run", results.missing)):
        for one in found:
            cell = one["cell"]
            rows.append(
                Row(
                    (
                        state,
                        cell["protocol"],
                        Model.of(cell).label,
                        f"{cell['dataset']} ({cell['classes']})",
                        Value(cell["n_shots"], digits=0),
                        Value(cell["seed"], digits=0),
                        one.get("error", ""),
                    ),
                    cell["method"],
                    cell["dataset"],
                )
            )
    if not rows:
        return None
    return Table(
        "problems",
        "",
        "Missing cells",
        "Cells that failed, with the error, and cells that have not been run. The next run of the plan tries "
        "both again.",
        ("state", "protocol", "model", "data set", "shots", "seed", "error"),
        tuple(rows),
    )


def environment_table(results: Results) -> Table | None:
    """Return backbones, data and versions, each with the number of cells; None without finished cells."""
    rows = []
    for title, found in (("version of", _versions(results)), ("backbone", _backbones(results))):
        for name, variants in found.items():
            for value, n_cells in variants:
                rows.append(Row((f"{title} {name}", value, Value(n_cells, digits=0))))
    for name, variants in _data(results).items():
        for value, n_cells in variants:
            rows.append(Row((name, value, Value(n_cells, digits=0))))
    if not rows:
        return None
    return Table(
        "environment",
        "",
        "Backbones, data and versions",
        "Digests are of the file names and labels of the test images.",
        ("item", "value", "cells"),
        tuple(rows),
    )


def cell_records(results: Results) -> list[dict[str, Any]]:
    """Return one flat record for each cell of the plan; metrics are fractions."""
    finished = {found["key"]: found for found in results.cells}
    failed = {found["key"] for found in results.failed}
    records = []
    for expected in results.plan["cells"]:
        key = expected["key"]
        state = "finished" if key in finished else "failed" if key in failed else "not run"
        metrics = finished[key]["metrics"] if key in finished else {}
        records.append({"key": key, **expected["cell"], "state": state, **metrics})
    return records


def run_records(results: Results) -> list[dict[str, Any]]:
    """Return one flat record for each finished cell with its run time and device."""
    runs = ((found["cell"], results.run(found["key"])) for found in results.cells)
    return [{**cell, **run} for cell, run in runs if run]


def _versions(results: Results) -> dict[str, list[_Variant]]:
    return _variants(
        (name, value) for one in results.cells for name, value in one.get("versions", {}).items()
    )


def _backbones(results: Results) -> dict[str, list[_Variant]]:
    return _variants(
        (name, value) for one in results.cells for name, value in one.get("backbone", {}).items()
    )


def _data(results: Results) -> dict[str, list[_Variant]]:
    cells = [(one["cell"], one["data"]) for one in results.cells if one.get("data")]
    return _variants((f"{cell['dataset']} ({cell['classes']})", _told(data)) for cell, data in cells)


def _told(data: Mapping[str, Any]) -> str:
    test = data.get("test") or {}
    parts = [f"{test.get('n')} test images, digest {str(test.get('digest'))[:12]}"]
    parts += [f"template {data['template']!r}"] if data.get("template") else []
    return "; ".join([*parts, *data.get("notes", ())])


def _test_digests(results: Results) -> dict[tuple[str, str], set[str]]:
    digests: dict[tuple[str, str], set[str]] = {}
    for one in results.cells:
        if (test := (one.get("data") or {}).get("test")) is not None:
            place = (one["cell"]["dataset"], one["cell"]["classes"])
            digests.setdefault(place, set()).add(str(test.get("digest")))
    return digests


def _variants(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[_Variant]]:
    """Count the values of each name."""
    counts: dict[str, Counter[str]] = {}
    for name, value in pairs:
        counts.setdefault(name, Counter())[str(value)] += 1
    return {
        name: [_Variant(*pair) for pair in sorted(found.items())] for name, found in sorted(counts.items())
    }


def _listed(variants: list[_Variant]) -> str:
    return ", ".join(f"{value} ({n_cells} cells)" for value, n_cells in variants)
