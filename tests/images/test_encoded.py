"""Contents of image files, records of them, and sequences that fetch images when needed."""

import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import cross_val_score, train_test_split

from clipcal import CLIPImageEncoder, FeatureCache, ImagePaths, ZeroShotCLIPClassifier
from clipcal.backbones import open_backbone
from clipcal.exceptions import ImageReadError
from clipcal.images import (
    LazyImages,
    PixelLoader,
    as_images,
    encode_images,
    image_digest,
    input_kind,
    read_image,
)

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 10, 12, 3), dtype=np.uint8)


def content(i, file_format="png", **kwargs):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[i]).save(buffer, file_format, **kwargs)
    return buffer.getvalue()


CONTENTS = [content(i) for i in range(len(PIXELS))]


class Counted:
    """A source that counts how often each item is fetched."""

    def __init__(self, items):
        self.items = items
        self.fetched = []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        assert type(i) is int
        self.fetched.append(i)
        return self.items[i]


class Undecodable:
    def __len__(self):
        return 2

    def __getitem__(self, i):
        raise RuntimeError("decoder failed")


@pytest.fixture
def folder(tmp_path):
    for i, data in enumerate(CONTENTS):
        (tmp_path / f"{i}.png").write_bytes(data)
    return tmp_path


def records(folder):
    """Records with bytes only, with a path only, and with bytes and the name of a file that is not there."""
    paths = [str(folder / f"{i}.png") for i in range(6)]
    kinds = [
        {"bytes": CONTENTS[0], "path": None},
        {"bytes": None, "path": paths[1]},
        {"bytes": CONTENTS[2], "path": "elsewhere.png"},
        {"bytes": CONTENTS[3]},
        {"path": paths[4]},
        {"path": Path(paths[5]), "bytes": None, "other": 1},
    ]
    return kinds


FORMS = {
    "bytes": lambda folder: CONTENTS,
    "tuple of bytes": lambda folder: tuple(CONTENTS),
    "array of bytes": lambda folder: np.array(CONTENTS, dtype=object),
    "series of bytes": lambda folder: pd.Series(CONTENTS, index=range(10, 16)),
    "records": records,
    "series of records": lambda folder: pd.Series(records(folder)),
    "lazy paths": lambda folder: LazyImages([folder / f"{i}.png" for i in range(6)]),
    "lazy bytes": lambda folder: LazyImages(CONTENTS),
    "lazy records": lambda folder: LazyImages(records(folder)),
    "lazy arrays": lambda folder: LazyImages(PIXELS),
    "lazy PIL": lambda folder: LazyImages([Image.fromarray(image) for image in PIXELS]),
}


@pytest.fixture(name="X", params=FORMS.values(), ids=FORMS)
def of_each_form(request, folder):
    return request.param(folder)


def test_pixels_are_those_of_the_files(X):
    assert input_kind(X) == "images"
    images = as_images(X)
    assert len(images) == 6
    for i, pixels in enumerate(PIXELS):
        np.testing.assert_array_equal(np.asarray(read_image(images, i)), pixels)


def test_digests_are_those_of_the_files(X, folder, request):
    paths = ImagePaths([f"{i}.png" for i in range(6)], root=folder)
    # Arrays and PIL images have no encoded content, so their pixels are hashed.
    expected = PIXELS if request.node.callspec.id in ("lazy arrays", "lazy PIL") else paths
    images = as_images(X)
    assert [image_digest(images, i) for i in range(6)] == [image_digest(expected, i) for i in range(6)]


def test_embeddings_equal_those_of_arrays(X, tmp_path):
    expected = CLIPImageEncoder("mini").transform(PIXELS)
    np.testing.assert_array_equal(CLIPImageEncoder("mini").transform(X), expected)
    cache = FeatureCache(tmp_path / "cache")
    for _ in range(2):
        np.testing.assert_array_equal(CLIPImageEncoder("mini", memory=cache).transform(X), expected)


def test_pixel_loader_reads_them(X):
    backbone = open_backbone("mini", device="cpu")
    loader = PixelLoader(X, backbone, seed=None)
    loader.check_headers()
    expected = PixelLoader(PIXELS, backbone, seed=None).load([5, 0], [0, 0])
    assert (loader.load([5, 0], [0, 0]) == expected).all()


def test_cross_validation(X):
    clf = ZeroShotCLIPClassifier("mini")
    y = np.array(["circle", "square"] * 3)
    expected = cross_val_score(clf, PIXELS, y, cv=3)
    np.testing.assert_array_equal(cross_val_score(clf, X, y, cv=3), expected)
    weights = [1, 0, 1, 1, 1, 0]
    assert clf.fit(X, y, sample_weight=weights).score(X, y) == clf.fit(PIXELS, y).score(PIXELS, y)


