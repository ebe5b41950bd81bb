"""Checks of fitted attributes from a file: presence, types, shapes and finite values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator

from clipcal._caller import without_advice
from clipcal.calibration import (
    BetaMap,
    CalibratedCLIPClassifier,
    Calibrator,
    HistogramMap,
    IsotonicMap,
    VennAbersMap,
)
from clipcal.persistence._registry import CLIP_CLASSIFIERS, RECORDS

__all__ = ["check_fitted"]

# Sizes of axes by name. The first array with an axis of a name sets its size.
Sizes = dict[str, int]
Check = Callable[[Any, Sizes], bool]

# Attributes whose numbers need not be finite.
_ANY_NUMBERS = {"classes_", "seen_classes_", "history_", "recipe_"}


def _number(low: float = -np.inf, high: float = np.inf) -> Check:
    def check(value: Any, sizes: Sizes) -> bool:
        real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        return real and bool(low <= value <= high)

    return check


def _array(kinds: str, *shapes: tuple[str | int, ...]) -> Check:
    def fits(value: Any, shape: tuple[str | int, ...], sizes: Sizes) -> bool:
        if value.ndim != len(shape):
            return False
        pairs = list(zip(shape, value.shape, strict=True))
        if any(n != (size if isinstance(size, int) else sizes.get(size, n)) for size, n in pairs):
            return False
        sizes.update((size, n) for size, n in pairs if isinstance(size, str))
        return True

    def check(value: Any, sizes: Sizes) -> bool:
        return (
            isinstance(value, np.ndarray)
            and value.dtype.kind in kinds
            and any(fits(value, shape, sizes) for shape in shapes)
        )

    return check


def _is(*kinds: type) -> Check:
    return lambda value, sizes: isinstance(value, kinds)


def _list_of(check: Check, *lengths: str | int) -> Check:
    def every(value: Any, sizes: Sizes) -> bool:
        wanted = [sizes.get(n, -1) if isinstance(n, str) else n for n in lengths]
        fits = isinstance(value, list) and (not wanted or len(value) in wanted)
        return fits and all(check(item, sizes) for item in value)

    return every


def _learned(value: Any, sizes: Sizes) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(item, np.ndarray) and item.dtype.kind in "fi"
        for key, item in value.items()
    )


def _names(value: Any, sizes: Sizes) -> bool:
    return _array("O", ("features",))(value, sizes) and all(isinstance(name, str) for name in value)


def _map(value: Any, sizes: Sizes) -> bool:
    """Return whether a value is None or a function fitted by a score calibrator."""
    if value is None or isinstance(value, BetaMap):
        return value is None or all(_number()(item, sizes) for item in value)
    if type(value) not in RECORDS.values() or not all(_array("f", ("",))(item, {}) for item in value):
        return False
    first, *others = map(len, value)
    # Difference between the lengths of the other arrays and of the first array.
    longer = {IsotonicMap: 0, HistogramMap: -1, VennAbersMap: 1}[type(value)]
    return first > 0 and all(n == first + longer for n in others)


def _calibrator(value: Any, sizes: Sizes) -> bool:
    classes = getattr(value, "classes_", ())
    return isinstance(value, Calibrator) and len(classes) == sizes["n"]


def _or_none(check: Check) -> Check:
    return lambda value, sizes: value is None or check(value, sizes)


# Checks by name of the attribute, which has the same meaning in all estimators. Other attributes, such as
# those of a new calibrator, are only checked by `_try`.
_ATTRIBUTES: dict[str, Check] = {
    "classes_": _array("biufUSOmM", ("n",)),
    "n_features_in_": _number(1),
    "feature_names_in_": _names,
    # classifiers
    "class_names_": lambda value, sizes: isinstance(value, dict),
    "text_features_": _array("f", ("n", "d")),
    "logit_scale_": _number(1e-6, 1e6),
    "learned_": _learned,
    "history_": _list_of(_is(dict)),
    "recipe_": _is(dict),
    "tuned_names_": _list_of(_is(str)),
    "device_": _is(str),
    # calibrated classifiers
    "seen_classes_": _array("biufUSOmM", ("seen",)),
    "calibrator_": _or_none(_calibrator),
    "unseen_calibrator_": _or_none(_calibrator),
    "zero_logit_": _number(),
    "reference_features_": _or_none(_array("f", ("rows", "d"))),
    "zero_shot_": _or_none(_is(*CLIP_CLASSIFIERS)),
    # calibrators
    "temperature_": _number(0.0),
    "identified_": _is(bool, np.bool_),
    "smoothing_": _number(0.0, 1.0),
    "coef_": _array("f", ("n",), ("n", "n")),
    "intercept_": _array("f", ("n",)),
    "maps_": _list_of(_map, 1, "n"),
    "scales_": _array("f", ("n",)),
    "base_text_features_": _array("f", ("base", "d")),
    "base_zero_shot_features_": _array("f", ("base", "d2")),
    "right_rows_": _array("f", ("right", 2)),
    "right_weight_": _array("f", ("right",)),
    "right_bandwidth_": _array("f", (2,)),
    "wrong_rows_": _array("f", ("wrong", 2)),
    "wrong_weight_": _array("f", ("wrong",)),
    "wrong_bandwidth_": _array("f", (2,)),
    "group_edges_": _array("f", ("edges",)),
    "calibrators_": _list_of(_calibrator),
    "global_calibrator_": _or_none(_calibrator),
}
_REQUIRED = {
    "ZeroShotCLIPClassifier": {"class_names_", "text_features_", "logit_scale_", "n_features_in_"},
    "PromptTunedCLIPClassifier": {
        "class_names_",
        "text_features_",
        "logit_scale_",
        "n_features_in_",
        "method_",
        "tuned_names_",
        "recipe_",
        "learned_",
        "history_",
        "device_",
    },
    "CalibratedCLIPClassifier": {
        "estimator_",
        "calibrator_",
        "unseen_calibrator_",
        "seen_classes_",
        "reference_features_",
        "zero_logit_",
    },
}


def check_fitted(estimator: Any) -> None:
    """Check that an estimator from a file can predict.

    Raises
    ------
    ValueError
        If fitted attributes are missing, have an invalid type or shape, or are not finite.
    """
    fitted, name = vars(estimator), type(estimator).__name__
    missing = ({"classes_"} | _REQUIRED.get(name, set())) - set(fitted)
    if missing:
        raise ValueError(f"{name} lacks {sorted(missing)}")
    sizes: Sizes = {}
    if not _ATTRIBUTES["classes_"](fitted["classes_"], sizes):  # this check also sets sizes["n"]
        raise ValueError(f"{name}.classes_ is not an array of labels")
    for key in (key for key in fitted if key.endswith("_")):
        check = _ATTRIBUTES.get(key)
        if check is not None and not check(fitted[key], sizes):
            raise ValueError(f"{name}.{key} has an invalid type, shape or value")
        if key not in _ANY_NUMBERS and not _is_finite(fitted[key]):
            raise ValueError(f"{name}.{key} is not finite")
    if len(np.unique(fitted["classes_"])) != sizes["n"] or sizes["n"] < 1:
        raise ValueError(f"the classes of {name} are not distinct")
    if isinstance(estimator, CLIP_CLASSIFIERS):
        _check_classifier(estimator, sizes)
    elif isinstance(estimator, CalibratedCLIPClassifier):
        _check_calibrated(estimator)
    elif isinstance(estimator, Calibrator):
        if "calibrators_" in fitted and len(fitted["calibrators_"]) != sizes.get("edges", -2) + 1:
            raise ValueError(f"{name} does not have one calibrator for each group")
        _try(estimator)


def _is_finite(value: Any) -> bool:
    """Return whether all numbers in a value are finite."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, np.ndarray) and value.dtype.kind not in "f":
        return True
    return not isinstance(value, (float, np.floating, np.ndarray)) or bool(np.isfinite(value).all())


