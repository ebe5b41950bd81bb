"""Encode fitted estimators as a document of plain values and named arrays."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from clipcal._compat import validate_parameters
from clipcal.persistence._arrays import NUMBERS, tensor_of
from clipcal.persistence._registry import (
    CLIP_CLASSIFIERS,
    RECORDS,
    is_fittable,
    parameters_of,
    registered_name,
)

__all__ = ["FINGERPRINT", "FITTED", "LEFT_OUT", "MAX_DEPTH", "Encoder", "check_saveable"]

FITTED = re.compile(r"[a-z][a-z0-9_]*_")
# Parameters that depend on the machine.
LEFT_OUT = {"device", "memory"}
# The attribute of loaded classifiers that holds the fingerprint of their backbone.
FINGERPRINT = "_backbone_fingerprint_"
MAX_DEPTH = 32
# Suggested replacements of parameters that only fit uses.
_REPLACEMENTS = {"cv": "cv=5", "optimizer": "optimizer=None"}

Path = tuple[str, ...]


class Encoder:
    """Collect objects and arrays, each of them once.

    An object follows the objects that it refers to, so that references cannot form a cycle.

    Attributes
    ----------
    objects : list of dict
        A record of each object: its class, parameters and fitted attributes.
    tensors : dict of ndarray
        Arrays, named after their attributes.
    """

    def __init__(self) -> None:
        self.objects: list[dict[str, Any]] = []
        self.tensors: dict[str, NDArray[Any]] = {}
        # References to the objects keep their ids unique.
        self._numbers: dict[int, tuple[int, object]] = {}

    def add(self, value: Any, path: Path) -> int:
        """Add an object of a registered class; return its number."""
        if id(value) in self._numbers:
            return self._numbers[id(value)][0]
        name = registered_name(value)
        if name is None:
            raise _refusal(value, path)
        if is_fittable(type(value)):
            validate_parameters(value)
        record: dict[str, Any] = {"class": name, "params": self._parameters(value, path)}
        fitted = {key: item for key, item in vars(value).items() if FITTED.fullmatch(key)}
        if fitted and is_fittable(type(value)):
            record["fitted"] = {key: self._value(item, (*path, key)) for key, item in fitted.items()}
            if isinstance(value, CLIP_CLASSIFIERS):
                record["fingerprint"] = _fingerprint(value)
        self.objects.append(record)
        self._numbers[id(value)] = len(self.objects) - 1, value
        return len(self.objects) - 1

    def _parameters(self, value: Any, path: Path) -> dict[str, Any]:
        found = {key: getattr(value, key) for key in parameters_of(type(value)) if key not in LEFT_OUT}
        return {
            key: _backbone(item) if key == "backbone" else self._value(item, (*path, key))
            for key, item in found.items()
        }

    def _value(self, value: Any, path: Path) -> Any:
        if len(path) > MAX_DEPTH:
            raise TypeError(f"{'.'.join(path[:4])} is nested too deeply to be saved.")
        if isinstance(value, np.generic):
            return _scalar(value, path)
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if value is None or isinstance(value, np.random.RandomState):
            return None  # The state of a random number generator is not saved.
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, PurePath):
            return {"$path": os.fspath(value)}
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if isinstance(value, (list, tuple)):
            return self._sequence(value, path)
        return {"$object": self.add(value, path)}

    def _sequence(self, value: Any, path: Path) -> Any:
        items = [self._value(item, (*path, str(i))) for i, item in enumerate(value)]
        if isinstance(value, list):
            return items
        name = type(value).__name__
        if RECORDS.get(name) is type(value):
            return {"$record": [name, items]}
        if hasattr(value, "_fields"):
            raise _refusal(value, path)
        return {"$tuple": items}

    def _mapping(self, value: Mapping[Any, Any], path: Path) -> Any:
        # Keys become part of the names of tensors.
        pieces = [
            key if isinstance(key, str) and key.isascii() and key.isidentifier() else str(i)
            for i, key in enumerate(value)
        ]
        items = [
            (key, self._value(item, (*path, piece)))
            for piece, (key, item) in zip(pieces, value.items(), strict=True)
        ]
        if all(type(key) is str and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$dict": [[self._value(key, (*path, "key")), item] for key, item in items]}

    def _array(self, value: NDArray[Any], path: Path) -> Any:
        if value.dtype == object and value.ndim == 1:
            return {"$objects": [self._value(item, (*path, str(i))) for i, item in enumerate(value)]}
        found = tensor_of(value)
        if found is None:
            raise TypeError(
                f"{'.'.join(path)} is an array of the type {value.dtype}, which cannot be saved. Convert it "
                "to numbers or text first."
            )
        tensor, code, order = found
        name = ".".join(path[1:])
        self.tensors[name] = tensor
        return {"$array": [name, code, order]}


def _scalar(value: np.generic, path: Path) -> Any:
    if isinstance(value, np.str_):
        return {"$scalar": ["U", str(value)]}
    code = value.dtype.str[1:]
    if code not in NUMBERS:
        raise TypeError(f"{'.'.join(path)} is a {type(value).__name__}, which cannot be saved.")
    item = value.item()
    plain = item if not isinstance(item, float) or math.isfinite(item) else {"$float": repr(item)}
    return {"$scalar": [code, plain]}


def _backbone(backbone: Any) -> Any:
    """Return the name, or the class of an object that has no name."""
    name = backbone if isinstance(backbone, str) else getattr(backbone, "name", "")
    return name or {"$backbone": type(backbone).__name__}


def _fingerprint(classifier: Any) -> str:
    known = vars(classifier).get(FINGERPRINT)
    return known or classifier._open_backbone(classifier.n_features_in_).fingerprint


def _refusal(value: Any, path: Path) -> TypeError:
    """Return the error about a value that cannot be saved."""
    kind, where = type(value).__name__, ".".join(path)
    if path[-1] in ("estimator", "estimator_"):
        return TypeError(
            f"{where} is a {kind}, and clipcal.save can save CalibratedCLIPClassifier only around "
            "ZeroShotCLIPClassifier and PromptTunedCLIPClassifier. The calibrator by itself can be saved: "
            f"clipcal.save(clf.calibrator_, path); keep the {kind} in another way, such as joblib.dump."
        )
    if path[-1] in _REPLACEMENTS:
        return TypeError(
            f"{where} is {value!r}, which cannot be saved. Only fit uses it: replace it by "
            f"clf.set_params({_REPLACEMENTS[path[-1]]}), which does not change the fitted attributes."
        )
    return TypeError(
        f"{where} is an object of {type(value).__module__}.{kind}, which cannot be saved: files hold plain "
        "values and the methods, regularizers and calibrators of clipcal, but no other code. Replace it by "
        "set_params if only fit uses it, or save the estimator with joblib.dump."
    )


def check_saveable(estimator: Any) -> None:
    """Raise an error unless an estimator is fitted and of a class that can be saved."""
    if isinstance(estimator, (str, os.PathLike)):
        raise TypeError(
            f"The first argument is the estimator, got {estimator!r}: clipcal.save(estimator, path)."
        )
    if isinstance(estimator, type):
        raise TypeError(f"clipcal.save keeps fitted estimators; got the class {estimator.__name__}.")
    if registered_name(estimator) is None or not is_fittable(type(estimator)):
        raise TypeError(
            "clipcal.save keeps ZeroShotCLIPClassifier, PromptTunedCLIPClassifier, CalibratedCLIPClassifier "
            f"around these, and the calibrators of clipcal.calibration; got {type(estimator).__name__}. Save "
            "such parts of it alone, as in clipcal.save(pipeline[-1], path) or "
            "clipcal.save(search.best_estimator_, path)."
        )
    check_is_fitted(estimator, "classes_")
