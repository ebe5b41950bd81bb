"""What is known of each published data set: names, files, sizes, and where to get them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from clipcal.datasets._shapes import DOMAINS, TASKS
from clipcal.exceptions import DatasetError

__all__ = [
    "CATALOG",
    "MINI_PREFIX",
    "OWN_PREFIX",
    "DatasetFacts",
    "find_facts",
    "list_benchmarks",
    "resolve_name",
]

MINI_PREFIX, OWN_PREFIX = "mini/", "own:"
_SPLITS = "https://raw.githubusercontent.com/linzhiqiu/cross_modal_adaptation/main/splits"
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_DRIVE = "https://drive.google.com/file/d/{}/view"


@dataclass(frozen=True)
class DatasetFacts:
    """Facts about one data set.

    Parameters
    ----------
    name : str
        Name, that of CoOp's configuration files.
    title : str
        Name in papers.
    aliases : tuple of str
        Other names.
    folders : tuple of str
        Folders below the root in which the data set is looked for, the usual one first.
    images : tuple of str
        Folders of the images below these; empty for the folder itself.
    n_classes : int
        Number of classes.
    sizes : mapping of str to int
        Number of images of each published subset.
    split_file : str
        Name of the split file; empty if there is none.
    split_url, images_url : str
        Where the split file and the images can be had.
    draws : tuple of str
        First 12 digits of the digests of the published draws of 16 images per class, for seeds 1, 2 and 3.
    file_sha256 : str
        First 16 digits of the SHA-256 of the known copy of the split file; empty if it is not known.
    lists : tuple of str
        Names of the lists of classes and images, for a data set without split file.
    advice : str
        What else helps to get the files.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    folders: tuple[str, ...]
    images: tuple[str, ...]
    n_classes: int
    sizes: Mapping[str, int]
    split_file: str = ""
    split_url: str = ""
    images_url: str = ""
    draws: tuple[str, ...] = ()
    file_sha256: str = ""
    lists: tuple[str, ...] = ()
    advice: str = ""


def _split(name: str, sizes: tuple[int, int, int], stem: str, **facts: object) -> dict[str, object]:
    file = f"split_zhou_{stem}.json"
    counts = dict(zip(("train", "validation", "test"), sizes, strict=True))
    return {"name": name, "sizes": counts, "split_file": file, "split_url": f"{_SPLITS}/{file}", **facts}


