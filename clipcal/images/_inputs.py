"""Recognize the type of X: embeddings or one of the accepted forms of images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from clipcal._arrays import to_numpy
from clipcal.exceptions import ImageReadError
from clipcal.images._folders import folder_advice, folder_fault
from clipcal.images._items import fetch, is_image_content, is_record
from clipcal.images._pixels import list_fault, stack_fault
from clipcal.images._sequences import ImagePaths, LazyImages, is_lazy_column, lazy_column

_ACCEPTED = (
    "Images are a list, 1-D array or Series of paths, of contents of image files (bytes) or of records "
    "{'bytes': ..., 'path': ...}, ImagePaths, LazyImages, an image column of a Hugging Face data set, a list "
    "of PIL images, uint8 arrays or tensors (n, height, width) or (n, height, width, 3), or a list of uint8 "
    "arrays or tensors of one image each; embeddings are a 2-D array of numbers."
)
# Kinds of images of which a cell of a table holds one.
_ONE_PER_CELL = ("paths", "PIL images", "file contents", "image records")
_READ_BYTES = "if they are paths, write list(map(os.fsdecode, X))"


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
    if isinstance(X, (ImagePaths, LazyImages)) or is_lazy_column(X):
        # Only the first image is looked at, as each access may read a file.
        _check_not_empty(len(X))
        try:
            first = fetch(X, 0)
        except ImageReadError:  # reported when it is read, or skipped
            return "images"
        if _item_kind(first) == "paths":
            _check_not_folder(X)
            return "images"
        return _list_kind([first])
    if hasattr(X, "toarray"):
        return _table_kind(X)
    _check_is_sequence(X)
    if hasattr(X, "columns"):
        return _table_kind(X)
    if _is_array(X):
        return _array_kind(X)
    _check_not_dataset(X)
    return _list_kind(list(X))


def as_images(X: Any) -> Sequence[Any] | NDArray[Any]:
    """Convert images to a sequence that :func:`read_image` can index.

    Parameters
    ----------
    X : images
        Input for which :func:`input_kind` returns ``"images"``.

    Returns
    -------
    ImagePaths, LazyImages, list or ndarray
        One item per image: a path, the content of a file as bytes, a record of both, a PIL image or a uint8
        array.

    Raises
    ------
    TypeError, ValueError
        If X does not hold images.

    Examples
    --------
    >>> from clipcal.images import as_images
    >>> as_images(("cat/1.jpg", "dog/2.jpg"))[1]
    'dog/2.jpg'
    """
    if input_kind(X) == "embeddings":
        shape = getattr(X, "shape", None)
        got = f"{type(X).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")
        raise ValueError(f"Expected images, got numbers ({got}). {_ACCEPTED}")
    if isinstance(X, (ImagePaths, LazyImages)):
        return X
    if is_lazy_column(X):
        return lazy_column(X)
    items = _as_array(X) if _is_array(X) else X
    if getattr(items, "dtype", None) == np.uint8:
        return to_numpy(items)
    return [to_numpy(item) if hasattr(item, "detach") else item for item in items]


def _check_not_empty(n: int) -> None:
    if n == 0:
        raise ValueError(f"X is empty: 0 sample(s), but at least 1 is required. {_ACCEPTED}")


def _check_not_folder(paths: Sequence[Any] | NDArray[Any]) -> None:
    """Raise if the first path is a folder; later ones are found when they are read."""
    if os.path.isdir(fetch(paths, 0)):
        raise ImageReadError(f"Image 0 of X, {folder_fault(paths, 0)} {_ACCEPTED}")


def _check_is_sequence(X: Any) -> None:
    """Raise TypeError if X is not a sequence of samples."""
    if isinstance(X, bytes) and is_image_content(X):
        raise TypeError("X is the content of a single image file; pass a list: [X].")
    if isinstance(X, (str, bytes, os.PathLike)):
        path = str(os.fsdecode(X))
        if os.path.isdir(path):
            raise TypeError(
                f"X is a single folder, {path!r}; pass the images in it: {folder_advice(path)}. {_ACCEPTED}"
            )
        raise TypeError(f"X is a single path, {path!r}; pass a list: [{path!r}].")
    if isinstance(X, Image):
        raise TypeError("X is a single PIL image; pass a list: [image].")
    if is_record(X):
        raise TypeError("X is a single image record; pass a list: [X].")
    if isinstance(X, (Mapping, AbstractSet)):
        raise TypeError(f"X is a {type(X).__name__}, which does not define an order of samples. {_ACCEPTED}")
    if isinstance(X, Iterator):
        raise TypeError(
            f"X is a {type(X).__name__}, which can be read only once; pass a list: list(X). {_ACCEPTED}"
        )
    if X is None or not ((hasattr(X, "__len__") and hasattr(X, "__getitem__")) or _is_array(X)):
        raise TypeError(f"X is a {type(X).__name__}. {_ACCEPTED}")


def _check_not_dataset(X: Any) -> None:
    """Raise TypeError if X is a data set of images with labels, before all its images are decoded."""
    if isinstance(X, (list, tuple)) or not len(X):
        return
    first = X[0]
    if (isinstance(first, Mapping) and not is_record(first)) or (
        isinstance(first, tuple) and first and _item_kind(first[0]) not in ("numbers", "paths")
    ):
        raise TypeError(
            f"X is a data set of type {type(X).__name__} with items of several values. Write data = "
            f"clipcal.load_images(X) and pass data.images and data.target. {_ACCEPTED}"
        )


def _is_array(X: Any) -> bool:
    """Whether X is an array, a tensor, or a column of any data frame library."""
    return hasattr(X, "__array__") or (hasattr(X, "shape") and hasattr(X, "dtype"))


def _as_array(X: Any) -> NDArray[Any]:
    return np.asarray(to_numpy(X))


def _table_kind(X: Any) -> Literal["embeddings", "images"]:
    """Reject data frames of paths or images; scikit-learn validates other frames and sparse matrices."""
    if hasattr(X, "columns") and len(X) and len(X.columns):
        first = np.asarray(X[X.columns[0]])[0]
        if _item_kind(first) in _ONE_PER_CELL:
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
        if array.dtype.kind == "S":
            raise TypeError(
                "X holds bytes of equal length, as an array without zeros at the end of each; "
                f"{_READ_BYTES}, if they are file contents, pass a list of them. {_ACCEPTED}"
            )
        # Objects, and variable-width strings, which may have missing values.
        return _list_kind(list(array)) if array.dtype.kind in "OT" else "embeddings"
    if array.ndim == 2:
        kind = _item_kind(array.flat[0]) if array.size else None
        if kind in _ONE_PER_CELL:
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
        return "file contents"
    if is_record(item):
        return "image records"
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
    if kinds[0] in ("paths", "image records"):
        _check_not_folder(items)
        return "images"
    if kinds[0] == "file contents":
        if not is_image_content(items[0]):
            raise TypeError(
                f"X holds bytes that are not the contents of image files, at position 0: {items[0]!r}; "
                f"{_READ_BYTES}. {_ACCEPTED}"
            )
        return "images"
    if kinds[0] == "PIL images":
        return "images"
    if kinds[0] != "arrays":
        raise TypeError(f"X holds {kinds[0]}. {_ACCEPTED}")
    fault = list_fault(items)
    if fault:
        raise ImageReadError(f"Image {fault[0]}: {fault[1]} {_ACCEPTED}")
    return "images"


def _check_row(row: Any) -> None:
    """Raise if the rows of a nested list hold paths or images."""
    kind = _item_kind(row[0]) if isinstance(row, (list, tuple)) and row else None
    if kind in (*_ONE_PER_CELL, "arrays"):
        raise TypeError(
            f"X holds {type(row).__name__}s of {kind}; pass one of each row, such as [row[0] for row in X]. "
            f"{_ACCEPTED}"
        )
