"""Run the demo: tune all methods on generated images and evaluate them on base and new classes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Memory, Parallel, delayed

from clipcal._optional import import_optional
from clipcal._progress import progress_bar
from clipcal.demo._cells import (
    COOP,
    COOP_DOR,
    COOP_TEMPERATURE,
    FAST_COOP,
    FAST_COOP_DOR,
    KGCOOP,
    KGCOOP_DOR,
    MAPLE,
    MAPLE_DOR,
    METHODS,
    N_VALIDATION,
    ZERO_SHOT,
    Cell,
    CellResult,
    candidate_nouns,
    run_cell,
)
from clipcal.demo._claims import check_claims
from clipcal.demo._tables import format_claims, format_table, write_csv
from clipcal.metrics import calibration_bins
from clipcal.plots import ReliabilityDisplay, ReliabilityGridDisplay

__all__ = ["TASKS", "run_demo"]

# Two fine-grained tasks in the domain of the pretraining data, and one in a very different domain.
TASKS = (("colors", "street"), ("colored-shapes", "street"), ("colors", "faded"))
_N_SEEDS = 3
# Enough epochs to show the trade-off within minutes on two cores.
_MAX_EPOCHS = 30

# One eighth of the nouns is still several times the size of the pool.
_QUICK_NOUN_STEP = 8

_EXPLANATION = """\
Base classes are the half of the classes of a task that a method was tuned on. New classes are the other
half, of which the classifier only gets the names, after tuning. The expected calibration error (ECE) is the
average difference between confidence and accuracy: with an ECE of 0.05, predictions with a confidence of 0.8
typically have an accuracy of 0.75 or 0.85.
"""
_CLAIMS_HEADING = "Claims on these tasks; all but the last one are those of the paper:"
_VERDICT_REMARK = """\
A claim holds (fails) if the mean over runs is two standard errors above (below) its bound, otherwise it is
open.
"""
_QUICK_REMARK = """\
All claims are open after a single run; without --quick the demo runs three tasks with three seeds. Outliers
were drawn from an eighth of WordNet.
"""
_REMARK = f"""\
CoOp starts from 16 random vectors, KgCoOp from 'a photo of a'. They train for {_MAX_EPOCHS} epochs in batches
of 32, otherwise with the settings of their authors. 'fast' is recipe="fast": a few steps with all images,
and their number is chosen on held-out training data. MaPLe has the settings of the authors of DOR: random
vectors in both towers, 5 epochs in batches of 4. The temperature is fitted on {N_VALIDATION} further
images of each base class. The figure pools all runs. Pooled ECE is smaller than the mean over runs in the
table, because bins with few images increase the ECE of a run, and errors of different tasks partly cancel.
"""
_CLOSING = """\
To use your own images (the first run downloads the weights):

    from clipcal import PromptTunedCLIPClassifier
    clf = PromptTunedCLIPClassifier("ViT-B-16/openai", regularizer="dor", verbose=1).fit(paths, labels)
"""


def run_demo(out: Path, *, n_jobs: int = -1, quick: bool = False) -> str:
    """Run all methods on generated tasks with several seeds, and write the results.

    Parameters
    ----------
    out : Path
        Folder for ``results.csv``, ``results.md`` and ``reliability.png``. It is created if needed.
    n_jobs : int, default=-1
        Number of processes; -1 means one per core.
    quick : bool, default=False
        Whether to run one task with one seed and outliers from an eighth of WordNet, instead of three tasks
        with three seeds and all nouns.

    Returns
    -------
    report : str
        Explanations and tables in Markdown.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the folder cannot be created or written to.
    """
    import_optional("matplotlib", extra="plot", caller="clipcal demo")
    # Fail before the long computation if the folder cannot be written to.
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.md").touch()
    tasks, n_seeds, noun_step = (TASKS[:1], 1, _QUICK_NOUN_STEP) if quick else (TASKS, _N_SEEDS, 1)
    cells = [
        Cell(task, domain, seed, _MAX_EPOCHS, noun_step) for task, domain in tasks for seed in range(n_seeds)
    ]
    results = _run(cells, n_jobs)
    table, claims = format_table(results), format_claims(check_claims(results))
    report = f"{_EXPLANATION}\n{_heading(tasks, n_seeds)}\n\n{table}\n\n{_CLAIMS_HEADING}\n\n{claims}\n\n"
    report += _QUICK_REMARK if quick else _VERDICT_REMARK
    report += _REMARK
    write_csv(results, out / "results.csv")
    (out / "results.md").write_text(report, encoding="utf-8")
    _draw(results, out / "reliability.png")
    return f"{report}\nWritten to {out}: results.csv, results.md, reliability.png\n\n{_CLOSING}"


def _heading(tasks: Sequence[tuple[str, str]], n_seeds: int) -> str:
    names = ", ".join(f"{task} ({domain})" for task, domain in tasks)
    if len(tasks) * n_seeds == 1:
        return f"On test images of the task {names}, one run:"
    return f"On test images, mean ± standard deviation over {n_seeds} seeds of each of the tasks\n{names}:"


def _run(cells: Sequence[Cell], n_jobs: int) -> list[CellResult]:
    fitted = [method for method in METHODS if method != COOP_TEMPERATURE]
    with tempfile.TemporaryDirectory() as folder:
        memory = Memory(folder, verbose=0)
        _prepare_outliers(memory, cells[0].noun_step)
        # The slowest jobs first, so that no process ends with a long job while the others are idle.
        order = [
            MAPLE_DOR,
            MAPLE,
            COOP_DOR,
            COOP,
            KGCOOP_DOR,
            KGCOOP,
            FAST_COOP_DOR,
            FAST_COOP,
            ZERO_SHOT,
        ]
        slowest_first = sorted(fitted, key=order.index)
        jobs = [delayed(run_cell)(cell, method, memory) for method in slowest_first for cell in cells]
        done = Parallel(n_jobs=n_jobs, return_as="generator")(jobs)
        shown = progress_bar(done, shown=True, description="Fitting", unit="fit", total=len(jobs))
        return [result for results in shown for result in results]


def _prepare_outliers(memory: Memory, noun_step: int) -> None:
    """Encode the candidates for outliers once, before the processes start."""
    from clipcal.backbones import open_backbone
    from clipcal.methods import zero_shot_features
    from clipcal.text import DEFAULT_TEMPLATE

    nouns = candidate_nouns(noun_step)
    zero_shot_features(open_backbone("mini"), nouns, DEFAULT_TEMPLATE, memory=memory, verbose=1)


def _draw(results: Sequence[CellResult], path: Path) -> None:
    """Draw reliability diagrams of all methods, base classes above new classes, with pooled runs."""
    displays = [
        ReliabilityDisplay(
            _pooled_bins([r for r in results if r.method == method and r.half == half]),
            name=f"{method}\n{half} classes",
        )
        for half in ("base", "new")
        for method in METHODS
    ]
    ReliabilityGridDisplay(displays, n_columns=len(METHODS)).plot().figure_.savefig(path)


def _pooled_bins(results: Sequence[CellResult]) -> Any:
    """Return the bins of several pooled runs, whose class names may differ."""
    n_columns = max(result.y_prob.shape[1] for result in results)
    y_true = np.concatenate([np.searchsorted(r.classes, r.y_true) for r in results])
    y_prob = np.concatenate([np.pad(r.y_prob, ((0, 0), (0, n_columns - r.y_prob.shape[1]))) for r in results])
    return calibration_bins(y_true, y_prob, labels=np.arange(n_columns))