_TABLE: list[dict[str, object]] = [
    {
        "name": "imagenet",
        "title": "ImageNet",
        "aliases": ("imagenet1k", "ILSVRC2012"),
        "folders": ("imagenet", "ImageNet"),
        "images": ("images", ""),
        "n_classes": 1000,
        "sizes": {"train": 1_281_167, "test": 50_000},
        "images_url": "https://image-net.org/download.php",
    },
    _split(
        "caltech101",
        (4128, 1649, 2465),
        "Caltech101",
        title="Caltech101",
        aliases=("vtab/caltech101",),
        folders=("caltech-101", "caltech101", "Caltech101"),
        images=("101_ObjectCategories", ""),
        n_classes=100,
        file_sha256="52ce83205ff8ff8a",
        draws=("edc5ffc2faa6", "97d03454a800", "6aea6fe17c8a"),
        images_url="https://data.caltech.edu/records/mzrjq-6wc02",
        advice="The first host, www.vision.caltech.edu, no longer has the archive.",
    ),
    _split(
        "oxford_pets",
        (2944, 736, 3669),
        "OxfordPets",
        title="OxfordPets",
        aliases=("pets", "vtab/pets", "oxford-iiit-pet"),
        folders=("oxford_pets", "oxford-iiit-pet", "OxfordPets"),
        images=("images",),
        n_classes=37,
        file_sha256="d7f3ffe65b3919f9",
        draws=("df8b41967cf1", "72c17ee224cd", "7b4581dac705"),
        images_url=f"{_VGG}/pets/data/images.tar.gz",
    ),
    _split(
        "stanford_cars",
        (6509, 1635, 8041),
        "StanfordCars",
        title="StanfordCars",
        aliases=("cars",),
        folders=("stanford_cars", "StanfordCars"),
        images=("",),
        n_classes=196,
        file_sha256="40acee7aa65c8e47",
        draws=("9447740a23e8", "c723f5b3a160", "9a0d52009da3"),
        advice="The official host is offline, and torchvision no longer downloads the images. Mirrors must "
        "keep the names of the files, as in cars_train/00001.jpg and cars_test/00001.jpg; copies in folders "
        "by class cannot be used.",
    ),
    _split(
        "oxford_flowers",
        (4093, 1633, 2463),
        "OxfordFlowers",
        title="Flowers102",
        aliases=("flowers", "vtab/flowers", "OxfordFlowers", "flower102", "flowers-102"),
        folders=("oxford_flowers", "flowers-102", "Flower102"),
        images=("jpg",),
        n_classes=102,
        file_sha256="2f50c42fc1a17ca1",
        draws=("c82c9cf4fbd3", "87b6c35edb3f", "71ab1ec94b87"),
        images_url=f"{_VGG}/flowers/102/102flowers.tgz",
    ),
    _split(
        "food101",
        (50_500, 20_200, 30_300),
        "Food101",
        title="Food101",
        aliases=("food-101",),
        folders=("food-101", "food101", "Food101"),
        images=("images",),
        n_classes=101,
        draws=("88707b4d5392", "0518b47fc342", "7f9b908da47a"),
        images_url="https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
    ),
    {
        "name": "fgvc_aircraft",
        "title": "FGVCAircraft",
        "aliases": ("aircraft",),
        "folders": ("fgvc_aircraft", "fgvc-aircraft-2013b/data", "FGVCAircraft"),
        "images": ("images",),
        "n_classes": 100,
        "sizes": {"train": 3334, "validation": 3333, "test": 3333},
        "lists": (
            "variants.txt",
            "images_variant_train.txt",
            "images_variant_val.txt",
            "images_variant_test.txt",
        ),
        "images_url": f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
        "advice": "The folder data of the archive is the folder fgvc_aircraft.",
    },
    _split(
        "sun397",
        (15_880, 3970, 19_850),
        "SUN397",
        title="SUN397",
        aliases=(),
        folders=("sun397", "SUN397"),
        images=("SUN397", ""),
        n_classes=397,
        draws=("6303fadedad6", "332d56a1d775", "dd66a18d0426"),
        advice="The official host, vision.princeton.edu, is offline. Copies must keep the folders by letter "
        "and class, as in a/abbey/sun_aaalbzqrimafwbiv.jpg; copies in folders train and test cannot be used.",
    ),
    _split(
        "dtd",
        (2820, 1128, 1692),
        "DescribableTextures",
        title="DTD",
        aliases=("DescribableTextures", "vtab/dtd"),
        folders=("dtd", "dtd/dtd", "DTD"),
        images=("images",),
        n_classes=47,
        file_sha256="f26ebeccd2b58e68",
        draws=("dd8c1eb16938", "e0d2f8d819e2", "aaffa6b7021d"),
        images_url=f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz",
    ),
    _split(
        "eurosat",
        (13_500, 5400, 8100),
        "EuroSAT",
        title="EuroSAT",
        aliases=("vtab/eurosat",),
        folders=("eurosat", "EuroSAT"),
        images=("2750", ""),
        n_classes=10,
        file_sha256="541503a77d0b26b7",
        draws=("87334b8acabc", "9d2319152000", "52cd3c9a6f87"),
        images_url="https://zenodo.org/records/7711810",
        advice="The certificate of the first host, madm.dfki.de, has expired; Zenodo has the same files.",
    ),
    _split(
        "ucf101",
        (7639, 1898, 3783),
        "UCF101",
        title="UCF101",
        aliases=(),
        folders=("ucf101", "UCF101"),
        images=("UCF-101-midframes", ""),
        n_classes=101,
        file_sha256="d78cb834f7c5792c",
        draws=("0c481eb0b333", "36dde380d486", "9ab357d49217"),
        images_url=_DRIVE.format("10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O"),
        advice="The images are the middle frames of the videos; they are not in the archive of the videos.",
    ),
    {
        "name": "imagenetv2",
        "title": "ImageNetV2",
        "aliases": ("imagenet-v2",),
        "folders": ("imagenetv2", "ImageNetV2", "ImageNet-V2"),
        "images": ("imagenetv2-matched-frequency-format-val", ""),
        "n_classes": 1000,
        "sizes": {"test": 10_000},
        "images_url": "https://huggingface.co/datasets/vaishaal/ImageNetV2",
    },
    {
        "name": "imagenet_sketch",
        "title": "ImageNet-Sketch",
        "aliases": (),
        "folders": ("imagenet-sketch", "ImageNet-Sketch"),
        "images": ("images", "sketch", ""),
        "n_classes": 1000,
        "sizes": {"test": 50_889},
        "images_url": "https://github.com/HaohanWang/ImageNet-Sketch",
    },
    {
        "name": "imagenet_a",
        "title": "ImageNet-A",
        "aliases": ("imagenet-adversarial",),
        "folders": ("imagenet-adversarial", "imagenet-a"),
        "images": ("imagenet-a", ""),
        "n_classes": 200,
        "sizes": {"test": 7500},
        "images_url": "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
    },
    {
        "name": "imagenet_r",
        "title": "ImageNet-R",
        "aliases": ("imagenet-rendition",),
        "folders": ("imagenet-rendition", "imagenet-r"),
        "images": ("imagenet-r", ""),
        "n_classes": 200,
        "sizes": {"test": 30_000},
        "images_url": "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
    },
]
CATALOG: dict[str, DatasetFacts] = {str(facts["name"]): DatasetFacts(**facts) for facts in _TABLE}  # type: ignore[arg-type]


def list_benchmarks() -> list[str]:
    """Return the names of the data sets that :func:`load_benchmark` knows.

    Returns
    -------
    names : list of str
        The published data sets in the order of papers, variants of ImageNet, and the generated ones, whose
        names start with ``"mini/"``.

    Examples
    --------
    >>> from clipcal.datasets import list_benchmarks
    >>> list_benchmarks()[:3]
    ['imagenet', 'caltech101', 'oxford_pets']
    """
    return [*CATALOG, *(f"{MINI_PREFIX}{task}-{domain}" for task in TASKS for domain in DOMAINS)]


def resolve_name(name: str) -> str:
    """Return the name of a data set for any of its names.

    Raises
    ------
    DatasetError
        If the name is unknown.
    """
    known = {_plain(known): known for known in list_benchmarks()}
    for facts in CATALOG.values():
        known |= {_plain(other): facts.name for other in (facts.title, *facts.aliases)}
    if not isinstance(name, str) or _plain(name) not in known:
        close = get_close_matches(_plain(str(name)), known, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(dict.fromkeys(repr(known[key]) for key in close))}?" if close else ""
        )
        raise DatasetError(
            f"The data set {name!r} is unknown; {hint or 'see clipcal.datasets.list_benchmarks().'} For your "
            "own images, use load_images."
        )
    return known[_plain(name)]


def find_facts(name: str) -> DatasetFacts:
    """Return the facts of a published data set, for any of its names."""
    resolved = resolve_name(name)
    if resolved not in CATALOG:
        raise DatasetError(f"{resolved!r} is generated; it has no files.")
    return CATALOG[resolved]


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
