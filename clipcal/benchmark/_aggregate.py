"""Means over seeds and data sets. A mean over a part of the planned cells is never computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clipcal.benchmark._results import Results
from clipcal.metrics import harmonic_mean

__all__ = ["Estimate", "Grid", "Model", "average_over_seeds", "make_grids"]

NOT_PLANNED = "not in the plan"
_NONE = "none"
_BASE_TO_NEW = "base-to-new"
_TRANSFER = ("cross-dataset", "domain-generalization")
_Z_95 = 1.96
_N_BINS = 15


@dataclass(frozen=True)
class Model:
    """A method with its loss term, calibrator and number of training images per class."""

    method: str
    regularizer: str
    calibrator: str
    n_shots: int

    @classmethod
    def of(cls, cell: Mapping[str, Any]) -> Model:
        """Return the model of a cell."""
        return cls(cell["method"], cell["regularizer"], cell["calibrator"], cell["n_shots"])

    @property
    def label(self) -> str:
        """The name in tables, without the number of images."""
        parts = (self.regularizer, self.calibrator)
        return " + ".join([self.method, *(part for part in parts if part != _NONE)])

    @property
    def baseline(self) -> Model | None:
        """The same model without the loss term; None if it has no loss term."""
        if self.regularizer == _NONE:
            return None
        return Model(self.method, _NONE, self.calibrator, self.n_shots)


@dataclass(frozen=True)
class Estimate:
    """A mean, or the reason why there is none.

    Parameters
    ----------
    mean : float or None
        The mean; None if a planned value is missing.
    std : float or None
        Population standard deviation over seeds; None for a single seed.
    n : int
        Number of seeds.
    note : str
        What is missing.
    """

    mean: float | None = None
    std: float | None = None
    n: int = 0
    note: str = ""

    @property
    def half_width(self) -> float | None:
        """Half of the width of the 95 % interval of the normal distribution, ``1.96 * std / sqrt(n)``."""
        return None if self.std is None else float(_Z_95 * self.std / np.sqrt(self.n))


def average_over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean over seeds, and the population standard deviation."""
    std = float(np.std(values)) if len(values) > 1 else None
    return Estimate(float(np.mean(values)), std, len(values))


