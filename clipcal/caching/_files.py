"""Small files of JSON, and folders that may be gone or read-only."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from clipcal._whole_file import write_whole

_warned: set[str] = set()


def list_folder(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted by name; nothing if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def size_of(path: Path) -> int:
    """Return the bytes of a file, 0 if it is gone."""
    try:
        return path.stat().st_size
    except OSError:  # another process has merged the file away since it was listed
        return 0


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the dict that a JSON file holds, or None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write((json.dumps(content, indent=1) + "\n").encode()))


def warn_unwritable(location: Path, error: OSError) -> None:
    """Warn, once per folder, that nothing can be kept in it."""
    if str(location) in _warned:
        return
    _warned.add(str(location))
    warnings.warn(
        f"Features could not be kept in {str(location)!r} and will be computed again next time: {error}. "
        "Make room or give a folder that can be written to as memory=.",
        stacklevel=4,
    )
