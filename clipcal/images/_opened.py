"""Decode lazily opened PIL images without filling the caller's objects with pixels."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image, ImageFile

# Images may share a file object, which has one position, so only one thread may read at a time.
_ONE_READER = threading.Lock()
# Types of attributes that are compared; buffers and decoders cannot be.
_PLAIN = (bool, int, float, str, bytes, tuple, list, dict)
# Attributes that do not affect the decoded pixels.
_OF_THE_FILE = {"filename", "_exclusive_fp"}


@contextmanager
def to_decode(image: Image.Image) -> Iterator[Image.Image]:
    """Yield an image that can be decoded in place of the caller's.

    :func:`PIL.Image.open` decodes the pixels at their first use and keeps them in the object, so a list of
    opened images would hold all pixels in memory after it is encoded once. Therefore an undecoded image is
    opened a second time, from the same file object. The caller's image itself is yielded if it is already
    decoded, or if a second opening is not certain to give the same pixels.
    """
    again = _opened_again(image) if _is_unread(image) else None
    if again is None:
        with _ONE_READER:
            image.load()
        yield image
    else:
        with again:
            yield again


def is_closed(image: Any) -> bool:
    """Whether an opened image was closed before its pixels were read."""
    if not isinstance(image, ImageFile.ImageFile):
        return False
    file = getattr(image, "fp", None)
    # Pillow allocates the pixels before it notices that the file is closed, so the tiles are checked too.
    unread = bool(image.tile) or _has_no_pixels(image)
    return unread and (file is None or getattr(file, "closed", False))


def _is_unread(image: Image.Image) -> bool:
    # An image that has pixels may have been modified, and a later frame may be decoded from earlier ones.
    return (
        isinstance(image, ImageFile.ImageFile)
        and getattr(image, "fp", None) is not None
        and _has_no_pixels(image)
    )


def _has_no_pixels(image: Image.Image) -> bool:
    try:
        return getattr(image, "im", None) is None
    except (AssertionError, ValueError):  # newer Pillow raises these before loading and after closing
        return True


def _opened_again(image: Any) -> ImageFile.ImageFile | None:
    """Open the file of an image a second time, at the same frame; None if the two may differ."""
    try:
        again: Any = Image.open(io.BytesIO(_content(image.fp)))
        # Pillow decodes uncompressed files by memory-mapping this path.
        again.filename = image.filename
        if image.tell() != again.tell():
            again.seek(image.tell())
        if image.decoderconfig != again.decoderconfig:
            # Image.draft was called: the JPEG is decoded at 1/2, 1/4 or 1/8 of its size.
            scale = image.decoderconfig[0]
            again.draft(image.mode, (again.width // scale, again.height // scale))
        return again if _decode_alike(image, again) else None
    except Exception:  # plugins may raise anything; decoding the caller's image then reports the error
        return None


def _content(file: IO[bytes]) -> bytes:
    with _ONE_READER:
        position = file.tell()
        try:
            file.seek(0)
            return file.read()
        finally:
            file.seek(position)


def _decode_alike(image: Any, again: Any) -> bool:
    if type(image) is not type(again):
        return False
    theirs = vars(image)
    for name, value in vars(again).items():
        if name not in _OF_THE_FILE and isinstance(value, _PLAIN) and theirs.get(name) != value:
            return False
    # getexif returns a stored object, in which the caller may have changed the orientation.
    exif = theirs.get("_exif")
    return exif is None or dict(exif) == dict(again.getexif())
