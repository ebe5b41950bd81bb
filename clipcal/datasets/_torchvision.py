"""Labeled images in data sets of torchvision and of the same form; no package is imported for them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipcal._arrays import to_numpy
from clipcal.datasets._loaded import WHOLE, Labeled, Part, check_labels
from clipcal.datasets._tables import numbered
from clipcal.images import ImagePaths, LazyImages

__all__ = ["is_torch_dataset", "read_torch_dataset"]

# Attributes of torchvision's data sets that hold (path, label) pairs, or paths, or labels.
_PAIRS = ("samples", "imgs", "_samples")
_PATHS = ("_image_files", "_images", "image_files")
_LABELS = ("_labels", "targets", "labels", "y")


def is_torch_dataset(source: Any) -> bool:
    """Whether an object has items (image, label), as data sets of torchvision do."""
    return (
        hasattr(source, "__len__")
        and hasattr(source, "__getitem__")
        and not hasattr(source, "dtype")  # arrays and columns
        and not hasattr(source, "columns")  # tables
        and not isinstance(source, (Sequence, Mapping, bytes))
    )


def read_torch_dataset(source: Any, *, labeled: bool) -> Labeled:
    """Return the images and labels of a data set, without its transforms.

    Files are read later, if the data set has a list of them. Otherwise, each access decodes the image again.
    """
    found = _read(source)
    if type(source).__name__ == "SUN397":
        # Its files are listed in the order of the file system, which differs between machines.
        found = found.take(sorted(range(len(found.labels)), key=lambda i: str(found.images[i])))
    what = f"the {type(source).__name__} data set"
    if not found.labels:
        raise ValueError(f"{what} is empty.")
    images, paths = found.arranged()
    if not labeled:
        return Labeled.of({WHOLE: Part(images, None, paths)}, what)
    if any(isinstance(label, int) and label < 0 for label in found.labels):
        raise ValueError(
            f"Some labels of {what} are negative, as for images without a label; drop these images."
        )
    check_labels(found.labels, what)
    part = Part(images, found.labels, paths)
    if found.classes is None:
        return Labeled.of({WHOLE: part}, what)
    names = {i: _text(name) for i, name in enumerate(found.classes)}
    if not names.keys() >= set(found.labels):
        return Labeled.of({WHOLE: part}, what)
    return Labeled.of({WHOLE: part}, what, class_ids=list(names), names=names)


@dataclass
class _Found:
    """Images: a list of paths or of lazy items, or an array; labels; class names in the order of labels."""

    images: Any
    labels: list[Any]
    classes: list[Any] | None

    def take(self, rows: Sequence[int]) -> _Found:
        rows = [int(i) for i in rows]
        images = self.images[rows] if isinstance(self.images, np.ndarray) else [self.images[i] for i in rows]
        return _Found(images, [self.labels[i] for i in rows], self.classes)

    def arranged(self) -> tuple[Any, tuple[str, ...]]:
        """Return the images in a form that classifiers accept, and a name of each."""
        if isinstance(self.images, np.ndarray):
            return self.images, numbered([None] * len(self.images))
        if all(isinstance(image, (str, Path)) for image in self.images):
            paths = [Path(image).as_posix() for image in self.images]
            return ImagePaths(paths), tuple(paths)
        return LazyImages(_Items(self.images)), numbered([None] * len(self.images))


@dataclass
class _Item:
    """An image that is decoded at access."""

    data: Any
    row: int


class _Items:
    """A list of paths and of images that are decoded at access."""

    def __init__(self, images: list[Any]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Any:
        image = self.images[i]
        return image.data[image.row][0] if isinstance(image, _Item) else image


def _read(data: Any) -> _Found:
    if hasattr(data, "datasets") and hasattr(data, "cumulative_sizes"):
        return _joined([_read(part) for part in data.datasets])
    if hasattr(data, "dataset") and hasattr(data, "indices"):
        return _read(data.dataset).take(data.indices)
    classes = _classes(data)
    for name in _PAIRS:
        pairs: Any = getattr(data, name, None)
        if _is_pairs(pairs, len(data)):
            return _Found([path for path, _ in pairs], [_plain(label) for _, label in pairs], classes)
    labels = _labels(data)
    paths = _paths(data)
    if paths is not None and labels is not None:
        return _Found(paths, labels, classes)
    pixels = _pixels(data)
    if pixels is not None and labels is not None:
        return _Found(pixels, labels, classes)
    bare = _without_transforms(data)
    if labels is None:
        labels = [_plain(bare[i][1]) for i in range(len(bare))]
    return _Found([_Item(bare, i) for i in range(len(bare))], labels, classes)


def _joined(parts: list[_Found]) -> _Found:
    classes = parts[0].classes
    if any(part.classes != classes for part in parts):
        raise ValueError("The data sets in the ConcatDataset have different classes; load each by itself.")
    images: list[Any] = [image for part in parts for image in part.images]
    return _Found(images, [label for part in parts for label in part.labels], classes)


def _is_pairs(pairs: Any, n: int) -> bool:
    return (
        isinstance(pairs, list)
        and len(pairs) == n
        and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
        and all(isinstance(path, (str, Path)) for path, _ in pairs)
    )


def _plain(label: Any) -> Any:
    """Return a label as a plain int or str."""
    label = to_numpy(label)
    return label.item() if hasattr(label, "item") and np.ndim(label) == 0 else label


def _labels(data: Any) -> list[Any] | None:
    for name in _LABELS:
        labels = to_numpy(getattr(data, name, None))
        if (
            isinstance(labels, (list, tuple, np.ndarray))
            and len(labels) == len(data)
            and np.ndim(labels) == 1
        ):
            return [_plain(label) for label in labels]
    return None


def _paths(data: Any) -> list[Any] | None:
    for name in _PATHS:
        paths: Any = getattr(data, name, None)
        listed = isinstance(paths, (list, tuple)) and len(paths) == len(data)
        if listed and all(isinstance(path, (str, Path)) for path in paths):
            return list(paths)
    if all(hasattr(data, name) for name in ("index", "y", "categories", "root")):  # Caltech101
        folder = Path(data.root, "101_ObjectCategories")
        rows = zip(data.y, data.index, strict=True)
        return [folder / data.categories[label] / f"image_{number:04d}.jpg" for label, number in rows]
    return None


def _pixels(data: Any) -> Any:
    """Return the array of all images, if the data set has one."""
    pixels = to_numpy(getattr(data, "data", None))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or len(pixels) != len(data):
        return None
    if pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.shape[-1] != 3:
        return np.moveaxis(pixels, 1, -1)
    return pixels if pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[-1] == 3) else None


def _classes(data: Any) -> list[Any] | None:
    classes = getattr(data, "classes", None)
    if classes is None:
        classes = getattr(data, "categories", None)
    return list(classes) if isinstance(classes, (list, tuple)) and classes else None


def _text(name: Any) -> str:
    # The classes of torchvision's ImageNet are tuples of synonyms.
    return str(name[0] if isinstance(name, tuple) else name).replace("_", " ")


def _without_transforms(data: Any) -> Any:
    """Return a copy of the data set that gives the images as they are stored."""
    bare = copy.copy(data)
    # Not None, as some data sets call their transform without a check.
    for name, unchanged in (("transform", _same), ("target_transform", _same), ("transforms", _same_pair)):
        if getattr(bare, name, None) is not None:
            setattr(bare, name, unchanged)
    return bare


def _same(value: Any) -> Any:
    return value


def _same_pair(image: Any, target: Any) -> tuple[Any, Any]:
    return image, target
