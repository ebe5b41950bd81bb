"""Read and write JSON files, in folders that may be missing or read-only."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from clipcal._whole_file import write_whole

_warned: set[str] = set()


def list_folder(folder: Path) -> list[Path]:
    """Return the entries of a folder, sorted by name, or an empty list if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, or 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:  # another process has merged and deleted the file since it was listed
        return 0


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the dict in a JSON file, or None if the file is missing or holds no dict."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, creating its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write((json.dumps(content, indent=1) + "\n").encode()))


def warn_unwritable(location: Path, error: OSError) -> None:
    """Warn, once per folder, that features cannot be cached in it."""
    if str(location) in _warned:
        return
    _warned.add(str(location))
    warnings.warn(
        f"Features could not be cached in {str(location)!r} and will be computed again next time: {error}. "
        "Free disk space or pass a writable folder as memory=.",
        stacklevel=4,
    )
