"""Check the files of a published data set."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clipcal.datasets._catalog import CATALOG, resolve_name
from clipcal.datasets._fetch import SOURCES
from clipcal.datasets._index import SUBSETS, Index
from clipcal.datasets._locate import differences, find_root, locate, missing_images, missing_message
from clipcal.exceptions import DatasetError, ImageReadError
from clipcal.images import ImagePaths, read_image

__all__ = ["BenchmarkCheck", "check_benchmark"]

_CHECKS = ("exists", "decode")


@dataclass(frozen=True)
class BenchmarkCheck:
    """Result of :func:`check_benchmark`; its text is a report.

    Parameters
    ----------
    name : str
        Name of the data set.
    folder : str
        Folder of the images; empty if it was not found.
    n_images : dict of str to int
        Number of images of each subset that the data set lists.
    problems : tuple of str
        What prevents the use of the data set, with its remedy.
    remarks : tuple of str
        In what the data set differs from the published one.
    unreadable : tuple of str
        Relative paths of the images that cannot be decoded.

    Examples
    --------
    >>> from clipcal.datasets import BenchmarkCheck
    >>> check = BenchmarkCheck("dtd", "/data/dtd/images", {"test": 1692}, problems=("3 images are missing",))
    >>> check.problems
    ('3 images are missing',)
    """

    name: str
    folder: str
    n_images: dict[str, int]
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the data set can be used."""
        return not self.problems and not self.unreadable

    def __str__(self) -> str:
        lines = [f"{self.name}: {'complete' if self.ok else 'not usable'}"]
        if self.folder:
            sizes = ", ".join(f"{n:,} {subset}" for subset, n in self.n_images.items() if n)
            lines.append(f"  Images: {sizes}, in {self.folder}")
        lines += [f"  Differs from the published data set: {remark}" for remark in self.remarks]
        lines += [f"  Problem: {problem}" for problem in self.problems]
        if self.unreadable:
            lines.append(f"  Problem: {len(self.unreadable):,} images cannot be decoded; get them again:")
            lines += [f"    {path}" for path in self.unreadable]
        return "\n".join(lines)


def check_benchmark(
    name: str, *, root: str | os.PathLike[str] | None = None, check: str = "exists"
) -> BenchmarkCheck:
    """Check whether the files of a data set are complete.

    Parameters
    ----------
    name : str
        Name of the data set; see :func:`list_benchmarks`.
    root : str or Path, default=None
        Folder with the data sets. If None, the environment variable ``CLIPCAL_DATA``.
    check : {"exists", "decode"}, default="exists"
        ``"exists"`` looks for the files. ``"decode"`` also decodes each image, in several threads.

    Returns
    -------
    result : BenchmarkCheck
        ``result.ok`` tells whether the data set can be used; ``print(result)`` shows what is missing, and
        where it can be had.

    Raises
    ------
    DatasetError
        If the data set is unknown, or `root` or `check` are invalid. Missing files do not raise.

    Examples
    --------
    >>> import tempfile
    >>> from clipcal.datasets import check_benchmark
    >>> with tempfile.TemporaryDirectory() as root:
    ...     result = check_benchmark("eurosat", root=root)
    >>> result.ok
    False
    >>> check_benchmark("mini/shapes-studio").ok
    True
    """
    name = resolve_name(name)
    if check not in _CHECKS:
        raise DatasetError(
            f"check={check!r} is not supported; choose one of {', '.join(map(repr, _CHECKS))}."
        )
    if name not in CATALOG:
        return BenchmarkCheck(name, "", {})  # generated
    facts, folder = CATALOG[name], find_root(root)
    try:
        index = locate(facts, folder)
    except DatasetError as error:
        return BenchmarkCheck(name, "", {}, problems=(f"{error}{_download(name, folder)}",))
    missing = missing_images(facts, index)
    problems: tuple[str, ...] = ()
    if any(missing.values()):
        # Images that are there are not downloaded again.
        stale = index.folder if index.folder.is_dir() and any(index.folder.iterdir()) else None
        problems = (f"{missing_message(facts, index, missing, folder)}{_download(name, folder, stale)}",)
    return BenchmarkCheck(
        name,
        str(index.folder),
        {subset: len(index.paths[subset]) for subset in SUBSETS},
        problems,
        tuple(differences(facts, index)),
        _unreadable(index, missing) if check == "decode" else (),
    )


def _download(name: str, root: Path, stale: Path | None = None) -> str:
    """Return the call that downloads a data set, and the folder to delete before; empty if there is none."""
    if name not in SOURCES:
        return ""
    before = f"To download the images again, delete {stale}, and call" if stale else "Download:"
    return f" {before} fetch_benchmark({name!r}, root={str(root)!r})."


def _unreadable(index: Index, missing: dict[str, list[int]]) -> tuple[str, ...]:
    """Return the paths of the existing images that cannot be decoded."""
    paths: list[str] = []
    for subset in SUBSETS:
        absent = set(missing[subset])
        paths += [path for row, path in enumerate(index.paths[subset]) if row not in absent]
    images = ImagePaths(paths, root=index.folder)

    def is_readable(row: int) -> bool:
        try:
            read_image(images, row)
        except ImageReadError:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        readable = list(pool.map(is_readable, range(len(paths))))
    return tuple(path for path, good in zip(paths, readable, strict=True) if not good)
