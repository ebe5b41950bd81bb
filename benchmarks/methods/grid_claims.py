"""Claims of the DOR paper, checked in each run of grid.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from runs import mean_and_half

# Numbers of one task and seed, by method and loss term or calibrator.
Run = dict[tuple[str, str], dict[str, float]]


def claims(term_of: dict[str, str]) -> Iterator[tuple[str, str, Callable[[Run], float]]]:
    """Yield claims with a method and a quantity, which the claim says is positive.

    `term_of` contains the methods with their loss term, DOR or its variant for images.
    """
    yield (
        "zero-shot has an ECE of at most 0.08",
        "zero-shot",
        lambda run: 0.08 - run["zero-shot", "none"]["mean ece"],
    )
    yield "overconfident on new classes", "coop", lambda run: gap(run, "coop", "new")
    yield "underconfident on base classes", "kgcoop", lambda run: -gap(run, "kgcoop", "base")
    yield (
        "training enlarges the divergence of new classes",
        "coop",
        lambda run: change(run, "coop", "none", "new divergence", of=("zero-shot", "none")),
    )
    yield (
        "DOR reduces the divergence of new classes",
        "coop",
        lambda run: -change(run, "coop", "dor", "new divergence"),
    )
    for text, quantity in [
        ("DOR lowers the ECE on new classes", lambda run, m, term: -change(run, m, term, "new ece")),
        (
            "DOR costs less than 0.01 of base accuracy",
            lambda run, m, term: 0.01 + change(run, m, term, "base accuracy"),
        ),
        (
            "DOR costs less than 0.01 of harmonic mean",
            lambda run, m, term: 0.01 + change(run, m, term, "mean accuracy"),
        ),
        (
            "new classes: higher ECE with a temperature than with DOR",
            lambda run, m, term: change(run, m, "temperature", "new ece", of=(m, term)),
        ),
    ]:
        for method, term in term_of.items():
            yield text, method, partial(quantity, m=method, term=term)


def gap(run: Run, method: str, half: str) -> float:
    """Return confidence minus accuracy."""
    numbers = run[method, "none"]
    return numbers[f"{half} confidence"] - numbers[f"{half} accuracy"]


def change(run: Run, method: str, term: str, name: str, *, of: tuple[str, str] | None = None) -> float:
    """Return the difference to the same method without a term, or to another row."""
    return run[method, term][name] - run[of or (method, "none")][name]


def check(records: list[dict[str, Any]], term_of: dict[str, str]) -> list[dict[str, Any]]:
    """Return the verdict on each claim whose methods were measured in all runs."""
    by_cell: dict[tuple[Any, ...], Run] = {}
    for record in records:
        by_cell.setdefault(tuple(record["cell"]), {})[record["method"], record["term"]] = record["numbers"]
    rows = []
    for text, method, quantity in claims(term_of):
        try:
            values = [quantity(run) for run in by_cell.values()]
        except KeyError:  # not measured, with --methods
            continue
        mean, half = mean_and_half(values)
        rows.append(
            {
                "claim": text,
                "method": method,
                "verdict": verdict(mean, half),
                "margin": [round(value, 4) if np.isfinite(value) else None for value in (mean, half)],
                "agreeing": int(np.sum(np.array(values) > 0)),
                "runs": len(values),
            }
        )
    return rows


def verdict(mean: float, half: float) -> str:
    if np.isnan(half) or abs(mean) <= half:
        return "open"
    return "holds" if mean > 0 else "fails"