@pytest.mark.parametrize("file_format", ["bmp", "gif", "jpeg", "jpeg2000", "png", "ppm", "tiff", "webp"])
def test_formats_are_recognized_by_their_content(file_format):
    data = content(0, file_format)
    assert input_kind([data]) == "images"
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(read_image([data], 0)), np.asarray(image.convert("RGB")))


REFUSED = {
    "one content": (CONTENTS[0], r"content of a single image file; pass a list: \[X\]"),
    "one record": ({"bytes": CONTENTS[0], "path": None}, r"single image record; pass a list: \[X\]"),
    "paths as bytes": (
        [b"images/cat.png"],
        r"position 0: b'images/cat.png'; if they are paths, write",
    ),
    "bytes and records": (
        [CONTENTS[0], {"bytes": CONTENTS[1]}],
        r"mixes file contents \(position 0\) and image records \(position 1\)",
    ),
    "other dicts": ([{"image": CONTENTS[0]}], "X holds dict objects"),
    "2-D": (np.array([[CONTENTS[0]]], dtype=object), r"2-D array of file contents; make it 1-D: X.ravel\(\)"),
    "frame": (pd.DataFrame({"image": [{"bytes": CONTENTS[0]}]}), r"frame of image records.*: X\['image'\]"),
    "rows": ([(CONTENTS[0], 1)], r"tuples of file contents; pass one of each row"),
    "no images": (LazyImages([]), "X is empty"),
    "lazy numbers": (LazyImages([None]), "X holds NoneType objects"),
}


@pytest.mark.parametrize(("X", "match"), REFUSED.values(), ids=REFUSED)
def test_refused(X, match):
    with pytest.raises((TypeError, ValueError), match=match):
        as_images(X)


@pytest.mark.parametrize("function", [read_image, image_digest])
def test_errors_give_the_position(function, folder):
    gone = str(folder / "gone.png")
    for images in ([{"path": gone}], LazyImages([{"bytes": None, "path": gone}])):
        with pytest.raises(ImageReadError, match=r"Image 0, '.*gone\.png': there is no such file"):
            function(images, 0)
    with pytest.raises(ImageReadError, match=r"Image 1 could not be read: .*neither bytes nor a path"):
        function([{"bytes": CONTENTS[0]}, {"bytes": None, "path": None}], 1)
    with pytest.raises(ImageReadError, match="Image 1 could not be read: RuntimeError: decoder failed"):
        function(LazyImages(Undecodable()), 1)
    with pytest.raises(IndexError):
        function(LazyImages(CONTENTS), 6)


@pytest.mark.parametrize("data", [b"", b"no image" * 1000, CONTENTS[1][:-200]])
def test_errors_of_contents(data):
    with pytest.raises(ImageReadError, match=rf"Image 1, {len(data)} bytes.*, could not be read: ") as caught:
        read_image([CONTENTS[0], data], 1)
    assert len(str(caught.value)) < 300


def test_errors_of_a_record_of_a_folder(folder):
    with pytest.raises(ImageReadError, match=r"Image 0 of X, '.*' is a folder"):
        as_images([{"bytes": None, "path": str(folder)}])


def test_headers_of_contents_are_checked():
    loader = PixelLoader([*CONTENTS[:2], b"damaged" * 1000], open_backbone("mini", device="cpu"), seed=None)
    with pytest.raises(ImageReadError, match="Image 2, 7000 bytes"):
        loader.check_headers()


