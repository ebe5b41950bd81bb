"""Conversion between NumPy arrays and tensors of the data types of safetensors."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUMBERS", "array_of", "tensor_of"]

NUMBERS = {"b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}
_TEXT = re.compile(r"[US][1-9][0-9]*")
_TIME = re.compile(r"[mM]8\[(Y|M|W|D|h|m|s|ms|us|ns)\]")
_MAX_CODE_POINT = 0x10FFFF


def tensor_of(array: NDArray[Any]) -> tuple[NDArray[Any], str, str] | None:
    """Return an array's tensor, the code of its type and its memory order; None for other types.

    Text becomes code points or bytes along a further axis, so that its real size is in the file.
    """
    code = array.dtype.str[1:]
    # The memory order is kept because it affects the rounding of matrix products.
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    contiguous = np.ascontiguousarray(native).reshape(array.shape)
    if code in NUMBERS:
        return contiguous, code, order
    if _TEXT.fullmatch(code):
        unit = np.uint32 if code[0] == "U" else np.uint8
        return contiguous.reshape(*array.shape, 1).view(unit), code, order
    if _TIME.fullmatch(code):
        return contiguous.view(np.int64), code, order
    return None


def array_of(tensor: NDArray[Any], code: str, order: str) -> NDArray[Any]:
    """Return the array that :func:`tensor_of` was given: writable, with memory of its own.

    Raises
    ------
    ValueError
        If tensor, code and order are inconsistent.
    """
    found = tensor.dtype.str[1:]
    if order not in ("C", "F"):
        raise ValueError(f"an array has the memory order {order!r}")
    if code == "b1" and found == code and tensor.view(np.uint8).max(initial=0) > 1:
        raise ValueError("a Boolean array contains values other than 0 and 1")
    if code in NUMBERS and found == code:
        array = tensor
    elif _TEXT.fullmatch(code) and found == ("u4" if code[0] == "U" else "u1") and tensor.ndim:
        if tensor.shape[-1] != int(code[1:]):
            raise ValueError(f"an array of the type {code} has a tensor of the shape {tensor.shape}")
        if code[0] == "U" and tensor.max(initial=0) > _MAX_CODE_POINT:
            raise ValueError("a text array contains numbers that are not valid characters")
        array = np.ascontiguousarray(tensor).view(np.dtype(code))[..., 0]
    elif _TIME.fullmatch(code) and found == "i8":
        array = tensor.view(np.dtype(code))
    else:
        raise ValueError(f"an array of the type {code!r} has a tensor of the type {found!r}")
    return np.array(array, order="C" if order == "C" else "F")
