"""Download a file over HTTP, resume an interrupted download, and check the result."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clipcal._progress import progress_bar
from clipcal.exceptions import DatasetError

__all__ = ["RemoteFile", "download"]

_LOG = logging.getLogger(__name__)
_BLOCK = 1 << 20
_SECONDS_WITHOUT_DATA = 60.0
# Each attempt continues where the one before has stopped.
_N_ATTEMPTS = 3
_SECONDS_BETWEEN_ATTEMPTS = 2.0


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Parameters
    ----------
    url : str
        Where it is.
    checksum : str
        Its hash, as ``"md5:..."`` or ``"sha256:..."``; the first digits suffice. Empty if unknown.
    megabytes : int
        About its size.
    """

    url: str
    checksum: str = ""
    megabytes: int = 0

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return urlsplit(self.url).path.rpartition("/")[2]


def download(remote: RemoteFile, target: Path, *, verbose: int = 0) -> None:
    """Download a file, unless it is there.

    The data is written to ``<target>.part``, which is renamed when it is complete and its hash is right.

    Parameters
    ----------
    remote : RemoteFile
        What to download.
    target : Path
        Where to put it.
    verbose : int, default=0
        If at least 1, show a progress bar.

    Raises
    ------
    DatasetError
        If the file cannot be downloaded, or its hash is wrong.
    """
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    size = f" (about {remote.megabytes} MB)" if remote.megabytes else ""
    _LOG.info("Downloading %s%s to %s", remote.url, size, target)
    for attempt in range(_N_ATTEMPTS):
        try:
            _fetch(remote, part, verbose)
            break
        except urllib.error.HTTPError as error:
            # Only errors of the server itself may pass.
            if error.code < 500 or attempt + 1 == _N_ATTEMPTS:
                raise DatasetError(
                    f"{remote.url} cannot be downloaded: the server answers {error.code} {error.reason}. Put "
                    f"the file at {str(target)!r} yourself, and try again."
                ) from error
        except (OSError, http.client.HTTPException) as error:
            if attempt + 1 == _N_ATTEMPTS:
                n_bytes = part.stat().st_size if part.exists() else 0
                raise DatasetError(
                    f"{remote.url} cannot be downloaded: {type(error).__name__}: {error}. {n_bytes} bytes "
                    f"are in {str(part)!r}; another try continues there."
                ) from error
        time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
    _check(remote, part)
    _tag_of(part).unlink(missing_ok=True)
    os.replace(part, target)


def _fetch(remote: RemoteFile, part: Path, verbose: int) -> None:
    """Download what is missing of a file."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(remote.url, headers={"User-Agent": "clipcal"})
    if start:
        tag = _tag_of(part)
        request.add_header("Range", f"bytes={start}-")
        if tag.exists():
            # If the file has changed, the server then sends it from the beginning.
            request.add_header("If-Range", tag.read_text(encoding="utf-8"))
    try:
        response = urllib.request.urlopen(request, timeout=_SECONDS_WITHOUT_DATA)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            with error:
                total = error.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(start):
                return
            part.unlink()
            raise ConnectionError(f"the server has {total} bytes, but {start} were downloaded") from error
        raise
    with response:
        if urlsplit(remote.url).scheme == "https" and urlsplit(response.url).scheme != "https":
            raise DatasetError(f"{remote.url} leads to {response.url}, which is not encrypted.")
        resumed = response.status == 206 and _starts_at(response, start)
        _save(response, part, start if resumed else 0, verbose)


def _starts_at(response: Any, start: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def _save(response: Any, part: Path, start: int, verbose: int) -> None:
    """Write a response to a file, from a position on; raise ConnectionError if it ends early."""
    tag = response.headers.get("ETag", "")
    # Weak tags do not guarantee equal bytes.
    if tag and not tag.startswith("W/"):
        _tag_of(part).write_text(tag, encoding="utf-8")
    else:
        _tag_of(part).unlink(missing_ok=True)
    length = response.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    bar = progress_bar(shown=verbose >= 1, description=part.stem, unit="B", total=total)
    bar.unit_scale = True
    with bar, open(part, "ab" if start else "wb") as file:
        bar.update(start)
        while block := response.read(_BLOCK):
            file.write(block)
            bar.update(len(block))
        n_bytes = file.tell()
    if total is not None and n_bytes < total:
        raise ConnectionError(f"the connection ended after {n_bytes} of {total} bytes")


def _tag_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _check(remote: RemoteFile, part: Path) -> None:
    """Raise DatasetError, and delete the file, if its hash is wrong."""
    if not remote.checksum:
        return
    algorithm, _, expected = remote.checksum.partition(":")
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if not found.startswith(expected):
        part.unlink()
        _tag_of(part).unlink(missing_ok=True)
        raise DatasetError(
            f"The file at {remote.url} has the {algorithm} hash {found}, but {expected} was expected: the "
            "download was damaged, or the file has changed. It was deleted; try again, or get the file "
            "elsewhere."
        )