@dataclass(frozen=True)
class Grid:
    """The cells of one protocol.

    Parameters
    ----------
    protocol : str
        Name of the protocol.
    source : str or None
        Data set of the training if the models are evaluated on others too. It is not part of averages.
    models : tuple of Model
        The models, in the order of the plan.
    datasets : tuple of str
        Data sets of the evaluation, in the order of the plan.
    parts : tuple of str
        Classes of the evaluation: ``("base", "new")`` or ``("all",)``.
    planned : dict
        The planned seeds for each model, data set and part.
    n_bins : int
        Number of bins of the calibration errors.
    metrics : dict
        The metrics of finished cells for each model, data set, part and seed.
    """

    protocol: str
    source: str | None
    models: tuple[Model, ...]
    datasets: tuple[str, ...]
    parts: tuple[str, ...]
    n_bins: int
    planned: dict[tuple[Model, str, str], list[int]] = field(repr=False)
    metrics: dict[tuple[Model, str, str, int], Mapping[str, float]] = field(repr=False)

    @property
    def averaged(self) -> tuple[str, ...]:
        """The data sets of averages."""
        return tuple(name for name in self.datasets if name != self.source)

    def seeds(self, model: Model, dataset: str, part: str) -> list[int]:
        """Return the planned seeds."""
        return self.planned.get((model, dataset, part), [])

    def by_seed(self, model: Model, dataset: str, part: str, metric: str) -> dict[int, float]:
        """Return the metric of each finished cell."""
        cells = (
            (seed, self.metrics.get((model, dataset, part, seed), {}))
            for seed in self.seeds(model, dataset, part)
        )
        return {seed: float(found[metric]) for seed, found in cells if found.get(metric) is not None}

    def over_seeds(self, model: Model, dataset: str, part: str, metric: str) -> Estimate:
        """Return the mean over seeds."""
        seeds = self.seeds(model, dataset, part)
        found = self.by_seed(model, dataset, part, metric)
        if not seeds:
            return Estimate(note=NOT_PLANNED)
        if len(found) < len(seeds):
            return Estimate(note=f"{len(found)} of {len(seeds)} {_seeds(len(seeds))}")
        return average_over_seeds(list(found.values()))

    def over_datasets(self, model: Model, part: str, metric: str) -> Estimate:
        """Return the mean over data sets of the means over seeds.

        Its standard deviation is that of the means over data sets of each seed.
        """
        names = self.averaged
        means = [self.over_seeds(model, name, part, metric) for name in names]
        complete = [found.mean for found in means if found.mean is not None]
        if not names or all(found.note == NOT_PLANNED for found in means):
            return Estimate(note=NOT_PLANNED)
        if len(complete) < len(means):
            return Estimate(note=f"{len(complete)} of {len(means)} data sets")
        found = [self.by_seed(model, name, part, metric) for name in names]
        mean = float(np.mean(complete))
        if len({tuple(one) for one in found}) > 1:
            return Estimate(mean)
        by_seed = np.mean([list(one.values()) for one in found], axis=0)
        return Estimate(mean, average_over_seeds(by_seed).std, len(by_seed))

    def joined(self, model: Model, dataset: str | None, metric: str) -> Estimate:
        """Return one number for base and new classes, of a data set or (None) of the averages.

        Accuracies have the harmonic mean of the two means, other metrics their arithmetic mean.
        """
        halves = [
            self.over_datasets(model, part, metric)
            if dataset is None
            else self.over_seeds(model, dataset, part, metric)
            for part in self.parts
        ]
        if all(found.note == NOT_PLANNED for found in halves):
            return Estimate(note=NOT_PLANNED)
        means = []
        for part, found in zip(self.parts, halves, strict=True):
            if found.mean is None:
                return Estimate(note=f"{part}: {found.note}")
            means.append(found.mean)
        if metric == "accuracy":
            return Estimate(harmonic_mean(*means))
        return Estimate(float(np.mean(means)))


def make_grids(results: Results) -> list[Grid]:
    """Return one grid for each protocol of the plan, in its order.

    Parameters
    ----------
    results : Results
        Results of a plan.

    Returns
    -------
    grids : list of Grid
    """
    expected = [entry["cell"] for entry in results.plan["cells"]]
    finished = [(found["cell"], found["metrics"]) for found in results.cells]
    return [
        _grid(
            protocol,
            results.plan["plan"].get("n_bins", _N_BINS),
            [cell for cell in expected if cell["protocol"] == protocol],
            [(cell, metrics) for cell, metrics in finished if cell["protocol"] == protocol],
        )
        for protocol in _unique(cell["protocol"] for cell in expected)
    ]


def _grid(protocol: str, n_bins: int, expected: Sequence[Any], finished: Iterable[tuple[Any, Any]]) -> Grid:
    planned: dict[tuple[Model, str, str], list[int]] = {}
    for cell in expected:
        planned.setdefault((Model.of(cell), cell["dataset"], cell["classes"]), []).append(cell["seed"])
    return Grid(
        protocol,
        expected[0]["train_dataset"] if protocol in _TRANSFER else None,
        _unique(Model.of(cell) for cell in expected),
        _unique(cell["dataset"] for cell in expected),
        ("base", "new") if protocol == _BASE_TO_NEW else ("all",),
        n_bins,
        planned,
        {
            (Model.of(cell), cell["dataset"], cell["classes"], cell["seed"]): metrics
            for cell, metrics in finished
        },
    )


def _unique(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _seeds(number: int) -> str:
    return "seed" if number == 1 else "seeds"
