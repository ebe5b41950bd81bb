"""What X may be, what it may not be, and what a refusal says."""

import io
import pickle
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import sparse
from sklearn.utils import _safe_indexing
from tensor_elsewhere import elsewhere

from clipcal.exceptions import ImageReadError
from clipcal.images import ImagePaths, as_images, image_digest, input_kind, read_image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 10, 12, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS[0])


class ArrayLike:
    """Offers nothing but its conversion."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class Column(ArrayLike):
    """A column of strings as some frames have it: it can be indexed, and its type is none of NumPy's."""

    dtype = "string"

    def __init__(self, values):
        self.array = np.array(values, dtype=object)
        self.shape = (len(values),)

    def __len__(self):
        return len(self.array)

    def __getitem__(self, i):
        return self.array[i]


def as_objects(items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


EMBEDDINGS = {
    "float64": RNG.normal(size=(4, 5)),
    "float32, Fortran order": np.asfortranarray(RNG.normal(size=(4, 5)).astype(np.float32)),
    "integers": np.arange(20).reshape(4, 5),
    "uint8": np.arange(20, dtype=np.uint8).reshape(4, 5),
    "bool": np.eye(4, dtype=bool),
    "objects": np.arange(20).reshape(4, 5).astype(object),
    "lists": [[1.0, 2.0], [3.0, 4.0]],
    "tuples": [(1, 2), (3, 4)],
    "list of vectors": list(RNG.normal(size=(4, 5))),
    "frame": pd.DataFrame(RNG.normal(size=(4, 5))),
    "tensor": torch.zeros(4, 5),
    "array-like": ArrayLike(np.zeros((4, 5))),
    "bfloat16": torch.zeros(4, 5, dtype=torch.bfloat16),
    "tensor in a graph": torch.zeros(4, 5, requires_grad=True),
    "tensor elsewhere": elsewhere(torch.zeros(4, 5)),
    "list of tensors": list(torch.zeros(4, 5, requires_grad=True)),
    # Refused by scikit-learn's own checks, whose words its tests look for.
    "sparse": sparse.csr_matrix(np.eye(4)),
    "1-D numbers": np.arange(4.0),
    "list of numbers": [1.0, 2.0],
    "complex": np.ones((4, 5), dtype=complex),
    "no rows": np.empty((0, 5)),
    "dict in a table": np.array([[{"foo": "bar"}, 1]], dtype=object),
}

PICTURES = {
    "list of str": ["a.png", "b.png"],
    "list of Path": [Path("a.png"), Path("b.png")],
    "str and Path": ["a.png", Path("b.png")],
    "tuple": ("a.png", "b.png"),
    "array of str": np.array(["a.png", "b.png"]),
    "array of objects": np.array(["a.png", Path("b.png")], dtype=object),
    "series": pd.Series(["a.png", "b.png"], index=[7, 3]),
    "paths": ImagePaths(["a.png", "b.png"]),
    "PIL": [PICTURE, PICTURE],
    "colour array": PIXELS,
    "read-only array": np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(PIXELS.shape),
    "with alpha": np.zeros((2, 10, 12, 4), dtype=np.uint8),
    "grey array": PIXELS[..., 0],
    "list of arrays": [PIXELS[0], PIXELS[1][:5]],
    "grey and colour": [PIXELS[0], PIXELS[1][..., 0]],
    "tensor": torch.from_numpy(PIXELS),
    "list of tensors": [torch.from_numpy(PIXELS[0])],
    "array-like": ArrayLike(PIXELS),
    "series of Path": pd.Series([Path("a.png"), Path("b.png")]),
    "series of strings": pd.Series(["a.png", "b.png"], dtype="string"),
    "series of str": pd.Series(["a.png", "b.png"], dtype="str"),
    "categories": pd.Series(["a.png", "b.png"], dtype="category"),
    "index": pd.Index(["a.png", "b.png"]),
    "column of another library": Column(["a.png", "b.png"]),
    "column of PIL": pd.Series([PICTURE, PICTURE]),
    "column of arrays": pd.Series([PIXELS[0], PIXELS[1]]),
    "array of tensors": as_objects([torch.from_numpy(PIXELS[0]), torch.from_numpy(PIXELS[1])]),
    "tensor elsewhere": elsewhere(torch.from_numpy(PIXELS)),
    "tensors elsewhere": [elsewhere(torch.from_numpy(PIXELS[0])), torch.from_numpy(PIXELS[1])],
}

REFUSED = {
    "str": ("a.png", TypeError, r"single path.*\['a.png'\]"),
    "Path": (Path("a.png"), TypeError, r"single path.*\['a.png'\]"),
    "image": (PICTURE, TypeError, r"single PIL image.*\[image\]"),
    "array of one image": (PIXELS[0], ValueError, r"one image; write X\[np.newaxis\]"),
    "dict": ({"a": 1}, TypeError, "X is a dict"),
    "set": ({"a.png"}, TypeError, "X is a set"),
    "generator": ((p for p in ["a.png"]), TypeError, r"read only once.*list\(X\)"),
    "None": (None, TypeError, "X is a NoneType"),
    "number": (3, TypeError, "X is a int"),
    "0-D": (np.float64(3), TypeError, "single value"),
    "bytes": (b"a.png", TypeError, r"single path.*\['a.png'\]"),
    "list of bytes": ([b"a.png"], TypeError, r"X holds bytes; .*write list\(map\(os.fsdecode, X\)\)"),
    "array of bytes": (np.array([b"a.png"]), TypeError, r"X holds bytes; .*list\(map\(os.fsdecode, X\)\)"),
    "missing in a series": (
        pd.Series(["a.png", None], dtype="string"),
        TypeError,
        r"mixes paths \(position 0\) and NAType objects \(position 1\)",
    ),
    "empty list": ([], ValueError, r"empty: 0 sample\(s\)"),
    "empty paths": (ImagePaths([]), ValueError, "empty"),
    "no pictures": (np.empty((0, 4, 4, 3), np.uint8), ValueError, "empty"),
    "no pixels": (np.empty((2, 0, 4, 3), np.uint8), ValueError, "no pixels"),
    "floats": (PIXELS / 255, ValueError, r"\(X \* 255\).round\(\).astype\(np.uint8\)"),
    "grey floats": (PIXELS[..., 0] / 255, ValueError, r"X \* 255"),
    "int64": (PIXELS.astype(int), ValueError, r"X.astype\(np.uint8\)"),
    "channels first": (np.moveaxis(PIXELS, -1, 1), ValueError, r"np.moveaxis\(X, 1, -1\)"),
    "channels first, grey": (PIXELS[:, None, :, :, 0], ValueError, r"write X\[:, 0\]\."),
    "one channel": (PIXELS[..., :1], ValueError, r"X\[..., 0\]"),
    "two channels": (PIXELS[..., :2], ValueError, "last axis should be 3 channels"),
    "other channels": (PIXELS.repeat(2, axis=-1), ValueError, "last axis should be 3 channels"),
    "5-D": (PIXELS[None], ValueError, "too many axes"),
    "4-D in a list": ([PIXELS, PIXELS[0]], ValueError, "Picture 0: .*too many axes"),
    "complex": (PIXELS * 1j, ValueError, "pixels are uint8"),
    "NaN": (np.full((2, 4, 4, 3), np.nan), ValueError, "NaN or infinite"),
    "words": (np.full((2, 4, 4), "a"), ValueError, "pixels are uint8"),
    "dicts in an array": (np.full((2, 4, 4), {}), ValueError, "pixels are uint8"),
    "2-D of str": (np.array([["a.png"], ["b.png"]]), ValueError, r"X.ravel\(\)"),
    "2-D of objects": (np.array([["a.png"]], dtype=object), ValueError, r"X.ravel\(\)"),
    "frame of paths": (pd.DataFrame({"file": ["a.png"]}), ValueError, r"X\['file'\]"),
    "path and image": (
        ["a.png", PICTURE],
        TypeError,
        r"mixes paths \(position 0\) and PIL images \(position 1\)",
    ),
    "path and nothing": (["a.png", None], TypeError, "NoneType objects"),
    "path and NaN": (pd.Series(["a.png", float("nan")], dtype=object), TypeError, "paths.*numbers"),
    "path and vector": (["a.png", np.zeros(3)], TypeError, "mixes"),
    "dicts": ([{"a": 1}], TypeError, "holds dict objects"),
    "list with floats": ([PIXELS[0], PIXELS[0] / 255], ValueError, r"Picture 1.*\* 255"),
}

if hasattr(np.dtypes, "StringDType"):
    MAY_LACK = np.dtypes.StringDType(na_object=np.nan)
    PICTURES["strings of variable width"] = np.array(["a.png", "bb.png"], dtype=np.dtypes.StringDType())
    PICTURES["strings that may be missing"] = np.array(["a.png", "bb.png"], dtype=MAY_LACK)
    REFUSED["no strings of variable width"] = (np.array([], dtype=MAY_LACK), ValueError, "empty")
    REFUSED["missing string"] = (
        np.array(["a.png", np.nan], dtype=MAY_LACK),
        TypeError,
        r"mixes paths \(position 0\) and numbers \(position 1\)",
    )


@pytest.mark.parametrize("X", EMBEDDINGS.values(), ids=EMBEDDINGS)
def test_embeddings(X):
    assert input_kind(X) == "embeddings"
    with pytest.raises(ValueError, match="Expected pictures, got numbers"):
        as_images(X)


@pytest.mark.parametrize("X", PICTURES.values(), ids=PICTURES)
def test_pictures(X):
    assert input_kind(X) == "images"
    images = as_images(X)
    assert len(images) == (len(X) if hasattr(X, "__len__") else len(PIXELS))
    if not isinstance(images[0], (str, Path)):
        assert all(read_image(images, i).mode == "RGB" for i in range(len(images)))


@pytest.mark.parametrize(("X", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(X, error, words):
    with pytest.raises(error, match=words):
        as_images(X)


class TestImagePaths:
    paths = ImagePaths([f"{i}.png" for i in range(5)], root="folder")

    def test_is_a_sequence(self):
        assert len(self.paths) == 5
        assert self.paths[1] == self.paths[-4] == self.paths[np.int64(1)] == Path("folder/1.png")
        assert list(self.paths) == [Path(f"folder/{i}.png") for i in range(5)]
        assert Path("folder/3.png") in self.paths
        with pytest.raises(IndexError):
            self.paths[5]

    @given(st.data())
    def test_is_cut_like_an_array(self, data):
        array = np.array(self.paths.paths)
        index = st.lists(st.integers(-5, 4), max_size=8)
        mask = st.lists(st.booleans(), min_size=5, max_size=5).map(np.array)
        key = data.draw(st.one_of(st.slices(5), mask, index, index.map(lambda i: np.array(i, dtype=int))))
        cut = self.paths[key]
        expected = array[np.array(key, dtype=int) if isinstance(key, list) else key]
        assert isinstance(cut, ImagePaths)
        assert cut.paths == tuple(expected)
        assert cut.root == "folder"

    def test_mask_of_another_length(self):
        with pytest.raises(IndexError, match="3 entries for 5 paths"):
            self.paths[np.ones(3, dtype=bool)]

    def test_equality_is_one_truth_value(self):
        same = ImagePaths(self.paths.paths, "folder")
        assert (self.paths == same) is True
        assert hash(self.paths) == hash(same)
        assert (self.paths == ImagePaths(self.paths.paths)) is False
        assert (self.paths == "0.png") is False
        assert (self.paths != same) is False

    def test_pickles_and_hashes(self):
        assert pickle.loads(pickle.dumps(self.paths)) == self.paths
        assert joblib.hash(self.paths) == joblib.hash(ImagePaths(list(self.paths.paths), Path("folder")))

    def test_scikit_learn_cuts_it(self):
        cut = _safe_indexing(self.paths, np.array([4, 0]))
        assert list(map(str, cut)) == [str(self.paths[4]), str(self.paths[0])]
        assert input_kind(cut) == "images"

    def test_absolute_paths_ignore_the_root(self, tmp_path):
        assert ImagePaths([tmp_path / "a.png"], root="folder")[0] == tmp_path / "a.png"

    def test_one_path(self):
        with pytest.raises(TypeError, match=r"ImagePaths\(\['a.png'\]\)"):
            ImagePaths("a.png")

    def test_repr_is_short(self):
        assert repr(self.paths) == "ImagePaths(5 paths, '0.png' to '4.png', root='folder')"
        assert repr(ImagePaths([])) == "ImagePaths(0 paths)"


class TestReading:
    def read(self, item):
        return np.asarray(read_image([item], 0))

    def test_every_kind_gives_the_same_pixels(self, tmp_path):
        path = tmp_path / "picture.png"
        PICTURE.save(path)
        for item in (path, str(path), PICTURE, PIXELS[0]):
            np.testing.assert_array_equal(self.read(item), PIXELS[0])
        np.testing.assert_array_equal(np.asarray(read_image(PIXELS, 2)), PIXELS[2])

    def test_grey_is_repeated(self):
        grey = PIXELS[0, ..., 0]
        np.testing.assert_array_equal(self.read(grey), np.stack([grey] * 3, axis=-1))

    def test_bilevel(self):
        assert set(self.read(PICTURE.convert("1")).ravel()) <= {0, 255}

    def test_sixteen_bit_grey_is_scaled(self):
        deep = np.array([[0, 255, 32768, 65535]], dtype=np.uint16)
        np.testing.assert_array_equal(self.read(Image.fromarray(deep))[0, :, 0], [0, 0, 128, 255])

    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_modes_without_a_white(self, dtype):
        with pytest.raises(ImageReadError, match="convert it to 8 bits"):
            self.read(Image.fromarray(np.zeros((2, 2), dtype=dtype)))

    def test_transparency_is_laid_on_white(self):
        pixels = np.zeros((1, 3, 4), dtype=np.uint8)
        pixels[0, :, 0], pixels[0, :, 3] = 200, [255, 0, 51]
        np.testing.assert_array_equal(self.read(pixels)[0, :, 0], [200, 255, 244])
        np.testing.assert_array_equal(self.read(pixels)[0, :, 1], [0, 255, 204])

    def test_palette_with_and_without_transparency(self, tmp_path):
        palette = PICTURE.quantize(16)
        np.testing.assert_array_equal(self.read(palette), np.asarray(palette.convert("RGB")))
        palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
        assert self.read(tmp_path / "p.png")[0, 0].tolist() == [255, 255, 255]

    def test_orientation_of_the_camera_is_applied(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        PICTURE.save(tmp_path / "turned.png", exif=exif)
        expected = np.rot90(PIXELS[0], -1)
        np.testing.assert_array_equal(self.read(tmp_path / "turned.png"), expected)
        with Image.open(tmp_path / "turned.png") as opened:
            np.testing.assert_array_equal(self.read(opened), expected)

    def test_input_is_left_alone(self):
        picture, before = PICTURE.convert("RGBA"), PICTURE.convert("RGBA").tobytes()
        self.read(picture)
        assert picture.mode == "RGBA"
        assert picture.tobytes() == before

    def test_missing_file_is_named_with_its_position(self, tmp_path):
        images = ["a.png", tmp_path / "nothing.png"]
        for function in (read_image, image_digest):
            with pytest.raises(ImageReadError, match=r"Picture 1, '.*nothing\.png': there is no such file"):
                function(images, 1)

    @pytest.mark.parametrize("content", [b"", b"no picture", "cut"])
    def test_corrupt_file_is_named_with_its_position(self, tmp_path, content):
        if content == "cut":
            buffer = io.BytesIO()
            PICTURE.save(buffer, "png")
            content = buffer.getvalue()[:-200]
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(ImageReadError, match=r"Picture 0, '.*bad\.png', could not be read"):
            self.read(tmp_path / "bad.png")

    def test_digest_is_of_the_content(self, tmp_path):
        PICTURE.save(tmp_path / "a.png")
        PICTURE.save(tmp_path / "b.png")
        Image.fromarray(PIXELS[1]).save(tmp_path / "c.png")
        a, b, c = (image_digest([tmp_path / name], 0) for name in ("a.png", "b.png", "c.png"))
        assert a == b != c
        assert image_digest([PICTURE], 0) == image_digest(PIXELS, 0) != image_digest(PIXELS, 1)
