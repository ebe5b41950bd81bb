"""What determines the numbers of a cell, and the key that it gives the cell."""

from __future__ import annotations

import platform
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from clipcal.benchmark._cells import Cell, Fit
from clipcal.benchmark._components import backbone_of, lexicon_of, make_calibrator, make_classifier
from clipcal.benchmark._data import digest_of, part_facts
from clipcal.benchmark._plan import NONE, ZERO_SHOT, Plan
from clipcal.exceptions import PlanError
from clipcal.text import load_nouns

__all__ = ["FORMAT", "described", "identify"]

FORMAT = 1
_PACKAGES = ("clipcal", "torch", "open_clip_torch", "scikit-learn", "numpy", "scipy")
# Parameters that do not change the numbers, or are recorded elsewhere.
_NOT_SETTINGS = ("backbone", "class_names", "device", "memory", "precision", "verbose")
# Longer lists, such as own lexicons, are recorded by their hash.
_MAX_LISTED = 50
_KEY_DIGITS = 32
# The representation of objects whose class has none.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def identify(plan: Plan, fit: Fit) -> list[dict[str, Any]]:
    """Return what determines the numbers of each cell of a fit, with its key.

    Parameters
    ----------
    plan : Plan
        The plan.
    fit : Fit
        A fit of the plan. Its data sets are loaded without reading images.

    Returns
    -------
    identities : list of dict
        For each cell, ``format``, ``key``, ``cell``, ``settings``, ``backbone``, ``data`` and ``versions``.
        The key is a hash of the rest.
    """
    lexicon = _lexicon_digest(plan, fit)
    return [_identity(plan, fit, cell, lexicon) for cell in fit.cells]


def _identity(plan: Plan, fit: Fit, cell: Cell, lexicon: str | None) -> dict[str, Any]:
    train = part_facts(plan, fit.train_dataset, fit.classes, fit.n_shots, fit.seed)
    test = part_facts(plan, cell.dataset, cell.classes, fit.n_shots, fit.seed)
    # Zero-shot prompts take the template of the test images, other features that of the training images.
    template = (test if fit.method.component == ZERO_SHOT else train)["template"]
    classifier = make_classifier(plan, fit.method, fit.regularizer, template=template, seed=fit.seed)
    calibrator = next(entry for entry in plan.calibrators if entry.name == cell.calibrator)
    calibrated = calibrator.component != NONE
    content = {
        "format": FORMAT,
        "cell": asdict(cell),
        "settings": {
            "estimator": described(classifier, omitted=_NOT_SETTINGS),
            "calibrator": (
                described(make_calibrator(calibrator, template=train["template"])) if calibrated else None
            ),
            "lexicon": lexicon,
            "n_bins": plan.n_bins,
        },
        "backbone": _backbone_facts(plan),
        "data": {
            "train": train["train"] if fit.n_shots else None,
            "validation": train["validation"] if calibrated else None,
            "test": test["test"],
            "draw": plan.draw if fit.n_shots else None,
            "template": train["template"],
            "train_class_names": train["class_names"] if fit.n_shots else None,
            "class_names": test["class_names"],
            "notes": test["notes"],
        },
        "versions": _versions(),
    }
    return {"key": digest_of(content)[:_KEY_DIGITS], **content}


def described(value: Any, *, omitted: Collection[str] = ()) -> Any:
    """Return a value of a parameter in JSON; estimators as their class and their parameters.

    Parameters
    ----------
    value : object
        The value.
    omitted : collection of str
        Parameters of an estimator to leave out.

    Returns
    -------
    content : object

    Raises
    ------
    PlanError
        If the value cannot be told from others, such as two lambda expressions.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, BaseEstimator):
        params = value.get_params(deep=False)
        kept = {name: described(params[name]) for name in sorted(params) if name not in omitted}
        return {"class": _qualified(type(value)), **kept}
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, partial):
        return {"function": described(value.func), "args": described(value.args), **described(value.keywords)}
    # Arrays, tensors and columns of data frames.
    if hasattr(value, "__array__"):
        return described(np.asarray(value).tolist())
    if isinstance(value, (set, frozenset)):
        return described(sorted(value, key=str))
    if isinstance(value, (list, tuple)):
        items = [described(item) for item in value]
        return items if len(items) <= _MAX_LISTED else {"n": len(items), "sha256": digest_of(items)}
    text = _qualified(value) if hasattr(value, "__qualname__") else str(value)
    if "<lambda>" in text or "<locals>" in text or _ADDRESS.search(text):
        raise PlanError(
            f"The value {text} in a plan cannot be told from others in the keys of cells; use a function or "
            "a class that is defined at the top level of a module, or give the class a __repr__."
        )
    return text


def _qualified(found: Any) -> str:
    """Return the name of a function or a class, with its module if it is not part of clipcal."""
    own = str(found.__module__).split(".")[0] == "clipcal"
    return found.__qualname__ if own else f"{found.__module__}.{found.__qualname__}"


def _lexicon_digest(plan: Plan, fit: Fit) -> str | None:
    """Return a hash of the nouns of DOR, if they are those of a file."""
    term = lexicon_of(plan, fit.method, fit.regularizer)
    if term is None or not isinstance(term.lexicon, (str, Path)) or term.lexicon == "wordnet":
        return None
    return digest_of(load_nouns(term.lexicon))


def _backbone_facts(plan: Plan) -> dict[str, Any]:
    from clipcal.backbones import precision_of

    backbone = backbone_of(plan)
    return {
        "name": backbone.name or type(backbone).__name__,
        "fingerprint": backbone.fingerprint,
        "precision": precision_of(backbone),
    }


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
