"""What determines the numbers of a cell, and the key that it gives the cell."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from clipcal.benchmark._cells import Cell, Fit
from clipcal.benchmark._components import backbone_of, make_calibrator, make_classifier
from clipcal.benchmark._data import digest_of, part_facts
from clipcal.benchmark._plan import NONE, Plan

__all__ = ["FORMAT", "identify"]

FORMAT = 1
_PACKAGES = ("clipcal", "torch", "open_clip_torch", "scikit-learn", "numpy", "scipy")
# Parameters that do not change the numbers, or are recorded elsewhere.
_NOT_SETTINGS = ("backbone", "class_names", "device", "memory", "precision", "verbose")
# Longer lists, such as own lexicons, are recorded by their hash.
_MAX_LISTED = 50
_KEY_DIGITS = 32


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
    return [_identity(plan, fit, cell) for cell in fit.cells]


def _identity(plan: Plan, fit: Fit, cell: Cell) -> dict[str, Any]:
    train = part_facts(plan, fit.train_dataset, fit.classes, fit.n_shots, fit.seed)
    test = part_facts(plan, cell.dataset, cell.classes, fit.n_shots, fit.seed)
    classifier = make_classifier(plan, fit.method, fit.regularizer, template=train["template"], seed=fit.seed)
    calibrator = next(entry for entry in plan.calibrators if entry.name == cell.calibrator)
    calibrated = calibrator.component != NONE
    content = {
        "format": FORMAT,
        "cell": asdict(cell),
        "settings": {
            "estimator": described(classifier),
            "calibrator": described(make_calibrator(calibrator)) if calibrated else None,
            "n_bins": plan.n_bins,
        },
        "backbone": _backbone_facts(plan),
        "data": {
            "train": train["train"] if fit.n_shots else None,
            "validation": train["validation"] if calibrated else None,
            "test": test["test"],
            "draw": plan.draw if fit.n_shots else None,
            "template": train["template"],
            "class_names": test["class_names"],
            "notes": test["notes"],
        },
        "versions": _versions(),
    }
    return {"key": digest_of(content)[:_KEY_DIGITS], **content}


def described(value: Any) -> Any:
    """Return a value of a parameter in JSON; estimators as their class and their parameters."""
    if isinstance(value, BaseEstimator):
        params = value.get_params(deep=False)
        kept = {name: described(params[name]) for name in sorted(params) if name not in _NOT_SETTINGS}
        return {"class": type(value).__name__, **kept}
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return described(value.tolist())
    if isinstance(value, (list, tuple)):
        items = [described(item) for item in value]
        return items if len(items) <= _MAX_LISTED else {"n": len(items), "sha256": digest_of(items)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", None) or str(value)


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
