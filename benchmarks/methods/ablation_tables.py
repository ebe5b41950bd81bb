"""Tables of the results of ablations.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ablation_claims import check, correlation, titled
from ablation_plan import ANCHOR, COOP, DOR, HALVES, KGCOOP, POOLS, ZERO_SHOT, Measured, Variant
from numpy.typing import NDArray
from runs import MISSING, mean_and_half, shown, simple_table
from spread import CLASSES, SPREADS, expected_confidence

SIX = ("base accuracy", "new accuracy", "base ece", "new ece", "base log_loss", "new log_loss")
FOUR = ("base divergence", "new divergence", "base confidence", "new confidence")

Rows = Iterable[tuple[Sequence[str], Any]]


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return all tables by name."""
    measured = Measured(results)
    return {
        "outliers lengths": of_lengths(measured),
        "outliers lengths dor": of_dor_at_lengths(measured),
        "outliers lengths stopped": of_stopped(measured),
        "outliers nouns": of_nouns(results["pools"]),
        "outliers pools": of_pools(measured),
        "outliers drawing": of_drawing(measured),
        "outliers weights": of_weights(measured),
        "outliers divergence": of_divergence(measured),
        "outliers correlations": of_correlations(measured),
        "outliers simulation": of_simulation(),
        "outliers factors": of_factors(measured),
        **of_claims(measured),
    }


def interval(values: NDArray[np.float64], *, sign: bool = False) -> str:
    return shown(*mean_and_half(list(values)), sign=sign)


def of_values(measured: Measured, rows: Rows, header: Sequence[str], columns: Sequence[str]) -> str:
    """Return a table of variants, each with its first cells."""
    body = [[*first, *(interval(measured.of(variant, name)) for name in columns)] for first, variant in rows]
    return simple_table([*header, *map(titled, columns)], body)


def of_changes(measured: Measured, rows: Rows, header: Sequence[str], columns: Sequence[str]) -> str:
    """Return a table of paired differences of pairs of variants, each with its first cells."""
    body = [
        [*first, *(interval(measured.change(*pair, name), sign=True) for name in columns)]
        for first, pair in rows
    ]
    return simple_table([*header, *map(titled, columns)], body)


def of_lengths(measured: Measured) -> str:
    plan = measured.plan
    rows = [(["zero-shot", MISSING, MISSING], Variant(ZERO_SHOT))]
    for term in ("", DOR):
        for length in plan.lengths:
            variant = Variant(COOP, length, term)
            prompts = measured.of(variant, "prompts").mean() / 1000
            rows.append((["CoOp" + term, str(length), f"{prompts:.1f}"], variant))
    return of_values(measured, rows, ["method", "epochs", "prompts (thousands)"], SIX)


def of_dor_at_lengths(measured: Measured) -> str:
    rows = [
        ([str(length)], (Variant(COOP, length, DOR), Variant(COOP, length)))
        for length in measured.plan.lengths
    ]
    return of_changes(measured, rows, ["epochs"], SIX)


def of_stopped(measured: Measured) -> str:
    """Return the differences of CoOp, stopped early, to DOR after all epochs."""
    plan = measured.plan
    full = Variant(COOP, plan.longest, DOR)
    rivals = {
        f"CoOp, {length} epochs": lambda name, length=length: measured.of(Variant(COOP, length), name)
        for length in plan.lengths
    }
    rivals["CoOp, length chosen on validation"] = lambda name: measured.chosen("", name)
    rivals["CoOp, best epoch on validation"] = lambda name: measured.of(plan.stopped, name)
    rivals["CoOp + DOR, length chosen on validation"] = lambda name: measured.chosen(DOR, name)
    body = [
        [words, *(interval(value(name) - measured.of(full, name), sign=True) for name in SIX)]
        for words, value in rivals.items()
    ]
    return simple_table(["method", *map(titled, SIX)], body)


def of_nouns(pools: dict[str, dict[str, list[str]]]) -> str:
    return simple_table(
        ["task", "most similar nouns", "least similar nouns"],
        [[task, ", ".join(nouns["near"]), ", ".join(nouns["far"])] for task, nouns in pools.items()],
    )


def of_pools(measured: Measured) -> str:
    plan = measured.plan
    rows = [([pool], replace(plan.dor, pool=pool)) for pool in POOLS]
    return of_values(measured, [(["none"], plan.plain), *rows], ["outliers"], SIX)


