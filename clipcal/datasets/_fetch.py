"""Download published data sets, and arrange their files as load_benchmark expects them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from clipcal.datasets._archives import unpack_file, unpack_folder
from clipcal.datasets._catalog import DatasetFacts, find_facts
from clipcal.datasets._download import RemoteFile, download
from clipcal.datasets._locate import ROOT_VARIABLE
from clipcal.exceptions import DatasetError

__all__ = ["SOURCES", "Source", "fetch_benchmark"]

_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_HUB = "https://huggingface.co/datasets"
_BERKELEY = "https://people.eecs.berkeley.edu/~hendrycks"


@dataclass(frozen=True)
class Source:
    """Where a data set is downloaded from.

    Parameters
    ----------
    archive : RemoteFile
        Archive with the images.
    inside : str
        The folder in the archive that is unpacked.
    target : str
        Where it is put, below the root.
    nested : str
        Archive in the archive in which that folder is; empty if there is none.
    split_checksum : str
        Hash of the split file, which is put next to the images; empty if there is none, or it is unknown.
    """

    archive: RemoteFile
    inside: str
    target: str
    nested: str = ""
    split_checksum: str = ""


# MD5 hashes are those that torchvision and, for variants of ImageNet, torch-uncertainty check.
SOURCES: dict[str, Source] = {
    "caltech101": Source(
        RemoteFile(
            "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
            "md5:3138e1922a9193bfa496528edbbc45d0",
            140,
        ),
        "101_ObjectCategories",
        "caltech-101/101_ObjectCategories",
        nested="caltech-101/101_ObjectCategories.tar.gz",
        split_checksum="sha256:52ce83205ff8ff8a",
    ),
    "oxford_pets": Source(
        RemoteFile(f"{_VGG}/pets/data/images.tar.gz", "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c", 800),
        "images",
        "oxford_pets/images",
        split_checksum="sha256:d7f3ffe65b3919f9",
    ),
    "oxford_flowers": Source(
        RemoteFile(f"{_VGG}/flowers/102/102flowers.tgz", "md5:52808999861908f626f3c1f4e79d11fa", 350),
        "jpg",
        "oxford_flowers/jpg",
        split_checksum="sha256:2f50c42fc1a17ca1",
    ),
    "food101": Source(
        RemoteFile(
            "https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "md5:85eeb15f3717b99a5da872d97d918f87",
            5000,
        ),
        "food-101/images",
        "food-101/images",
    ),
    "fgvc_aircraft": Source(
        RemoteFile(f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", megabytes=2800),
        "fgvc-aircraft-2013b/data",
        "fgvc_aircraft",
    ),
    "dtd": Source(
        RemoteFile(f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz", "md5:fff73e5086ae6bdbea199a49dfb8a4c1", 630),
        "dtd/images",
        "dtd/images",
        split_checksum="sha256:f26ebeccd2b58e68",
    ),
    "eurosat": Source(
        RemoteFile(
            f"{_HUB}/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            "md5:c8fa014336c82ac7804f0398fcb19387",
            95,
        ),
        "2750",
        "eurosat/2750",
        split_checksum="sha256:541503a77d0b26b7",
    ),
    "imagenetv2": Source(
        RemoteFile(
            f"{_HUB}/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz", megabytes=1260
        ),
        "imagenetv2-matched-frequency-format-val",
        "imagenetv2/imagenetv2-matched-frequency-format-val",
    ),
    "imagenet_sketch": Source(
        RemoteFile(f"{_HUB}/songweig/imagenet_sketch/resolve/main/data/ImageNet-Sketch.zip", megabytes=7800),
        "sketch",
        "imagenet-sketch/images",
    ),
    "imagenet_a": Source(
        RemoteFile(f"{_BERKELEY}/imagenet-a.tar", "md5:c3e55429088dc681f30d81f4726b6595", 690),
        "imagenet-a",
        "imagenet-adversarial/imagenet-a",
    ),
    "imagenet_r": Source(
        RemoteFile(f"{_BERKELEY}/imagenet-r.tar", "md5:a61312130a589d0ca1a8fca1f2bd3337", 2200),
        "imagenet-r",
        "imagenet-rendition/imagenet-r",
    ),
}


def fetch_benchmark(name: str, *, root: str | os.PathLike[str] | None = None, verbose: int = 0) -> Path:
    """Download a published data set, and arrange its files as :func:`load_benchmark` expects them.

    Nothing else in the package downloads data sets. An interrupted download continues at the next call, files
    that are there are not downloaded again, and hashes are checked where they are known. Archives are deleted
    after they are unpacked, so twice their size is needed. The data sets have licenses of their own, some of
    which permit research only; see their pages.

    ===================  ===========  ====================================
    name                 size         server
    ===================  ===========  ====================================
    ``caltech101``       140 MB       data.caltech.edu
    ``oxford_pets``      800 MB       robots.ox.ac.uk
    ``oxford_flowers``   350 MB       robots.ox.ac.uk
    ``food101``          5 GB         data.vision.ee.ethz.ch
    ``fgvc_aircraft``    2.8 GB       robots.ox.ac.uk
    ``dtd``              630 MB       robots.ox.ac.uk
    ``eurosat``          95 MB        huggingface.co/datasets/torchgeo
    ``imagenetv2``       1.3 GB       huggingface.co/datasets/vaishaal
    ``imagenet_sketch``  7.8 GB       huggingface.co/datasets/songweig
    ``imagenet_a``       690 MB       people.eecs.berkeley.edu
    ``imagenet_r``       2.2 GB       people.eecs.berkeley.edu
    ===================  ===========  ====================================

    The split files are from github.com/linzhiqiu/cross_modal_adaptation. ImageNet needs an account, the hosts
    of StanfordCars and SUN397 are offline, and the frames of UCF101 are on Google Drive: for these, an error
    says what to do.

    Parameters
    ----------
    name : str
        Name of the data set, as for :func:`load_benchmark`.
    root : str, Path or None, default=None
        Folder of all data sets. If None, the environment variable ``CLIPCAL_DATA``.
    verbose : int, default=0
        If at least 1, show a progress bar. URLs and sizes are logged by the logger ``clipcal``, level INFO.

    Returns
    -------
    folder : Path
        Folder of the data set.

    Raises
    ------
    DatasetError
        If the data set is unknown or cannot be downloaded, a file is damaged, or the disk is too small.

    See Also
    --------
    load_benchmark : Load a data set that is on disk.

    Examples
    --------
    >>> from clipcal.datasets import fetch_benchmark
    >>> folder = fetch_benchmark("eurosat", root="data")  # doctest: +SKIP
    """
    facts = find_facts(name)
    base = _root(root)
    if facts.name not in SOURCES:
        raise DatasetError(_by_hand(facts, base))
    source = SOURCES[facts.name]
    images = _existing_images(facts, base)
    if images is None:
        images = base / source.target / ("images" if facts.name == "fgvc_aircraft" else "")
        _fetch_images(source, base / source.target, base / "downloads", verbose)
    folder = images.parent
    if facts.split_file:
        splits = RemoteFile(facts.split_url, source.split_checksum, 2)
        download(splits, folder / facts.split_file, verbose=verbose)
    return folder


def _root(root: str | os.PathLike[str] | None) -> Path:
    if root is None:
        root = os.environ.get(ROOT_VARIABLE)
    if not root:
        raise DatasetError(
            "The folder for the data sets is not given; pass root='...', or set the environment variable "
            f"{ROOT_VARIABLE}."
        )
    return Path(root).expanduser()


def _existing_images(facts: DatasetFacts, root: Path) -> Path | None:
    """Return the folder of the images, in one of the places where they are looked for, if there are any."""
    places = (root / folder / images for folder in facts.folders for images in facts.images if images)
    return next((place for place in places if _has_files(place)), None)


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _fetch_images(source: Source, target: Path, downloads: Path, verbose: int) -> None:
    if _has_files(target):
        raise DatasetError(
            f"{str(target)!r} has files, but no images. Delete or rename the folder, and fetch the data set "
            "again: the archive has all of its files."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < 2_000_000 * source.archive.megabytes:
        raise DatasetError(
            f"{2 * source.archive.megabytes} MB are needed on the disk of {str(target.parent)!r} for the "
            f"archive and its files, but {free // 1_000_000} MB are free."
        )
    archive = downloads / source.archive.name
    download(source.archive, archive, verbose=verbose)
    inner = downloads / "inner.tar.gz"
    if source.nested:
        unpack_file(archive, source.nested, inner)
    unpack_folder(inner if source.nested else archive, source.inside, target)
    for path in (inner, archive):
        path.unlink(missing_ok=True)
    if not _has_files(downloads):
        downloads.rmdir()


def _by_hand(facts: DatasetFacts, root: Path) -> str:
    folder = root / facts.folders[0]
    url = f" from {facts.images_url}" if facts.images_url else ""
    text = f"{facts.title} must be downloaded by hand. Get its images{url}, and put them in "
    text += repr(str(folder / facts.images[0]))
    if facts.split_file:
        text += f". Get {facts.split_url}, and put it in {str(folder)!r}"
    return f"{text}. {facts.advice}".rstrip()
