"""What a run of a plan would do, and how long it would take."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipcal.benchmark._data import part_facts
from clipcal.benchmark._plan import Plan
from clipcal.benchmark._run import Job, missing_jobs, n_cells_of, plan_jobs, select
from clipcal.benchmark._store import read_run

__all__ = ["CostEstimate", "estimate_cost"]

_BYTES_PER_PROBABILITY = 4


@dataclass(frozen=True)
class CostEstimate:
    """What is missing in a folder of results.

    Parameters
    ----------
    name : str
        Name of the plan.
    n_cells : int
        Number of cells, after conditions.
    n_missing : int
        Number of cells that are not complete.
    n_fits : int
        Number of fits that these need.
    test_images : mapping of str to int
        Number of test images of each data set that they need.
    n_bytes : int
        Size of their predictions before compression.
    seconds : float
        Time of the fits whose models were run before, from the times of these runs.
    unknown : mapping of str to int
        Number of fits of the models that were not run before.

    Examples
    --------
    >>> import tempfile
    >>> from clipcal.benchmark import Plan, estimate_cost
    >>> plan = {"name": "a", "backbone": "mini", "datasets": ["mini/shapes-studio"], "methods": ["coop"]}
    >>> cost = estimate_cost(Plan.from_dict(plan), tempfile.mkdtemp())
    >>> cost.n_cells, cost.n_missing, cost.n_fits
    (6, 6, 3)
    """

    name: str
    n_cells: int
    n_missing: int
    n_fits: int
    test_images: Mapping[str, int]
    n_bytes: int
    seconds: float
    unknown: Mapping[str, int]

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.n_cells} cells, of which {self.n_cells - self.n_missing} are complete",
            f"To run: {self.n_fits} fits for {self.n_missing} cells",
            f"Test images: {sum(self.test_images.values()):,} of {len(self.test_images)} data sets",
            f"Predictions: at most {self.n_bytes / 1e6:,.1f} MB",
        ]
        n_known = self.n_fits - sum(self.unknown.values())
        if n_known:
            lines.append(f"Time of {n_known} fits in one process: {_duration(self.seconds)}")
        if self.unknown:
            models = ", ".join(f"{name} ({n})" for name, n in self.unknown.items())
            lines.append(f"Not timed yet, as no fit is complete: {models}; run some with --limit")
        return "\n".join(lines)


def estimate_cost(
    plan: Plan,
    results: str | os.PathLike[str],
    *,
    conditions: Mapping[str, Sequence[str]] | None = None,
) -> CostEstimate:
    """Return what :func:`run_plan` would do, without running it.

    Parameters
    ----------
    plan : Plan
        The plan.
    results : str or Path
        Folder of results. Times are estimated from the cells that it has; it need not exist.
    conditions : mapping of str to sequence of str, default=None
        As in :func:`run_plan`.

    Returns
    -------
    estimate : CostEstimate

    Raises
    ------
    PlanError
        If the plan has an unknown component, parameter or condition.
    ValueError
        If a data set is missing or damaged.

    Examples
    --------
    >>> from clipcal.benchmark import Plan, estimate_cost
    >>> content = {"name": "trial", "backbone": "mini", "datasets": ["mini/shapes-studio"]}
    >>> print(estimate_cost(Plan.from_dict({**content, "methods": ["zero-shot"]}), "results"))
    trial: 2 cells, of which 0 are complete
    To run: 2 fits for 2 cells
    Test images: 1,200 of 1 data sets
    Predictions: at most 0.1 MB
    Not timed yet, as no fit is complete: zero-shot (2); run some with --limit
    """
    folder = Path(results)
    jobs = plan_jobs(plan)
    chosen = select(jobs, conditions or {})
    missing = missing_jobs(chosen, folder)
    times = _mean_times(folder, jobs)
    models = [job.fit.model for job in missing]
    known = [times[model] for model in models if model in times]
    unknown = Counter(model for model in models if model not in times)
    tests: dict[str, dict[str, int]] = defaultdict(dict)
    n_bytes = 0
    for job in missing:
        for cell, identity in zip(job.fit.cells, job.identities, strict=True):
            n_images = identity["data"]["test"]["n"]
            facts = part_facts(plan, cell.dataset, cell.classes, job.fit.n_shots, job.fit.seed)
            tests[cell.dataset][cell.classes] = n_images
            n_bytes += n_images * facts["n_classes"] * _BYTES_PER_PROBABILITY
    n_cells, n_missing = n_cells_of(chosen), n_cells_of(missing)
    # Base and new classes together are all classes.
    images = {name: of.get("all") or sum(of.values()) for name, of in tests.items()}
    return CostEstimate(
        plan.name, n_cells, n_missing, len(missing), images, n_bytes, sum(known), dict(unknown)
    )


def _mean_times(folder: Path, jobs: Sequence[Job]) -> dict[str, float]:
    """Return the mean seconds of the complete fits of each model, with the evaluation of all their cells."""
    times: dict[str, list[float]] = defaultdict(list)
    for job in jobs:
        runs = [read_run(folder, identity["key"]) for identity in job.identities]
        done = [run for run in runs if run]
        if done:
            evaluation = np.mean([run["evaluation_seconds"] for run in done]) * len(runs)
            times[job.fit.model].append(done[0]["fit_seconds"] + evaluation)
    return {model: float(np.mean(values)) for model, values in times.items()}


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
