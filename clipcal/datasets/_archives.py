"""Unpack a folder of an archive, safely and completely or not at all."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from clipcal.exceptions import DatasetError

__all__ = ["unpack_file", "unpack_folder"]

_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError),
    *(FileExistsError, IsADirectoryError, NotADirectoryError),  # a name is that of a file and of a folder
)
# Name, whether it is a folder, whether it is a regular file, and a function that opens it.
_Member = tuple[str, bool, bool, Callable[[], "IO[bytes] | None"]]


def unpack_folder(archive: Path, inside: str, target: Path) -> None:
    """Unpack a folder of an archive to a folder that does not exist yet, or is empty.

    The files are written to another folder, which is renamed at the end, so a target that exists is complete.

    Parameters
    ----------
    archive : Path
        A tar file, compressed or not, or a zip file; its content determines which.
    inside : str
        The folder in the archive.
    target : Path
        Where its content is put.

    Raises
    ------
    DatasetError
        If the archive is damaged, has no such folder, or a member of it is a link or lies outside.
    """
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if not _unpack(archive, PurePosixPath(inside), partial):
            raise DatasetError(f"There is no folder {inside!r} with files in {str(archive)!r}.")
        if target.is_dir():
            target.rmdir()
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def unpack_file(archive: Path, inside: str, target: Path) -> None:
    """Unpack one file of an archive.

    Parameters
    ----------
    archive : Path
        As for :func:`unpack_folder`.
    inside : str
        The file in the archive.
    target : Path
        The file to write.

    Raises
    ------
    DatasetError
        If the archive is damaged or has no such file.
    """
    with _members(archive) as members:
        for name, _, is_file, opened in members:
            if is_file and _safe(name, archive) == PurePosixPath(inside):
                target.unlink(missing_ok=True)
                _write(opened, target)
                return
    raise DatasetError(f"There is no file {inside!r} in {str(archive)!r}.")


def _unpack(archive: Path, inside: PurePosixPath, to: Path) -> int:
    """Unpack a folder of an archive; return the number of files."""
    n_files = 0
    with _members(archive) as members:
        for name, is_folder, is_file, opened in members:
            path = _safe(name, archive)
            if path is None or inside not in path.parents:
                continue
            place = to / path.relative_to(inside)
            if is_folder:
                place.mkdir(parents=True, exist_ok=True)
            elif is_file:
                place.parent.mkdir(parents=True, exist_ok=True)
                _write(opened, place)
                n_files += 1
            else:
                # Without links, nothing can be written outside of the new folder.
                raise DatasetError(
                    f"{name!r} in {str(archive)!r} is a link or a device. Nothing was unpacked; check where "
                    "the archive is from."
                )
    return n_files


def _write(opened: Callable[[], IO[bytes] | None], to: Path) -> None:
    content = opened()
    assert content is not None  # only links and devices have none
    with content, open(to, "wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def _safe(name: str, archive: Path) -> PurePosixPath | None:
    """Return the path of a member; None for files that macOS adds. Raise if it leads out of the folder."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or PureWindowsPath(name).drive
    if outside:
        raise DatasetError(
            f"{name!r} in {str(archive)!r} leads out of the folder. Nothing was unpacked; check where the "
            "archive is from."
        )
    return None if "__MACOSX" in path.parts or path.name.startswith("._") else path


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    """Open an archive and yield its members."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                yield _of_zip(opened)
        else:
            with tarfile.open(archive) as opened_tar:
                yield _of_tar(opened_tar)
    except _DAMAGED as error:
        raise DatasetError(
            f"{str(archive)!r} is damaged ({type(error).__name__}: {error}). Delete it, and fetch it again."
        ) from error


def _of_zip(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
        yield info.filename, info.is_dir(), is_file, _opener(archive.open, info)


def _of_tar(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        yield info.name, info.isdir(), info.isreg(), _opener(archive.extractfile, info)
    # The checksum of a compressed file is at its end, after the last member.
    while archive.fileobj is not None and archive.fileobj.read(1 << 20):
        pass


def _opener(function: Callable[[Any], Any], member: Any) -> Callable[[], Any]:
    return lambda: function(member)