class TestLazyImages:
    def test_only_the_first_image_is_fetched_to_look_at_it(self):
        source = Counted(CONTENTS)
        images = as_images(LazyImages(source))
        assert set(source.fetched) == {0}
        read_image(images, 4)
        assert source.fetched.count(4) == 1

    @given(st.data())
    def test_indexing_equals_numpy_indexing(self, data):
        index = st.lists(st.integers(-6, 5), max_size=8).map(lambda i: np.array(i, dtype=int))
        mask = st.lists(st.booleans(), min_size=6, max_size=6).map(np.array)
        key = data.draw(st.one_of(st.slices(6), mask, index))
        source = Counted("abcdef")
        cut = LazyImages(source)[key]
        assert isinstance(cut, LazyImages)
        assert source.fetched == []
        assert list(cut) == list(np.array(list("abcdef"))[key])
        # Again, from a part of the images.
        assert list(cut[::-1]) == list(cut)[::-1]

    def test_splits_of_scikit_learn_fetch_nothing(self):
        source = Counted(CONTENTS)
        train, test = train_test_split(LazyImages(source), test_size=2, random_state=0)
        assert (len(train), len(test)) == (4, 2)
        assert source.fetched == []
        expected = train_test_split(CONTENTS, test_size=2, random_state=0)
        assert [list(train), list(test)] == expected

    def test_mask_of_wrong_length_raises(self):
        with pytest.raises(IndexError, match="2 entries for 6 images"):
            LazyImages(CONTENTS)[[True, False]]

    def test_pickle(self):
        again = pickle.loads(pickle.dumps(LazyImages(CONTENTS)[[3, 1]]))
        assert list(again) == [CONTENTS[3], CONTENTS[1]]

    def test_sequence_protocol(self):
        images = LazyImages("abc")
        assert images[-1] == images[np.int64(2)] == "c"
        assert "b" in images
        assert images.shape == (3,)
        assert repr(images) == "LazyImages(3 images of a str)"


class DataSet:
    """A data set with items (image, label), as in torchvision."""

    def __init__(self):
        self.n_decoded = 0

    def __len__(self):
        return 6

    def __getitem__(self, i):
        self.n_decoded += 1
        return Image.fromarray(PIXELS[i]), i % 2


def test_data_sets_are_refused_before_they_are_decoded():
    data = DataSet()
    with pytest.raises(TypeError, match=r"data set of type DataSet.*load_images\(X\)"):
        as_images(data)
    assert data.n_decoded == 1


def hugging_face():
    """Return the package ``datasets``; skip the test if it is not installed."""
    # Without the package, the folder of tests of that name would be imported.
    pytest.importorskip("datasets.arrow_dataset")
    return sys.modules["datasets"]


class TestHuggingFace:
    @pytest.fixture
    def data(self, folder):
        datasets = hugging_face()
        columns = {"image": records(folder)[:3] + CONTENTS[3:], "label": [0, 1] * 3}
        columns["image"][3:] = [{"bytes": data, "path": None} for data in CONTENTS[3:]]
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["circle", "square"])}
        )
        return datasets.Dataset.from_dict(columns, features=features)

    def test_a_column_stays_encoded(self, data, folder):
        images = as_images(data["image"])
        assert isinstance(images, LazyImages)
        assert isinstance(images[0], dict)
        assert image_digest(images, 1) == image_digest([folder / "1.png"], 0)
        for i, pixels in enumerate(PIXELS):
            np.testing.assert_array_equal(np.asarray(read_image(images, i)), pixels)
        assert isinstance(data[0]["image"], Image.Image)
        assert len(pickle.loads(pickle.dumps(images))) == 6

    @pytest.mark.parametrize("change", ["undecoded", "mode", "transform", "rows"])
    def test_other_columns(self, data, change):
        datasets = hugging_face()
        expected = PIXELS
        if change == "undecoded":
            data = data.cast_column("image", datasets.Image(decode=False))
        elif change == "mode":
            data = data.cast_column("image", datasets.Image(mode="L"))
            grey = [np.asarray(Image.fromarray(image).convert("L")) for image in PIXELS]
            expected = np.stack([grey] * 3, axis=-1)
        elif change == "transform":
            data = data.with_transform(
                lambda batch: {**batch, "image": [image.rotate(180) for image in batch["image"]]}
            )
            expected = PIXELS[:, ::-1, ::-1]
        else:
            data, expected = data.select([4, 0]), PIXELS[[4, 0]]
        images = as_images(data["image"])
        for i, pixels in enumerate(expected):
            np.testing.assert_array_equal(np.asarray(read_image(images, i)), pixels)

    def test_classifiers(self, data):
        y = np.array(["circle", "square"] * 3)
        clf = ZeroShotCLIPClassifier("mini").fit(data["image"], y)
        np.testing.assert_array_equal(clf.predict(data["image"]), clf.predict(PIXELS))
        expected = cross_val_score(clf, PIXELS, y, cv=3)
        np.testing.assert_array_equal(cross_val_score(clf, data["image"], y, cv=3), expected)
        assert encode_images(data["image"], open_backbone("mini", device="cpu")).shape[0] == 6

    def test_the_data_set_itself_is_refused(self, data):
        with pytest.raises(TypeError, match=r"load_images\(X\)"):
            as_images(data)
        with pytest.raises(TypeError, match=r"data frame|dict"):
            as_images({"train": data})
