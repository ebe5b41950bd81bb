"""One immutable file of a feature table: sorted keys, rows, and a checksum of each row.

A file gets its final name after it is completely written to disk, so neither readers nor writers need a lock.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from clipcal._whole_file import write_whole

KEY_SIZE = 32
SUFFIX = ".shard"
_ROWS_AT_ONCE = 4096


class Shard:
    """Memory-mapped shard file; only the requested rows are read.

    Parameters
    ----------
    path : Path
        The file.
    width : int
        Number of features per row.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If the file is incomplete or has another format.
    """

    def __init__(self, path: Path, width: int) -> None:
        with open(path, "rb") as file:
            keys, checks, rows = (_map_block(file, path) for _ in range(3))
            end = file.tell()
        n = len(keys)
        kinds = [(block.dtype.str, block.shape) for block in (keys, checks, rows)]
        if kinds != [("|S32", (n,)), ("<u4", (n,)), ("<f4", (n, width))] or end != path.stat().st_size:
            raise ValueError(f"{path} is not a complete shard with {width} features per row.")
        self.path = path
        self.keys, self.checks, self.rows = keys, checks, rows

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: NDArray[np.bytes_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the indices of the keys found in this shard, and the rows that hold them."""
        if not len(self):
            return np.empty(0, np.intp), np.empty(0, np.intp)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self) - 1)
        found = np.flatnonzero(self.keys[places] == keys)
        return found, places[found]

    def read(self, places: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return rows, and a mask of those whose checksum is correct."""
        rows = self.rows[places]
        return rows, checks_of(self.keys[places], rows) == self.checks[places]

    def whole_rows(self) -> NDArray[np.intp]:
        """Return the indices of all rows whose checksum is correct."""
        pieces = np.split(np.arange(len(self)), range(_ROWS_AT_ONCE, len(self), _ROWS_AT_ONCE))
        return np.concatenate([piece[self.read(piece)[1]] for piece in pieces])


def as_keys(keys: Sequence[bytes]) -> NDArray[np.bytes_]:
    """Convert keys of 32 bytes to an array that can be sorted."""
    if any(len(key) != KEY_SIZE for key in keys):
        sizes = sorted({len(key) for key in keys})
        raise ValueError(
            f"Keys must have {KEY_SIZE} bytes, got lengths {sizes}; use hashlib.sha256(content).digest()."
        )
    return np.frombuffer(b"".join(keys), dtype=f"S{KEY_SIZE}")


def checks_of(keys: NDArray[np.bytes_], rows: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Compute a checksum of each row: the position-weighted sum of its words plus the start of its key.

    The key makes a page of zeros invalid, and the weights make a row with swapped numbers invalid.
    """
    start = np.ascontiguousarray(keys).view("<u4").reshape(-1, KEY_SIZE // 4)[:, 0]
    bits = np.ascontiguousarray(rows).view("<u4")
    weights = np.arange(1, 2 * bits.shape[1], 2, dtype=np.uint32)
    return (bits * weights).sum(axis=1, dtype=np.uint32) + start


def write_shard(folder: Path, keys: NDArray[np.bytes_], rows: NDArray[np.float32]) -> Path:
    """Write a shard. Keys must be sorted and distinct."""
    return _write(folder, keys, checks_of(keys, rows), rows.shape[1], [rows])


def merge_shards(folder: Path, shards: Sequence[Shard]) -> Path:
    """Merge several shards into one file, in pieces that fit in memory."""
    kept = [shard.whole_rows() for shard in shards]
    keys = np.concatenate([shard.keys[rows] for shard, rows in zip(shards, kept, strict=True)])
    _, first = np.unique(keys, return_index=True)
    source = np.repeat(np.arange(len(shards)), [len(rows) for rows in kept])[first]
    place = np.concatenate(kept)[first]
    width = shards[0].rows.shape[1]
    # Checksums are copied, not recomputed: a row damaged from now on must not get a valid checksum.
    checks = np.concatenate([shard.checks[rows] for shard, rows in zip(shards, kept, strict=True)])[first]

    def pieces() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(first), _ROWS_AT_ONCE):
            piece = slice(start, start + _ROWS_AT_ONCE)
            rows = np.empty((len(first[piece]), width), dtype="<f4")
            for number in np.unique(source[piece]):
                here = source[piece] == number
                rows[here] = shards[number].rows[place[piece][here]]
            yield rows

    return _write(folder, keys[first], checks, width, pieces())


def _write(
    folder: Path,
    keys: NDArray[np.bytes_],
    checks: NDArray[np.uint32],
    width: int,
    pieces: Iterable[NDArray[np.float32]],
) -> Path:
    path = folder / f"{uuid.uuid4().hex}{SUFFIX}"

    def write(file: BinaryIO) -> None:
        npy.write_array(file, keys, allow_pickle=False)
        npy.write_array(file, checks.astype("<u4"), allow_pickle=False)
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(keys), width)}
        npy.write_array_header_1_0(file, header)
        for rows in pieces:
            file.write(np.ascontiguousarray(rows, dtype="<f4").data)

    write_whole(path, write)
    return path


def _map_block(file: BinaryIO, path: Path) -> NDArray[Any]:
    """Memory-map the array at the current position and move to its end."""
    if npy.read_magic(file) != (1, 0):
        raise ValueError(f"{path} has an unsupported npy header version.")
    shape, fortran_order, dtype = npy.read_array_header_1_0(file)
    size = math.prod(shape) * dtype.itemsize
    start = file.tell()
    if fortran_order or dtype.hasobject or start + size > os.fstat(file.fileno()).st_size:
        raise ValueError(f"{path} is truncated or has an unsupported layout.")
    file.seek(start + size)
    if not size:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset=start, shape=shape).view(np.ndarray)
