"""Cache folder with one subfolder per feature table, and small JSON notes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from clipcal._whole_file import TEMPORARY_SUFFIX
from clipcal.caching._files import (
    list_folder,
    read_json,
    size_of,
    warn_unwritable,
    write_json,
)
from clipcal.caching._table import LABEL, FeatureTable, delete_table

_FORMAT = "clipcal features 1"
_SHOWN = ("backbone", "kind", "precision", "fingerprint", "width")
_TABLE = re.compile(r"features-[0-9a-f]{64}")
_NOTE = re.compile(r"note-[0-9a-f]{64}\.json")
_STRAY = re.compile(rf"{_NOTE.pattern}\.[0-9a-f]{{32}}{re.escape(TEMPORARY_SUFFIX)}")


class FeatureCache:
    """Cache of image and text features in a folder, keyed by content.

    Pass it, or the path of the folder, as the parameter ``memory`` of estimators. The key of an image or text
    is a hash of its content, so that a moved file is still a cache hit. Several processes may use one folder
    at the same time. A read-only folder is read, and nothing is added to it.

    Parameters
    ----------
    location : str or Path
        Path of the folder. It is created by the first write.
    read_only : bool, default=False
        Whether nothing is added. What is found then does not depend on earlier calls.

    Attributes
    ----------
    location : Path
        Path of the folder.
    read_only : bool
        As given.

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

    def __init__(self, location: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.location = Path(location).expanduser()
        self.read_only = read_only

    def table(
        self, kind: str, *, width: int, fingerprint: str, precision: str = "fp32", backbone: str = ""
    ) -> FeatureTable:
        """Return the table of one kind of features, without writing to the folder.

        Parameters
        ----------
        kind : str
            ``"images"``, ``"texts"``, ``"raw texts"`` or ``"crops <number> <seed>"``.
        width : int
            Number of features per row.
        fingerprint : str
            Hash that identifies the backbone.
        precision : str, default="fp32"
            Precision of the backbone. It is part of the key because bfloat16 and float32 give different
            features. The device is not part of the key.
        backbone : str, default=""
            Name of the backbone, shown by :meth:`info`. It is not part of the key.

        Returns
        -------
        FeatureTable
            The table.
        """
        identity = {"kind": kind, "width": width, "fingerprint": fingerprint, "precision": precision}
        content = json.dumps([_FORMAT, identity], sort_keys=True)
        folder = self.location / f"features-{hashlib.sha256(content.encode()).hexdigest()}"
        label = {"format": _FORMAT, "backbone": backbone, **identity}
        return FeatureTable(folder, width, label, read_only=self.read_only)

    def info(self) -> list[dict[str, Any]]:
        """List the tables of the cache.

        Returns
        -------
        list of dict
            One record per table: ``backbone`` (name, empty if it has none), ``fingerprint``,
            ``precision``, ``kind`` (``"images"``, ``"crops <number> <seed>"``, ``"texts"`` or
            ``"raw texts"``), ``n_rows`` (number of distinct images or texts), ``width`` (number of features
            per row) and ``n_bytes`` (size on disk).
        """
        records = []
        for folder in self._table_folders():
            label = read_json(folder / LABEL)
            if label is None or label.get("format") != _FORMAT or not label.keys() >= set(_SHOWN):
                continue
            record = {name: label[name] for name in _SHOWN}
            n_rows = len(FeatureTable(folder, int(label["width"]), label))
            records.append(record | {"n_rows": n_rows, "n_bytes": sum(map(size_of, list_folder(folder)))})
        return sorted(
            records, key=lambda record: (str(record["backbone"]), record["kind"], record["precision"])
        )

    def clear(self) -> None:
        """Delete the files of the cache. Other files in the folder are kept.

        Raises
        ------
        OSError
            If a file cannot be deleted.
        """
        for folder in self._table_folders():
            delete_table(folder)
        for path in list_folder(self.location):
            if _NOTE.fullmatch(path.name) or _STRAY.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def note(self, subject: str) -> dict[str, Any] | None:
        """Read a note written by :meth:`write_note`.

        Parameters
        ----------
        subject : str
            Key of the note.

        Returns
        -------
        dict or None
            The note, or None if it is missing or unreadable.
        """
        return read_json(self._note_path(subject))

    def write_note(self, subject: str, note: dict[str, Any]) -> None:
        """Write a small JSON record to the folder, unless it is read-only, and warn if this fails.

        Parameters
        ----------
        subject : str
            Key of the note.
        note : dict
            Content, serializable as JSON.
        """
        if self.read_only:
            return
        try:
            write_json(self._note_path(subject), note)
        except OSError as error:
            warn_unwritable(self.location, error)

    def __repr__(self) -> str:
        read_only = ", read_only=True" if self.read_only else ""
        return f"FeatureCache({str(self.location)!r}{read_only})"

    def _note_path(self, subject: str) -> Path:
        return self.location / f"note-{hashlib.sha256(subject.encode()).hexdigest()}.json"

    def _table_folders(self) -> list[Path]:
        return [
            path
            for path in list_folder(self.location)
            if _TABLE.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        ]
