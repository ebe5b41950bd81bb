"""Decode an image to RGB, or hash it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from clipcal.exceptions import ImageReadError
from clipcal.images._folders import folder_fault
from clipcal.images._items import fetch, is_encoded, open_encoded, read_content
from clipcal.images._opened import is_closed, to_decode
from clipcal.images._pixels import to_uint8, value_span


def read_image(images: Sequence[Any] | NDArray[Any], i: int) -> Image.Image:
    """Decode one image.

    Parameters
    ----------
    images : sequence of paths, contents of files, PIL images or uint8 arrays
        Images as returned by :func:`as_images`.
    i : int
        Position of the image.

    Returns
    -------
    PIL.Image.Image
        Image in mode RGB. The EXIF orientation is applied, transparent images are composited on white,
        grayscale is repeated in all channels, 16-bit grayscale is scaled to 8 bits.

    Raises
    ------
    ImageReadError
        If the file is missing or not an image; the message gives its position and its path or type.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.images import read_image
    >>> image = read_image(np.zeros((1, 20, 30), dtype=np.uint8), 0)
    >>> image.mode, image.size
    ('RGB', (30, 20))
    """
    item = fetch(images, i)
    try:
        return _decoded(item)
    except Exception as error:  # decoders may raise anything on a corrupt file
        raise _unreadable(images, i, item, error) from error


def check_header(images: Sequence[Any] | NDArray[Any], i: int) -> None:
    """Raise ImageReadError if a file is missing or its header is not that of an image."""
    item = fetch(images, i)
    if is_encoded(item):
        try:
            with open_encoded(item):
                pass
        except Exception as error:  # as in read_image
            raise _unreadable(images, i, item, error) from error


def image_digest(images: Sequence[Any] | NDArray[Any], i: int) -> bytes:
    """Hash the content of one image, independent of its path.

    Parameters
    ----------
    images : sequence of paths, contents of files, PIL images or uint8 arrays
        Images as returned by :func:`as_images`.
    i : int
        Position of the image.

    Returns
    -------
    bytes
        SHA-256 of the file content, or of the pixels of an image in memory.

    Raises
    ------
    ImageReadError
        If the file cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.images import image_digest
    >>> images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    >>> len(image_digest(images, 0)), image_digest(images, 0) == image_digest(images, 1)
    (32, True)
    """
    return read_with_digest(images, i, lambda digest: False)[0]


def read_with_digest(
    images: Sequence[Any] | NDArray[Any], i: int, wanted: Callable[[bytes], bool]
) -> tuple[bytes, Image.Image | None]:
    """Hash one image; decode it from the same bytes if ``wanted(hash)`` is true.

    The file is read once: if it changed between two reads, the hash would not match the pixels.
    """
    item = fetch(images, i)
    try:
        if not is_encoded(item):
            image = _decoded(item)
            digest = pixel_digest(image)
            return digest, image if wanted(digest) else None
        content = read_content(item)
        digest = hashlib.sha256(content).digest()
        return digest, _decoded(content) if wanted(digest) else None
    except Exception as error:  # as in read_image
        raise _unreadable(images, i, item, error) from error


def pixel_digest(image: Image.Image) -> bytes:
    """Return the SHA-256 of mode, size and pixels of an image."""
    digest = hashlib.sha256(f"{image.mode} {image.size} ".encode())
    digest.update(image.tobytes())
    return digest.digest()


def _decoded(item: Any) -> Image.Image:
    """Return an image, given by its path, the content of its file, a PIL image or an array, in RGB."""
    if isinstance(item, Image.Image):
        with to_decode(item) as image:
            return _to_rgb(image)
    if is_encoded(item):
        with open_encoded(item) as image:
            return _to_rgb(image)
    return _to_rgb(Image.fromarray(np.asarray(item)))


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        pixels = np.asarray(image)
        _, code = to_uint8("np.asarray(image)", pixels.dtype, value_span([pixels]), is_tensor=False)
        advice = f"; replace it with Image.fromarray({code})" if code else ""
        raise ValueError(
            f"mode {image.mode!r} does not define the value of white; convert the image to 8 bits{advice}"
        )
    if image.has_transparency_data:
        # Dropping alpha would show the arbitrary colours stored under transparent pixels.
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _unreadable(images: Sequence[Any] | NDArray[Any], i: int, item: Any, error: Exception) -> ImageReadError:
    if isinstance(item, bytes):
        what = _described(item)
    elif is_encoded(item):
        what = repr(str(item))
        if Path(item).is_dir():
            return ImageReadError(f"Image {i}, {folder_fault(images, i)}")
        if not Path(item).exists():
            return ImageReadError(
                f"Image {i}, {what}: there is no such file (working directory: {os.getcwd()})."
            )
    else:
        what = f"a {type(item).__name__}"
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, UnidentifiedImageError):  # its message shows only the memory address of the buffer
        reason = "Pillow does not recognize the image format."
    elif is_closed(item):
        reason = "it was closed before its pixels were read. Call load() before closing it, or pass its path."
    return ImageReadError(f"Image {i}, {what}, could not be read: {reason}")


def _described(content: bytes) -> str:
    start = f" that start with {content[:16]!r}" if content else ""
    return f"{len(content)} bytes{start}"
