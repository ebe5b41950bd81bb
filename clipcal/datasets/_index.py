"""Which images a data set on disk has, by subset and class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from clipcal.exceptions import DatasetError

__all__ = ["SUBSETS", "Index", "check_relative", "missing_files"]

SUBSETS = ("train", "validation", "test")


@dataclass
class Index:
    """The images of a data set.

    Parameters
    ----------
    folder : Path
        Folder that paths are relative to.
    class_ids : list of str
        Identifiers of the classes, in the order of the labels.
    class_names : dict of str to str
        Text of each class for prompts.
    paths : dict of str to list of str
        Relative paths of the images of each subset, with forward slashes.
    labels : dict of str to list of int
        Label of each image.
    info : dict
        ``file`` (of the split), ``sha256`` (of its content), and ``notes``.
    """

    folder: Path
    class_ids: list[str]
    class_names: dict[str, str]
    paths: dict[str, list[str]]
    labels: dict[str, list[int]]
    info: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for subset in SUBSETS:
            self.paths.setdefault(subset, [])
            self.labels.setdefault(subset, [])
        self.info.setdefault("notes", [])

    def keep(self, subset: str, rows: Iterable[int]) -> None:
        """Keep some images of a subset, in the given order."""
        kept = list(rows)
        self.paths[subset] = [self.paths[subset][row] for row in kept]
        self.labels[subset] = [self.labels[subset][row] for row in kept]

    def note(self, text: str) -> None:
        """Add a note."""
        notes = self.info["notes"]
        assert isinstance(notes, list)
        notes.append(text)


def missing_files(folder: Path, paths: Sequence[str]) -> list[int]:
    """Return the positions of the paths that do not exist. Each folder is listed once."""
    listed: dict[str, set[str]] = {}
    missing = []
    for row, path in enumerate(paths):
        parent, _, name = path.rpartition("/")
        if parent not in listed:
            try:
                listed[parent] = set(os.listdir(folder / parent))
            except OSError:
                listed[parent] = set()
        # File systems without case or with another form of Unicode find names that they list differently.
        if name not in listed[parent] and not (listed[parent] and os.path.exists(folder / path)):
            missing.append(row)
    return missing


def check_relative(path: object, where: str) -> str:
    """Return a path of a split file, after checking that it stays below the folder of the images."""
    if not isinstance(path, str) or not path:
        raise DatasetError(f"{where}: expected a relative path, got {path!r}.")
    parts = PurePosixPath(path.replace("\\", "/"))
    if not parts.parts or parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
        raise DatasetError(f"{where}: the path {path!r} is not below the folder of the images.")
    return parts.as_posix()
