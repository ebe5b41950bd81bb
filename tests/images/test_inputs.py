"""Accepted and rejected types of X, and the error messages for the rejected ones."""

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
from clipcal.images import ImagePaths, LazyImages, as_images, image_digest, input_kind, read_image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 10, 12, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS[0])


class ArrayLike:
    """An object whose only member is ``__array__``."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class Column(ArrayLike):
    """A column of strings as in some data frames: it can be indexed, and its dtype is not a NumPy dtype."""

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
    # Rejected by scikit-learn's own validation, whose messages its estimator checks match.
    "sparse": sparse.csr_matrix(np.eye(4)),
    "1-D numbers": np.arange(4.0),
    "list of numbers": [1.0, 2.0],
    "complex": np.ones((4, 5), dtype=complex),
    "no rows": np.empty((0, 5)),
    "dict in a table": np.array([[{"foo": "bar"}, 1]], dtype=object),
}

IMAGES = {
    "list of str": ["a.png", "b.png"],
    "list of Path": [Path("a.png"), Path("b.png")],
    "str and Path": ["a.png", Path("b.png")],
    "tuple": ("a.png", "b.png"),
    "array of str": np.array(["a.png", "b.png"]),
    "array of objects": np.array(["a.png", Path("b.png")], dtype=object),
    "series": pd.Series(["a.png", "b.png"], index=[7, 3]),
    "paths": ImagePaths(["a.png", "b.png"]),
    "PIL": [IMAGE, IMAGE],
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
    "column of PIL": pd.Series([IMAGE, IMAGE]),
    "column of arrays": pd.Series([PIXELS[0], PIXELS[1]]),
    "array of tensors": as_objects([torch.from_numpy(PIXELS[0]), torch.from_numpy(PIXELS[1])]),
    "tensor elsewhere": elsewhere(torch.from_numpy(PIXELS)),
    "tensors elsewhere": [elsewhere(torch.from_numpy(PIXELS[0])), torch.from_numpy(PIXELS[1])],
}

REFUSED = {
    "str": ("a.png", TypeError, r"single path.*\['a.png'\]"),
    "Path": (Path("a.png"), TypeError, r"single path.*\['a.png'\]"),
    "image": (IMAGE, TypeError, r"single PIL image.*\[image\]"),
    "array of one image": (PIXELS[0], ValueError, r"single image; write X\[np.newaxis\]"),
    "dict": ({"a": 1}, TypeError, "X is a dict"),
    "set": ({"a.png"}, TypeError, "X is a set"),
    "generator": ((p for p in ["a.png"]), TypeError, r"read only once.*list\(X\)"),
    "None": (None, TypeError, "X is a NoneType"),
    "number": (3, TypeError, "X is a int"),
    "0-D": (np.float64(3), TypeError, "single value"),
    "bytes": (b"a.png", TypeError, r"single path.*\['a.png'\]"),
    "list of bytes": ([b"a.png"], TypeError, r"X holds bytes.*write list\(map\(os.fsdecode, X\)\)"),
    "array of bytes": (np.array([b"a.png"]), TypeError, r"X holds bytes.*list\(map\(os.fsdecode, X\)\)"),
    "missing in a series": (
        pd.Series(["a.png", None], dtype="string"),
        TypeError,
        r"mixes paths \(position 0\) and NAType objects \(position 1\)",
    ),
    "empty list": ([], ValueError, r"empty: 0 sample\(s\)"),
    "empty paths": (ImagePaths([]), ValueError, "empty"),
    "no images": (np.empty((0, 4, 4, 3), np.uint8), ValueError, "empty"),
    "no pixels": (np.empty((2, 0, 4, 3), np.uint8), ValueError, "no pixels"),
    "floats": (PIXELS / 255, ValueError, r"\(X \* 255\).round\(\).astype\(np.uint8\)"),
    "grey floats": (PIXELS[..., 0] / 255, ValueError, r"X \* 255"),
    "int64": (PIXELS.astype(int), ValueError, r"X.astype\(np.uint8\)"),
    "channels first": (np.moveaxis(PIXELS, -1, 1), ValueError, r"np.moveaxis\(X, 1, -1\)"),
    "channels first, grey": (PIXELS[:, None, :, :, 0], ValueError, r"write X\[:, 0\]\."),
    "one channel": (PIXELS[..., :1], ValueError, r"X\[..., 0\]"),
    "two channels": (PIXELS[..., :2], ValueError, "last axis must be 3 channels"),
    "other channels": (PIXELS.repeat(2, axis=-1), ValueError, "last axis must be 3 channels"),
    "5-D": (PIXELS[None], ValueError, "too many axes"),
    "4-D in a list": ([PIXELS, PIXELS[0]], ValueError, "Image 0: .*too many axes"),
    "complex": (PIXELS * 1j, ValueError, "pixels must be uint8"),
    "NaN": (np.full((2, 4, 4, 3), np.nan), ValueError, "NaN or infinite"),
    "words": (np.full((2, 4, 4), "a"), ValueError, "pixels must be uint8"),
    "dicts in an array": (np.full((2, 4, 4), {}), ValueError, "pixels must be uint8"),
    "2-D of str": (np.array([["a.png"], ["b.png"]]), ValueError, r"X.ravel\(\)"),
    "2-D of objects": (np.array([["a.png"]], dtype=object), ValueError, r"X.ravel\(\)"),
    "frame of paths": (pd.DataFrame({"file": ["a.png"]}), ValueError, r"X\['file'\]"),
    "path and image": (
        ["a.png", IMAGE],
        TypeError,
        r"mixes paths \(position 0\) and PIL images \(position 1\)",
    ),
    "path and nothing": (["a.png", None], TypeError, "NoneType objects"),
    "path and NaN": (pd.Series(["a.png", float("nan")], dtype=object), TypeError, "paths.*numbers"),
    "path and vector": (["a.png", np.zeros(3)], TypeError, "mixes"),
    "dicts": ([{"a": 1}], TypeError, "holds dict objects"),
    "list with floats": ([PIXELS[0], PIXELS[0] / 255], ValueError, r"Image 1.*\* 255"),
}

if hasattr(np.dtypes, "StringDType"):
    MAY_LACK = np.dtypes.StringDType(na_object=np.nan)
    IMAGES["strings of variable width"] = np.array(["a.png", "bb.png"], dtype=np.dtypes.StringDType())
    IMAGES["strings that may be missing"] = np.array(["a.png", "bb.png"], dtype=MAY_LACK)
    REFUSED["no strings of variable width"] = (np.array([], dtype=MAY_LACK), ValueError, "empty")
    REFUSED["missing string"] = (
        np.array(["a.png", np.nan], dtype=MAY_LACK),
        TypeError,
        r"mixes paths \(position 0\) and numbers \(position 1\)",
    )


@pytest.mark.parametrize("X", EMBEDDINGS.values(), ids=EMBEDDINGS)
def test_embeddings_are_recognized(X):
    assert input_kind(X) == "embeddings"
    with pytest.raises(ValueError, match="Expected images, got numbers"):
        as_images(X)


@pytest.mark.parametrize("X", IMAGES.values(), ids=IMAGES)
def test_images_are_recognized(X):
    assert input_kind(X) == "images"
    images = as_images(X)
    assert len(images) == (len(X) if hasattr(X, "__len__") else len(PIXELS))
    if not isinstance(images[0], (str, Path)):
        assert all(read_image(images, i).mode == "RGB" for i in range(len(images)))


@pytest.mark.parametrize(("X", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_other_inputs_raise(X, error, match):
    with pytest.raises(error, match=match):
        as_images(X)


class TestImagePaths:
    paths = ImagePaths([f"{i}.png" for i in range(5)], root="folder")

    def test_supports_the_sequence_protocol(self):
        assert len(self.paths) == 5
        assert self.paths[1] == self.paths[-4] == self.paths[np.int64(1)] == Path("folder/1.png")
        assert list(self.paths) == [Path(f"folder/{i}.png") for i in range(5)]
        assert Path("folder/3.png") in self.paths
        with pytest.raises(IndexError):
            self.paths[5]

    @given(st.data())
    def test_indexing_equals_numpy_indexing(self, data):
        array = np.array(self.paths.paths)
        index = st.lists(st.integers(-5, 4), max_size=8)
        mask = st.lists(st.booleans(), min_size=5, max_size=5).map(np.array)
        key = data.draw(st.one_of(st.slices(5), mask, index, index.map(lambda i: np.array(i, dtype=int))))
        cut = self.paths[key]
        expected = array[np.array(key, dtype=int) if isinstance(key, list) else key]
        assert isinstance(cut, ImagePaths)
        assert cut.paths == tuple(expected)
        assert cut.root == "folder"

    def test_other_keys_raise(self):
        for key in (1.5, [0.5], [[0, 1]], "a", None, True, np.array([True, None])):
            for images in (self.paths, LazyImages(self.paths)):
                with pytest.raises(IndexError, match="are indexed by an int, a slice, a mask"):
                    images[key]

    def test_mask_of_wrong_length_raises(self):
        with pytest.raises(IndexError, match="3 entries for 5 paths"):
            self.paths[np.ones(3, dtype=bool)]

    def test_equality_returns_a_bool(self):
        same = ImagePaths(self.paths.paths, "folder")
        assert (self.paths == same) is True
        assert hash(self.paths) == hash(same)
        assert (self.paths == ImagePaths(self.paths.paths)) is False
        assert (self.paths == "0.png") is False
        assert (self.paths != same) is False

    def test_pickle_and_joblib_hash(self):
        assert pickle.loads(pickle.dumps(self.paths)) == self.paths
        assert joblib.hash(self.paths) == joblib.hash(ImagePaths(list(self.paths.paths), Path("folder")))

    def test_safe_indexing_of_scikit_learn(self):
        cut = _safe_indexing(self.paths, np.array([4, 0]))
        assert list(map(str, cut)) == [str(self.paths[4]), str(self.paths[0])]
        assert input_kind(cut) == "images"

    def test_root_is_ignored_for_absolute_paths(self, tmp_path):
        assert ImagePaths([tmp_path / "a.png"], root="folder")[0] == tmp_path / "a.png"

    def test_single_path_raises(self):
        with pytest.raises(TypeError, match=r"ImagePaths\(\['a.png'\]\)"):
            ImagePaths("a.png")

    def test_repr_is_short(self):
        assert repr(self.paths) == "ImagePaths(5 paths, '0.png' to '4.png', root='folder')"
        assert repr(ImagePaths([])) == "ImagePaths(0 paths)"


class TestReading:
    def read(self, item):
        return np.asarray(read_image([item], 0))

    def test_all_input_types_give_the_same_pixels(self, tmp_path):
        path = tmp_path / "image.png"
        IMAGE.save(path)
        for item in (path, str(path), IMAGE, PIXELS[0]):
            np.testing.assert_array_equal(self.read(item), PIXELS[0])
        np.testing.assert_array_equal(np.asarray(read_image(PIXELS, 2)), PIXELS[2])

    def test_grayscale_is_repeated_in_all_channels(self):
        grey = PIXELS[0, ..., 0]
        np.testing.assert_array_equal(self.read(grey), np.stack([grey] * 3, axis=-1))

    def test_bilevel_images_are_scaled_to_255(self):
        assert set(self.read(IMAGE.convert("1")).ravel()) <= {0, 255}

    def test_sixteen_bit_grayscale_is_scaled_to_8_bits(self):
        deep = np.array([[0, 255, 32768, 65535]], dtype=np.uint16)
        np.testing.assert_array_equal(self.read(Image.fromarray(deep))[0, :, 0], [0, 0, 128, 255])

    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_modes_without_a_value_of_white_raise(self, dtype):
        with pytest.raises(ImageReadError, match="convert the image to 8 bits"):
            self.read(Image.fromarray(np.zeros((2, 2), dtype=dtype)))

    def test_transparent_images_are_composited_on_white(self):
        pixels = np.zeros((1, 3, 4), dtype=np.uint8)
        pixels[0, :, 0], pixels[0, :, 3] = 200, [255, 0, 51]
        np.testing.assert_array_equal(self.read(pixels)[0, :, 0], [200, 255, 244])
        np.testing.assert_array_equal(self.read(pixels)[0, :, 1], [0, 255, 204])

    def test_palette_images_with_and_without_transparency(self, tmp_path):
        palette = IMAGE.quantize(16)
        np.testing.assert_array_equal(self.read(palette), np.asarray(palette.convert("RGB")))
        palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
        assert self.read(tmp_path / "p.png")[0, 0].tolist() == [255, 255, 255]

    def test_exif_orientation_is_applied(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        IMAGE.save(tmp_path / "turned.png", exif=exif)
        expected = np.rot90(PIXELS[0], -1)
        np.testing.assert_array_equal(self.read(tmp_path / "turned.png"), expected)
        with Image.open(tmp_path / "turned.png") as opened:
            np.testing.assert_array_equal(self.read(opened), expected)

    def test_input_is_not_modified(self):
        image, before = IMAGE.convert("RGBA"), IMAGE.convert("RGBA").tobytes()
        self.read(image)
        assert image.mode == "RGBA"
        assert image.tobytes() == before

    def test_error_for_a_missing_file_gives_path_and_position(self, tmp_path):
        images = ["a.png", tmp_path / "nothing.png"]
        for function in (read_image, image_digest):
            with pytest.raises(ImageReadError, match=r"Image 1, '.*nothing\.png': there is no such file"):
                function(images, 1)

    @pytest.mark.parametrize("content", [b"", b"no image", "cut"])
    def test_error_for_a_corrupt_file_gives_path_and_position(self, tmp_path, content):
        if content == "cut":
            buffer = io.BytesIO()
            IMAGE.save(buffer, "png")
            content = buffer.getvalue()[:-200]
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(ImageReadError, match=r"Image 0, '.*bad\.png', could not be read"):
            self.read(tmp_path / "bad.png")

    def test_digest_depends_on_the_content_only(self, tmp_path):
        IMAGE.save(tmp_path / "a.png")
        IMAGE.save(tmp_path / "b.png")
        Image.fromarray(PIXELS[1]).save(tmp_path / "c.png")
        a, b, c = (image_digest([tmp_path / name], 0) for name in ("a.png", "b.png", "c.png"))
        assert a == b != c
        assert image_digest([IMAGE], 0) == image_digest(PIXELS, 0) != image_digest(PIXELS, 1)
