"""Sequences of images that are read when needed, and can be indexed like arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from clipcal.images._folders import folder_advice

__all__ = ["ImagePaths", "LazyImages", "is_lazy_column", "lazy_column"]


class ImagePaths(Sequence[Path]):
    """Image paths that can be indexed like an array; the images are read when needed.

    Parameters
    ----------
    paths : sequence of str or Path
        The files.
    root : str, Path or None, default=None
        Folder that relative paths are relative to. If None, the working directory.

    Attributes
    ----------
    paths : tuple of str
        The files, as given.
    root : str or None
        The folder, as given.

    Examples
    --------
    >>> from clipcal.images import ImagePaths
    >>> paths = ImagePaths(["cat.png", "dog.png", "cow.png"], root="animals")
    >>> len(paths)
    3
    >>> paths[1:]
    ImagePaths(2 paths, 'dog.png' to 'cow.png', root='animals')
    >>> paths[[True, False, True]].paths
    ('cat.png', 'cow.png')
    >>> paths[0].as_posix()
    'animals/cat.png'
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], root: str | os.PathLike[str] | None = None
    ) -> None:
        if isinstance(paths, (str, bytes, os.PathLike)):
            path = str(os.fsdecode(paths))
            code = folder_advice(path) if os.path.isdir(path) else f"ImagePaths([{path!r}])"
            raise TypeError(f"ImagePaths takes a sequence of paths; write {code}.")
        self.paths = tuple(os.fsdecode(path) for path in paths)
        self.root = None if root is None else os.fsdecode(root)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, key: int) -> Path: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | Sequence[bool] | NDArray[Any]) -> ImagePaths: ...
    def __getitem__(self, key: Any) -> Path | ImagePaths:
        if isinstance(key, slice):
            return ImagePaths(self.paths[key], self.root)
        rows = _positions(key, len(self), "paths")
        if rows.ndim:
            return ImagePaths([self.paths[i] for i in rows], self.root)
        path = self.paths[int(rows)]
        return Path(path) if self.root is None else Path(self.root, path)

    def __iter__(self) -> Iterator[Path]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImagePaths):
            return NotImplemented
        return (self.paths, self.root) == (other.paths, other.root)

    def __hash__(self) -> int:
        return hash((self.paths, self.root))

    def __repr__(self) -> str:
        ends = f", {self.paths[0]!r} to {self.paths[-1]!r}" if self.paths else ""
        root = "" if self.root is None else f", root={self.root!r}"
        return f"ImagePaths({len(self)} paths{ends}{root})"


class LazyImages(Sequence[Any]):
    """Images of any indexable source that can be indexed like an array; each is fetched when needed.

    Slices, masks and index arrays select rows without fetching images, so cross-validation and
    ``train_test_split`` keep the images where they are.

    Parameters
    ----------
    source : indexable
        Object with ``len(source)`` and ``source[i]``, which returns an image: a path, the content of an image
        file as bytes, a record ``{"bytes": ..., "path": ...}``, a PIL image or a uint8 array. Several threads
        may read at the same time.
    rows : array-like of int or None, default=None
        Positions in the source, in order. If None, all.

    Attributes
    ----------
    source : indexable
        The source, as given.
    rows : ndarray of int, shape (n_images,)
        The positions in the source.

    Examples
    --------
    >>> from clipcal.images import LazyImages
    >>> images = LazyImages(["cat.png", "dog.png", "cow.png"])
    >>> images[0]
    'cat.png'
    >>> list(images[[True, False, True]])
    ['cat.png', 'cow.png']
    """

    def __init__(self, source: Any, rows: Any = None) -> None:
        self.source = source
        self.rows = np.arange(len(source)) if rows is None else np.asarray(rows, dtype=np.intp)

    @property
    def shape(self) -> tuple[int]:
        """Number of images, as a tuple: scikit-learn then indexes rows by arrays instead of one by one."""
        return (len(self),)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        # scikit-learn selects rows of arrays by X[rows, ...].
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
            key = key[0]
        if isinstance(key, slice):
            return LazyImages(self.source, self.rows[key])
        rows = _positions(key, len(self), "images")
        if rows.ndim:
            return LazyImages(self.source, self.rows[rows])
        return self.source[int(self.rows[int(rows)])]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"LazyImages({len(self)} images of a {type(self.source).__name__})"


def is_lazy_column(X: Any) -> bool:
    """Whether X is a column of a Hugging Face data set, which decodes images at each access."""
    return all(hasattr(X, name) for name in ("source", "column_name", "features", "__len__", "__getitem__"))


def lazy_column(column: Any) -> LazyImages:
    """Convert a column of a Hugging Face data set, without decoding it.

    If possible, the column is read as encoded files, which are decoded by this package and hashed without
    decoding.
    """
    data, name, feature = column.source, column.column_name, column.features
    plain = type(feature).__name__ == "Image" and feature.decode and feature.mode is None
    if plain and hasattr(data, "cast_column") and data.format["type"] is None:
        data = data.select_columns([name]).cast_column(name, replace(feature, decode=False))
        return LazyImages(data[name])
    return LazyImages(column)


def _positions(key: Any, n: int, what: str) -> NDArray[np.intp]:
    """Return the positions that an int, a mask or an index array selects; 0-D for an int."""
    index = np.asarray(key)
    if index.ndim > 1 or not (index.dtype.kind in "iu" or (index.ndim and index.dtype == bool)):
        if index.shape == (0,):  # an empty list has the type float
            return index.astype(np.intp)
        raise IndexError(
            f"{what.capitalize()} are indexed by an int, a slice, a mask or a 1-D array of ints, got {key!r}."
        )
    if index.ndim == 0:
        return index
    if index.dtype == bool:
        if len(index) != n:
            raise IndexError(f"The mask has {len(index)} entries for {n} {what}.")
        return np.flatnonzero(index)
    return index.astype(np.intp)
