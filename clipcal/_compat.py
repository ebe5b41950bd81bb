"""Imports of private names of scikit-learn.

They are imported in this module only, so that a scikit-learn release that changes one affects a single file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sklearn.base import BaseEstimator
from sklearn.base import _fit_context as _sklearn_fit_context
from sklearn.metrics._scorer import _BaseScorer
from sklearn.utils import _safe_indexing
from sklearn.utils._metadata_requests import _routing_enabled
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils._param_validation import validate_params as _sklearn_validate_params
from sklearn.utils.validation import _check_method_params, _check_sample_weight, _num_samples

__all__ = [
    "HasMethods",
    "Interval",
    "StrOptions",
    "_BaseScorer",
    "_check_method_params",
    "_check_sample_weight",
    "_fit_context",
    "_num_samples",
    "_routing_enabled",
    "_safe_indexing",
    "validate_parameters",
    "validate_params",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Function], _Function]:
    """Decorate ``fit`` to validate ``_parameter_constraints`` first; typed."""
    return _sklearn_fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)


def validate_params(constraints: Mapping[str, list[Any]]) -> Callable[[_Function], _Function]:
    """Decorate a function to validate its parameters first; typed."""
    return _sklearn_validate_params(dict(constraints), prefer_skip_nested_validation=True)


def validate_parameters(component: BaseEstimator) -> None:
    """Validate the parameters of an estimator against its ``_parameter_constraints``, as ``fit`` does."""
    component._validate_params()
