"""Numbers of single runs, their means with intervals, and tables in reStructuredText."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from clipcal.metrics import brier_score, expected_calibration_error, negative_log_likelihood

QUANTITIES = ("accuracy", "confidence", "ece", "log_loss", "brier")
TITLES = {
    "accuracy": "accuracy",
    "confidence": "confidence",
    "ece": "ECE",
    "log_loss": "log loss",
    "brier": "Brier score",
}
N_BINS = 15
LEVEL = 0.95
MISSING = "\u2013"
# With no-break spaces, so that numbers in narrow columns stay on one line.
PLUS_MINUS = "\u00a0\u00b1\u00a0"


def measure(y_true: np.ndarray, y_prob: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return all quantities of one classifier on test images."""
    return {
        "accuracy": float((labels[y_prob.argmax(axis=1)] == y_true).mean()),
        "confidence": float(y_prob.max(axis=1).mean()),
        "ece": float(expected_calibration_error(y_true, y_prob, labels=labels, n_bins=N_BINS)),
        "log_loss": float(negative_log_likelihood(y_true, y_prob, labels=labels)),
        "brier": float(brier_score(y_true, y_prob, labels=labels)),
    }


def mean_and_half(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and half the width of its t interval; a single value has no interval (NaN)."""
    n = len(values)
    if n < 2:
        return float(np.mean(values)), float("nan")
    error = float(np.std(values, ddof=1)) / np.sqrt(n)
    return float(np.mean(values)), float(t.ppf((1 + LEVEL) / 2, n - 1)) * error


def kept(folder: Path | None, key: str, compute: Callable[[], Any]) -> Any:
    """Return the result of an earlier run from a file in `folder`, or compute and store it."""
    if folder is None:
        return compute()
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    path = folder / f"{re.sub('[^A-Za-z0-9]+', '-', key)[:100]}-{digest}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    found = compute()
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(path)
    return found


def write_json(path: Path, parts: Mapping[str, Any]) -> None:
    """Write a file with one line for each part, and for each entry of a part that is a list."""
    lines = []
    for name, part in parts.items():
        if isinstance(part, list):
            entries = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in part)
            lines.append(f"{json.dumps(name)}: [\n{entries}\n]")
        else:
            lines.append(f"{json.dumps(name)}: {json.dumps(part, ensure_ascii=False)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


def shown(mean: float, half: float, *, sign: bool = False) -> str:
    """Return ``0.712 ± 0.004``."""
    number = f"{mean:+.3f}" if sign else f"{mean:.3f}"
    return number if half is None or np.isnan(half) else f"{number}{PLUS_MINUS}{half:.3f}"


def simple_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a simple table of reStructuredText."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    rule = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def show_tables(tables: Mapping[str, str], page: Path | None) -> None:
    """Print tables, or replace those of a page if one is given."""
    if page is None:
        print("\n\n".join(f"{name}\n\n{table}" for name, table in tables.items()))
    else:
        page.write_text(with_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")


def with_tables(page: str, tables: Mapping[str, str]) -> str:
    """Return a page with the table below each comment ``.. table: NAME`` replaced.

    A table ends at the first blank line. Comments with other names are left alone.
    """
    for name, table in tables.items():
        pattern = rf"(?m)^(\.\. table: {re.escape(name)}\n\n)(?:.+\n)*"
        page = re.sub(pattern, lambda found, table=table: f"{found[1]}{table}\n", page)
    return page
