"""Tables of the results of grid.py."""

from __future__ import annotations

from typing import Any

from runs import MISSING, TITLES, shown, simple_table

TERMS = {
    "none": "",
    "dor": " + DOR",
    "dor-visual": " + DOR-V",
    "temperature": " + temperature",
    "dac": " + DAC",
}
GRID = ("none", "dor", "dor-visual")
ACCURACY = {"base accuracy": "base", "new accuracy": "new", "mean accuracy": "harmonic mean"}
ECE = {"base ece": "base", "new ece": "new", "mean ece": "mean"}
CONFIDENCE = ("base accuracy", "base confidence", "new accuracy", "new confidence")
DIFFERENCES = ("base accuracy", "new accuracy", "mean accuracy", "base ece", "new ece", "mean ece")
DIVERGENCE = ("base divergence", "new divergence")


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return all tables by name."""
    rows, differences = results["table"], results["differences"]
    in_grid = [row for row in rows if row["term"] in GRID]
    of_calibrators = [row for row in rows if row["term"] not in GRID]
    of_dor = [row for row in differences if row["term"] in GRID[1:]]
    # Text features of other methods are frozen, or have no counterpart for new classes.
    with_dor = {"zero-shot", *(row["method"] for row in of_dor if row["term"] == "dor")}
    confidence = {name: titled(name) for name in CONFIDENCE}
    divergence = {name: half for name, half in zip(DIVERGENCE, ("base", "new"), strict=True)}
    return {
        "grid ece": of_values(in_grid, ECE),
        "grid accuracy": of_values(in_grid, ACCURACY),
        "grid confidence": of_values(in_grid, confidence),
        "grid divergence": of_values([r for r in in_grid if r["method"] in with_dor], divergence),
        "grid dor": of_values(of_dor, {name: titled(name) for name in DIFFERENCES}, sign=True),
        "grid calibrators": of_values(of_calibrators, ECE),
        "grid settings": of_settings(results),
        "grid claims": of_claims(results["claims"]),
    }


def titled(name: str) -> str:
    half, quantity = name.split()
    return f"{half} {TITLES[quantity]}"


def of_values(rows: list[dict[str, Any]], columns: dict[str, str], *, sign: bool = False) -> str:
    return simple_table(
        ["method", *columns.values()],
        [
            [row["method"] + TERMS[row["term"]], *(shown(*row[name][:2], sign=sign) for name in columns)]
            for row in rows
        ],
    )


def of_settings(results: dict[str, Any]) -> str:
    """Return the table of the settings of the methods, and the median processor time of a fit."""
    seconds = {(row["method"], row["term"]): row["fit_seconds"] for row in results["table"]}
    rows = []
    for method, settings in results["settings"].items():
        if settings:
            times = [seconds.get((method, term)) for term in GRID[:2]]
            shown_times = [MISSING if time is None else f"{time:.1f}" for time in times]
            rows.append([method, *shown_settings(settings), *shown_times])
    header = ["method", "recipe", "optimizer", "learning rate", "epochs", "batch", "fit (s)", "with DOR (s)"]
    return simple_table(header, rows)


def shown_settings(settings: dict[str, Any]) -> list[str]:
    """Return recipe, optimizer, learning rate, epochs and size of batches."""
    if settings["max_epochs"] == 0:
        return [settings["recipe"], *[MISSING] * 4]
    values = (settings[name] for name in ("max_epochs", "batch_size"))
    return [settings["recipe"], settings["optimizer"], f"{settings['learning_rate']:g}", *map(str, values)]


def of_claims(claims: list[dict[str, Any]]) -> str:
    return simple_table(
        ["claim", "method", "verdict", "margin", "runs that agree"],
        [
            [
                row["claim"],
                row["method"],
                row["verdict"],
                shown(*row["margin"], sign=True),
                f"{row['agreeing']} of {row['runs']}",
            ]
            for row in claims
        ],
    )
