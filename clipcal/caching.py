"""Features kept on disk and found again by content, one by one.

A *table* holds features of one kind from one backbone. It is a folder of immutable files, so any number of
processes may read and write at once, and one that is killed leaves what it had finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._shards import (
    SUFFIX,
    TEMPORARY_SUFFIX,
    Shard,
    as_keys,
    merge_shards,
    size_of,
    write_shard,
    write_whole,
)

__all__ = ["FeatureCache", "FeatureTable", "MemoryLike", "as_cache"]

_FORMAT = "clipcal features 1"
_LABEL = "table.json"
_SHOWN = ("backbone", "kind", "precision", "fingerprint", "width")
_TABLE = re.compile(r"features-[0-9a-f]{64}")
_NOTE = re.compile(r"note-[0-9a-f]{64}\.json")
_OWN_FILE = re.compile(rf"({re.escape(_LABEL)}|[0-9a-f]{{32}}{re.escape(SUFFIX)})")
_STRAY = re.compile(rf"({_NOTE.pattern}|{_OWN_FILE.pattern})\.[0-9a-f]{{32}}{re.escape(TEMPORARY_SUFFIX)}")
_MAX_SMALL_SHARDS = 64
# Writing a large shard anew costs more than looking into one file more.
_LARGE_SHARD = 100_000
_STRAY_SECONDS = 24 * 3600
_warned: set[str] = set()


class HasLocation(Protocol):
    """What :class:`joblib.Memory` is to us: something that knows its folder."""

    location: Any

    def cache(self, func: Any) -> Any:
        """Wrap a function; never called."""
        ...


class FeatureCache:
    """Features of images and texts, kept in a folder and found again by content.

    Hand it, or just the folder, to the parameter ``memory`` of estimators. Each image and each text is
    found again by itself, by a hash of what it contains, wherever its file has moved. Several processes may
    use one folder at once. Where the folder cannot be written to, what it holds is still used.

    Parameters
    ----------
    location : str or Path
        The folder. It is made when something is first written.

    Attributes
    ----------
    location : Path
        The folder.

    Examples
    --------
    >>> import tempfile
    >>> from clipcal import CLIPImageEncoder, FeatureCache, make_shapes
    >>> X, y = make_shapes("textures", n_per_class=1, random_state=0, return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = FeatureCache(folder)
    ...     embeddings = CLIPImageEncoder("mini", memory=cache, device="cpu").fit_transform(X)
    ...     [table] = cache.info()
    ...     cache.clear()
    ...     cache.info()
    []
    >>> table["backbone"], table["kind"], table["n_rows"] == len(X), table["width"] == embeddings.shape[1]
    ('mini', 'images', True, True)
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = Path(location).expanduser()

    def table(
        self, kind: str, *, width: int, fingerprint: str, precision: str = "fp32", backbone: str = ""
    ) -> FeatureTable:
        """Open the table of one kind of features; nothing is written yet.

        Parameters
        ----------
        kind : str
            ``"images"``, ``"texts"``, or ``"views <number> <seed>"``.
        width : int
            Numbers a row.
        fingerprint : str
            What identifies the backbone.
        precision : str, default="fp32"
            Its arithmetic: bfloat16 gives other numbers than float32, the device alone does not.
        backbone : str, default=""
            Its name, for people to read; no part of the identity.

        Returns
        -------
        FeatureTable
            The table.
        """
        identity = {"kind": kind, "width": width, "fingerprint": fingerprint, "precision": precision}
        content = json.dumps([_FORMAT, identity], sort_keys=True)
        folder = self.location / f"features-{hashlib.sha256(content.encode()).hexdigest()}"
        return FeatureTable(folder, width, {"format": _FORMAT, "backbone": backbone, **identity})

    def info(self) -> list[dict[str, Any]]:
        """Say what is kept.

        Returns
        -------
        list of dict
            One record a table: ``backbone`` (its name, empty if it has none), ``fingerprint``,
            ``precision``, ``kind`` (``"images"``, ``"views <number> <seed>"`` or ``"texts"``), ``n_rows``
            (different images or texts), ``width`` (numbers a row) and ``n_bytes`` on the disk.
        """
        records = []
        for folder in self._table_folders():
            label = _read_json(folder / _LABEL)
            if label is None or label.get("format") != _FORMAT or not label.keys() >= set(_SHOWN):
                continue
            record = {name: label[name] for name in _SHOWN}
            n_rows = len(FeatureTable(folder, int(label["width"]), label))
            records.append(record | {"n_rows": n_rows, "n_bytes": sum(map(size_of, _listed(folder)))})
        return sorted(
            records, key=lambda record: (str(record["backbone"]), record["kind"], record["precision"])
        )

    def clear(self) -> None:
        """Delete what is kept, and nothing that lies beside it.

        Raises
        ------
        OSError
            If a file cannot be deleted.
        """
        for folder in self._table_folders():
            for path in _listed(folder):
                if (_OWN_FILE.fullmatch(path.name) or _STRAY.fullmatch(path.name)) and not path.is_dir():
                    path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody keeps something else there
                folder.rmdir()
        for path in _listed(self.location):
            if _NOTE.fullmatch(path.name) or _STRAY.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def note(self, subject: str) -> dict[str, Any] | None:
        """Return what :meth:`write_note` has kept.

        Parameters
        ----------
        subject : str
            What the note is about.

        Returns
        -------
        dict or None
            The note, or None where there is none that can be read.
        """
        return _read_json(self._note_path(subject))

    def write_note(self, subject: str, note: dict[str, Any]) -> None:
        """Keep a small record beside the tables.

        Parameters
        ----------
        subject : str
            What the note is about.
        note : dict
            What JSON can hold.
        """
        try:
            _write_json(self._note_path(subject), note)
        except OSError as error:
            _warn_unwritable(self.location, error)

    def __repr__(self) -> str:
        return f"FeatureCache({str(self.location)!r})"

    def _note_path(self, subject: str) -> Path:
        return self.location / f"note-{hashlib.sha256(subject.encode()).hexdigest()}.json"

    def _table_folders(self) -> list[Path]:
        return [
            path
            for path in _listed(self.location)
            if _TABLE.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        ]


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
            _warn_unwritable(self.folder.parent, error)

    def _refresh(self) -> list[Shard]:
        """Open what has come and forget what has gone; return what is whole, the largest first."""
        for _ in range(100):
            names = {path.name for path in _listed(self.folder) if path.name.endswith(SUFFIX)}
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
        if (_read_json(self.folder / _LABEL) or {}).keys() != self.label.keys():
            _write_json(self.folder / _LABEL, self.label)

    def _tidy(self) -> None:
        """Merge many small files into one, and remove what killed writers left."""
        small = [shard for shard in self._refresh() if len(shard) < _LARGE_SHARD]
        if len(small) > _MAX_SMALL_SHARDS:
            merge_shards(self.folder, small)
            # Only now: whoever reads or merges at the same time finds each row in one file at least.
            for shard in small:
                with contextlib.suppress(OSError):
                    shard.path.unlink()
        for path in _listed(self.folder):
            with contextlib.suppress(OSError):
                if _STRAY.fullmatch(path.name) and time.time() - path.stat().st_mtime > _STRAY_SECONDS:
                    path.unlink()


MemoryLike = str | os.PathLike[str] | FeatureCache | HasLocation


def as_cache(memory: MemoryLike | None) -> FeatureCache | None:
    """Turn what estimators take as ``memory`` into a cache.

    Parameters
    ----------
    memory : str, Path, FeatureCache, joblib.Memory or None
        A folder, or what has one as ``location``.

    Returns
    -------
    FeatureCache or None
        None where nothing is to be kept: for None, and a Memory without a location.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if memory is None or isinstance(memory, FeatureCache):
        return memory
    if isinstance(memory, (str, os.PathLike)):
        return FeatureCache(memory)
    if not hasattr(memory, "location"):
        raise TypeError(
            f"memory must be a folder, a FeatureCache, a joblib.Memory or None, got {type(memory).__name__}; "
            "write memory='path/of/a/folder'."
        )
    return None if memory.location is None else FeatureCache(memory.location)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write((json.dumps(content, indent=1) + "\n").encode()))


def _warn_unwritable(location: Path, error: OSError) -> None:
    if str(location) in _warned:
        return
    _warned.add(str(location))
    warnings.warn(
        f"Features could not be kept in {str(location)!r} and will be computed again next time: {error}. "
        "Make room or give a folder that can be written to as memory=.",
        stacklevel=4,
    )
