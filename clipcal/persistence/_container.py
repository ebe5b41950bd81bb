"""One safetensors file: a document in JSON and tensors, with a checksum over both.

In addition to the descriptions of tensors, the header of the file has five entries of text: ``format``
("clipcal"), ``schema`` (a number), ``version`` (of the package that wrote the file), ``model`` (the document)
and ``sha256``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

from numpy.typing import NDArray
from safetensors import numpy as safetensors

from clipcal.persistence._arrays import NUMBERS

__all__ = ["SCHEMA", "Content", "pack", "read_file"]

SCHEMA = 1
_FORMAT = "clipcal"
# The limit of safetensors.
_MAX_HEADER = 100_000_000
_DTYPES = {code: f"{code[0].upper()}{8 * int(code[1:])}" for code in NUMBERS} | {"b1": "BOOL"}


class Content(NamedTuple):
    """Content of a file."""

    document: Any
    tensors: dict[str, NDArray[Any]]


def pack(document: Any, tensors: Mapping[str, NDArray[Any]], version: str) -> bytes:
    """Return the bytes of a file. They are the same whenever the content is the same."""
    entries = {
        "format": _FORMAT,
        "schema": str(SCHEMA),
        "version": version,
        "model": json.dumps(document, allow_nan=False, separators=(",", ":")),
    }
    header: dict[str, Any] = {"__metadata__": entries}
    data = bytearray()
    # Sorted by decreasing item size, so that each tensor is aligned.
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        start = len(data)
        data += tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes()
        dtype = _DTYPES[tensor.dtype.str[1:]]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, len(data)]}
    entries["sha256"] = _digest(header, memoryview(data))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, data])


def read_file(file: BinaryIO, size: int) -> Content:
    """Read a file of the given size in bytes; of other kinds of files only the header is read.

    Raises
    ------
    ValueError
        If the file is incomplete, damaged or of another kind.
    """
    start = file.read(8)
    n_header = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= n_header <= min(size - 8, _MAX_HEADER):
        raise ValueError("it is truncated or not a file of clipcal.save")
    header_bytes = file.read(n_header)
    header = _parse(header_bytes)
    entries = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(entries, dict) or entries.get("format") != _FORMAT:
        raise ValueError("it is not a file of clipcal.save")
    _check_schema(entries)
    data = file.read(size - 8 - n_header)
    whole = b"".join([start, header_bytes, data])
    if len(whole) != size:
        raise ValueError("it is truncated")
    # Compares all shapes and offsets with the data before anything is allocated.
    tensors = safetensors.load(whole)
    if set(tensors) != set(header) - {"__metadata__"}:
        raise ValueError("its header and its data have different tensors")
    if entries.get("sha256") != _digest(header, memoryview(data)):
        raise ValueError("its checksum does not match, so it was damaged or edited")
    return Content(_parse(entries["model"]), tensors)


def _check_schema(entries: dict[str, Any]) -> None:
    schema = str(entries.get("schema"))
    if schema.isascii() and schema.isdecimal() and len(schema) < 10 and int(schema) > SCHEMA:
        raise ValueError(
            f"it was written by a newer clipcal, {entries.get('version')}, with schema {schema}, but this "
            f"version supports schemas up to {SCHEMA}. Upgrade: pip install --upgrade clipcal"
        )
    if schema != str(SCHEMA):
        raise ValueError(f"its schema {schema!r} is not a schema of clipcal")


def _digest(header: dict[str, Any], data: memoryview) -> str:
    """Return the SHA-256 of the entries and of the tensors, in hexadecimal digits."""
    entries = {name: text for name, text in header["__metadata__"].items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(entries, sort_keys=True).encode())
    for name in sorted(set(header) - {"__metadata__"}):
        tensor = header[name]
        first, last = tensor["data_offsets"]
        digest.update(json.dumps([name, tensor["dtype"], tensor["shape"], last - first]).encode())
        digest.update(data[first:last])
    return digest.hexdigest()


def _parse(text: str | bytes) -> Any:
    """Parse JSON with unique keys and finite numbers only."""
    return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} stands in place of a number")
