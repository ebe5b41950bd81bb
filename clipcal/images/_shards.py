"""Encode many images into a folder of shards, and read the embeddings back."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from clipcal._optional import import_optional
from clipcal._progress import progress_bar
from clipcal.caching import MemoryLike
from clipcal.exceptions import ImageReadError
from clipcal.images._encoding import encode_readable
from clipcal.images._faults import Faults
from clipcal.images._inputs import as_images
from clipcal.images._reading import image_digest
from clipcal.images._sequences import ImagePaths
from clipcal.images._shard_folder import MAX_SHARDS, ShardFolder, settings_digest

if TYPE_CHECKING:
    from clipcal.backbones import Backbone

_CALLER = "CLIPImageEncoder.encode_to"


@dataclass
class ShardOptions:
    """The arguments of :meth:`CLIPImageEncoder.encode_to`."""

    shard_size: int
    dtype: str
    part: tuple[int, int]
    on_error: str

    def __post_init__(self) -> None:
        if not isinstance(self.shard_size, Integral) or self.shard_size < 1:
            raise ValueError(f"shard_size must be an integer of at least 1, got {self.shard_size!r}.")
        for name, accepted in {"dtype": ("float32", "float16"), "on_error": ("raise", "skip")}.items():
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} must be one of {accepted}, got {getattr(self, name)!r}.")
        part = self.part
        numbers = isinstance(part, tuple) and [isinstance(number, Integral) for number in part] == [True] * 2
        if not (numbers and 0 <= part[0] < part[1]):
            raise ValueError(
                "part must be two integers (i, n) with 0 <= i < n, such as (0, 4) for the first of 4 "
                f"processes, got {part!r}."
            )


@dataclass
class _Block:
    """The images of one shard: positions `start` to `stop` of X; `last` if no image follows."""

    number: int
    start: int
    stop: int
    last: bool
    images: Any

    @property
    def paths(self) -> list[str] | None:
        """The paths as given, or None if the images are not files."""
        if isinstance(self.images, ImagePaths):
            return list(self.images.paths)
        if isinstance(self.images, list) and isinstance(self.images[0], (str, os.PathLike)):
            return [os.fsdecode(path) for path in self.images]
        return None

    def digest(self) -> str:
        """Hash the paths, or the content of the first and the last image if they are not files."""
        if self.paths is not None:
            return hashlib.sha256(json.dumps(self.paths).encode()).hexdigest()
        ends = []
        for i in (0, len(self.images) - 1):
            try:
                ends.append(image_digest(self.images, i).hex())
            except ImageReadError:
                ends.append("unreadable")
        return hashlib.sha256(json.dumps([len(self.images), ends]).encode()).hexdigest()


def encode_shards(
    images: Any,
    location: str | os.PathLike[str],
    backbone: Backbone,
    options: ShardOptions,
    *,
    normalize: Any,
    batch_size: int,
    memory: MemoryLike | None,
    verbose: int,
) -> None:
    """Encode the shards of one part that are not complete; see :meth:`CLIPImageEncoder.encode_to`.

    Parameters
    ----------
    images : images as returned by :func:`as_images`, or iterator
        The images.
    location, options
        See :meth:`CLIPImageEncoder.encode_to`.
    backbone, batch_size, memory, verbose
        See :func:`encode_images`.
    normalize : callable or None
        Function that normalizes embeddings.
    """
    folder = ShardFolder(Path(location).expanduser())
    total = None if isinstance(images, Iterator) else _n_images(len(images), options)
    settings = ""
    skipped: list[dict[str, Any]] = []
    with progress_bar(shown=verbose >= 1, description="Encoding images", unit="img", total=total) as bar:
        for block in _blocks(images, options):
            settings = settings or _begin(folder, block, backbone, options, normalize is not None)
            record = _check_record(folder, block, settings)
            if record is not None:
                bar.update(block.stop - block.start)
            else:
                faults = Faults(skip=options.on_error == "skip", start=block.start)
                rows = encode_readable(
                    block.images,
                    backbone,
                    batch_size=batch_size,
                    memory=memory,
                    advance=bar.update,
                    faults=faults,
                )
                rows = rows if normalize is None else normalize(rows)
                record = _write(folder, block, rows.astype(options.dtype), faults, settings)
            skipped += record["skipped"]
    if skipped:
        warnings.warn(
            f"{len(skipped)} images could not be read and were left out; load_embeddings lists them. "
            f"The first: {skipped[0]['error']}",
            stacklevel=3,
        )


def _n_images(n: int, options: ShardOptions) -> int:
    """Return the number of images in the shards of one part."""
    starts = range(options.part[0] * options.shard_size, n, options.part[1] * options.shard_size)
    return sum(min(options.shard_size, n - start) for start in starts)


def _blocks(images: Any, options: ShardOptions) -> Iterator[_Block]:
    """Yield the images of each shard of one part. An iterator is consumed shard by shard."""
    mine, n_parts = options.part
    size = options.shard_size
    if not isinstance(images, Iterator):
        for number, start in enumerate(range(0, len(images), size)):
            if number % n_parts == mine:
                stop = min(start + size, len(images))
                yield _Block(number, start, stop, stop == len(images), images[start:stop])
        return
    number, ahead = 0, list(islice(images, 1))
    first = ahead[:1]
    as_images(first)  # raises an error if there are no images
    while ahead:
        items = ahead + list(islice(images, size - 1))
        ahead = list(islice(images, 1))
        if number % n_parts == mine:
            start = number * size
            # All images must be of the kind of the first one, which also has stricter checks.
            checked = as_images(first + items)[1:]
            yield _Block(number, start, start + len(items), not ahead, checked)
        number += 1


def _begin(
    folder: ShardFolder, block: _Block, backbone: Backbone, options: ShardOptions, normalized: bool
) -> str:
    """Write or check the manifest, and return the digest of its settings."""
    from clipcal.backbones import precision_of

    if block.paths is not None:
        # Checked before the images are encoded.
        import_optional("pyarrow.parquet", extra="parquet", caller=f"{_CALLER}, given paths,")
    return folder.begin(
        {
            "backbone": backbone.name,
            "fingerprint": backbone.fingerprint,
            "precision": precision_of(backbone),
            "normalize": normalized,
            "dimension": backbone.embedding_dim,
            "dtype": options.dtype,
            "shard_size": options.shard_size,
            "paths": block.paths is not None,
        }
    )


def _check_record(folder: ShardFolder, block: _Block, settings: str) -> dict[str, Any] | None:
    """Return the record of a complete shard; raise an error if it has other images or settings."""
    if block.number >= MAX_SHARDS:
        raise ValueError(f"X has more than {MAX_SHARDS} shards; pass a larger shard_size.")
    record = folder.record(block.number)
    if record is None:
        return None
    if record["settings"] != settings:
        raise ValueError(
            f"Shard {block.number} of {str(folder.location)!r} was computed with settings other than those "
            "in manifest.json, by a process that started at the same time. Encode into an empty folder."
        )
    if (record["images"], record["last"]) != (block.digest(), block.last):
        raise ValueError(
            f"{str(folder.location)!r} holds embeddings of other images: those of shard {block.number} are "
            f"not X[{block.start}:{block.stop}]. Pass the same images in the same order, or another folder."
        )
    return record


def _write(
    folder: ShardFolder, block: _Block, rows: NDArray[Any], faults: Faults, settings: str
) -> dict[str, Any]:
    """Write the files of a shard, and return its record."""
    readable = np.delete(np.arange(block.stop - block.start), sorted(faults.errors))
    paths = block.paths
    record = {
        "settings": settings,
        "images": block.digest(),
        "start": block.start,
        "stop": block.stop,
        "last": block.last,
        "n_rows": len(rows),
        "skipped": [
            {"position": block.start + i, "error": str(error)} for i, error in sorted(faults.errors.items())
        ],
    }
    kept = None if paths is None else [paths[i] for i in readable]
    folder.write(block.number, rows, kept, readable + block.start, record)
    return record


def load_embeddings(folder: str | os.PathLike[str], *, backbone: str | Backbone | None = None) -> Bunch:
    """Read embeddings written by :meth:`CLIPImageEncoder.encode_to`.

    Parameters
    ----------
    folder : str or Path
        The folder.
    backbone : str, Backbone or None, default=None
        If given, check that the embeddings were computed by this backbone.

    Returns
    -------
    Bunch
        ``embeddings``, ndarray of shape (n_samples, embedding_dim), float32, in the order of the encoded
        images; ``positions``, ndarray of shape (n_samples,), the position of each row in the encoded images,
        so that ``y[positions]`` are its labels if images were left out; ``paths``, the list of image paths as
        given, or None if the images were not files; ``skipped``, a list of records with the ``position`` and
        the ``error`` of each image that was left out; ``manifest``, a dict with the backbone and
        the settings.

    Raises
    ------
    FileNotFoundError
        If the folder has no manifest.
    ValueError
        If the manifest is not valid, if shards are missing or damaged, or if `backbone` is another one.
    ImportError
        If the images were files and pyarrow is not installed.

    Notes
    -----
    The embeddings are copied into one array. For more rows than fit in memory, read single shards with
    ``np.load("folder/img_emb/img_emb_00000.npy", mmap_mode="r")``.

    Examples
    --------
    >>> import tempfile
    >>> from clipcal import CLIPImageEncoder, make_shapes
    >>> from clipcal.images import load_embeddings
    >>> X, y = make_shapes("textures", n_per_class=1, random_state=0, return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     CLIPImageEncoder("mini", device="cpu").encode_to(X, folder, shard_size=4)
    ...     data = load_embeddings(folder, backbone="mini")
    >>> len(data.embeddings) == len(X), data.manifest["backbone"]
    (True, 'mini')
    """
    files = ShardFolder(Path(folder).expanduser())
    manifest = files.manifest()
    if backbone is not None:
        _check_backbone(manifest, backbone, files.location)
    records = _complete_records(files, settings_digest(manifest))
    n_rows = sum(record["n_rows"] for record in records)
    embeddings = np.empty((n_rows, manifest["dimension"]), dtype=np.float32)
    positions = np.empty(n_rows, dtype=np.int64)
    paths: list[str] | None = [] if manifest["paths"] else None
    end = 0
    for number, record in enumerate(records):
        start, end = end, end + record["n_rows"]
        if start == end:
            continue
        embeddings[start:end] = files.rows(number)
        skipped = [entry["position"] - record["start"] for entry in record["skipped"]]
        positions[start:end] = np.delete(np.arange(record["start"], record["stop"]), skipped)
        if paths is not None:
            paths += files.paths(number)
    return Bunch(
        embeddings=embeddings,
        positions=positions,
        paths=paths,
        skipped=[entry for record in records for entry in record["skipped"]],
        manifest=manifest,
    )


def _check_backbone(manifest: dict[str, Any], backbone: str | Backbone, location: Path) -> None:
    from clipcal.backbones import open_backbone

    opened = open_backbone(backbone)
    if opened.fingerprint != manifest["fingerprint"]:
        raise ValueError(
            f"{str(location)!r} holds embeddings of the backbone {manifest['backbone']!r} (fingerprint "
            f"{manifest['fingerprint'][:12]}), not of {opened.name!r} ({opened.fingerprint[:12]})."
        )


def _complete_records(files: ShardFolder, settings: str) -> list[dict[str, Any]]:
    """Return the records of all shards, or raise an error if some are missing."""
    numbers = sorted(int(path.stem) for path in (files.location / "shards").glob("[0-9]*.json"))
    records = {number: files.record(number) for number in numbers}
    found = {
        number: record
        for number, record in records.items()
        if record is not None and record["settings"] == settings
    }
    last = [number for number, record in found.items() if record["last"]]
    missing = [
        number for number in range(last[0] if last else max(numbers, default=-1) + 2) if number not in found
    ]
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        raise ValueError(
            f"{str(files.location)!r} is not complete: {len(found)} shards are complete, missing: {shown}. "
            "Call encode_to with the same arguments again (and with every part) to encode the rest."
        )
    return [found[number] for number in range(last[0] + 1)]
