"""PIL images that are opened and not yet read: decoded apart, so that the caller's objects stay small."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image, ImageFile

# Images may share a file, and a file has one position: no two threads may read at once.
_ONE_READER = threading.Lock()
# What values may be that decide how an image is decoded; buffers and decoders cannot be compared.
_PLAIN = (bool, int, float, str, bytes, tuple, list, dict)
# How the file was opened, not what is decoded from it.
_OF_THE_FILE = {"filename", "_exclusive_fp"}


@contextmanager
def to_decode(image: Image.Image) -> Iterator[Image.Image]:
    """Give an image that may be decoded in place of the caller's, for as long as the context lasts.

    :func:`PIL.Image.open` reads the pixels at their first use and keeps them in the object: a list of opened
    images would hold all of them decoded after it was encoded once. Therefore such an image is opened a
    second time, from the same open file. Where that would not certainly give the same pixels, and for
    images that are in memory anyway, it is the caller's own.
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
    """Say whether an opened image has lost its file before its pixels were read."""
    if not isinstance(image, ImageFile.ImageFile):
        return False
    file = getattr(image, "fp", None)
    # Pillow allocates the pixels before it finds out that the file is closed.
    unread = bool(image.tile) or _has_no_pixels(image)
    return unread and (file is None or getattr(file, "closed", False))


def _is_unread(image: Image.Image) -> bool:
    # What has pixels may have been drawn on. So may a later frame that is partly decoded from earlier ones.
    return (
        isinstance(image, ImageFile.ImageFile)
        and getattr(image, "fp", None) is not None
        and _has_no_pixels(image)
    )


def _has_no_pixels(image: Image.Image) -> bool:
    try:
        return getattr(image, "im", None) is None
    except (AssertionError, ValueError):  # how newer versions of Pillow say: not yet, and no more
        return True


def _opened_again(image: Any) -> ImageFile.ImageFile | None:
    """Open the file of an image once more, at the same frame; None where the two differ."""
    try:
        again: Any = Image.open(io.BytesIO(_content(image.fp)))
        # Uncompressed files are decoded by this name where it is known.
        again.filename = image.filename
        if image.tell() != again.tell():
            again.seek(image.tell())
        if image.decoderconfig != again.decoderconfig:
            # Image.draft was called: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size.
            scale = image.decoderconfig[0]
            again.draft(image.mode, (again.width // scale, again.height // scale))
        return again if _decode_alike(image, again) else None
    except Exception:  # plugins raise whatever they like; decoding the caller's object says what is wrong
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
    # Whoever asks for EXIF data gets an object that is kept, and may have set the orientation in it.
    exif = theirs.get("_exif")
    return exif is None or dict(exif) == dict(again.getexif())
