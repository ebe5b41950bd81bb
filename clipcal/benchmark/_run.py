"""Run a plan: fill the cells that are missing in a folder of results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from clipcal._progress import progress_bar
from clipcal.benchmark._cells import Fit, expand, where
from clipcal.benchmark._components import backbone_of, lexicon_of, needs_pixels, with_precision
from clipcal.benchmark._data import digest_of, embedded, forget_data
from clipcal.benchmark._engines import Engine, LocalEngine
from clipcal.benchmark._fit import Outcome, encode_nouns, lost, run_fit, threads_of
from clipcal.benchmark._identity import described, identify
from clipcal.benchmark._plan import Plan
from clipcal.benchmark._store import Store, is_done

__all__ = ["Job", "RunSummary", "missing_jobs", "n_cells_of", "plan_jobs", "run_plan", "select"]


@dataclass(frozen=True)
class Job:
    """A fit, and what determines each of its cells."""

    fit: Fit
    identities: tuple[Mapping[str, Any], ...]

    def only(self, wanted: Callable[[str], bool]) -> Job:
        """Return the job with those cells whose keys are wanted."""
        kept = [i for i, identity in enumerate(self.identities) if wanted(identity["key"])]
        cells = tuple(self.fit.cells[i] for i in kept)
        return Job(replace(self.fit, cells=cells), tuple(self.identities[i] for i in kept))


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Parameters
    ----------
    n_cells : int
        Number of cells of the plan, after ``conditions``.
    n_done : int
        Number of cells that were complete before.
    n_finished : int
        Number of cells that this run completed.
    failed : list of str
        Descriptions of the cells that failed, with their errors.

    Examples
    --------
    >>> from clipcal.benchmark import RunSummary
    >>> print(RunSummary(n_cells=6, n_done=4, n_finished=2))
    6 cells: 4 were complete, 2 were completed now, 0 failed, 0 are left
    """

    n_cells: int
    n_done: int
    n_finished: int
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.n_cells} cells: {self.n_done} were complete, {self.n_finished} were completed now, "
            f"{len(self.failed)} failed, {self.n_left} are left"
        ]
        return "\n".join(lines + [f"Failed: {told}" for told in self.failed])

    @property
    def n_left(self) -> int:
        """Number of cells that are neither complete nor failed."""
        return self.n_cells - self.n_done - self.n_finished - len(self.failed)


def run_plan(
    plan: Plan,
    results: str | os.PathLike[str],
    *,
    n_jobs: int | None = None,
    conditions: Mapping[str, Sequence[str]] | None = None,
    limit: int | None = None,
    memory: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    verbose: int = 0,
) -> RunSummary:
    """Run the fits of a plan whose cells are missing in a folder of results.

    Each cell is written as soon as it is measured. A run may be interrupted or killed at any moment; the
    next one does only what is missing. A cell is identified by everything that determines its numbers:
    parameters, data, weights and versions. Cells that failed are tried again.

    Parameters
    ----------
    plan : Plan
        The plan.
    results : str or Path
        Folder of results; it is created if needed.
    n_jobs : int, default=None
        Number of parallel fits; -1 means one per core. None is 1, or the number of
        ``joblib.parallel_config``.
    conditions : mapping of str to sequence of str, default=None
        Run only cells whose fields have one of these values, such as ``{"dataset": ["dtd", "eurosat"]}``.
    limit : int, default=None
        Greatest number of fits to run.
    memory : str or Path, default=None
        Folder of the cache of embeddings and text features. If None, the folder ``cache`` of the results.
    engine : Engine, default=None
        Where fits run, such as :class:`DaskEngine` for a cluster. If None, in `n_jobs` local processes.
    verbose : int, default=0
        If at least 1, a progress bar over fits is shown; if at least 2 and fits do not run in parallel, also
        those of each fit.

    Returns
    -------
    summary : RunSummary

    Raises
    ------
    PlanError
        If the plan has an unknown component, parameter or condition.
    ValueError
        If a data set is missing or damaged; the message says what to do.

    Examples
    --------
    >>> import tempfile
    >>> from clipcal.benchmark import Plan, run_plan
    >>> content = {"name": "trial", "backbone": "mini", "datasets": ["mini/shapes-studio"]}
    >>> plan = Plan.from_dict({**content, "methods": ["zero-shot"]})
    >>> folder = tempfile.mkdtemp()
    >>> run_plan(plan, folder).n_finished
    2
    >>> run_plan(plan, folder).n_done
    2
    """
    engine = engine or LocalEngine(n_jobs)
    jobs = plan_jobs(plan)
    store = Store(Path(results))
    store.write_plan(_plain(plan), [identity for job in jobs for identity in job.identities])
    chosen = select(jobs, conditions or {})
    missing = missing_jobs(chosen, store.folder)
    memory = os.path.abspath(memory or store.folder / "cache")
    if not engine.in_process:
        plan = with_precision(plan)
    n_cells, n_missing = n_cells_of(chosen), n_cells_of(missing)
    to_run = missing[:limit]
    _prepare(engine, plan, to_run, memory, verbose)
    failed, n_finished = [], 0
    within = max(0, verbose - 1) if engine.in_process else 0
    calls = [(plan, job.fit, job.identities, memory, within) for job in to_run]
    for i, found in _shown(engine.run(run_fit, calls), len(calls), "Fitting", "fit", verbose):
        outcomes = lost(to_run[i].identities, found) if isinstance(found, Exception) else found
        for outcome in outcomes:
            store.write(outcome)
            if outcome.predictions is None:
                failed.append(_told(outcome))
            else:
                n_finished += 1
    return RunSummary(n_cells, n_cells - n_missing, n_finished, failed)


