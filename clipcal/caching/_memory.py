"""What estimators accept as ``memory``."""

from __future__ import annotations

import os
from typing import Any, Protocol

from clipcal.caching._cache import FeatureCache


class HasLocation(Protocol):
    """What :class:`joblib.Memory` is to us: something that knows its folder."""

    location: Any

    def cache(self, func: Any) -> Any:
        """Wrap a function; never called."""
        ...


MemoryLike = str | os.PathLike[str] | FeatureCache | HasLocation


def as_cache(memory: MemoryLike | None) -> FeatureCache | None:
    """Turn what estimators take as ``memory`` into a cache.

    Parameters
    ----------
    memory : str, Path, FeatureCache, joblib.Memory or None
        A folder, or what has one as ``location``.

    Returns
    -------
    FeatureCache or None
        None where nothing is to be kept: for None, and a Memory without a location.

    Raises
    ------
    TypeError
        If it is something else.
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
