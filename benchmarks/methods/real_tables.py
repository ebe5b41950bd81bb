"""Tables of the results of real_features.py."""

from __future__ import annotations

from typing import Any

from contenders import BY_SHOTS
from runs import MISSING, QUANTITIES, TITLES, shown, simple_table

DIFFERENCES = ("accuracy", "ece", "log_loss")
BASE_TO_NEW = ("accuracy", "confidence", "ece")

Found = dict[tuple[str, str, int, str], dict[str, list[float]]]


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return all tables by name."""
    models, found = results["setup"]["models"], by_key(results)
    most = max(shots for _, _, shots, _ in found)
    made = {"real templates": of_templates(results["templates"])}
    for model in models:
        made[f"real {model}"] = of_quantities(found, model, most)
    made["real differences"] = of_differences(found, models, most)
    for model in models:
        made[f"real shots {model}"] = of_shots(found, model)
    made["real comparisons"] = of_comparisons(results["comparisons"], most)
    for model in models:
        if any(key[:2] == (model, "base") for key in found):
            made[f"real base-to-new {model}"] = of_halves(found, model)
    return made


def by_key(results: dict[str, Any]) -> Found:
    """Return for each model, group of classes, number of shots and method the quantities."""
    return {tuple(row[:4]): dict(zip(QUANTITIES, row[5:], strict=True)) for row in results["table"]}


def of_templates(rows: list[dict[str, Any]]) -> str:
    columns = ("lowest", "median", "highest", "used", "ensemble")
    return simple_table(
        ["model", "quantity", *columns],
        [[r["model"], TITLES[r["quantity"]], *(f"{r[column]:.3f}" for column in columns)] for r in rows],
    )


def of_quantities(found: Found, model: str, shots: int) -> str:
    rows = [
        [method, *(value(values, name) for name in QUANTITIES)]
        for (m, classes, n, method), values in found.items()
        if (m, classes, n) == (model, "all", shots)
    ]
    return simple_table(["method", *(TITLES[name] for name in QUANTITIES)], rows)


def of_differences(found: Found, models: list[str], shots: int) -> str:
    """Return the table of paired differences to zero-shot predictions."""
    methods = dict.fromkeys(method for _, classes, n, method in found if (classes, n) == ("all", shots))
    rows = [
        [
            method,
            *(
                value(found[model, "all", shots, method], name, difference=True)
                for model in models
                for name in DIFFERENCES
            ),
        ]
        for method in methods
        if method != "zero-shot"
    ]
    return simple_table(["method", *(f"{m} {TITLES[name]}" for m in models for name in DIFFERENCES)], rows)


def of_shots(found: Found, model: str) -> str:
    """Return the table of accuracy, ECE and log loss for each number of shots."""
    shots = sorted({key[2] for key in found})
    rows = []
    for method in BY_SHOTS:
        cells = [found.get((model, "all", n, method)) for n in shots]
        if any(cells):
            rows.append([method, *(MISSING if cell is None else three(cell) for cell in cells)])
    return simple_table(["method", *(f"{n} shot{'s' if n > 1 else ''}" for n in shots)], rows)


def three(values: dict[str, list[float]]) -> str:
    return " / ".join(f"{values[name][0]:.3f}" for name in ("accuracy", "ece", "log_loss"))


def of_comparisons(rows: list[dict[str, Any]], most: int) -> str:
    """Return the table of paired differences between methods, with few and with most shots."""
    shown_shots = sorted({row["shots"] for row in rows if row["shots"] in (1, 2, most)})
    return simple_table(
        ["first", "minus second", "model", "classes", "shots", *(TITLES[name] for name in DIFFERENCES)],
        [
            [
                row["first"],
                row["second"],
                row["model"],
                row["classes"],
                str(row["shots"]),
                *(shown(*row[name], sign=True) for name in DIFFERENCES),
            ]
            for row in rows
            if row["shots"] in shown_shots and row["classes"] != "base"
        ],
    )


def of_halves(found: Found, model: str) -> str:
    """Return the table of base and new classes, for the largest number of shots."""
    most = max(shots for m, classes, shots, _ in found if (m, classes) == (model, "base"))
    methods = [key[3] for key in found if key[:3] == (model, "base", most)]
    rows = []
    for method in methods:
        row = [method]
        for half in ("base", "new"):
            values = found.get((model, half, most, method))
            row += [MISSING if values is None else value(values, name) for name in BASE_TO_NEW]
        rows.append(row)
    header = [f"{half} {TITLES[name]}" for half in ("base", "new") for name in BASE_TO_NEW]
    return simple_table(["method", *header], rows)


def value(values: dict[str, list[float]], name: str, *, difference: bool = False) -> str:
    mean, half = values[name][2:] if difference else values[name][:2]
    return shown(mean, half, sign=difference)
