"""Folder of embeddings in shards: which files it holds, and when a shard is complete.

The layout is that of clip-retrieval, so that its tools, embedding-reader and autofaiss read it: arrays in
``img_emb/``, and a table with the column ``image_path`` in ``metadata/``. Two kinds of JSON files are added.
``manifest.json`` names what all shards share. ``shards/<number>.json`` describes one shard; it is written
last, so a shard without it is incomplete, whenever the process was killed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcal._optional import import_optional
from clipcal._whole_file import TEMPORARY_SUFFIX, write_whole

__all__ = ["MAX_SHARDS", "ShardFolder"]

FORMAT = "clipcal shards 1"
# Readers sort the file names as text, so all numbers have the same number of digits.
_N_DIGITS = 5
MAX_SHARDS = 10**_N_DIGITS
# Entries of the manifest that may differ between runs: the same weights can have several names.
_NOT_COMPARED = {"backbone"}


class ShardFolder:
    """The files of one folder.

    Parameters
    ----------
    location : Path
        The folder. It is created by the first write.
    """

    def __init__(self, location: Path) -> None:
        self.location = location

    def manifest(self) -> dict[str, Any]:
        """Return the manifest, or raise an error if the folder has none."""
        path = self.location / "manifest.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no manifest.json in {str(self.location)!r}; expected a folder that "
                "CLIPImageEncoder.encode_to has written."
            )
        found = _read_json(path)
        if found is None or found.get("format") != FORMAT:
            raise ValueError(
                f"{str(path)!r} has format {(found or {}).get('format')!r}, expected {FORMAT!r}. "
                "It is damaged or was written by another version of clipcal; encode into an empty folder."
            )
        return found

    def begin(self, settings: dict[str, Any]) -> str:
        """Write the manifest, or check that an existing one has the same settings; return their digest."""
        settings = {"format": FORMAT, **settings}
        path = self.location / "manifest.json"
        for part in ("img_emb", "shards", *(["metadata"] if settings["paths"] else [])):
            (self.location / part).mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_json(path, settings)
        there = self.manifest()
        differences = [
            f"{name} {there.get(name)!r} there, {value!r} here"
            for name, value in settings.items()
            if name not in _NOT_COMPARED and there.get(name) != value
        ]
        if differences:
            raise ValueError(
                f"{str(self.location)!r} holds embeddings that were computed differently: "
                f"{'; '.join(differences)}. Use the same settings, or another folder."
            )
        return settings_digest(settings)

    def record(self, number: int) -> dict[str, Any] | None:
        """Return the description of a shard, or None if the shard is incomplete."""
        found = _read_json(self._record_path(number))
        if found is None or not {"settings", "images", "start", "stop", "n_rows", "last"} <= found.keys():
            return None
        try:
            complete = not found["n_rows"] or len(self.rows(number)) == found["n_rows"]
        except (OSError, ValueError):
            return None
        return found if complete else None

    def rows(self, number: int) -> NDArray[Any]:
        """Return the embeddings of a shard that has at least one, memory-mapped."""
        rows: NDArray[Any] = np.load(self._rows_path(number), mmap_mode="r", allow_pickle=False)
        return rows

    def paths(self, number: int) -> list[str]:
        """Return the image paths of a shard."""
        parquet = import_optional("pyarrow.parquet", extra="parquet", caller="load_embeddings")
        table = parquet.read_table(self._metadata_path(number), columns=["image_path"])
        paths: list[str] = table.column("image_path").to_pylist()
        return paths

    def write(
        self,
        number: int,
        embeddings: NDArray[Any],
        paths: list[str] | None,
        positions: NDArray[np.int64],
        record: dict[str, Any],
    ) -> None:
        """Write the files of a shard. A shard without rows has a record only, since readers expect rows."""
        for path in (self._rows_path(number), self._metadata_path(number), self._record_path(number)):
            for stray in path.parent.glob(f"{path.name}.*{TEMPORARY_SUFFIX}"):  # of a killed process
                stray.unlink(missing_ok=True)
        if len(embeddings):
            write_whole(self._rows_path(number), lambda file: np.save(file, embeddings, allow_pickle=False))
            if paths is not None:
                write_whole(self._metadata_path(number), lambda file: _write_table(file, paths, positions))
        _write_json(self._record_path(number), record)

    def _rows_path(self, number: int) -> Path:
        return self.location / "img_emb" / f"img_emb_{number:0{_N_DIGITS}}.npy"

    def _metadata_path(self, number: int) -> Path:
        return self.location / "metadata" / f"metadata_{number:0{_N_DIGITS}}.parquet"

    def _record_path(self, number: int) -> Path:
        return self.location / "shards" / f"{number:0{_N_DIGITS}}.json"


def settings_digest(manifest: dict[str, Any]) -> str:
    """Hash the settings that all shards share."""
    compared = {name: value for name, value in manifest.items() if name not in _NOT_COMPARED}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()


def _write_table(file: Any, paths: list[str], positions: NDArray[np.int64]) -> None:
    pyarrow = import_optional("pyarrow", extra="parquet", caller="CLIPImageEncoder.encode_to")
    parquet = import_optional("pyarrow.parquet", extra="parquet", caller="CLIPImageEncoder.encode_to")
    # Parquet stores UTF-8, which the bytes of a file name need not be.
    paths = [path.encode("utf-8", "backslashreplace").decode() for path in paths]
    parquet.write_table(pyarrow.table({"image_path": paths, "position": positions}), file)


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the dict in a JSON file, or None if the file is missing or holds no dict."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))