def _check_classifier(classifier: Any, sizes: Sizes) -> None:
    name, names = type(classifier).__name__, classifier.class_names_
    labels = classifier.classes_.tolist()
    if sizes["n"] < 2 or not _sorted(classifier.classes_):
        raise ValueError(f"the classes of {name} are not sorted, or fewer than two")
    if [*map(type, names)] != [*map(type, labels)] or list(names) != labels:
        raise ValueError(f"{name}.class_names_ and classes_ have different labels")
    if not all(isinstance(text, str) for text in names.values()):
        raise ValueError(f"{name}.class_names_ has values that are not text")
    width = classifier.n_features_in_
    if type(width) is not int or width != sizes["d"] or sizes.get("features", width) != width:
        raise ValueError(f"{name}.n_features_in_ is not the width of text_features_")
    if hasattr(classifier, "method_") and not hasattr(classifier.method_, "learner"):
        raise ValueError(f"{name}.method_ is not a tuning method")


def _check_calibrated(calibrated: Any) -> None:
    estimator, classes = calibrated.estimator_, calibrated.classes_
    inner = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    if not isinstance(inner, (*CLIP_CLASSIFIERS, CalibratedCLIPClassifier)) or not hasattr(inner, "classes_"):
        raise ValueError("CalibratedCLIPClassifier.estimator_ is not a fitted classifier of clipcal")
    if not _sorted(classes) or not _same(classes, inner.classes_):
        raise ValueError("CalibratedCLIPClassifier.classes_ are not those of estimator_")
    if calibrated.calibrator_ is None:
        raise ValueError("CalibratedCLIPClassifier.calibrator_ is missing")
    for calibrator in (calibrated.calibrator_, calibrated.unseen_calibrator_):
        if calibrator is not None and not _same(classes, getattr(calibrator, "classes_", None)):
            raise ValueError("CalibratedCLIPClassifier.classes_ are not those of its calibrators")
    reference = calibrated.reference_features_
    if ("proximity" in calibrated.calibrator_.side_inputs) != (reference is not None):
        raise ValueError("CalibratedCLIPClassifier.reference_features_ are inconsistent with its calibrator")
    if reference is not None and (not len(reference) or reference.shape[1] != inner.n_features_in_):
        raise ValueError("CalibratedCLIPClassifier.reference_features_ do not have n_features_in_ features")
    _check_zero_shot(calibrated, inner.n_features_in_)


