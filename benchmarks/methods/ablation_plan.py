"""What ablations.py measures, and access to the measured numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

ZERO_SHOT, COOP, KGCOOP = "zero-shot", "coop", "kgcoop"
NONE, DOR, ANCHOR = "", " + DOR", " + anchor"
NEAR, NEW_CLASSES = "near", "new classes"
POOLS = (NEAR, "far", "random", NEW_CLASSES)
WEIGHT = 8.0
HALVES = ("base", "new")
Cell = tuple[str, str, int]


@dataclass(frozen=True)
class Variant:
    """A method with its settings.

    ``pool="new classes"`` uses the names of the new classes as outliers. ``n_outliers=None`` is the number of
    base classes. ``stopped=True`` is the epoch with the lowest log loss on validation images. ``factor``
    multiplies the deviations of zero-shot class features from their mean.
    """

    method: str
    epochs: int = 0
    term: str = NONE
    weight: float = WEIGHT
    pool: str = NEAR
    n_outliers: int | None = None
    resample: bool = True
    stopped: bool = False
    factor: float = 1.0

    @property
    def name(self) -> str:
        """The method, and all settings that are not the default."""
        words = [self.method + self.term]
        words += [f"epochs={self.epochs}"] * (self.method != ZERO_SHOT)
        words += [f"weight={self.weight:g}"] * (self.weight != WEIGHT)
        words += [f"pool={self.pool}"] * (self.pool != NEAR)
        words += [f"outliers={self.n_outliers}"] * (self.n_outliers is not None)
        words += ["fixed"] * (not self.resample) + ["stopped"] * self.stopped
        words += [f"factor={self.factor:g}"] * (self.factor != 1)
        return " ".join(words)


@dataclass(frozen=True)
class Plan:
    """Values of the settings that are varied; the number of outliers None is that of the base classes."""

    lengths: tuple[int, ...] = (5, 12, 25, 50, 100, 200)
    epochs: int = 50
    weights: tuple[float, ...] = (0.5, 2.0, WEIGHT, 32.0)
    outliers: tuple[int | None, ...] = (4, None, 60)
    factors: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def stopped(self) -> Variant:
        return Variant(COOP, self.longest, stopped=True)

    @property
    def plain(self) -> Variant:
        return Variant(COOP, self.epochs)

    @property
    def dor(self) -> Variant:
        return Variant(COOP, self.epochs, DOR)

    def weighted(self, method: str, term: str, weight: float) -> Variant:
        """Return a variant with a weight of its loss term, or without the term if the weight is 0."""
        if method == KGCOOP or weight:
            return Variant(method, self.epochs, term, weight)
        return Variant(method, self.epochs)

    def variants(self) -> list[Variant]:
        """Return all variants without repetition; the fit of `stopped` also gives the last epoch."""
        found = [Variant(ZERO_SHOT, factor=factor) for factor in {1.0: None, **dict.fromkeys(self.factors)}]
        found += [Variant(COOP, length, term) for length in self.lengths for term in (NONE, DOR)]
        found += [self.plain, self.dor, self.stopped]
        found += [replace(self.dor, pool=pool) for pool in POOLS]
        found += [replace(self.dor, resample=False)]
        found += [replace(self.dor, n_outliers=number) for number in self.outliers]
        found += [self.weighted(COOP, DOR, weight) for weight in self.weights]
        found += [self.weighted(COOP, ANCHOR, weight) for weight in self.weights]
        found += [self.weighted(KGCOOP, ANCHOR, weight) for weight in (0.0, *self.weights)]
        unstopped = replace(self.stopped, stopped=False)
        return [variant for variant in dict.fromkeys(found) if variant != unstopped]


class Measured:
    """Numbers of all runs; arrays have one value for each task and seed."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results
        plan = {key: tuple(v) if isinstance(v, list) else v for key, v in results["plan"].items()}
        self.plan = Plan(**plan)
        self.quantities: list[str] = results["quantities"]
        self._rows = {(row[0], *row[1:4]): row[4:] for row in results["runs"]}

    @cached_property
    def cells(self) -> list[Cell]:
        return list(dict.fromkeys(key[1:] for key in self._rows))

    @cached_property
    def names(self) -> list[str]:
        """Names of all variants."""
        return list(dict.fromkeys(key[0] for key in self._rows))

    def of_name(self, name: str, quantity: str) -> NDArray[np.float64]:
        """Return a quantity of the variant with a name."""
        at = self.quantities.index(quantity)
        return np.array([self._rows[name, *cell][at] for cell in self.cells], dtype=np.float64)

    def of(self, variant: Variant, quantity: str) -> NDArray[np.float64]:
        return self.of_name(variant.name, quantity)

    def change(self, to: Variant, since: Variant, quantity: str) -> NDArray[np.float64]:
        """Return the paired differences of two variants."""
        return self.of(to, quantity) - self.of(since, quantity)

    def chosen(self, term: str, quantity: str) -> NDArray[np.float64]:
        """Return a quantity of CoOp with the length of the lowest log loss on validation images."""
        variants = [Variant(COOP, length, term) for length in self.plan.lengths]
        best = np.argmin([self.of(variant, "validation log_loss") for variant in variants], axis=0)
        return np.choose(best, [self.of(variant, quantity) for variant in variants])

    def best_length(self, quantity: str) -> int:
        """Return the number of epochs of CoOp with the lowest mean of a quantity of the test images."""
        means = {n: self.of(Variant(COOP, n), quantity).mean() for n in self.plan.lengths}
        return min(means, key=means.__getitem__)

    def trained(self) -> Iterator[str]:
        """Yield the names of all variants except those with multiplied deviations."""
        return (name for name in self.names if "factor" not in name)
