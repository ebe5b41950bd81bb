"""Labeled images in data sets of Hugging Face's package ``datasets``, which is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clipcal.datasets._loaded import WHOLE, Labeled, Part, check_labels, split_name
from clipcal.datasets._tables import class_label, find_columns, numbered
from clipcal.images import LazyImages

__all__ = ["is_hugging_face", "read_hugging_face"]


def is_hugging_face(source: Any) -> bool:
    """Whether an object is a data set, or a mapping of splits to data sets, of Hugging Face."""
    if isinstance(source, Mapping):
        return bool(source) and all(is_hugging_face(part) for part in source.values())
    return hasattr(source, "features") and hasattr(source, "column_names")


def read_hugging_face(source: Any, *, columns: Mapping[str, str] | None, labeled: bool) -> Labeled:
    """Return the images and labels of a data set; images are neither decoded nor kept in memory."""
    named = source if isinstance(source, Mapping) else {WHOLE: source}
    what = f"the {type(source).__name__}"
    parts: dict[str, Part] = {}
    classes: list[list[str] | None] = []
    for split, data in named.items():
        if not hasattr(data, "__len__"):
            raise TypeError(
                f"An {type(data).__name__} gives its images in one order only. Load it without "
                "streaming=True, or take a part of it: "
                "datasets.Dataset.from_list(list(data.take(1000)), features=data.features)."
            )
        data = data.with_format(None)
        found = find_columns(
            data.column_names, columns, labeled=labeled, what=what, known=_by_type(data, columns, what)
        )
        labels, names = _labels(data, found["label"], what) if labeled else (None, None)
        classes.append(names)
        images, paths = _images(data, found["image"])
        parts[split_name(split)] = Part(images, labels, paths)
    if any(names != classes[0] for names in classes):
        raise ValueError(f"The splits of {what} have different class names; load each with load_images.")
    return Labeled.of(parts, what, **class_label(classes[0]) if classes[0] else {})


class _Rows:
    """A column of a data set that is read row by row, in all versions of ``datasets``."""

    def __init__(self, data: Any, name: str) -> None:
        self.data = data.select_columns([name])
        self.name = name

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Any:
        return self.data[i][self.name]


def _by_type(data: Any, columns: Mapping[str, str] | None, what: str) -> dict[str, str]:
    """Return the image column and the label column, if their types determine them."""
    known = {}
    for role, kind in (("image", "Image"), ("label", "ClassLabel")):
        found = [name for name, feature in data.features.items() if type(feature).__name__ == kind]
        if len(found) > 1 and role not in (columns or {}):
            raise ValueError(
                f"{what} has several {kind} columns, {found}; choose one: columns={{{role!r}: {found[0]!r}}}."
            )
        if len(found) == 1:
            known[role] = found[0]
    return known


def _labels(data: Any, name: str, what: str) -> tuple[list[Any], list[str] | None]:
    labels = data.select_columns([name])[:][name]
    names = list(getattr(data.features[name], "names", None) or []) or None
    missing = [i for i, label in enumerate(labels) if label is None or (names and label < 0)]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(labels)} rows of {what} have no label (None or -1), such as row "
            f"{missing[0]}. Drop them, or pass labeled=False for images without labels."
        )
    check_labels(labels, f"the column {name!r} of {what}")
    return labels, names


def _images(data: Any, name: str) -> tuple[LazyImages, tuple[str, ...]]:
    feature = data.features[name]
    paths: list[str | None] = [None] * len(data)
    if type(feature).__name__ == "Image" and feature.mode is None:
        # Encoded images are read like files: by this package, and hashed without decoding.
        data = data.select_columns([name]).cast_column(name, replace(feature, decode=False))
        paths = data.flatten().select_columns([f"{name}.path"])[:][f"{name}.path"]
    return LazyImages(_Rows(data, name)), numbered(paths)
