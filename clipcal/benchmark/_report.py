"""Write the report of a benchmark."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from clipcal._whole_file import write_whole
from clipcal.benchmark._aggregate import Grid, make_grids
from clipcal.benchmark._facts import (
    cell_records,
    completeness,
    environment_table,
    problem_table,
    run_records,
    warnings_of,
)
from clipcal.benchmark._formats import csv_of, latex_of, markdown_of, records_to_csv
from clipcal.benchmark._page import page_of
from clipcal.benchmark._paper import paper_table
from clipcal.benchmark._results import Results, read_results
from clipcal.benchmark._tables import TITLES, Table, comparison_table, dataset_tables, summary_table
from clipcal.exceptions import ResultsError

__all__ = ["write_report"]

FACTS = ("paper", "problems", "environment")


def write_report(
    results: Results | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    spread: Literal["std", "ci95"] = "std",
) -> Path:
    """Write the tables of a benchmark as Markdown, CSV, LaTeX and a page for the browser.

    The files are ``report.html``, one page without further files, ``report.md``, ``cells.csv`` with one line
    per cell, ``runs.csv`` with run times, and a CSV and a LaTeX file for each table in the folder ``tables``.
    Except for ``runs.csv``, they have the same bytes for the same cells.

    Parameters
    ----------
    results : Results, str or Path
        Results, or their folder.

    out : str or Path, default=None
        Folder for the report; by default, ``report`` in the folder of the results.

    spread : {"std", "ci95"}, default="std"
        What follows ± in tables: the population standard deviation over seeds, as in most papers, or
        1.96 times this, divided by the root of the number of seeds.

    Returns
    -------
    folder : Path
        The folder of the report.

    Raises
    ------
    ResultsError
        If the folder has no results, or a file in it is damaged.
    ImportError
        If jinja2 is not installed, which is in the extra ``report``.

    See Also
    --------
    read_results : Read a folder of results.

    Examples
    --------
    >>> import tempfile
    >>> from clipcal.benchmark import Plan, run_plan, write_report
    >>> content = {"name": "trial", "backbone": "mini", "datasets": ["mini/shapes-studio"]}
    >>> results = tempfile.mkdtemp()
    >>> _ = run_plan(Plan.from_dict({**content, "methods": ["zero-shot"]}), results)
    >>> folder = write_report(results)
    >>> sorted(path.name for path in folder.iterdir())
    ['cells.csv', 'report.html', 'report.md', 'runs.csv', 'tables']
    """
    if spread not in ("std", "ci95"):
        raise ValueError(f"spread must be 'std' or 'ci95', got {spread!r}.")
    if not isinstance(results, Results):
        results = read_results(results)
    if not results.cells:
        raise ResultsError(f"{str(results.folder)!r} has no finished cells. {completeness(results)}")
    folder = results.folder / "report" if out is None else Path(out)
    grids = make_grids(results)
    summaries, details, facts = _tables(results, grids, spread)
    tables = [*summaries, *details, *facts]
    files = {"report.md": _markdown(results, tables), "cells.csv": records_to_csv(cell_records(results))}
    files["runs.csv"] = records_to_csv(run_records(results))
    files["report.html"] = page_of(results, grids, [*summaries, *facts])
    for table in tables:
        files[f"tables/{table.name}.csv"] = csv_of(table)
        files[f"tables/{table.name}.tex"] = latex_of(table)
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    _remove_earlier_tables(folder / "tables")
    for name, text in files.items():
        content = text.encode()
        write_whole(folder / name, lambda file, content=content: file.write(content))
    return folder


def _tables(
    results: Results, grids: Sequence[Grid], spread: str
) -> tuple[list[Table], list[Table], list[Table]]:
    """Return averages and comparisons, tables with each data set, and tables of the whole plan."""
    summaries: list[Table | None] = []
    details: list[Table] = []
    for grid in grids:
        summaries += [summary_table(grid, spread), comparison_table(grid)]
        details += dataset_tables(grid, spread)
    facts = [paper_table(results, grids), problem_table(results), environment_table(results)]
    return _present(summaries), details, _present(facts)


def _present(tables: Sequence[Table | None]) -> list[Table]:
    return [table for table in tables if table is not None]


def _markdown(results: Results, tables: Sequence[Table]) -> str:
    told = [completeness(results), *(f"**Note:** {text}" for text in warnings_of(results))]
    parts = [f"# {results.plan['name']}", *told, *map(markdown_of, tables)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _remove_earlier_tables(folder: Path) -> None:
    """Remove the tables of an earlier report, such as that of missing cells."""
    for path in folder.iterdir():
        known = path.stem in FACTS or path.stem.split("_")[0] in TITLES
        if known and path.suffix in (".csv", ".tex"):
            path.unlink()
