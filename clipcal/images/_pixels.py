"""Check arrays of pixels, and suggest a conversion for those that are not accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcal._arrays import to_numpy

_CHANNELS = (3, 4)
_PIXELS = "pixels must be uint8, from 0 for black to 255 for white"
_RAW = "clipcal normalizes images itself, so pass them without normalization"
# Spline resampling overshoots the range of the image by up to about this fraction of white.
_OVERSHOOT = 0.2


class _Advice(NamedTuple):
    """The problems of an array, and an expression that fixes them, if there is one."""

    problems: list[str]
    code: str | None


class _Array(NamedTuple):
    """An array or a tensor of the caller; conversions of a tensor are written with torch."""

    values: NDArray[Any]
    shape: tuple[int, ...]
    dtype: Any
    is_tensor: bool

    @classmethod
    def of(cls, X: Any) -> _Array:
        converted = to_numpy(X)
        values = np.asarray(converted)
        return cls(values, values.shape, getattr(X, "dtype", values.dtype), converted is not X)

    def is_valid(self, n_leading: int) -> bool:
        if self.values.dtype != np.uint8 or self.values.size == 0:
            return False
        n_axes = len(self.shape) - n_leading
        # Rows (width, 3) of one image must not pass as a grayscale image of three columns.
        return (n_axes == 2) != (self.shape[-1] in _CHANNELS) and n_axes in (2, 3)

    def described(self, name: str, span: tuple[float, float] | None = None) -> str:
        if span is None or self.values.dtype == np.uint8:
            return f"{name} has shape {self.shape} and dtype {self.dtype}"
        values = f"values from {span[0]:.4g} to {span[1]:.4g}"
        return f"{name} has shape {self.shape}, dtype {self.dtype} and {values}"

    def advice(self, code: str, n_leading: int, span: tuple[float, float] | None) -> _Advice:
        """Return the problems and the conversion of the array that the expression `code` gives."""
        layout = _channels_last(code, self.shape, n_leading, self.is_tensor)
        if self.values.dtype == np.uint8:
            return layout
        scale = to_uint8(layout.code or code, self.values.dtype, span, self.is_tensor)
        return _Advice(layout.problems + scale.problems, scale.code if layout.code else None)


def stack_fault(X: Any) -> str | None:
    """Return the error message for an array or tensor that is not a stack of images; None if it is one.

    A stack is uint8 of shape (n, height, width), (n, height, width, 3) or (n, height, width, 4).
    """
    array = _Array.of(X)
    if array.is_valid(n_leading=1):
        return None
    if 0 in array.shape:
        return f"{array.described('X')}: an image has no pixels."
    span = value_span([array.values])
    name = "X" if array.is_tensor or isinstance(X, np.ndarray) else "np.asarray(X)"
    advice = array.advice(name, 1, span)
    text = _sentence(array.described("X", span), advice)
    if len(array.shape) == 3 and array.shape[0] in _CHANNELS and array.shape[-1] not in (1, *_CHANNELS):
        single = array.advice(name, 0, span)
        if single.code:
            text += f" If X is a single image with channels first, write ({single.code})[np.newaxis]."
    return text


def list_fault(items: Sequence[Any]) -> tuple[int, str] | None:
    """Return position and error message of the first item that is not an image; None if all are."""
    arrays = [_Array.of(item) for item in items]
    first = next((i for i, array in enumerate(arrays) if not array.is_valid(n_leading=0)), None)
    if first is None:
        return None
    array, name = arrays[first], f"X[{first}]"
    if 0 in array.shape:
        return first, f"{array.described(name)}: an image has no pixels."
    # The value of white is inferred from all images, as a single one may be dark.
    alike = [other.values for other in arrays if other.values.dtype == array.values.dtype]
    span = value_span([values for values in alike if values.size])
    advice = _whole_advice(arrays, first, span)
    if advice is None:
        advice = array.advice("x", 0, span)
        if {other.advice("x", 0, span).code for other in arrays} == {advice.code}:
            code = advice.code and f"[{advice.code} for x in X]"
        else:
            code = array.advice(name, 0, span).code
            code = code and f"{code} in place of {name}"
        advice = _Advice(advice.problems, code)
    return first, _sentence(array.described(name, span), advice)


def _whole_advice(arrays: Sequence[_Array], first: int, span: tuple[float, float] | None) -> _Advice | None:
    """Return the conversion of a list of stacks, or of rows of one image, to one array; otherwise None."""
    array = arrays[first]
    shape: tuple[int, ...]
    if len(array.shape) == 4:
        problem, shape, join = f"position {first} holds a stack of images", array.shape, "concatenate"
    elif len(array.shape) == 2 and array.shape[-1] in _CHANNELS:
        problem, shape, join = "the items seem to be rows of one image", (len(arrays), *array.shape), "stack"
    else:
        return None
    if len({(other.values.dtype, len(other.shape), *other.shape[1:]) for other in arrays}) > 1:
        return None
    if array.is_tensor:
        join = "cat" if join == "concatenate" else join
    code = f"torch.{join}(tuple(X))" if array.is_tensor else f"np.{join}(X)"
    advice = array._replace(shape=shape).advice(code, 1, span)
    return _Advice([problem, *advice.problems], advice.code)


def to_uint8(code: str, dtype: np.dtype[Any], span: tuple[float, float] | None, is_tensor: bool) -> _Advice:
    """Return the conversion of pixels of another dtype to uint8.

    Parameters
    ----------
    code : str
        Expression that gives the pixels.
    dtype : dtype
        Their NumPy dtype.
    span : tuple of float or None
        Their minimum and maximum; None if they cannot be ordered.
    is_tensor : bool
        Whether `code` gives a tensor.
    """
    cast = ".to(torch.uint8)" if is_tensor else ".astype(np.uint8)"
    kind = dtype.kind
    if kind == "b":
        return _Advice([_PIXELS], f"{code}{cast} * 255")
    if span is None:
        return _Advice([_PIXELS], None)
    low, high = span
    if not np.isfinite([low, high]).all():
        return _Advice([f"some values are NaN or infinite; {_PIXELS}"], None)
    if kind == "O":
        code = f"{code}.astype(float)"
    elif kind != "f":
        return _integers_to_uint8(code, kind, low, high, is_tensor, cast)
    white = _white(low, high)
    if white is None:
        return _Advice([f"{_PIXELS}; {_RAW}"], None)
    problem = _PIXELS
    if low < 0 or high > white:
        problem += f"; values outside [0, {white}] may come from resizing, but {_RAW}"
        code = f"{code}.clip(0, {white})"
    if white == 65535:
        return _Advice([problem], f"({code} // 256){cast}")
    return _Advice([problem], f"({code} * 255).round(){cast}" if white == 1 else f"{code}.round(){cast}")


def _integers_to_uint8(code: str, kind: str, low: float, high: float, is_tensor: bool, cast: str) -> _Advice:
    if low < 0 or high > 65535:
        return _Advice([f"{_PIXELS}; {_RAW}"], None)
    if high > 255:
        # torch cannot shift unsigned integers other than uint8.
        wide = f"{code}.to(torch.int64)" if is_tensor and kind == "u" else code
        return _Advice([_PIXELS], f"({wide} >> 8){cast}")
    return _Advice([_PIXELS], f"{code}{cast} * 255" if high <= 1 else f"{code}{cast}")


def _white(low: float, high: float) -> int | None:
    """Return the value of white for floats of this span; None if they are normalized or on another scale."""
    for white, least in ((1, 0.0), (255, 25.0), (65535, 400.0)):
        if high <= white * (1 + _OVERSHOOT) and (low >= 0 or high > least):
            return white if low >= -_OVERSHOOT * white else None
    return None


def _channels_last(code: str, shape: tuple[int, ...], n_leading: int, is_tensor: bool) -> _Advice:
    image = shape[n_leading:]
    every = ":, " * n_leading
    if len(image) == 2:
        if n_leading and shape[-1] in _CHANNELS:
            return _Advice(["this is a single image"], f"{code}[np.newaxis]")
        return _Advice([], code)
    if len(image) > 3:
        if not n_leading:
            return _Advice(["too many axes for one image"], None)
        joined = (-1, *shape[-3:])
        inner = _channels_last(f"{code}.reshape{joined}", joined, n_leading, is_tensor)
        return _Advice(["too many axes", *inner.problems], inner.code)
    if image[-1] in _CHANNELS:
        return _Advice([], code)
    if image[-1] == 1:
        return _Advice(["grayscale images must have no channel axis"], f"{code}[..., 0]")
    if image[0] == 1:
        return _Advice(["grayscale images must have no channel axis"], f"{code}[{every}0]")
    if image[0] in _CHANNELS:
        axes = "0, 2, 3, 1" if n_leading else "1, 2, 0"
        moved = f"{code}.permute({axes})" if is_tensor else f"np.moveaxis({code}, {n_leading}, -1)"
        return _Advice(["channels must come last"], moved)
    return _Advice(["the last axis must be 3 channels, or 4 with transparency"], None)


def value_span(arrays: Sequence[NDArray[Any]]) -> tuple[float, float] | None:
    """Return the minimum and maximum, NaN if there is one; None if the values cannot be ordered."""
    if arrays[0].dtype.kind not in "buifO":
        return None
    try:
        numbers = [np.asarray(array, dtype=float) if array.dtype == object else array for array in arrays]
    except (TypeError, ValueError):
        return None
    return (
        float(np.min([array.min() for array in numbers])),
        float(np.max([array.max() for array in numbers])),
    )


def _sentence(described: str, advice: _Advice) -> str:
    return f"{described}: {'; '.join(advice.problems)}" + (f"; write {advice.code}." if advice.code else ".")
