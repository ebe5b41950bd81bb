"""Labeled images in data sets of torchvision and Hugging Face."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import cross_val_score

from clipcal import ImagePaths, ZeroShotCLIPClassifier, load_images
from clipcal.images import LazyImages, read_image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 10, 12, 3), dtype=np.uint8)
torchvision = pytest.importorskip("torchvision.datasets")


def explode(*args):
    raise AssertionError("the transform was called")


def pixels_of(images):
    return np.stack([np.asarray(read_image(images, i)) for i in range(len(images))])


@pytest.fixture
def folder(tmp_path):
    for i, image in enumerate(PIXELS):
        path = tmp_path / "images" / ["red_panda", "pug"][i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "images"


class Items(torch.utils.data.Dataset):
    """A data set with items only, which always calls its transform."""

    def __init__(self, labels, transform=explode):
        self.of_rows = labels
        self.transform = transform

    def __len__(self):
        return len(self.of_rows)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(PIXELS[i])), self.of_rows[i]


class TestTorchvision:
    def test_image_folder_is_not_decoded(self, folder):
        data = torchvision.ImageFolder(folder, transform=explode, target_transform=explode)
        found = load_images(data)
        assert isinstance(found.images, ImagePaths)
        assert [Path(path).name for path in found.paths] == [
            "1.png",
            "3.png",
            "5.png",
            "0.png",
            "2.png",
            "4.png",
        ]
        assert found.target.tolist() == [0, 0, 0, 1, 1, 1]
        assert found.class_names == {0: "pug", 1: "red panda"}
        assert data.transform is explode
        np.testing.assert_array_equal(pixels_of(found.images), PIXELS[[1, 3, 5, 0, 2, 4]])

    def test_subsets_and_concatenations(self, folder):
        data = torchvision.ImageFolder(folder)
        part = torch.utils.data.Subset(data, [5, 0, 3])
        found = load_images(torch.utils.data.Subset(part, torch.tensor([2, 0])))
        assert found.target.tolist() == [1, 1]
        np.testing.assert_array_equal(pixels_of(found.images), PIXELS[[0, 4]])
        found = load_images(torch.utils.data.ConcatDataset([part, data]))
        assert found.target.tolist() == [1, 0, 1, 0, 0, 0, 1, 1, 1]
        other = torchvision.ImageFolder(folder)
        other.classes = ["a", "b"]
        with pytest.raises(ValueError, match="different classes"):
            load_images(torch.utils.data.ConcatDataset([part, other]))

    def test_random_split(self, folder):
        train, test = torch.utils.data.random_split(torchvision.ImageFolder(folder), [4, 2])
        names = [*load_images(train).paths, *load_images(test).paths]
        assert sorted(names) == sorted(str(path) for path in folder.rglob("*.png"))

    @pytest.mark.parametrize("layout", ["samples", "flowers", "pets", "cars"])
    def test_lists_of_files(self, folder, layout):
        """The attributes of the data sets in torchvision."""
        paths = sorted(folder.rglob("*.png"))
        labels = [1, 0, 1, 0, 1, 0]
        lists = {
            "samples": {"imgs": [(str(path), label) for path, label in zip(paths, labels, strict=True)]},
            "flowers": {"_image_files": paths, "_labels": labels},
            "pets": {"_images": paths, "_labels": labels, "_bin_labels": [0] * 6},
            "cars": {"_samples": [(str(path), label) for path, label in zip(paths, labels, strict=True)]},
        }[layout]
        data = Items([5] * 6)
        vars(data).update(lists, classes=["a_b", "c"])
        found = load_images(data)
        assert found.images == ImagePaths([path.as_posix() for path in paths])
        assert found.target.tolist() == labels
        assert found.class_names == {0: "a b", 1: "c"}

    def test_real_classes_have_these_attributes(self, folder, tmp_path):
        """Data sets of torchvision on small copies of the files that they read."""
        root = tmp_path / "dtd/dtd"
        (root / "labels").mkdir(parents=True)
        folder.rename(root / "images")
        (root / "labels/train1.txt").write_text("pug/1.png\nred_panda/0.png\n")
        found = load_images(torchvision.DTD(tmp_path, split="train"))
        np.testing.assert_array_equal(pixels_of(found.images), PIXELS[[1, 0]])
        assert found.class_names == {0: "pug", 1: "red panda"}
        root = tmp_path / "caltech101/101_ObjectCategories"
        for name in ("BACKGROUND_Google", "ant", "sea_horse"):
            (root / name).mkdir(parents=True)
            (tmp_path / "caltech101/Annotations").mkdir(exist_ok=True)
            Image.fromarray(PIXELS[len(name) % 2]).save(root / name / "image_0001.jpg")
        found = load_images(torchvision.Caltech101(tmp_path, transform=explode))
        assert found.paths == tuple(f"{root}/{name}/image_0001.jpg" for name in ("ant", "sea_horse"))
        assert found.class_names == {0: "ant", 1: "sea horse"}

    def test_files_of_sun397_are_sorted(self, folder):
        cls = type("SUN397", (Items,), {})
        data = cls([0] * 6)
        paths = sorted(folder.rglob("*.png"))
        data._image_files, data._labels, data.classes = paths[::-1], [1, 1, 1, 0, 0, 0], ["pug", "red_panda"]
        found = load_images(data)
        assert found.paths == tuple(path.as_posix() for path in paths)
        assert found.target.tolist() == [0, 0, 0, 1, 1, 1]

    def test_synonyms_of_imagenet(self, folder):
        data = Items([0, 1])
        data.samples = [(str(path), i) for i, path in enumerate(sorted(folder.rglob("*.png"))[:2])]
        data.classes = [("tench", "Tinca tinca"), ("goldfish", "Carassius auratus")]
        assert load_images(data).class_names == {0: "tench", 1: "goldfish"}

    @pytest.mark.parametrize("layout", ["cifar", "mnist", "svhn"])
    def test_arrays(self, layout):
        arrays = {
            "cifar": {"data": PIXELS, "targets": [0, 1] * 3},
            "mnist": {"data": torch.from_numpy(PIXELS[..., 0]), "targets": torch.tensor([0, 1] * 3)},
            "svhn": {"data": np.moveaxis(PIXELS, -1, 1), "labels": np.array([0, 1] * 3)},
        }[layout]
        data = Items([0, 1] * 3)
        vars(data).update(arrays, classes=["a", "b"])
        found = load_images(data)
        assert isinstance(found.images, np.ndarray)
        expected = PIXELS if layout != "mnist" else np.stack([PIXELS[..., 0]] * 3, axis=-1)
        np.testing.assert_array_equal(pixels_of(found.images), expected)
        assert found.target.tolist() == [0, 1] * 3

    def test_items_are_decoded_at_access_without_transform(self):
        data = Items([0, np.int64(1), torch.tensor(1), 0, 1, 0])
        data.classes = ["circle", "square"]
        found = load_images(data)
        assert isinstance(found.images, LazyImages)
        assert found.target.tolist() == [0, 1, 1, 0, 1, 0]
        assert found.target.dtype == int
        np.testing.assert_array_equal(pixels_of(found.images), PIXELS)
        assert found.paths[:2] == ("00000000", "00000001")
        clf = ZeroShotCLIPClassifier("mini", class_names=found.class_names)
        scores = cross_val_score(clf, found.images, found.target, cv=2)
        np.testing.assert_array_equal(scores, cross_val_score(clf, PIXELS, found.target, cv=2))

    def test_fake_data(self):
        data = torchvision.FakeData(3, (3, 8, 9), num_classes=5, transform=explode)
        with pytest.warns(UserWarning, match="are numbers"):
            found = load_images(data)
        assert read_image(found.images, 2).size == (9, 8)
        assert found.images[0].tobytes() == torchvision.FakeData(3, (3, 8, 9))[0][0].tobytes()
        assert len(pickle.loads(pickle.dumps(found.images))) == 3

    def test_labels_beyond_the_classes(self):
        data = Items(["cat", "dog"])
        data.classes = ["a", "b"]
        found = load_images(data)
        assert found.class_names == {"cat": "cat", "dog": "dog"}
        assert load_images(data, labeled=False).target is None

    @pytest.mark.parametrize(
        ("labels", "match"),
        [
            ([0, -1], "negative"),
            ([0.5, 1.5], "float objects"),
            ([torch.zeros(3)] * 2, "ndarray objects"),
            ([], "empty"),
        ],
    )
    def test_errors(self, labels, match):
        with pytest.raises(ValueError, match=match):
            load_images(Items(labels))


def hugging_face():
    """Return the package ``datasets``; skip the test if it is not installed."""
    # Without the package, the folder of tests of that name would be imported.
    pytest.importorskip("datasets.arrow_dataset")
    return sys.modules["datasets"]


def made(folder, **columns):
    datasets = hugging_face()
    paths = sorted(folder.rglob("*.png"), key=lambda path: path.name)
    records = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["red_panda", "pug"])}
    for name in columns:
        features.setdefault(name, datasets.Value("string"))
    columns = {"image": records, "label": [0, 1] * 3, **columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


class TestHuggingFace:
    def test_images_stay_encoded(self, folder):
        data = made(folder)
        found = load_images(data)
        assert isinstance(found.images, LazyImages)
        assert found.images[0]["bytes"].startswith(b"\x89PNG")
        assert found.paths == tuple(f"{i}.png" for i in range(6))
        assert found.target.tolist() == [0, 1] * 3
        assert found.class_ids == [0, 1]
        assert found.class_names == {0: "red panda", 1: "pug"}
        np.testing.assert_array_equal(pixels_of(found.images[::-2]), PIXELS[::-2])
        assert len(pickle.loads(pickle.dumps(found.images))) == 6

    def test_transforms_and_formats_are_ignored(self, folder):
        for data in (made(folder).with_transform(explode), made(folder).with_format("numpy")):
            np.testing.assert_array_equal(pixels_of(load_images(data).images), PIXELS)

    def test_selections_keep_their_rows(self, folder):
        found = load_images(made(folder).select([4, 1, 3]))
        assert found.paths == ("4.png", "1.png", "3.png")
        np.testing.assert_array_equal(pixels_of(found.images), PIXELS[[4, 1, 3]])
        assert found.target.tolist() == [0, 1, 1]

    def test_splits(self, folder):
        datasets = hugging_face()
        data = made(folder)
        splits = datasets.DatasetDict(
            train=data.select([0, 1]), valid=data.select([2]), test=data.select([5])
        )
        found = load_images(splits)
        assert found.validation.paths == ("2.png",)
        assert found.test.target.tolist() == [1]
        assert load_images(splits, split="train").target.tolist() == [0, 1]
        other = data.cast_column("label", datasets.ClassLabel(names=["pug", "red_panda"]))
        with pytest.raises(ValueError, match="different class names"):
            load_images(datasets.DatasetDict(train=data, test=other))

    def test_image_folder(self, folder):
        """The data set refers to the files instead of containing them."""
        datasets = hugging_face()
        data = datasets.Dataset.from_dict({"image": [str(path) for path in sorted(folder.rglob("*.png"))]})
        data = data.add_column("label", ["a", "a", "a", "b", "b", "b"])
        found = load_images(data.cast_column("image", datasets.Image()))
        np.testing.assert_array_equal(pixels_of(found.images), PIXELS[[1, 3, 5, 0, 2, 4]])
        assert found.class_ids == ["a", "b"]
        found = load_images(data)
        np.testing.assert_array_equal(pixels_of(found.images), PIXELS[[1, 3, 5, 0, 2, 4]])

    def test_mode_is_applied(self, folder):
        data = made(folder).cast_column("image", hugging_face().Image(mode="L"))
        grey = [np.asarray(Image.fromarray(image).convert("L")) for image in PIXELS]
        np.testing.assert_array_equal(pixels_of(load_images(data).images), np.stack([grey] * 3, axis=-1))

    def test_other_columns(self, folder):
        data = made(folder, breed=["x", "y", "z"] * 2)
        assert load_images(data, columns={"label": "breed"}).target.tolist() == ["x", "y", "z"] * 2
        two = data.add_column("second", data["label"]).cast_column("second", data.features["label"])
        with pytest.raises(ValueError, match=r"several ClassLabel columns.*columns={'label': 'label'}"):
            load_images(two)
        assert load_images(two, columns={"label": "second"}).target.tolist() == [0, 1] * 3
        bare = data.remove_columns(["label", "breed"])
        with pytest.raises(ValueError, match="pass labeled=False"):
            load_images(bare)
        assert load_images(bare, labeled=False).target is None

    def test_missing_labels_raise(self, folder):
        with pytest.raises(ValueError, match=r"2 of 6 rows .* no label .* row 1"):
            load_images(made(folder, label=[0, -1, 0, -1, 0, 0]))
        with pytest.raises(ValueError, match="1 of 6 rows"):
            load_images(made(folder, breed=["x", None] + ["y"] * 4), columns={"label": "breed"})

    def test_streams_raise(self, folder):
        stream = made(folder).to_iterable_dataset()
        with pytest.raises(TypeError, match=r"Dataset\.from_list") as caught:
            load_images(stream)
        code = str(caught.value).partition("a part of it: ")[2].rstrip(".")
        part = eval(code, {"datasets": hugging_face(), "data": stream})
        np.testing.assert_array_equal(pixels_of(load_images(part).images), PIXELS)

    def test_written_parquet_has_names(self, folder, tmp_path):
        made(folder).to_parquet(tmp_path / "a.parquet")
        found = load_images(tmp_path / "a.parquet")
        assert found.class_names == {0: "red panda", 1: "pug"}
        assert found.paths == tuple(f"{i}.png" for i in range(6))
        np.testing.assert_array_equal(pixels_of(found.images), PIXELS)

    def test_classifiers(self, folder):
        found = load_images(made(folder))
        clf = ZeroShotCLIPClassifier("mini", class_names=found.class_names)
        scores = cross_val_score(clf, found.images, found.target, cv=3)
        np.testing.assert_array_equal(scores, cross_val_score(clf, PIXELS, found.target, cv=3))


class FakeHuggingFace:
    """A data set of ``datasets``, as far as it is used, for machines without the package."""

    def __init__(self, columns, features):
        self.columns_, self.features = columns, features

    column_names = property(lambda self: list(self.columns_))

    def __len__(self):
        return len(next(iter(self.columns_.values())))

    def __getitem__(self, key):
        return {name: values[key] for name, values in self.columns_.items()}

    def with_format(self, kind):
        assert kind is None
        return self

    def select_columns(self, names):
        return FakeHuggingFace({name: self.columns_[name] for name in names}, self.features)


def test_data_sets_without_an_image_type(folder):
    paths = [str(path) for path in sorted(folder.rglob("*.png"))]
    features = {"img": types.SimpleNamespace(), "label": types.SimpleNamespace(names=["a_b", "c"])}
    found = load_images(FakeHuggingFace({"img": paths, "label": [0, 1] * 3}, features))
    np.testing.assert_array_equal(pixels_of(found.images), PIXELS[[1, 3, 5, 0, 2, 4]])
    assert found.class_names == {0: "a b", 1: "c"}
    with pytest.raises(ValueError, match="3 of 6 rows"):
        load_images(FakeHuggingFace({"img": paths, "label": [0, -1] * 3}, features))
