"""Error messages for folders that were passed in place of image files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipcal.images._items import encoded

_SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# One folder per class, possibly inside one folder per split.
_MAX_DEPTH = 3
# Number of files to look at to find out the file types.
_MAX_LOOKED_AT = 10_000


def folder_advice(path: str | os.PathLike[str]) -> str:
    """Return a Python expression that lists the images in a folder.

    It is :func:`clipcal.load_images`, unless the folder holds images but no class folders.
    """
    depth, _ = _found(path)
    unlabeled = "" if depth == 1 else ", labeled=False"
    return f"clipcal.load_images({str(path)!r}{unlabeled}).images"


def folder_fault(paths: Sequence[Any] | NDArray[Any], i: int) -> str:
    """Return the error message for a path that is a folder."""
    folder = encoded(paths[i])
    got = f"{str(folder)!r} is a folder, but each path must be an image file"
    if i or not all(os.path.isdir(encoded(path)) for path in paths):
        return f"{got}. Remove it, or replace it with the images in it: {folder_advice(folder)}."
    found = [_found(encoded(path)) for path in islice(iter(paths), 100)]
    depth = max(depth for depth, _ in found)
    suffixes = set().union(*(suffixes for _, suffixes in found))
    listing = _listing("Path(folder)", depth, suffixes)
    return (
        f"{got}. Write X = [path for folder in X for path in sorted({listing})]; if the folders are named "
        "after the classes, y = [path.parent.name for path in X]."
    )


def _found(folder: str | os.PathLike[str]) -> tuple[int, set[str]]:
    """Return the depth at which a folder holds images, and their file suffixes."""
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
