"""Tables of the results of fast.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from runs import MISSING, shown, simple_table

COLUMNS = {
    "base accuracy": "base accuracy",
    "base ece": "base ECE",
    "base log_loss": "base log loss",
    "new accuracy": "new accuracy",
    "new ece": "new ECE",
    "new log_loss": "new log loss",
}
TERMS = {"none": "", "dor": " + DOR", "dor-visual": " + DOR-V"}


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return all tables by name: values, differences and steps of each kind of task."""
    kinds = dict.fromkeys(row["kind"] for row in results["table"])
    found = {}
    for kind in kinds:
        rows = [row for row in results["table"] if row["kind"] == kind]
        found[f"fast values {kind}"] = of_values(rows)
        found[f"fast differences {kind}"] = of_differences(
            [row for row in results["differences"] if row["kind"] == kind]
        )
        found[f"fast steps {kind}"] = of_steps(rows)
    found["fast pooled"] = of_pooled(results["pooled"])
    return found


def titled(row: dict[str, Any]) -> str:
    return row["method"] + TERMS[row["term"]]


def of_values(rows: list[dict[str, Any]]) -> str:
    return simple_table(
        ["method", "recipe", *COLUMNS.values()],
        [
            [titled(row), row["recipe"].replace("none", MISSING), *(shown(*row[name]) for name in COLUMNS)]
            for row in rows
        ],
    )


def of_differences(rows: list[dict[str, Any]]) -> str:
    return simple_table(
        ["method", "runs", *COLUMNS.values()],
        [[titled(row), str(row["runs"]), *(marked(name, *row[name]) for name in COLUMNS)] for row in rows],
    )


def of_pooled(rows: list[dict[str, Any]]) -> str:
    return simple_table(
        ["tasks", "runs", *COLUMNS.values()],
        [[row["kind"], str(row["runs"]), *(marked(name, *row[name]) for name in COLUMNS)] for row in rows],
    )


def marked(name: str, mean: float, half: float | None) -> str:
    """Return a difference, marked as worse if its interval says so."""
    sign = 1 if name.endswith("accuracy") else -1
    worse = half is not None and not np.isnan(half) and sign * mean + half < 0
    return shown(mean, half, sign=True) + (" worse" if worse else "")


def of_steps(rows: list[dict[str, Any]]) -> str:
    """Return epochs and steps, medians over runs."""
    names = ("epochs", "steps", "search_steps")
    lines = [
        [titled(row), row["recipe"], *(f"{row[name]:.0f}" for name in names)]
        for row in rows
        if row["method"] != "zero-shot"
    ]
    return simple_table(["method", "recipe", "epochs", "steps", "search steps"], lines)
