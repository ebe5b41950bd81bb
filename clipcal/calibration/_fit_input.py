"""Validation of the input of CalibratedCLIPClassifier.fit, and distribution of its arguments."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import column_or_1d, indexable
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import has_fit_parameter

from clipcal._arrays import plain_labels
from clipcal._caller import warn_caller
from clipcal._compat import _check_method_params, _num_samples
from clipcal._weights import check_weight, rows_that_count, splits_among, take_rows

__all__ = ["FitInput", "distribute_params", "read_fit_input"]

# Splitters of these packages declare by metadata requests whether they use groups.
_DECLARING_PACKAGES = {"clipcal", "sklearn"}


class FitInput(NamedTuple):
    """Rows of positive weight, with splits and arguments that refer to these rows."""

    X: Any
    labels: NDArray[Any]
    weight: NDArray[np.float64]
    sample_weight: Any  # as passed; None if not passed
    cv: Any
    params: dict[str, Any]


def read_fit_input(
    X: Any, y: ArrayLike, sample_weight: ArrayLike | None, cv: Any, params: dict[str, Any]
) -> FitInput:
    """Validate labels and weights, and drop rows of weight zero.

    Parameters
    ----------
    X : indexable of length n_samples
        Input of the classifier.

    y : array-like of shape (n_samples,)
        True labels.

    sample_weight : array-like of shape (n_samples,) or None
        Weights.

    cv : object
        Parameter of the meta-estimator.

    params : dict
        Additional arguments of ``fit``; entries with one element per row are indexed as well.

    Returns
    -------
    rows : FitInput
        The rows of positive weight.

    Raises
    ------
    ValueError
        If there are no rows, weights are invalid, or `y` is not a classification target.
    """
    n_samples = _num_samples(X)
    if n_samples == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required by fit.")
    X, y = indexable(X, plain_labels(y))
    sample_weight = plain_labels(sample_weight)
    params = {name: plain_labels(value) for name, value in params.items()}
    rows = rows_that_count(sample_weight, n_samples)
    if rows is not None:
        cv = splits_among(cv, rows, n_samples)
        params = _check_method_params(X, params, indices=rows)
        X, y, sample_weight = take_rows(rows, X, y, np.asarray(sample_weight))
    check_classification_targets(y)
    labels = column_or_1d(y, warn=True)
    return FitInput(X, labels, check_weight(sample_weight, len(labels)), sample_weight, cv, params)


def distribute_params(estimator: Any, rows: FitInput) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of ``estimator.fit`` and ``splitter.split`` if metadata routing is disabled.

    Parameters
    ----------
    estimator : classifier
        The wrapped classifier.

    rows : FitInput
        Input of the meta-estimator.

    Returns
    -------
    fit_params, split_params : dict
        Groups are passed to a splitter and to an estimator that use them; all other arguments are passed
        to the estimator.

    Raises
    ------
    ValueError
        If the splitter needs groups that were not passed.

    TypeError
        If groups were passed, but neither splitter nor estimator uses them.
    """
    name = type(estimator).__name__
    fit_params = {key: value for key, value in rows.params.items() if key != "groups"}
    split_params = {}
    groups = rows.params.get("groups")
    if groups is not None:
        taken = has_fit_parameter(estimator, "groups") or _uses_groups(getattr(estimator, "cv", None))
        if _uses_groups(rows.cv):
            split_params["groups"] = groups
        elif not taken and not _takes_anything(estimator):
            raise TypeError(
                f"Neither cv={rows.cv!r} nor {name}.fit uses groups. Pass a splitter that does, such as "
                "cv=GroupKFold(5), or omit groups."
            )
        if taken or not split_params:
            fit_params["groups"] = groups
    elif _uses_groups(rows.cv) and _declares_requests(rows.cv):
        raise ValueError(f"cv={rows.cv!r} splits by groups; pass them: fit(X, y, groups=groups).")
    if rows.sample_weight is not None:
        if has_fit_parameter(estimator, "sample_weight"):
            fit_params["sample_weight"] = rows.sample_weight
        else:
            warn_caller(
                f"{name}.fit does not accept sample_weight, so the weights are used for the calibrator only."
            )
    return fit_params, split_params


def _uses_groups(cv: Any) -> bool:
    if isinstance(cv, str) or not hasattr(cv, "split"):
        return False
    if _declares_requests(cv):
        return bool(get_routing_for_object(cv).consumes("split", ["groups"]))
    return "groups" in inspect.signature(cv.split).parameters


def _declares_requests(cv: Any) -> bool:
    return type(cv).__module__.partition(".")[0] in _DECLARING_PACKAGES


def _takes_anything(estimator: Any) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(estimator.fit).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds
