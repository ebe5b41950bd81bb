"""Warnings that point at the user's line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["advise_caller", "warn_caller", "without_advice"]

# A scorer is called by scikit-learn, which may leave the calls to joblib.
_PASSED_OVER = {"clipcal", "joblib", "sklearn"}
_ADVICE_IS_WANTED: ContextVar[bool] = ContextVar("_ADVICE_IS_WANTED", default=True)


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that is neither in this package nor in what it is called through.

    Python shows a message once for each line, so one that is attributed to the user's line comes once,
    however many metrics or folds give rise to it.

    Parameters
    ----------
    message : str
        The text.

    category : type of warning, default=UserWarning
        What kind of warning it is.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _PASSED_OVER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def advise_caller(message: str) -> None:
    """Warn of a choice that the caller can make better, unless within :func:`without_advice`.

    Parameters
    ----------
    message : str
        The text.
    """
    if _ADVICE_IS_WANTED.get():
        warn_caller(message)


@contextmanager
def without_advice() -> Iterator[None]:
    """Keep advice back, such as in scorers, where it would come once for each fold and candidate."""
    token = _ADVICE_IS_WANTED.set(False)
    try:
        yield
    finally:
        _ADVICE_IS_WANTED.reset(token)
