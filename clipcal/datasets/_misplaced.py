"""Recognize images of a split file that exist in another place, or with another name."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

__all__ = ["misplacement"]


def misplacement(folder: Path, path: str) -> str:
    """Return advice for a missing image if it is in another place than expected.

    Parameters
    ----------
    folder : Path
        Folder of the images.
    path : str
        Relative path of a missing image.

    Returns
    -------
    advice : str
        Starts with a space; empty if nothing is known.
    """
    top, _, rest = path.partition("/")
    inside = folder / top
    if rest and (inside / top / rest).is_file():
        return f" They are one folder deeper, in {inside / top}; move them to {inside}."
    if (folder / folder.name / path).is_file():
        return f" They are one folder deeper, in {folder / folder.name}; move them to {folder}."
    spelling = _other_spelling(folder, path)
    if spelling:
        return spelling
    if rest and "/" not in rest and inside.is_dir():
        inner = next((name for name in sorted(os.listdir(inside)) if (inside / name).is_dir()), None)
        if inner is not None:
            return (
                f" {inside} has folders such as {inner!r}, but the split file has images there, with the "
                "names of the first release; a copy that is sorted by class cannot be used."
            )
    if rest and not inside.exists() and (folder / "train").is_dir() and (folder / "test").is_dir():
        return (
            f" {folder} has the folders 'train' and 'test', which are those of a copy that was sorted anew; "
            "the layout of the first release is needed."
        )
    return ""


def _other_spelling(folder: Path, path: str) -> str:
    """Return advice if a folder or the file differs only in case or in the form of Unicode."""
    place = folder
    for part in path.split("/"):
        if not place.is_dir():
            return ""
        names = os.listdir(place)
        if part not in names:
            same = next((name for name in sorted(names) if _plain(name) == _plain(part)), None)
            return "" if same is None else f" {place} has {same!r} instead of {part!r}; rename it."
        place = place / part
    return ""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
