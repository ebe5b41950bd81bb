"""The main job on generated pictures: tune, measure on base and new classes, show."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Memory, Parallel, cpu_count, delayed
from tqdm.auto import tqdm

from clipcal._optional import import_optional
from clipcal.benchmark._base_to_new import (
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
    run_cell,
)
from clipcal.benchmark._claims import check_claims
from clipcal.benchmark._tables import format_claims, format_table, write_csv
from clipcal.metrics import calibration_bins
from clipcal.plots import ReliabilityDisplay, ReliabilityGridDisplay

__all__ = ["run_demo"]

# Two fine-grained tasks in the domain of the pretraining, and one whose domain is far from it.
_TASKS = (("colors", "street"), ("colored-shapes", "street"), ("colors", "faded"))
_N_SEEDS = 3
# Enough for the trade-off to show, and few enough for two cores.
_MAX_EPOCHS = 30

_CLOSING = """\
The same on your own pictures (the first run downloads the weights):

    from clipcal import PromptTunedCLIPClassifier
    clf = PromptTunedCLIPClassifier("ViT-B-16/openai", regularizer="dor").fit(paths, labels)
"""


def run_demo(out: Path, *, n_jobs: int | None = None) -> str:
    """Run every method on three generated tasks with three seeds, and write what comes out.

    Parameters
    ----------
    out : Path
        Folder for ``results.csv``, ``results.md`` and ``reliability.png``; made if it is not there.
    n_jobs : int, default=None
        Processes; as many as there are cores by default.

    Returns
    -------
    report : str
        The tables, in Markdown.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    import_optional("matplotlib", extra="plot", caller="clipcal demo")
    out.mkdir(parents=True, exist_ok=True)
    cells = [Cell(task, domain, seed, _MAX_EPOCHS) for task, domain in _TASKS for seed in range(_N_SEEDS)]
    results = _run(cells, n_jobs)
    table = format_table(results)
    claims = format_claims(check_claims(results))
    tasks = ", ".join(f"{task} ({domain})" for task, domain in _TASKS)
    report = (
        f"Test pictures, per cent, mean ± standard deviation over {_N_SEEDS} seeds of each of the tasks\n"
        f"{tasks}:\n\n{table}\n\nThe paper's claims on these tasks:\n\n{claims}\n\n"
        "CoOp and CoOp + DOR start from 16 random vectors, KgCoOp and KgCoOp + DOR from 'a photo of a'; the\n"
        f"temperature is fitted on {N_VALIDATION} further pictures a base class.\n"
        "A claim holds (fails) if the mean over runs is two standard errors above (below) its bound.\n"
        "The picture pools all runs. Pooled ECE is smaller than the mean over runs in the table: few\n"
        "pictures in a bin look like miscalibration, and tasks that err in opposite ways cancel.\n"
    )
    write_csv(results, out / "results.csv")
    (out / "results.md").write_text(report, encoding="utf-8")
    _draw(results, out / "reliability.png")
    return f"{report}\nWritten to {out}: results.csv, results.md, reliability.png\n\n{_CLOSING}"


def _run(cells: Sequence[Cell], n_jobs: int | None) -> list[CellResult]:
    fitted = [method for method in METHODS if method != COOP_TEMPERATURE]
    n_jobs = n_jobs or cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        memory = Memory(folder, verbose=0)
        _prepare_outliers(memory)
        # The slowest first, so that no process ends with a long run while the others wait.
        slowest_first = sorted(fitted, key=[COOP_DOR, COOP, KGCOOP_DOR, KGCOOP, ZERO_SHOT].index)
        jobs = [delayed(run_cell)(cell, method, memory) for method in slowest_first for cell in cells]
        done = Parallel(n_jobs=n_jobs, return_as="generator")(jobs)
        return [result for results in tqdm(done, total=len(jobs), desc="fitting") for result in results]


def _prepare_outliers(memory: Memory) -> None:
    """Encode WordNet once, before processes start that would each do it."""
    from clipcal.backbones import open_backbone
    from clipcal.methods import zero_shot_features
    from clipcal.text import DEFAULT_TEMPLATE, load_nouns

    zero_shot_features(open_backbone("mini"), load_nouns(), DEFAULT_TEMPLATE, memory=memory, verbose=1)


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