def _check_zero_shot(calibrated: Any, width: int) -> None:
    zero_shot = vars(calibrated).get("zero_shot_")
    if ("zero_shot_logits" in calibrated.calibrator_.side_inputs) != (zero_shot is not None):
        raise ValueError("CalibratedCLIPClassifier.zero_shot_ is inconsistent with its calibrator")
    if zero_shot is None:
        return
    fitted = vars(zero_shot)
    if not _same(calibrated.classes_, fitted.get("classes_")) or fitted.get("n_features_in_") != width:
        raise ValueError("CalibratedCLIPClassifier.zero_shot_ has other classes or features")


def _sorted(classes: NDArray[Any]) -> bool:
    return _same(classes, np.unique(classes))


def _same(classes: NDArray[Any], other: Any) -> bool:
    return isinstance(other, np.ndarray) and bool(np.array_equal(classes, other))


def _try(calibrator: Any) -> None:
    """Calibrate two rows, which also checks attributes that are not in ``_ATTRIBUTES``."""
    n_classes = len(calibrator.classes_)
    logits = np.stack([np.zeros(n_classes), np.linspace(1.0, -1.0, n_classes)])
    every = {"proximity": np.array([0.5, 0.9]), "zero_shot_logits": logits}
    side = {name: every[name] for name in calibrator.side_inputs if name in every}
    with np.errstate(all="ignore"), warnings.catch_warnings(), without_advice():
        warnings.simplefilter("ignore")
        prob = calibrator.calibrate(logits, **side)
    if prob.shape != logits.shape or not (np.abs(prob.sum(axis=1) - 1.0) < 1e-6).all():
        raise ValueError(f"the fitted attributes of {type(calibrator).__name__} give no probabilities")
