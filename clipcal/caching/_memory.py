"""Conversion of the parameter ``memory`` of estimators to a cache."""

from __future__ import annotations

import os
from typing import Any, Protocol

from clipcal.caching._cache import FeatureCache


class HasLocation(Protocol):
    """The part of the interface of :class:`joblib.Memory` that identifies it and gives its folder."""

    location: Any

    def cache(self, func: Any) -> Any:
        """Wrap a function. Only the presence of the method matters; it is never called."""
        ...


MemoryLike = str | os.PathLike[str] | FeatureCache | HasLocation


def as_cache(memory: MemoryLike | None) -> FeatureCache | None:
    """Convert the parameter ``memory`` of estimators to a cache.

    Parameters
    ----------
    memory : str, Path, FeatureCache, joblib.Memory or None
        A folder, or an object with a folder as ``location``.

    Returns
    -------
    FeatureCache or None
        The cache. None, which disables caching, if `memory` is None or a Memory without a location.

    Raises
    ------
    TypeError
        If `memory` has another type.

    Examples
    --------
    >>> import tempfile
    >>> from clipcal.caching import as_cache
    >>> as_cache(None) is None
    True
    >>> as_cache(tempfile.mkdtemp())
    FeatureCache(...)
    """
    if memory is None or isinstance(memory, FeatureCache):
        return memory
    if isinstance(memory, (str, os.PathLike)):
        return FeatureCache(memory)
    if not hasattr(memory, "location"):
        raise TypeError(
            f"memory must be a folder, a FeatureCache, a joblib.Memory or None, got {type(memory).__name__}; "
            "write memory='path/of/a/folder'."
        )
    return None if memory.location is None else FeatureCache(memory.location)
