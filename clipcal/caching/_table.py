"""One table: features of one kind from one backbone, in a folder of immutable files.

Any number of processes may read and write a table at once. One that is killed leaves what it had finished.
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
# Writing a large shard anew costs more than looking into one file more.
_LARGE_SHARD = 100_000
_STRAY_SECONDS = 24 * 3600


class FeatureTable:
    """Rows of numbers under keys of 32 bytes.

    A key that is there keeps its row. A row that the disk has damaged is not there.

    Parameters
    ----------
    folder : Path
        Where the files are, or will be.
    width : int
        Numbers a row.
    label : dict
        What the table is, in words.
    """

    def __init__(self, folder: Path, width: int, label: dict[str, Any]) -> None:
        self.folder = folder
        self.width = width
        self.label = label
        # None stands for a file that is not whole.
        self._shards: dict[str, Shard | None] = {}

    def __len__(self) -> int:
        """Count the different keys."""
        keys = [shard.keys for shard in self._refresh()]
        return len(keys[0]) if len(keys) == 1 else len(np.unique(np.concatenate(keys))) if keys else 0

    @property
    def empty(self) -> bool:
        """Whether no row is kept."""
        return not self._refresh()

    def get(self, keys: Sequence[bytes]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Look up rows.

        Parameters
        ----------
        keys : sequence of bytes
            Of 32 bytes each.

        Returns
        -------
        rows : ndarray of float32, shape (n_keys, width)
            Zeros where nothing was found.
        found : ndarray of bool, shape (n_keys,)
            Where something was.
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
        """Keep rows, in one new file; where nothing can be written, warn and go on.

        Parameters
        ----------
        keys : sequence of bytes
            Of 32 bytes each. Those that are there already are left as they are.
        rows : array-like of shape (n_keys, width)
            Their rows.

        Raises
        ------
        ValueError
            If keys and rows do not fit together.
        """
        given = np.asarray(rows, dtype="<f4")
        if given.shape != (len(keys), self.width):
            raise ValueError(
                f"{len(keys)} keys of this table go with rows of shape ({len(keys)}, {self.width}), "
                f"got {given.shape}."
            )
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
        """Open what has come and forget what has gone; return what is whole, the largest first."""
        for _ in range(100):
            names = {path.name for path in list_folder(self.folder) if path.name.endswith(SUFFIX)}
            vanished = False
            for name in names - self._shards.keys():
                try:
                    self._shards[name] = Shard(self.folder / name, self.width)
                except FileNotFoundError:  # merged into another since it was listed
                    vanished = True
                except Exception:  # whatever reading a damaged header comes to
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
        """Merge many small files into one, and remove what killed writers left."""
        small = [shard for shard in self._refresh() if len(shard) < _LARGE_SHARD]
        if len(small) > _MAX_SMALL_SHARDS:
            merge_shards(self.folder, small)
            # Only now: whoever reads or merges at the same time finds each row in one file at least.
            for shard in small:
                with contextlib.suppress(OSError):
                    shard.path.unlink()
        for path in list_folder(self.folder):
            with contextlib.suppress(OSError):
                if _STRAY.fullmatch(path.name) and time.time() - path.stat().st_mtime > _STRAY_SECONDS:
                    path.unlink()


def delete_table(folder: Path) -> None:
    """Delete the files of a table, and its folder unless it holds something else."""
    for path in list_folder(folder):
        if (_OWN_FILE.fullmatch(path.name) or _STRAY.fullmatch(path.name)) and not path.is_dir():
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
