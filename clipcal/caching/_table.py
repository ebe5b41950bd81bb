"""Table of features of one kind from one backbone, stored in a folder of immutable files.

Any number of processes may read and write a table at the same time. If a writer is killed, the files that it
had completed remain valid.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._whole_file import TEMPORARY_SUFFIX
from clipcal.caching._files import list_folder, read_json, warn_unwritable, write_json
from clipcal.caching._shards import SUFFIX, Shard, as_keys, merge_shards, write_shard

LABEL = "table.json"
_OWN_FILE = re.compile(rf"({re.escape(LABEL)}|[0-9a-f]{{32}}{re.escape(SUFFIX)})")
_STRAY = re.compile(rf"{_OWN_FILE.pattern}\.[0-9a-f]{{32}}{re.escape(TEMPORARY_SUFFIX)}")
_MAX_SMALL_SHARDS = 64
# Shards of this size are not merged: rewriting one costs more than searching one more file.
_LARGE_SHARD = 100_000
_STRAY_SECONDS = 24 * 3600


class FeatureTable:
    """Mapping of 32-byte keys to rows of features.

    The row of an existing key is never overwritten. Corrupt rows count as missing.

    Parameters
    ----------
    folder : Path
        Folder of the table's files. It is created by the first write.
    width : int
        Number of features per row.
    label : dict
        Description of the table, written next to the rows.
    read_only : bool, default=False
        Whether :meth:`put` does nothing.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from clipcal.caching import FeatureTable
    >>> table = FeatureTable(Path(tempfile.mkdtemp()), width=2, label={"kind": "example"})
    >>> key = bytes(32)
    >>> table.put([key], np.float32([[0.5, 1.5]]))
    >>> rows, found = table.get([key])
    >>> rows.tolist(), found.tolist()
    ([[0.5, 1.5]], [True])
    """

    def __init__(self, folder: Path, width: int, label: dict[str, Any], *, read_only: bool = False) -> None:
        self.folder = folder
        self.width = width
        self.label = label
        self.read_only = read_only
        # None marks an incomplete or damaged file.
        self._shards: dict[str, Shard | None] = {}

    def __len__(self) -> int:
        """Return the number of distinct keys."""
        keys = [shard.keys for shard in self._refresh()]
        return len(keys[0]) if len(keys) == 1 else len(np.unique(np.concatenate(keys))) if keys else 0

    @property
    def empty(self) -> bool:
        """Whether the table has no rows."""
        return not self._refresh()

    def get(self, keys: Sequence[bytes]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Look up rows.

        Parameters
        ----------
        keys : sequence of bytes
            Keys of 32 bytes each.

        Returns
        -------
        rows : ndarray of float32, shape (n_keys, width)
            The rows, zeros for missing keys.
        found : ndarray of bool, shape (n_keys,)
            Whether each key was found.
        """
        wanted = as_keys(keys)
        rows = np.zeros((len(wanted), self.width), dtype=np.float32)
        found = np.zeros(len(wanted), dtype=bool)
        for shard in self._refresh():
            missing = np.flatnonzero(~found)
            if not len(missing):
                break
            which, places = shard.find(wanted[missing])
            read, whole = shard.read(places)
            rows[missing[which[whole]]] = read[whole]
            found[missing[which[whole]]] = True
        return rows, found

    def put(self, keys: Sequence[bytes], rows: ArrayLike) -> None:
        """Add rows in one new file, unless the table is read-only. If the folder is not writable, warn.

        Parameters
        ----------
        keys : sequence of bytes
            Keys of 32 bytes each. Keys that are in the table already are ignored.
        rows : array-like of shape (n_keys, width)
            Row of each key.

        Raises
        ------
        ValueError
            If a key does not have 32 bytes or `rows` has another shape.
        """
        given = np.asarray(rows, dtype="<f4")
        if given.shape != (len(keys), self.width):
            raise ValueError(
                f"{len(keys)} keys of this table need rows of shape ({len(keys)}, {self.width}), "
                f"got {given.shape}."
            )
        if self.read_only:
            return
        known = self.get(keys)[1]
        different, first = np.unique(as_keys(keys)[~known], return_index=True)
        if not len(different):
            return
        try:
            self._prepare_folder()
            write_shard(self.folder, different, given[~known][first])
            self._tidy()
        except OSError as error:
            warn_unwritable(self.folder.parent, error)

    def _refresh(self) -> list[Shard]:
        """Open new files, drop deleted ones, and return the valid shards, largest first."""
        for _ in range(100):
            names = {path.name for path in list_folder(self.folder) if path.name.endswith(SUFFIX)}
            vanished = False
            for name in names - self._shards.keys():
                try:
                    self._shards[name] = Shard(self.folder / name, self.width)
                except FileNotFoundError:  # merged into another file since it was listed
                    vanished = True
                except Exception:  # reading a damaged header can raise almost any error
                    self._shards[name] = None
            if not vanished:
                break
        self._shards = {name: shard for name, shard in self._shards.items() if name in names}
        return sorted((shard for shard in self._shards.values() if shard is not None), key=len, reverse=True)

    def _prepare_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if (read_json(self.folder / LABEL) or {}).keys() != self.label.keys():
            write_json(self.folder / LABEL, self.label)

    def _tidy(self) -> None:
        """Merge small files if there are many, and remove old temporary files of killed writers."""
        small = [shard for shard in self._refresh() if len(shard) < _LARGE_SHARD]
        if len(small) > _MAX_SMALL_SHARDS:
            merge_shards(self.folder, small)
            # Deleted after the merge, so that concurrent readers find each row in at least one file.
            for shard in small:
                with contextlib.suppress(OSError):
                    shard.path.unlink()
        for path in list_folder(self.folder):
            with contextlib.suppress(OSError):
                if _STRAY.fullmatch(path.name) and time.time() - path.stat().st_mtime > _STRAY_SECONDS:
                    path.unlink()


def delete_table(folder: Path) -> None:
    """Delete the files of a table, and its folder if it is then empty."""
    for path in list_folder(folder):
        if (_OWN_FILE.fullmatch(path.name) or _STRAY.fullmatch(path.name)) and not path.is_dir():
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