def plan_jobs(plan: Plan) -> list[Job]:
    """Return the jobs of a plan, in its order.

    Parameters
    ----------
    plan : Plan
        The plan. Its data sets are loaded, without reading images, and its backbone is opened.

    Returns
    -------
    jobs : list of Job
    """
    forget_data()
    return [Job(fit, tuple(identify(plan, fit))) for fit in expand(plan)]


def select(jobs: Sequence[Job], conditions: Mapping[str, Sequence[str]]) -> list[Job]:
    """Return the jobs with those cells that meet all conditions; see :func:`where`."""
    kept = {cell for fit in where([job.fit for job in jobs], conditions) for cell in fit.cells}
    keys = {
        identity["key"]
        for job in jobs
        for cell, identity in zip(job.fit.cells, job.identities, strict=True)
        if cell in kept
    }
    chosen = [job.only(keys.__contains__) for job in jobs]
    return [job for job in chosen if job.fit.cells]


def missing_jobs(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """Return the jobs with those cells that are not complete in a folder of results."""
    left = [job.only(lambda key: not is_done(folder, key)) for job in jobs]
    return [job for job in left if job.fit.cells]


def n_cells_of(jobs: Sequence[Job]) -> int:
    """Return the number of cells of all jobs."""
    return sum(len(job.fit.cells) for job in jobs)


def _prepare(engine: Engine, plan: Plan, jobs: Sequence[Job], memory: str, verbose: int) -> None:
    """Encode test images and candidates for outliers once, before several fits need them."""
    fits = [job.fit for job in jobs]
    by_embedding = [fit for fit in fits if not needs_pixels(plan, fit.method, fit.regularizer)]
    names = {cell.dataset: None for fit in by_embedding for cell in fit.cells}
    lexicons = {
        digest_of([described(found.lexicon), described(found.template)]): found
        for fit in fits
        if (found := lexicon_of(plan, fit.method, fit.regularizer)) is not None
    }
    calls: list[tuple[Any, ...]] = [(_embed_tests, plan, name, memory) for name in names]
    calls += [(encode_nouns, plan, found, memory) for found in lexicons.values()]
    done = engine.run(_call, calls)
    for _, found in _shown(done, len(calls), "Encoding test images and nouns", "part", verbose):
        if isinstance(found, Exception):
            raise found


def _call(function: Callable[..., Any], plan: Plan, *given: Any) -> None:
    with threads_of(plan.n_threads):
        function(plan, *given)


def _embed_tests(plan: Plan, name: str, memory: str) -> None:
    embedded(plan, name, "test", memory=memory)


def _shown(done: Iterable[Any], total: int, description: str, unit: str, verbose: int) -> Any:
    return progress_bar(done, shown=verbose >= 1, description=description, unit=unit, total=total)


def _plain(plan: Plan) -> dict[str, Any]:
    content = {name: described(value) for name, value in vars(plan).items() if name != "backbone"}
    content["backbone"] = backbone_of(plan).name or type(backbone_of(plan)).__name__
    for key in ("methods", "regularizers", "calibrators"):
        content[key] = [described(asdict(entry)) for entry in getattr(plan, key)]
    return {**content, "root": None, "paper": [dict(entry) for entry in plan.paper]}


def _told(outcome: Outcome) -> str:
    cell = outcome.record["cell"]
    model = f"{cell['method']}, {cell['regularizer']}, {cell['calibrator']}"
    data = f"{cell['dataset']} ({cell['classes']}), seed {cell['seed']}"
    return f"{model} on {data}: {outcome.record['error']}"
