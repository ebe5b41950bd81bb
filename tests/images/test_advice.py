"""Evaluate the code that error messages suggest, and check that it gives the intended images."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import clipcal
from clipcal.exceptions import ImageReadError
from clipcal.images import ImagePaths, as_images, image_digest, input_kind, read_image

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 10, 12, 3), dtype=np.uint8)
COLOUR[:, 0, 0], COLOUR[:, 0, 1] = 0, 255
GREY = COLOUR[..., 0]
NAMES = {"np": np, "torch": torch, "os": os, "io": io, "Path": Path, "Image": Image, "ImagePaths": ImagePaths}
NAMES["clipcal"] = clipcal


def refusal(X, function=input_kind):
    with pytest.raises((ValueError, TypeError)) as caught:
        function(X)
    return str(caught.value)


def advised(X, pattern=r"; write (.+?)\.(?: Images are| If )", **names):
    """Return the value of the expression that the error message for X suggests."""
    message = refusal(X)
    found = re.search(pattern, message)
    assert found, message
    return eval(found[1], {**NAMES, **names, "X": X})


def pixels_of(X):
    images = as_images(X)
    return np.stack([np.asarray(read_image(images, i)) for i in range(len(images))])


def as_rgb(images):
    return images if images.ndim == 4 else np.stack([images] * 3, axis=-1)


def first(array):
    """Move the channels first."""
    return np.moveaxis(array, -1, -3)


WHITE_AND_BLACK = COLOUR > 127
NORMALISED = (COLOUR / 255 - 0.45) / 0.27
DEEP = COLOUR.astype(np.uint16) * 257

# Inputs, and the images that the suggested conversion must restore.
MADE = {
    "bool": (WHITE_AND_BLACK, WHITE_AND_BLACK * np.uint8(255)),
    "grey bool": (GREY > 127, (GREY > 127) * np.uint8(255)),
    "bool, channels first": (first(WHITE_AND_BLACK), WHITE_AND_BLACK * np.uint8(255)),
    "zeros and ones": (WHITE_AND_BLACK.astype(np.int8), WHITE_AND_BLACK * np.uint8(255)),
    "unsigned zeros and ones": (WHITE_AND_BLACK.astype(np.uint16), WHITE_AND_BLACK * np.uint8(255)),
    "int64": (COLOUR.astype(np.int64), COLOUR),
    "int16, channels first": (first(COLOUR.astype(np.int16)), COLOUR),
    "uint16 of 16 bits": (DEEP, COLOUR),
    "grey uint16 of 16 bits": (DEEP[..., 0], GREY),
    "uint16 of 8 bits": (COLOUR.astype(np.uint16), COLOUR),
    "int32 of 16 bits, channels first": (first(DEEP.astype(np.int32)), COLOUR),
    "floats to 1": (COLOUR / 255, COLOUR),
    "floats to 1, channels first": (first(COLOUR / 255).astype(np.float32), COLOUR),
    "grey floats to 1": (GREY / 255, GREY),
    "float16": (first(COLOUR / 255).astype(np.float16), COLOUR),
    "floats to 255": (COLOUR - 1e-6 * (COLOUR == 255), COLOUR),
    "floats to 255, channels first": (first(COLOUR.astype(np.float32)), COLOUR),
    "floats to 65535": (DEEP.astype(float), COLOUR),
    "floats a little beyond 0 and 1": (COLOUR / 255 + 0.1 * (COLOUR == 255) - 0.1 * (COLOUR == 0), COLOUR),
    "floats a little beyond 0 and 255": (COLOUR + 20.0 * (COLOUR == 255) - 20.0 * (COLOUR == 0), COLOUR),
    "uint8, channels first": (first(COLOUR), COLOUR),
    "one channel, last": (GREY[..., None], GREY),
    "one channel, first": (GREY[:, None], GREY),
    "float, one channel, first": (GREY[:, None] / 255, GREY),
    "one image": (COLOUR[0], COLOUR[:1]),
    "one image of floats": (COLOUR[0] / 255, COLOUR[:1]),
    "stacks in a stack": (COLOUR[None], COLOUR),
    "stacks in a stack, channels first": (first(COLOUR[None]) / 255, COLOUR),
}
NUMPY_ALONE = {
    "objects": (COLOUR.astype(object), COLOUR),
    "objects to 1": ((COLOUR / 255).astype(object), COLOUR),
}


class TestArrays:
    @pytest.mark.parametrize(("X", "expected"), (MADE | NUMPY_ALONE).values(), ids=MADE | NUMPY_ALONE)
    def test_numpy(self, X, expected):
        np.testing.assert_array_equal(pixels_of(advised(X)), as_rgb(expected))

    @pytest.mark.parametrize(("X", "expected"), MADE.values(), ids=MADE)
    def test_torch(self, X, expected):
        X = torch.from_numpy(np.ascontiguousarray(X))
        X.requires_grad_(X.is_floating_point())
        np.testing.assert_array_equal(pixels_of(advised(X)), as_rgb(expected))

    @pytest.mark.parametrize("kind", ["numpy", "torch", "tuple", "objects", "series"])
    @pytest.mark.parametrize(
        ("X", "expected"), [pair for name, pair in MADE.items() if "one image" not in name]
    )
    def test_lists(self, X, expected, kind):
        if X.ndim == 5:
            X = X[0]
        items = [torch.from_numpy(item.copy()) for item in X] if kind == "torch" else list(X)
        if kind == "tuple":
            items = tuple(items)
        elif kind in ("objects", "series"):
            items = pd.Series(items)
            items = items if kind == "series" else items.to_numpy()
        if X.dtype == np.uint8 and X.shape[-1] == 3:
            assert input_kind(items) == "images"
        else:
            np.testing.assert_array_equal(pixels_of(advised(items)), as_rgb(expected))

    def test_bfloat16(self):
        X = torch.from_numpy(first(COLOUR / 255)).bfloat16()
        assert "dtype torch.bfloat16" in refusal(X)
        assert np.abs(pixels_of(advised(X)).astype(int) - COLOUR).max() <= 1

    def test_other_arrays(self):
        class OnlyConverts:
            def __array__(self, *args, **kwargs):
                return COLOUR / 255

        class Stored(OnlyConverts):
            shape, dtype = COLOUR.shape, np.dtype(float)

            def __len__(self):
                return len(COLOUR)

            def __getitem__(self, i):
                return COLOUR[i] / 255

        for X in (OnlyConverts(), Stored()):
            np.testing.assert_array_equal(pixels_of(advised(X)), COLOUR)

    @pytest.mark.parametrize("make", [np.array, torch.from_numpy])
    def test_one_image_with_channels_first(self, make):
        # It may also be three grayscale images; the message suggests both conversions.
        X = make(first(COLOUR[0] / 255).copy())
        single = advised(X, r"single image with channels first, write (.+?)\. Images are")
        np.testing.assert_array_equal(pixels_of(single), COLOUR[:1])
        np.testing.assert_array_equal(pixels_of(advised(X)), as_rgb(first(COLOUR[0])))

    def test_value_of_white_is_inferred_from_all_images(self):
        X = [COLOUR[0] * 0.0 + 1.0, COLOUR[1].astype(float)]
        np.testing.assert_array_equal(pixels_of(advised(X)), [np.ones_like(COLOUR[0]), COLOUR[1]])

    @pytest.mark.parametrize("make", [np.array, torch.from_numpy])
    def test_one_item_that_differs_from_the_others(self, make):
        X = [make(COLOUR[0]), make(first(COLOUR[1] / 255).copy()), make(COLOUR[2])]
        message = refusal(X)
        assert message.startswith("Image 1: X[1] has shape (3, 10, 12)")
        X[1] = advised(X, r"; write (.+?) in place of X\[1\]\. Images")
        np.testing.assert_array_equal(pixels_of(X), COLOUR[:3])

    @pytest.mark.parametrize("make", [np.array, torch.from_numpy])
    def test_list_of_batches(self, make):
        X = [make(first(COLOUR[:2]) / 255), make(first(COLOUR[2:]) / 255)]
        assert "a stack of images" in refusal(X)
        np.testing.assert_array_equal(pixels_of(advised(X)), COLOUR)

    @pytest.mark.parametrize("make", [list, torch.from_numpy])
    def test_rows_of_one_image(self, make):
        X = [row if make is list else make(row) for row in COLOUR[0]]
        np.testing.assert_array_equal(pixels_of(advised(X)), COLOUR[:1])

    @pytest.mark.parametrize(
        "X",
        [
            NORMALISED,
            first(NORMALISED),
            list(first(NORMALISED)),
            torch.from_numpy(first(NORMALISED)),
            COLOUR / 127.5 - 1,
            COLOUR.astype(int) - 128,
            (COLOUR.astype(int) - 128).astype(np.int8),
        ],
        ids=["floats", "channels first", "list", "tensor", "from -1 to 1", "integers", "int8"],
    )
    def test_normalized_images(self, X):
        message = refusal(X)
        assert "clipcal normalizes images itself, so pass them without normalization" in message
        assert "write" not in message


class TestSequences:
    def test_one_item(self, tmp_path):
        file = tmp_path / "a.png"
        Image.fromarray(COLOUR[0]).save(file)
        for X in (file, str(file), os.fsencode(file)):
            np.testing.assert_array_equal(pixels_of(advised(X, r"pass a list: (.+)\.$")), COLOUR[:1])
            message = refusal(X, ImagePaths)
            paths = eval(re.search(r"write (ImagePaths\(.+\))\.$", message)[1], NAMES)
            np.testing.assert_array_equal(pixels_of(paths), COLOUR[:1])
        image = Image.fromarray(COLOUR[0])
        X = advised(image, r"pass a list: (.+)\.$", image=image)
        np.testing.assert_array_equal(pixels_of(X), COLOUR[:1])

    def test_iterator(self):
        X = advised((image for image in COLOUR), r"pass a list: (.+?)\. Images")
        np.testing.assert_array_equal(pixels_of(X), COLOUR)

    def test_tables(self):
        paths = ["a.png", "b.png"]
        frame = pd.DataFrame({"file": paths, "label": ["dog", "river"]})
        assert list(as_images(advised(frame, r"column alone: (.+?)\.$"))) == paths
        for X in (frame.to_numpy(), np.array([["a.png", "dog"], ["b.png", "river"]])):
            assert list(as_images(advised(X, r"such as (.+?)\. Images"))) == paths
        for X in (frame[["file"]].to_numpy(), np.array([paths])):
            assert list(as_images(advised(X, r"make it 1-D: (.+?)\. Images"))) == paths
        assert as_images(advised(frame.to_numpy().tolist(), r"such as (.+?)\. Images")) == paths
        images = [Image.fromarray(image) for image in COLOUR]
        X = advised([(image, "dog") for image in images], r"such as (.+?)\. Images")
        np.testing.assert_array_equal(pixels_of(X), COLOUR)
        X = advised([(image, "dog") for image in COLOUR], r"such as (.+?)\. Images")
        np.testing.assert_array_equal(pixels_of(X), COLOUR)

    def test_bytes(self, tmp_path):
        contents = []
        for i, image in enumerate(COLOUR):
            Image.fromarray(image).save(tmp_path / f"{i}.png")
            contents.append((tmp_path / f"{i}.png").read_bytes())
        X = [os.fsencode(tmp_path / f"{i}.png") for i in range(len(COLOUR))]
        for paths in (X, np.array(X)):
            advice = advised(paths, r"paths, write (.+?)(?:, if|\. Images)")
            np.testing.assert_array_equal(pixels_of(advice), COLOUR)
        np.testing.assert_array_equal(pixels_of(contents), COLOUR)
        # An array of fixed width lacks the zeros at the end of some contents.
        assert "contents, pass a list of them. Images" in refusal(np.array(contents))
        X = advised(contents[0], r"pass a list: (.+)\.$")
        np.testing.assert_array_equal(pixels_of(X), COLOUR[:1])

    @pytest.mark.parametrize(
        ("pixels", "mode"), [(GREY[0].astype(np.int32) * 257, "I"), ((GREY[0] / 255).astype(np.float32), "F")]
    )
    def test_32_bit_images(self, pixels, mode):
        image = Image.fromarray(pixels)
        assert image.mode == mode
        with pytest.raises(ImageReadError, match=f"mode '{mode}'") as caught:
            read_image([image], 0)
        advice = re.search(r"replace it with (.+)$", str(caught.value))[1]
        converted = eval(advice, {**NAMES, "image": image})
        np.testing.assert_array_equal(pixels_of([converted]), as_rgb(GREY[:1]))


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """Write one folder per class, and change to their parent directory."""
    monkeypatch.chdir(tmp_path)
    for i, image in enumerate(COLOUR):
        folder = Path("pets", ["cat", "dog"][i % 2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
        (folder / "readme.txt").write_text("Some images.")
    return Path("pets")


FILES = [f"pets/{['cat', 'dog'][i % 2]}/{i}.png" for i in (0, 2, 4, 1, 3)]


def posix(paths):
    return [Path(path).as_posix() for path in paths]


class TestFolders:
    @pytest.mark.parametrize("X", ["pets", Path("pets"), b"pets"])
    def test_single_folder(self, pets, X):
        paths = advised(X, r"the images in it: (.+?)\. Images")
        assert posix(paths) == FILES
        np.testing.assert_array_equal(pixels_of(paths), COLOUR[[0, 2, 4, 1, 3]])
        message = refusal(X, ImagePaths)
        paths = eval(re.search(r"write (.+)\.$", message)[1], NAMES)
        assert isinstance(paths, ImagePaths)
        assert posix(paths) == FILES

    def test_list_of_one_folder(self, pets):
        X = advised(["pets"], r"Write X = (.+?); if")
        assert posix(X) == FILES

    @pytest.mark.parametrize(
        "make",
        [list, tuple, np.array, pd.Series, ImagePaths, lambda paths: [Path(path) for path in paths]],
        ids=["list", "tuple", "array", "series", "ImagePaths", "Path"],
    )
    def test_several_folders(self, pets, make):
        folders = make(["pets/cat", "pets/dog"])
        message = refusal(folders)
        assert re.search(r"'pets.+cat' is a folder", message)
        X = advised(folders, r"Write X = (.+?); if")
        assert posix(X) == FILES
        y = eval(re.search(r"y = (.+?)\. Images", message)[1], {"X": X})
        assert y == ["cat", "cat", "cat", "dog", "dog"]

    def test_folders_relative_to_a_root(self, pets):
        X = advised(ImagePaths(["cat", "dog"], root="pets"), r"Write X = (.+?); if")
        assert posix(X) == FILES

    def test_suffixes_found_in_the_folder_are_used(self, pets):
        X, pattern = ["pets/cat", "pets/dog"], r"Write X = (.+?); if"
        Path("pets/cat/0.png").rename("pets/cat/0.JPG")
        assert posix(advised(X, pattern)) == ["pets/cat/0.JPG", *FILES[1:]]
        for path in FILES[1:]:
            Path(path).rename(Path(path).with_suffix(".JPG"))
        assert posix(advised(X, pattern)) == [path.replace("png", "JPG") for path in FILES]

    def test_flat_and_nested_folders(self, pets):
        assert posix(advised("pets/cat", r"the images in it: (.+?)\. Images")) == FILES[:3]
        Path("all").mkdir()
        pets.rename(Path("all", "pets"))
        paths = advised("all", r"the images in it: (.+?)\. Images")
        assert posix(paths) == [f"all/{path}" for path in FILES]

    def test_folder_without_images(self, tmp_path):
        with pytest.raises(ValueError, match="There are no images in"):
            advised(tmp_path, r"the images in it: (.+?)\. Images")
        assert "*/*.jpg" in refusal([tmp_path])

    @pytest.mark.parametrize("function", [read_image, image_digest])
    def test_folder_among_files(self, pets, function):
        X = [FILES[0], "pets/dog"]
        assert input_kind(X) == "images"
        with pytest.raises(ImageReadError, match=r"Image 1, 'pets/dog' is a folder.*Remove it") as caught:
            function(as_images(X), 1)
        advice = re.search(r"the images in it: (.+)\.$", str(caught.value))[1]
        assert posix(eval(advice, NAMES)) == FILES[3:]
        # The first path is checked before reading.
        with pytest.raises(ImageReadError, match=r"'pets/dog' is a folder.*Remove it"):
            input_kind(X[::-1])
