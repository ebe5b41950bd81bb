"""Which files of a folder are images, and which of its folders count."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from PIL import Image

__all__ = ["list_folder"]

# Files and folders that operating systems create; hidden ones are ignored, too.
_OF_THE_SYSTEM = {"__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN"}
# Formats that Pillow recognizes, but cannot decode by itself.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


@cache
def _image_suffixes() -> frozenset[str]:
    """Return the suffixes of the image formats that Pillow decodes here, in lower case."""
    suffixes = Image.registered_extensions()
    return frozenset(
        suffix for suffix, name in suffixes.items() if name in Image.OPEN and name not in _NOT_DECODED
    )


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the images in a folder, sorted as plain strings.

    Images are recognized by their suffix. Hidden files and those that operating systems create are ignored.
    """
    folders, images = [], []
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith(".") or entry.name in _OF_THE_SYSTEM:
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in _image_suffixes():
                images.append(entry.name)
    return sorted(folders), sorted(images)
