"""Warnings attributed to the line of user code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["advise_caller", "warn_caller", "without_advice"]

# scikit-learn calls scorers, possibly through joblib.
_PASSED_OVER = {"clipcal", "joblib", "sklearn"}
_ADVICE_IS_WANTED: ContextVar[bool] = ContextVar("_ADVICE_IS_WANTED", default=True)


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the innermost frame outside of clipcal, scikit-learn and joblib.

    Python shows a message once per line, so a warning that several metrics or folds issue appears once.

    Parameters
    ----------
    message : str
        The message.

    category : type of warning, default=UserWarning
        The warning category.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _PASSED_OVER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def advise_caller(message: str) -> None:
    """Warn about a questionable choice of the caller, unless within :func:`without_advice`.

    Parameters
    ----------
    message : str
        The message.
    """
    if _ADVICE_IS_WANTED.get():
        warn_caller(message)


@contextmanager
def without_advice() -> Iterator[None]:
    """Suppress :func:`advise_caller`, for example in scorers, which run for each fold and candidate."""
    token = _ADVICE_IS_WANTED.set(False)
    try:
        yield
    finally:
        _ADVICE_IS_WANTED.reset(token)