def of_drawing(measured: Measured) -> str:
    plan = measured.plan
    rows = []
    for number in plan.outliers:
        variant = replace(plan.dor, n_outliers=number)
        seconds = f"{np.median(measured.of(variant, 'seconds')):.1f}"
        words = "as many as base classes" if number is None else str(number)
        rows.append(([words, "anew", seconds], variant))
    fixed = replace(plan.dor, resample=False)
    seconds = f"{np.median(measured.of(fixed, 'seconds')):.1f}"
    rows.append((["as many as base classes", "once", seconds], fixed))
    return of_values(measured, rows, ["outliers in a step", "drawn", "fit (s)"], SIX)


def of_weights(measured: Measured) -> str:
    plan = measured.plan
    rows = [(["CoOp", "0"], plan.plain)]
    rows += [(["CoOp + DOR", f"{w:g}"], plan.weighted(COOP, DOR, w)) for w in plan.weights]
    rows += [(["CoOp + anchor", f"{w:g}"], plan.weighted(COOP, ANCHOR, w)) for w in plan.weights]
    rows += [(["KgCoOp", f"{w:g}"], plan.weighted(KGCOOP, ANCHOR, w)) for w in (0, *plan.weights)]
    return of_values(measured, rows, ["method", "weight"], SIX)


def of_divergence(measured: Measured) -> str:
    plan = measured.plan
    rows = [(["zero-shot", MISSING], Variant(ZERO_SHOT))]
    for length in sorted({plan.epochs, plan.longest}):
        for term in ("", DOR):
            rows.append((["CoOp" + term, str(length)], Variant(COOP, length, term)))
    rows.append((["CoOp + anchor", str(plan.epochs)], Variant(COOP, plan.epochs, ANCHOR)))
    rows.append((["KgCoOp", str(plan.epochs)], Variant(KGCOOP, plan.epochs, ANCHOR)))
    return of_values(measured, rows, ["method", "epochs"], FOUR)


def of_correlations(measured: Measured) -> str:
    """Return rank correlations over all variants within each run, averaged over runs."""
    body = []
    for half in HALVES:
        cells = []
        for first in ("divergence", "spread"):
            for second in ("confidence", "ece"):
                values = correlation(measured, f"{half} {first}", f"{half} {second}")
                cells.append(interval(np.array(values), sign=True))
        body.append([half, *cells])
    pairs = [f"{a}, {b}" for a in ("divergence", "spread") for b in ("confidence", "ECE")]
    return simple_table(["classes", *pairs], body)


def of_simulation() -> str:
    """Return the expected highest probability of normal logits."""
    body = [
        [f"{spread:g}", *(f"{expected_confidence(spread, n)[0]:.3f}" for n in CLASSES)] for spread in SPREADS
    ]
    return simple_table(["standard deviation", *(f"{n} classes" for n in CLASSES)], body)


def of_factors(measured: Measured) -> str:
    """Return the effect of multiplied deviations, and the simulated confidence at the same spread."""
    body = []
    for half in HALVES:
        n_classes = measured.results["setup"]["n_classes"]
        for factor in measured.plan.factors:
            variant = Variant(ZERO_SHOT, factor=factor)
            names = [f"{half} {name}" for name in ("divergence", "spread", "confidence", "accuracy", "ece")]
            expected = expected_confidence(measured.of(variant, f"{half} spread").mean(), n_classes)[0]
            cells = [interval(measured.of(variant, name)) for name in names]
            body.append([half, f"{factor:g}", *cells[:3], f"{expected:.3f}", *cells[3:]])
    header = ["classes", "factor", "divergence", "spread", "confidence", "normal logits", "accuracy", "ECE"]
    return simple_table(header, body)


def of_claims(measured: Measured) -> dict[str, str]:
    """Return one table of claims for each topic."""
    found: dict[str, list[list[str]]] = {}
    for row in check(measured):
        margin = shown(*row["margin"], sign=True)
        cells = [row["claim"], row["verdict"], margin, f"{row['agreeing']} of {row['runs']}"]
        found.setdefault(row["topic"], []).append(cells)
    header = ["claim", "verdict", "margin", "runs that agree"]
    return {f"outliers claims {topic}": simple_table(header, rows) for topic, rows in found.items()}
