"""The kinds of X there are, recognised in one place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from clipcal.exceptions import ImageReadError

_ACCEPTED = (
    "Pictures are a list, 1-D array or Series of paths, ImagePaths, a list of PIL images, "
    "or uint8 arrays (n, height, width) or (n, height, width, 3); "
    "embeddings are a 2-D array of numbers."
)


class ImagePaths(Sequence[Path]):
    """Paths of pictures that can be cut like an array and are read only when needed.

    Parameters
    ----------
    paths : sequence of str or Path
        The files.
    root : str, Path or None, default=None
        Folder that relative paths start from. None leaves them relative to the working directory.

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
            raise TypeError(f"ImagePaths takes a sequence of paths; write ImagePaths([{str(paths)!r}]).")
        self.paths = tuple(os.fspath(path) for path in paths)
        self.root = None if root is None else os.fspath(root)

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
    """Say whether X holds embeddings or pictures.

    Parameters
    ----------
    X : object
        Anything a user may call ``X``.

    Returns
    -------
    {"embeddings", "images"}
        ``"embeddings"`` for everything 2-D and numeric, whatever its type of number, and for what
        scikit-learn's own checks refuse in better words (sparse matrices, 1-D numbers, tables of objects).
        A single grey picture is therefore ``array[np.newaxis]``, not a 2-D array.

    Raises
    ------
    TypeError
        If X is of a type that is neither, such as a generator, a dict or one single picture.
    ValueError
        If X is an array or a list of the right type and the wrong shape, values or mixture.

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
        _refuse_empty(len(X))
        return "images"
    if hasattr(X, "toarray"):
        return _table_kind(X)
    _refuse_strangers(X)
    if not hasattr(X, "__getitem__"):
        X = np.asarray(X)
    if hasattr(X, "columns"):
        return _table_kind(X)
    if hasattr(X, "shape") and hasattr(X, "dtype"):
        return _array_kind(_as_array(X))
    return _list_kind(list(X))


def as_images(X: Any) -> Sequence[Any] | NDArray[Any]:
    """Return pictures as something with a length and integer indices, for :func:`read_image`.

    Parameters
    ----------
    X : pictures
        What :func:`input_kind` calls ``"images"``.

    Returns
    -------
    ImagePaths, list or ndarray
        One item a picture: a path, a PIL image or a uint8 array.

    Raises
    ------
    TypeError, ValueError
        If X holds no pictures.
    """
    if input_kind(X) == "embeddings":
        shape = getattr(X, "shape", None)
        got = f"{type(X).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")
        raise ValueError(f"Expected pictures, got numbers ({got}). {_ACCEPTED}")
    if isinstance(X, ImagePaths):
        return X
    if not hasattr(X, "__getitem__") or (hasattr(X, "shape") and hasattr(X, "dtype")):
        array = _as_array(X)
        return array if array.dtype == np.uint8 else list(array)
    return [_as_array(item) if _item_kind(item) == "arrays" else item for item in X]


def _refuse_empty(n: int) -> None:
    if n == 0:
        raise ValueError(f"X is empty: 0 sample(s), and at least 1 is needed. {_ACCEPTED}")


def _refuse_strangers(X: Any) -> None:
    """Raise TypeError for what holds no sequence of samples at all."""
    if isinstance(X, (str, bytes, os.PathLike)):
        raise TypeError(f"X is a single path, {str(X)!r}; put it into a list: [{str(X)!r}].")
    if isinstance(X, Image):
        raise TypeError("X is a single PIL image; put it into a list: [image].")
    if isinstance(X, (Mapping, AbstractSet)):
        raise TypeError(f"X is a {type(X).__name__}, which has no order of samples. {_ACCEPTED}")
    if isinstance(X, Iterator):
        raise TypeError(
            f"X is a {type(X).__name__}, which can be read only once; keep its items: list(X). {_ACCEPTED}"
        )
    if X is None or (
        not (hasattr(X, "__len__") and hasattr(X, "__getitem__")) and not hasattr(X, "__array__")
    ):
        raise TypeError(f"X is a {type(X).__name__}. {_ACCEPTED}")


def _as_array(X: Any) -> NDArray[Any]:
    # A torch tensor that is on a GPU or in a graph does not convert by itself.
    if hasattr(X, "detach"):
        X = X.detach().cpu()
    return np.asarray(X)


def _table_kind(X: Any) -> Literal["embeddings", "images"]:
    """Sort frames and sparse matrices, both of which scikit-learn judges, from a frame of paths."""
    if hasattr(X, "columns") and len(X) and len(X.columns):
        first = np.asarray(X[X.columns[0]])[0]
        if _item_kind(first) in ("paths", "PIL images"):
            column = X.columns[0]
            raise ValueError(
                f"X is a frame with {_item_kind(first)} in it; give the column alone: X[{column!r}]."
            )
    return "embeddings"


def _array_kind(array: NDArray[Any]) -> Literal["embeddings", "images"]:
    if array.ndim == 0:
        raise TypeError(f"X is a single value, {array!r}. {_ACCEPTED}")
    if array.ndim == 1:
        if array.dtype.kind == "U":
            _refuse_empty(len(array))
            return "images"
        return _list_kind(list(array)) if array.dtype.kind == "O" else "embeddings"
    if array.ndim == 2:
        first = array.flat[0] if array.size else None
        if array.dtype.kind == "U" or _item_kind(first) in ("paths", "PIL images"):
            raise ValueError(f"X is a 2-D array of {_item_kind(first)}; make it 1-D: X.ravel(). {_ACCEPTED}")
        return "embeddings"
    _check_pixels(array)
    return "images"


def _check_pixels(array: NDArray[Any]) -> None:
    """Refuse what is no stack of pictures (n, height, width[, channels]), saying how to convert it."""
    got = f"X has shape {array.shape} and dtype {array.dtype}"
    if array.ndim > 4:
        raise ValueError(f"{got}: too many axes. {_ACCEPTED}")
    if array.dtype.kind == "f":
        raise ValueError(
            f"{got}: pictures of floats do not say what white is. If it is 1.0, write "
            f"(X * 255).round().astype(np.uint8); if it is 255.0, X.astype(np.uint8). {_ACCEPTED}"
        )
    if array.dtype != np.uint8:
        raise ValueError(f"{got}: pictures are uint8; write X.astype(np.uint8) if 255 is white. {_ACCEPTED}")
    _refuse_empty(len(array))
    if 0 in array.shape:
        raise ValueError(f"{got}: a picture has no pixels. {_ACCEPTED}")
    if array.ndim == 3 and array.shape[-1] in (3, 4):
        raise ValueError(f"{got}, which is one picture; write X[np.newaxis]. {_ACCEPTED}")
    if array.ndim == 4 and array.shape[-1] not in (3, 4):
        if array.shape[-1] == 1:
            raise ValueError(f"{got}: for grey pictures leave the last axis out, X[..., 0]. {_ACCEPTED}")
        if array.shape[1] in (1, 3, 4):
            raise ValueError(f"{got}: channels come last; write np.moveaxis(X, 1, -1). {_ACCEPTED}")
        raise ValueError(f"{got}: the last axis should be 3 channels. {_ACCEPTED}")


def _item_kind(item: Any) -> str:
    if isinstance(item, (str, os.PathLike)):
        return "paths"
    if isinstance(item, Image):
        return "PIL images"
    if isinstance(item, (int, float, complex, list, tuple, np.number, np.bool_)):
        return "numbers"
    n_axes = getattr(item, "ndim", None)
    if n_axes is None:
        return f"{type(item).__name__} objects"
    return "numbers" if n_axes < 2 else "arrays"


def _list_kind(items: list[Any]) -> Literal["embeddings", "images"]:
    _refuse_empty(len(items))
    kinds = [_item_kind(item) for item in items]
    for i, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise TypeError(f"X mixes {kinds[0]} (position 0) and {kind} (position {i}). {_ACCEPTED}")
    if kinds[0] == "numbers":
        return "embeddings"
    if kinds[0] in ("paths", "PIL images"):
        return "images"
    if kinds[0] != "arrays":
        raise TypeError(f"X holds {kinds[0]}. {_ACCEPTED}")
    for i, item in enumerate(items):
        try:
            _check_pixels(_as_array(item)[np.newaxis])
        except ValueError as error:
            raise ImageReadError(f"Picture {i} of X, as an array with one axis more: {error}") from None
    return "images"
