"""Recognize the type of X: embeddings or one of the accepted forms of images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from clipcal._arrays import to_numpy
from clipcal.exceptions import ImageReadError
from clipcal.images._folders import folder_advice, folder_fault
from clipcal.images._pixels import list_fault, stack_fault

_ACCEPTED = (
    "Images are a list, 1-D array or Series of paths, ImagePaths, a list of PIL images, uint8 arrays or "
    "tensors (n, height, width) or (n, height, width, 3), or a list of uint8 arrays or tensors of one image "
    "each; embeddings are a 2-D array of numbers."
)
_READ_BYTES = (
    "; if they are paths, write list(map(os.fsdecode, X)), if they are file contents, "
    "[Image.open(io.BytesIO(x)) for x in X]"
)


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
            images = folder_advice(path) if os.path.isdir(path) else f"[{path!r}]"
            raise TypeError(f"ImagePaths takes a sequence of paths; write ImagePaths({images}).")
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
        index = np.asarray(key)
        if index.ndim == 0:
            path = self.paths[int(index)]
            return Path(path) if self.root is None else Path(self.root, path)
        if index.dtype == bool:
            if len(index) != len(self):
                raise IndexError(f"The mask has {len(index)} entries for {len(self)} paths.")
            index = np.flatnonzero(index)
        return ImagePaths([self.paths[i] for i in index.astype(np.intp)], self.root)

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


def input_kind(X: Any) -> Literal["embeddings", "images"]:
    """Determine whether X holds embeddings or images.

    Parameters
    ----------
    X : object
        The samples that the user passed.

    Returns
    -------
    {"embeddings", "images"}
        ``"embeddings"`` for everything 2-D and numeric, whatever its dtype, and for inputs that
        scikit-learn's own validation rejects with a better message (sparse matrices, 1-D numbers, tables of
        objects). A single grayscale image must therefore be ``array[np.newaxis]``, not a 2-D array.

    Raises
    ------
    TypeError
        If X is neither, such as a generator, a dict or a single image.
    ValueError
        If X is an array or a list of the right type but with the wrong shape or values, or its first path is
        a folder.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.images import input_kind
    >>> input_kind(np.zeros((5, 512)))
    'embeddings'
    >>> input_kind(["cat.png", "dog.png"])
    'images'
    >>> input_kind(np.zeros((5, 32, 32, 3), dtype=np.uint8))
    'images'
    """
    if isinstance(X, ImagePaths):
        _check_not_empty(len(X))
        _check_not_folder(X)
        return "images"
    if hasattr(X, "toarray"):
        return _table_kind(X)
    _check_is_sequence(X)
    if hasattr(X, "columns"):
        return _table_kind(X)
    return _array_kind(X) if _is_array(X) else _list_kind(list(X))


def as_images(X: Any) -> Sequence[Any] | NDArray[Any]:
    """Convert images to a sequence that :func:`read_image` can index.

    Parameters
    ----------
    X : images
        Input for which :func:`input_kind` returns ``"images"``.

    Returns
    -------
    ImagePaths, list or ndarray
        One item per image: a path, a PIL image or a uint8 array.

    Raises
    ------
    TypeError, ValueError
        If X does not hold images.
    """
    if input_kind(X) == "embeddings":
        shape = getattr(X, "shape", None)
        got = f"{type(X).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")
        raise ValueError(f"Expected images, got numbers ({got}). {_ACCEPTED}")
    if isinstance(X, ImagePaths):
        return X
    items = _as_array(X) if _is_array(X) else X
    if getattr(items, "dtype", None) == np.uint8:
        return to_numpy(items)
    return [to_numpy(item) if hasattr(item, "detach") else item for item in items]


def _check_not_empty(n: int) -> None:
    if n == 0:
        raise ValueError(f"X is empty: 0 sample(s), but at least 1 is required. {_ACCEPTED}")


def _check_not_folder(paths: Sequence[Any] | NDArray[Any]) -> None:
    """Raise if the first path is a folder; later ones are found when they are read."""
    if os.path.isdir(paths[0]):
        raise ImageReadError(f"Image 0 of X, {folder_fault(paths, 0)} {_ACCEPTED}")


def _check_is_sequence(X: Any) -> None:
    """Raise TypeError if X is not a sequence of samples."""
    if isinstance(X, (str, bytes, os.PathLike)):
        path = str(os.fsdecode(X))
        if os.path.isdir(path):
            raise TypeError(
                f"X is a single folder, {path!r}; pass the images in it: {folder_advice(path)}. {_ACCEPTED}"
            )
        raise TypeError(f"X is a single path, {path!r}; pass a list: [{path!r}].")
    if isinstance(X, Image):
        raise TypeError("X is a single PIL image; pass a list: [image].")
    if isinstance(X, (Mapping, AbstractSet)):
        raise TypeError(f"X is a {type(X).__name__}, which does not define an order of samples. {_ACCEPTED}")
    if isinstance(X, Iterator):
        raise TypeError(
            f"X is a {type(X).__name__}, which can be read only once; pass a list: list(X). {_ACCEPTED}"
        )
    if X is None or not ((hasattr(X, "__len__") and hasattr(X, "__getitem__")) or _is_array(X)):
        raise TypeError(f"X is a {type(X).__name__}. {_ACCEPTED}")


def _is_array(X: Any) -> bool:
    """Whether X is an array, a tensor, or a column of any data frame library."""
    return hasattr(X, "__array__") or (hasattr(X, "shape") and hasattr(X, "dtype"))


def _as_array(X: Any) -> NDArray[Any]:
    return np.asarray(to_numpy(X))


def _table_kind(X: Any) -> Literal["embeddings", "images"]:
    """Reject data frames of paths or images; scikit-learn validates other frames and sparse matrices."""
    if hasattr(X, "columns") and len(X) and len(X.columns):
        first = np.asarray(X[X.columns[0]])[0]
        if _item_kind(first) in ("paths", "PIL images"):
            column = X.columns[0]
            raise ValueError(
                f"X is a data frame of {_item_kind(first)}; pass the column alone: X[{column!r}]."
            )
    return "embeddings"


def _array_kind(X: Any) -> Literal["embeddings", "images"]:
    array = _as_array(X)
    if array.ndim == 0:
        raise TypeError(f"X is a single value, {array!r}. {_ACCEPTED}")
    if array.ndim == 1:
        if array.dtype.kind == "U":
            _check_not_empty(len(array))
            _check_not_folder(array)
            return "images"
        # Bytes, objects, and variable-width strings, which may have missing values.
        return _list_kind(list(array)) if array.dtype.kind in "SOT" else "embeddings"
    if array.ndim == 2:
        kind = _item_kind(array.flat[0]) if array.size else None
        if kind in ("paths", "PIL images"):
            column = "make it 1-D: X.ravel()" if 1 in array.shape else "pass one column, such as X[:, 0]"
            raise ValueError(f"X is a 2-D array of {kind}; {column}. {_ACCEPTED}")
        return "embeddings"
    _check_not_empty(len(array))
    fault = stack_fault(X)
    if fault:
        raise ValueError(f"{fault} {_ACCEPTED}")
    return "images"


def _item_kind(item: Any) -> str:
    if isinstance(item, (str, os.PathLike)):
        return "paths"
    if isinstance(item, Image):
        return "PIL images"
    if isinstance(item, bytes):
        return "bytes"
    if isinstance(item, (int, float, complex, list, tuple, np.number, np.bool_)):
        return "numbers"
    n_axes = getattr(item, "ndim", None)
    if n_axes is None:
        return f"{type(item).__name__} objects"
    return "numbers" if n_axes < 2 else "arrays"


def _list_kind(items: list[Any]) -> Literal["embeddings", "images"]:
    _check_not_empty(len(items))
    kinds = [_item_kind(item) for item in items]
    for i, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise TypeError(f"X mixes {kinds[0]} (position 0) and {kind} (position {i}). {_ACCEPTED}")
    if kinds[0] == "numbers":
        _check_row(items[0])
        return "embeddings"
    if kinds[0] == "paths":
        _check_not_folder(items)
        return "images"
    if kinds[0] == "PIL images":
        return "images"
    if kinds[0] != "arrays":
        raise TypeError(f"X holds {kinds[0]}{_READ_BYTES if kinds[0] == 'bytes' else ''}. {_ACCEPTED}")
    fault = list_fault(items)
    if fault:
        raise ImageReadError(f"Image {fault[0]}: {fault[1]} {_ACCEPTED}")
    return "images"


def _check_row(row: Any) -> None:
    """Raise if the rows of a nested list hold paths or images."""
    kind = _item_kind(row[0]) if isinstance(row, (list, tuple)) and row else None
    if kind in ("paths", "PIL images", "arrays"):
        raise TypeError(
            f"X holds {type(row).__name__}s of {kind}; pass one of each row, such as [row[0] for row in X]. "
            f"{_ACCEPTED}"
        )
