"""Restore the fitted attributes of an estimator if ``fit`` fails."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

__all__ = ["all_or_nothing"]

_Fit = TypeVar("_Fit", bound=Callable[..., Any])


def all_or_nothing(fit: _Fit) -> _Fit:
    """Decorate ``fit`` to restore the previous fitted attributes if it raises."""

    @wraps(fit)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = {name: value for name, value in vars(self).items() if name.endswith("_")}
        try:
            return fit(self, *args, **kwargs)
        except BaseException:
            for name in [name for name in vars(self) if name.endswith("_")]:
                delattr(self, name)
            vars(self).update(before)
            raise

    return cast(_Fit, guarded)
