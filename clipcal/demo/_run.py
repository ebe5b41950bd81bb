"""The main job on generated pictures: tune, measure on base and new classes, show."""

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
    KGCOOP,
    KGCOOP_DOR,
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

__all__ = ["run_demo"]

# Two fine-grained tasks in the domain of the pretraining, and one whose domain is far from it.
_TASKS = (("colors", "street"), ("colored-shapes", "street"), ("colors", "faded"))
_N_SEEDS = 3
# Enough for the trade-off to show, and few enough for two cores.
_MAX_EPOCHS = 30

# So many nouns that the pool is still chosen among several times as many.
_QUICK_NOUN_STEP = 8

_EXPLANATION = """\
Base classes are the half of a task's classes that a method was tuned on. New classes are the other half:
tuning saw none of their images, and afterwards the classifier is given nothing but their names. ECE, the
expected calibration error, is how far confidence is from accuracy on average: with an ECE of 0.05, of the
images to which the classifier gives a probability of 0.8 it typically has 0.75 or 0.85 right.
"""
_CLAIMS_HEADING = "The paper's claims on these tasks:"
_VERDICT_REMARK = """\
A claim holds (fails) if the mean over runs is two standard errors above (below) its bound, else it is open.
"""
_QUICK_REMARK = """\
One run decides no claim; without --quick the demo runs three tasks with three seeds. Outliers were drawn
from an eighth of WordNet.
"""
_REMARK = f"""\
CoOp and CoOp + DOR start from 16 random vectors, KgCoOp and KgCoOp + DOR from 'a photo of a'; the
temperature is fitted on {N_VALIDATION} further images of each base class. The figure pools all runs. Pooled
ECE is smaller than the mean over runs in the table: few images in a bin look like miscalibration, and tasks
that err in opposite ways cancel.
"""
_CLOSING = """\
The same on your own images (the first run downloads the weights):

    from clipcal import PromptTunedCLIPClassifier
    clf = PromptTunedCLIPClassifier("ViT-B-16/openai", regularizer="dor", verbose=1).fit(paths, labels)
"""


def run_demo(out: Path, *, n_jobs: int = -1, quick: bool = False) -> str:
    """Run every method on generated tasks with several seeds, and write what comes out.

    Parameters
    ----------
    out : Path
        Folder for ``results.csv``, ``results.md`` and ``reliability.png``; made if it is not there.
    n_jobs : int, default=-1
        Processes; -1 means as many as there are cores.
    quick : bool, default=False
        One task, one seed, and outliers from an eighth of WordNet, in place of three of each and all nouns.

    Returns
    -------
    report : str
        Explanations and tables, in Markdown.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the folder cannot be made or written to.
    """
    import_optional("matplotlib", extra="plot", caller="clipcal demo")
    # Before the work, as it would be lost.
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.md").touch()
    tasks, n_seeds, noun_step = (_TASKS[:1], 1, _QUICK_NOUN_STEP) if quick else (_TASKS, _N_SEEDS, 1)
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
        # The slowest first, so that no process ends with a long run while the others wait.
        slowest_first = sorted(fitted, key=[COOP_DOR, COOP, KGCOOP_DOR, KGCOOP, ZERO_SHOT].index)
        jobs = [delayed(run_cell)(cell, method, memory) for method in slowest_first for cell in cells]
        done = Parallel(n_jobs=n_jobs, return_as="generator")(jobs)
        shown = progress_bar(done, shown=True, description="Fitting", unit="fit", total=len(jobs))
        return [result for results in shown for result in results]


def _prepare_outliers(memory: Memory, noun_step: int) -> None:
    """Encode the candidates once, before processes start that would each do it."""
    from clipcal.backbones import open_backbone
    from clipcal.methods import zero_shot_features
    from clipcal.text import DEFAULT_TEMPLATE

    nouns = candidate_nouns(noun_step)
    zero_shot_features(open_backbone("mini"), nouns, DEFAULT_TEMPLATE, memory=memory, verbose=1)


def _draw(results: Sequence[CellResult], path: Path) -> None:
    """Draw reliability diagrams of all methods side by side, base above new, all runs pooled."""
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
    """Return the bins of several runs together, whatever their classes are called."""
    n_columns = max(result.y_prob.shape[1] for result in results)
    y_true = np.concatenate([np.searchsorted(r.classes, r.y_true) for r in results])
    y_prob = np.concatenate([np.pad(r.y_prob, ((0, 0), (0, n_columns - r.y_prob.shape[1]))) for r in results])
    return calibration_bins(y_true, y_prob, labels=np.arange(n_columns))
