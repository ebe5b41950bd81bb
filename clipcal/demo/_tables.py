"""Format results as CSV and Markdown."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipcal.demo._cells import METHODS, CellResult
from clipcal.demo._claims import Claim

__all__ = ["format_claims", "format_table", "write_csv"]

_COLUMNS = ("accuracy", "confidence", "ece")
_HALVES = ("base", "new")


def write_csv(results: Sequence[CellResult], path: Path) -> None:
    """Write one line per cell, method and half."""
    records = [result.record() for result in results]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: round(value, 6) if isinstance(value, float) else value for key, value in record.items()}
            for record in records
        )


def format_table(results: Sequence[CellResult]) -> str:
    """Return a Markdown table of means and standard deviations over runs, one row per method."""
    header = ["method", *(f"{half} {column}" for half in _HALVES for column in _COLUMNS)]
    rows = [[name.replace("ece", "ECE").replace("confidence", "conf.") for name in header]]
    for method in METHODS:
        row = [method]
        for half in _HALVES:
            chosen = [r for r in results if r.method == method and r.half == half]
            row += [_mean_and_spread([getattr(r, column) for r in chosen]) for column in _COLUMNS]
        rows.append(row)
    return _markdown(rows)


def format_claims(claims: Sequence[Claim]) -> str:
    """Return a Markdown table of claims."""
    rows = [["claim", "verdict", "measured in each run", "mean ± sd", "runs that agree"]]
    for claim in claims:
        rows.append(
            [
                claim.text,
                claim.verdict,
                claim.measure,
                f"{claim.mean:+.3f}" + (f" ± {claim.spread:.3f}" if claim.n_cells > 1 else ""),
                f"{claim.n_agreeing} of {claim.n_cells}",
            ]
        )
    return _markdown(rows)


def _mean_and_spread(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
