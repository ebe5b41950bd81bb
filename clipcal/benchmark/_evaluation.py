"""Evaluation of a method on the user's own images, without writing a plan."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipcal.benchmark._aggregate import make_grids
from clipcal.benchmark._components import is_trained
from clipcal.benchmark._formats import markdown_of
from clipcal.benchmark._plan import BASE_TO_NEW, FEW_SHOT, NONE, ZERO_SHOT, Entry, Plan
from clipcal.benchmark._results import read_results
from clipcal.benchmark._tables import summary_table
from clipcal.exceptions import PlanError

__all__ = ["evaluation_plan", "format_summaries"]


def evaluation_plan(
    source: str | os.PathLike[str],
    *,
    backbone: Any = "ViT-B-16/openai",
    method: str = "coop",
    regularizer: str | None = None,
    calibrator: str | None = "temperature",
    n_shots: int = 16,
    seeds: Sequence[int] = (1,),
    template: str | None = None,
    new_classes: bool = False,
    **classifier: Any,
) -> Plan:
    """Return the plan that compares a method with zero-shot classification on one's own images.

    Parameters
    ----------
    source : str or Path
        A source of :func:`clipcal.load_images`, such as a folder with one folder per class.
    backbone : str or Backbone, default="ViT-B-16/openai"
        The frozen CLIP.
    method : str, default="coop"
        Tuning method.
    regularizer : str, default=None
        Loss term, such as ``"dor"``. The method is also evaluated without it.
    calibrator : str, default="temperature"
        Calibrator, fitted on validation images. All models are also evaluated without it.
    n_shots : int, default=16
        Number of training images per class.
    seeds : sequence of int, default=(1,)
        Seeds of draws and training.
    template : str, default=None
        Prompt template; by default ``"a photo of a {}."``.
    new_classes : bool, default=False
        Whether to train on the first half of the classes, too, and to evaluate on both halves.
    **classifier : dict
        Parameters of the tuned classifiers, such as ``n_views=10``.

    Returns
    -------
    plan : Plan

    Raises
    ------
    PlanError
        If a value is invalid.

    Examples
    --------
    >>> from clipcal.benchmark import evaluation_plan
    >>> evaluation_plan("pets", method="kgcoop", regularizer="dor").datasets
    ('own:pets',)
    """
    name = f"own:{os.fspath(source)}"
    if regularizer not in (None, NONE) and not is_trained(Entry(method, method)):
        raise PlanError(
            f"The method {method!r} is not trained, so the regularizer {regularizer!r} has no effect."
        )
    return Plan.from_dict(
        {
            "name": Path(source).resolve().name,
            "backbone": backbone,
            "datasets": (name,),
            "protocols": (FEW_SHOT, BASE_TO_NEW) if new_classes else (FEW_SHOT,),
            "methods": (ZERO_SHOT, method) if method != ZERO_SHOT else (ZERO_SHOT,),
            "regularizers": _with_none(regularizer),
            "calibrators": _with_none(calibrator),
            "n_shots": (n_shots,),
            "seeds": tuple(seeds),
            "templates": {} if template is None else {name: template},
            "classifier": {key: value for key, value in classifier.items() if value is not None},
        }
    )


def format_summaries(results: str | os.PathLike[str]) -> str:
    """Return the averages of benchmark results as tables in Markdown.

    Parameters
    ----------
    results : str or Path
        Folder of results.

    Returns
    -------
    text : str

    Examples
    --------
    >>> import tempfile
    >>> from clipcal.benchmark import Plan, format_summaries, run_plan
    >>> plan = {"name": "a", "backbone": "mini", "datasets": ["mini/shapes-studio"], "methods": ["zero-shot"]}
    >>> folder = tempfile.mkdtemp()
    >>> summary = run_plan(Plan.from_dict(plan), folder)
    >>> "| zero-shot |" in format_summaries(folder)
    True
    """
    tables = [summary_table(grid, "std") for grid in make_grids(read_results(results))]
    return "\n\n".join(markdown_of(table).rstrip("\n") for table in tables) + "\n"


def _with_none(component: str | None) -> tuple[str, ...]:
    return (NONE,) if component in (None, NONE) else (NONE, component)
