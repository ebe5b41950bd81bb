"""What to type where a folder was given for the images in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

_SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# Images may lie in one folder a class, and these in one a split.
_MAX_DEPTH = 3
# Enough to see what kinds of files there are.
_MAX_LOOKED_AT = 10_000


def folder_advice(path: str | os.PathLike[str]) -> str:
    """Return an expression that gives the images of a folder.

    It names the kinds of files that are there, and ``*.jpg`` in a folder a class if none is found.
    """
    depth, suffixes = _found(path)
    return f"sorted({_listing(f'Path({str(path)!r})', depth, suffixes)})"


def folder_fault(paths: Sequence[Any] | NDArray[Any], i: int) -> str:
    """Say that a path is a folder, and what to type in its place."""
    got = f"{str(paths[i])!r} is a folder, and each path should be that of one image"
    if i or not all(os.path.isdir(path) for path in paths):
        return f"{got}. Leave it out, or put the images in it in its place: {folder_advice(paths[i])}."
    found = [_found(path) for path in islice(iter(paths), 100)]
    depth = max(depth for depth, _ in found)
    suffixes = set().union(*(suffixes for _, suffixes in found))
    listing = _listing("Path(folder)", depth, suffixes)
    return (
        f"{got}. Write X = [path for folder in X for path in sorted({listing})]; where the folders are named "
        "after the classes, y = [path.parent.name for path in X]."
    )


def _found(folder: str | os.PathLike[str]) -> tuple[int, set[str]]:
    """Return how deep in a folder images lie, and how their names end."""
    for depth in range(_MAX_DEPTH):
        files = islice(Path(folder).glob("*/" * depth + "*"), _MAX_LOOKED_AT)
        suffixes = {path.suffix for path in files if path.suffix.lower() in _SUFFIXES}
        if suffixes:
            return depth, suffixes
    return 1, set()


def _listing(folder: str, depth: int, suffixes: set[str]) -> str:
    below = "*/" * depth
    if len(suffixes) > 1:
        lower = ", ".join(map(repr, sorted({suffix.lower() for suffix in suffixes})))
        return f"path for path in {folder}.glob('{below}*') if path.suffix.lower() in {{{lower}}}"
    return f"{folder}.glob('{below}*{min(suffixes, default='.jpg')}')"
