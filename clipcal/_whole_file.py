"""Write files atomically."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Any

__all__ = ["TEMPORARY_SUFFIX", "remove_stale", "write_whole"]

TEMPORARY_SUFFIX = ".tmp"
# Temporary files of this age belong to a process that was killed.
_STALE_SECONDS = 3600.0


def write_whole(path: Path, write: Any) -> None:
    """Write a file with ``write(file)``; it gets its name only after it is complete and synced to disk."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(temporary, os.stat(path).st_mode & 0o777)  # keep the permissions of a replaced file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def remove_stale(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder."""
    for path in folder.glob(f"*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):  # another process has removed it
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Sync the file names to disk too, before replaced files are removed."""
    with contextlib.suppress(OSError):  # Windows cannot open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
