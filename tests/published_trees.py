"""Small trees of files in the layouts of published data sets."""

import json
from pathlib import Path

from PIL import Image

EUROSAT = {
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}
N_IMAGES = {"train": 6, "val": 5, "test": 2}


def write_image(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_jpeg(path, color=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), color).save(path, "JPEG")


def split_of(names, n_images=N_IMAGES, path="{folder}/{folder}_{number}.jpg", folders=None):
    """Return the content of a split file for classes in order; `folders` are those of the images."""
    folders = folders or [name.replace(" ", "") for name in names]
    counts = [0] * len(names)
    content = {}
    for part, n in n_images.items():
        content[part] = []
        for label, name in enumerate(names):
            for _ in range(n):
                counts[label] += 1
                relative = path.format(folder=folders[label], number=counts[label], part=part)
                content[part].append([relative, label, name])
    return content


def write_set(root, folder, images, file, content, image=write_image):
    """Write a split file and its images; return the folder of the images."""
    (Path(root) / folder).mkdir(parents=True, exist_ok=True)
    place = Path(root) / folder / images
    (Path(root) / folder / file).write_text(json.dumps(content), encoding="utf-8")
    for items in content.values():
        for relative, _, _ in items:
            image(place / relative)
    return place


def write_eurosat(root, image=write_image, n_images=N_IMAGES):
    content = split_of(list(EUROSAT.values()), n_images, folders=list(EUROSAT))
    return write_set(root, "eurosat", "2750", "split_zhou_EuroSAT.json", content, image)
