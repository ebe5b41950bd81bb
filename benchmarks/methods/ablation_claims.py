"""Claims on dynamic outlier regularization, checked in each run of ablations.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from ablation_plan import ANCHOR, COOP, DOR, HALVES, KGCOOP, NEW_CLASSES, ZERO_SHOT, Measured, Variant
from grid_claims import verdict
from numpy.typing import NDArray
from runs import TITLES, mean_and_half
from spread import rank_correlations

# Largest change of accuracy or ECE that counts as none.
TOLERANCE = 0.01
LOSSES = ("new ece", "new log_loss", "base ece", "base log_loss")

Claim = tuple[str, str, NDArray[np.float64]]  # topic, claim, and a quantity that it says is positive


def titled(quantity: str) -> str:
    half, name = quantity.split()
    return f"{half} {TITLES.get(name, name)}"


def claims(measured: Measured) -> Iterator[Claim]:
    """Yield all claims."""
    yield from of_lengths(measured)
    yield from of_outliers(measured)
    yield from of_weights(measured)
    yield from of_divergence(measured)


def of_lengths(measured: Measured) -> Iterator[Claim]:
    plan = measured.plan
    full = Variant(COOP, plan.longest, DOR)
    for length in plan.lengths:
        with_dor, without = Variant(COOP, length, DOR), Variant(COOP, length)
        for quantity in ("new ece", "new log_loss"):
            margin = -measured.change(with_dor, without, quantity)
            yield "length", f"DOR lowers the {titled(quantity)} at {length} epochs", margin
    rivals = {
        f"CoOp at its best epoch of {plan.longest}": lambda name: measured.of(plan.stopped, name),
        "CoOp with the length chosen": lambda name: measured.chosen("", name),
    }
    for words, value in rivals.items():
        for quantity in ("base accuracy", *LOSSES):
            side = "above" if quantity == "base accuracy" else "below"
            margin = value(quantity) - measured.of(full, quantity)
            text = f"{titled(quantity)}: DOR after {plan.longest} epochs is {side} {words}"
            yield "early stopping", text, -margin if side == "above" else margin
    for quantity in LOSSES:
        text = f"{titled(quantity)}: DOR is below CoOp, both with the length chosen"
        yield "early stopping", text, measured.chosen("", quantity) - measured.chosen(DOR, quantity)
    for quantity in LOSSES:
        length = measured.best_length(quantity)
        text = f"{titled(quantity)}: DOR after {plan.longest} epochs is below CoOp after {length}, its best"
        yield "early stopping", text, -measured.change(full, Variant(COOP, length), quantity)


def of_outliers(measured: Measured) -> Iterator[Claim]:
    plan = measured.plan
    near = plan.dor
    for quantity in ("new ece", "new log_loss"):
        for pool in ("random", "far"):
            margin = measured.change(replace(near, pool=pool), near, quantity)
            yield "pool", f"near nouns give a lower {titled(quantity)} than {pool} ones", margin
        margin = measured.change(near, replace(near, pool=NEW_CLASSES), quantity)
        yield "pool", f"the new classes as outliers give a lower {titled(quantity)} than near nouns", margin
        margin = measured.change(replace(near, resample=False), near, quantity)
        yield "drawing", f"drawing anew gives a lower {titled(quantity)} than fixed outliers", margin
        more = [number for number in plan.outliers if number is not None]
        fewest, most = (replace(near, n_outliers=pick(more)) for pick in (min, max))
        text = f"{most.n_outliers} outliers give a lower {titled(quantity)} than {fewest.n_outliers}"
        yield "drawing", text, measured.change(fewest, most, quantity)


def of_weights(measured: Measured) -> Iterator[Claim]:
    plan = measured.plan
    low, high = min(plan.weights), max(plan.weights)
    terms = {"DOR": (COOP, DOR), "KgCoOp": (KGCOOP, ANCHOR), "CoOp + anchor": (COOP, ANCHOR)}
    # How much base classes suffer from the highest weight.
    costs = {
        (name, quantity): sign
        * measured.change(plan.weighted(*term, high), plan.weighted(*term, low), quantity)
        for name, term in terms.items()
        for quantity, sign in (("base accuracy", -1), ("base ece", 1))
    }
    change = f"between weights {low:g} and {high:g}"
    for (name, quantity), cost in costs.items():
        verb = "falls" if quantity == "base accuracy" else "rises"
        yield "weight", f"{name}: {titled(quantity)} {verb} by less than 0.01 {change}", TOLERANCE - cost
        if name != "DOR":
            text = f"{titled(quantity)} {verb} more under {name} than under DOR {change}"
            yield "weight", text, cost - costs["DOR", quantity]


def of_divergence(measured: Measured) -> Iterator[Claim]:
    plan = measured.plan
    zero_shot = Variant(ZERO_SHOT)
    kgcoop = Variant(KGCOOP, plan.epochs, ANCHOR)
    for half in HALVES:
        name = f"{half} divergence"
        for length in sorted({plan.epochs, plan.longest}):
            text = f"CoOp enlarges the {name} ({length} epochs)"
            yield "divergence", text, measured.change(Variant(COOP, length), zero_shot, name)
            margin = measured.change(Variant(COOP, length), Variant(COOP, length, DOR), name)
            yield "divergence", f"DOR reduces the {name} of CoOp ({length} epochs)", margin
        margin = measured.change(plan.plain, kgcoop, name)
        yield "divergence", f"KgCoOp has a smaller {name} than CoOp ({plan.epochs} epochs)", margin
    for half in HALVES:
        for name in ("divergence", "spread"):
            correlations = correlation(measured, f"{half} {name}", f"{half} confidence")
            text = f"{half} {name} and {half} confidence are positively rank-correlated"
            yield "divergence", text, np.array(correlations)


def correlation(measured: Measured, first: str, second: str) -> list[float]:
    """Return the rank correlation of two quantities over all variants, in each run."""
    names = list(measured.trained())
    return rank_correlations(
        [measured.of_name(name, first) for name in names], [measured.of_name(name, second) for name in names]
    )


def check(measured: Measured) -> list[dict[str, object]]:
    """Return the verdict on each claim."""
    rows = []
    for topic, text, values in claims(measured):
        mean, half = mean_and_half(list(values))
        rows.append(
            {
                "topic": topic,
                "claim": text,
                "verdict": verdict(mean, half),
                "margin": (mean, half),
                "agreeing": int((values > 0).sum()),
                "runs": len(values),
            }
        )
    return rows
