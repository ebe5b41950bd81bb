"""Labeled images from any source, and their conversion to a Bunch."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from clipcal._caller import warn_caller
from clipcal.exceptions import ImageReadError
from clipcal.images import ImagePaths

__all__ = [
    "SPLITS",
    "WHOLE",
    "Labeled",
    "Part",
    "assemble",
    "check_files",
    "check_labels",
    "check_rows",
    "sorted_ids",
    "split_name",
    "to_bunch",
]

# Names of the splits, in order; the other names that are recognized.
SPLITS = ("train", "validation", "test")
_OTHER_NAMES = {"training": "train", "val": "validation", "valid": "validation", "testing": "test"}
# Key of the only part of a source without splits.
WHOLE = ""


@dataclass
class Part:
    """Images of one split, their labels (None if they have none), and a distinct name of each image."""

    images: Any
    labels: list[Any] | None
    paths: tuple[str, ...]


@dataclass
class Labeled:
    """The parts of a source by split, its classes in order, and their texts."""

    parts: dict[str, Part]
    class_ids: list[Any]
    class_names: dict[Any, str]
    what: str

    @classmethod
    def of(
        cls,
        parts: dict[str, Part],
        what: str,
        *,
        class_ids: Sequence[Any] | None = None,
        names: Mapping[Any, str] | None = None,
    ) -> Labeled:
        """Make one from its parts; classes without a name have their label, without underscores, as text."""
        if class_ids is None:
            class_ids = sorted_ids(label for part in parts.values() for label in part.labels or ())
        names = names or {}
        texts = {key: names[key] if key in names else str(key).replace("_", " ") for key in class_ids}
        if texts and all(text.isdecimal() for text in texts.values()):
            examples = ", ".join(map(repr, list(texts)[:3]))
            warn_caller(
                f"The classes of {what} are numbers ({examples}), but CLIP classifies by their names: pass "
                f"class_names={{{next(iter(texts))!r}: ...}} with a name for each to the classifier."
            )
        return cls(parts, list(class_ids), texts, what)


def split_name(name: str) -> str:
    """Return the standard name of a split; other names unchanged."""
    lower = name.lower()
    return lower if lower in SPLITS else _OTHER_NAMES.get(lower, name)


def sorted_ids(labels: Any) -> list[Any]:
    """Return the distinct labels in order; strings that are all numbers are sorted by value."""
    ids = set(labels)
    if all(isinstance(label, str) and label.isdecimal() for label in ids):
        return sorted(ids, key=lambda label: (int(label), label))
    return sorted(ids)


def assemble(
    images: Any,
    paths: tuple[str, ...],
    labels: list[Any] | None,
    splits: list[str] | None,
    what: str,
    **classes: Any,
) -> Labeled:
    """Group rows by their split.

    Parameters
    ----------
    images : ImagePaths, LazyImages or ndarray
        The images of all rows.
    paths : tuple of str
        Names of the images.
    labels, splits : list or None
        Label and split of each row.
    what : str
        The source, for messages.
    **classes : dict
        ``class_ids`` and ``names`` of :meth:`Labeled.of`.
    """
    if splits is None:
        return Labeled.of({WHOLE: Part(images, labels, paths)}, what, **classes)
    rows: dict[str, list[int]] = {}
    for i, split in enumerate(splits):
        rows.setdefault(split_name(split), []).append(i)
    _check_disjoint(paths, rows, what)
    parts = {
        split: Part(
            images[np.array(found)],
            None if labels is None else [labels[i] for i in found],
            tuple(paths[i] for i in found),
        )
        for split, found in rows.items()
    }
    return Labeled.of(parts, what, **classes)


def check_files(images: ImagePaths, what: str) -> None:
    """Raise ImageReadError if some files do not exist."""
    missing = [str(path) for path in images if not os.path.isfile(path)]
    if missing:
        raise ImageReadError(
            f"{len(missing)} of the {len(images)} images in {what} do not exist, such as {missing[0]!r}. "
            f"Relative paths are relative to {images.root!r}; to change that, pass root=, the folder of the "
            "images."
        )


def check_labels(labels: Sequence[Any], what: str) -> None:
    """Raise if labels are empty, or neither all strings nor all integers."""
    kinds = {type(label).__name__ for label in labels}
    if len(kinds) > 1 or not kinds <= {"int", "str"}:
        raise ValueError(
            f"The labels of {what} are {' and '.join(sorted(kinds))} objects, but labels are all str or all "
            "int. Convert them; of a table, another column can be chosen with columns={'label': ...}."
        )
    if "" in labels:
        raise ValueError(f"The label of row {list(labels).index('')} of {what} is empty.")


def check_rows(paths: Sequence[str], labels: Sequence[Any], what: str) -> None:
    """Raise if an image has two labels; warn if images occur twice."""
    first: dict[str, Any] = {}
    for path, label in zip(paths, labels, strict=True):
        other = first.setdefault(_plain(path), label)
        if other != label:
            raise ValueError(
                f"{path!r} occurs with the labels {other!r} and {label!r} in {what}; each image must have "
                "one label."
            )
    if len(first) < len(paths):
        warn_caller(f"{len(paths) - len(first)} rows of {what} repeat the image of an earlier row.")


def _check_disjoint(paths: Sequence[str], rows: Mapping[str, Sequence[int]], what: str) -> None:
    owners: dict[str, str] = {}
    for split, found in rows.items():
        for i in found:
            owner = owners.setdefault(_plain(paths[i]), split)
            if owner != split:
                raise ValueError(
                    f"{paths[i]!r} is in the splits {owner!r} and {split!r} of {what}; splits must not share "
                    "images."
                )


def _plain(path: str) -> str:
    """Return the same text for all spellings of a path, such as ``./a.jpg`` and ``a.jpg``."""
    return unicodedata.normalize("NFC", os.path.normpath(path))


def to_bunch(data: Labeled, split: str | None) -> Bunch:
    """Return the whole source, or one split of it."""
    shared = {"class_ids": data.class_ids, "class_names": data.class_names}
    splits = [name for name in data.parts if name != WHOLE]
    if split is None and splits:
        # Every split exists, so that code for one source runs on another; it may be empty.
        empty = Part(ImagePaths([]), [], ())
        parts = {name: _part(data.parts.get(name, empty), data) for name in dict.fromkeys((*SPLITS, *splits))}
        sizes = ", ".join(f"{len(parts[name].paths)} {name}" for name in splits)
        return Bunch(**parts, **shared, DESCR=_description(data, sizes))
    name = WHOLE if split is None else split_name(split)
    if name not in data.parts:
        has = f"its splits are {', '.join(map(repr, splits))}" if splits else "it has no splits"
        raise ValueError(f"split={split!r} is not in {data.what}; {has}.")
    part = _part(data.parts[name], data)
    sizes = f"{len(part.paths)} {name}" if name else str(len(part.paths))
    return Bunch(**part, **shared, DESCR=_description(data, sizes))


def _part(part: Part, data: Labeled) -> Bunch:
    target: NDArray[Any] | None = None
    if part.labels is not None:
        # With the type of all labels: an empty array would be of floats, and strings of another width.
        target = np.array([*part.labels, *data.class_ids])[: len(part.labels)]
    return Bunch(images=part.images, target=target, paths=part.paths)


def _description(data: Labeled, sizes: str) -> str:
    classes = f" of {len(data.class_ids)} classes" if data.class_ids else ""
    return f"Images of {data.what}: {sizes} images{classes}."
