"""Encoded images: paths, contents of files, and records of both."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipcal.exceptions import ImageReadError

__all__ = [
    "encoded",
    "fetch",
    "is_encoded",
    "is_image_content",
    "is_opened",
    "is_record",
    "open_encoded",
    "read_content",
]

# Longest bytes that may be a path; the contents of images are longer, but for tiny ones.
_MAX_PATH = 4096


def is_record(item: Any) -> bool:
    """Whether an item is a record ``{"bytes": ..., "path": ...}`` as in Hugging Face data sets."""
    return isinstance(item, Mapping) and not {"bytes", "path"}.isdisjoint(item)


def encoded(item: Any) -> Any:
    """Return the path or the content of a record, the content if it has both; other items unchanged."""
    if not is_record(item):
        return item
    content = item.get("bytes")
    found = item.get("path") if content is None else content
    if found is None:
        raise ValueError("the record has neither bytes nor a path.")
    return found


def fetch(images: Sequence[Any] | NDArray[Any], i: int) -> Any:
    """Return an image of a sequence, with records replaced by their content or path."""
    try:
        return encoded(images[i])
    except IndexError:
        raise
    except Exception as error:  # sequences that decode at access may raise anything on a corrupt file
        raise ImageReadError(f"Image {i} could not be read: {type(error).__name__}: {error}") from error


def is_encoded(item: Any) -> bool:
    """Whether an item is a path or the content of a file."""
    return isinstance(item, (str, bytes, os.PathLike))


def open_encoded(item: Any) -> Image.Image:
    """Open a path or the content of a file, without decoding the pixels."""
    return Image.open(io.BytesIO(item) if isinstance(item, bytes) else item)


def read_content(item: Any) -> bytes:
    """Return the content of a file, given by its path or its content."""
    if isinstance(item, bytes):
        return item
    with open(item, "rb") as file:
        return file.read()


def is_image_content(content: bytes) -> bool:
    """Whether bytes are the content of an image file, as far as its header tells, or may be of a damaged one.

    False for bytes that may be a path.
    """
    if len(content) > _MAX_PATH:
        return True
    try:
        with open_encoded(content):
            return True
    except Exception:  # decoders may raise anything on a corrupt file
        return not content or not os.fsdecode(content).isprintable()


def is_opened(images: Sequence[Any] | NDArray[Any]) -> bool:
    """Whether the images are PIL images: they may share a file object, so a single thread must read them."""
    if isinstance(images, np.ndarray):
        return False
    try:
        return isinstance(fetch(images, 0), Image.Image)
    except ImageReadError:  # reported when it is read
        return True
