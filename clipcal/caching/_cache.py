"""A folder of tables of features, and of notes beside them."""

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
        """Delete what is kept, and nothing that lies beside it.

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
        return read_json(self._note_path(subject))

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
            write_json(self._note_path(subject), note)
        except OSError as error:
            warn_unwritable(self.location, error)

    def __repr__(self) -> str:
        return f"FeatureCache({str(self.location)!r})"

    def _note_path(self, subject: str) -> Path:
        return self.location / f"note-{hashlib.sha256(subject.encode()).hexdigest()}.json"

    def _table_folders(self) -> list[Path]:
        return [
            path
            for path in list_folder(self.location)
            if _TABLE.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        ]
