"""Images in folders and tables, loaded with their labels."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader

from clipcal import ImagePaths, ZeroShotCLIPClassifier, load_images
from clipcal.exceptions import ImageReadError
from clipcal.images import read_image


def content(value=0, file_format="png"):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), value, dtype=np.uint8)).save(buffer, file_format)
    return buffer.getvalue()


def write(root, *names):
    for i, name in enumerate(names):
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(i) if path.suffix else b"text")
    return root


@pytest.fixture
def pets(tmp_path):
    return write(tmp_path / "pets", "pug/1.jpg", "pug/10.jpg", "pug/2.JPEG", "beagle/a.png", "beagle/b.PNG")


class TestFolders:
    def test_one_folder_per_class(self, pets):
        data = load_images(pets)
        assert data.paths == ("beagle/a.png", "beagle/b.PNG", "pug/1.jpg", "pug/10.jpg", "pug/2.JPEG")
        assert data.target.tolist() == ["beagle"] * 2 + ["pug"] * 3
        assert data.images == ImagePaths(data.paths, root=pets)
        assert data.class_ids == ["beagle", "pug"]
        assert f"Images of {str(pets)!r}: 5 images of 2 classes." == data.DESCR
        images, target = load_images(str(pets), return_X_y=True)
        assert images == data.images
        np.testing.assert_array_equal(target, data.target)

    def test_images_can_be_fitted(self, pets):
        data = load_images(pets)
        train, _, y, _ = train_test_split(data.images, data.target, stratify=data.target, random_state=0)
        clf = ZeroShotCLIPClassifier("mini", class_names=data.class_names).fit(train, y)
        assert clf.predict(data.images[::2]).shape == (3,)

    @pytest.mark.parametrize(
        "suffix", [".avif", ".bmp", ".gif", ".JPEG", ".jpg", ".Png", ".ppm", ".tiff", ".webp"]
    )
    def test_formats_that_pillow_reads_are_found(self, tmp_path, suffix):
        if suffix not in {*Image.registered_extensions(), ".JPEG", ".Png"}:
            pytest.skip("This Pillow has no such codec.")
        path = write(tmp_path, f"cat/1{suffix}") / f"cat/1{suffix}"
        Image.new("RGB", (4, 5)).save(path)
        data = load_images(tmp_path)
        assert data.paths == (f"cat/1{suffix}",)
        assert read_image(data.images, 0).size == (4, 5)

    def test_other_files_are_ignored(self, pets):
        expected = load_images(pets).paths
        write(
            pets, ".git/1.png", "__MACOSX/1.png", "pug/._1.jpg", "pug/.DS_Store", "pug/Thumbs.db",
            "pug/labels.txt", "pug/video.mpg", "pug/notes.pdf", "readme", "labels.csv", ".hidden.png",
            "pug/data.h5",
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_images(pets).paths == expected

    def test_empty_class_folders_and_loose_images_warn(self, pets):
        write(pets, "loose.png", "other/deeper/1.png")
        (pets / "empty").mkdir()
        with pytest.warns(UserWarning) as caught:
            data = load_images(pets)
        texts = sorted(str(warning.message) for warning in caught)
        assert len(data.images) == 5
        assert data.class_ids == ["beagle", "pug"]
        assert "1 images directly in" in texts[0] and "'loose.png'" in texts[0]
        assert "2 folders" in texts[1] and "['empty', 'other']" in texts[1]
        assert all(warning.filename == __file__ for warning in caught)

    def test_images_in_folders_inside_class_folders_are_told(self, tmp_path):
        write(tmp_path, "cat/1.png", "cat/more/2.png", "cat/notes/readme", "dog/1.png")
        with pytest.warns(
            UserWarning, match=r"1 folders inside .*'cat/more', have images, which are ignored"
        ):
            assert load_images(tmp_path).paths == ("cat/1.png", "dog/1.png")

    def test_class_texts_have_no_underscores(self, tmp_path):
        data = load_images(write(tmp_path, "red_panda/1.png", "n02_x/1.png"))
        assert data.class_names == {"n02_x": "n02 x", "red_panda": "red panda"}

    def test_folders_of_digits_are_ordered_by_value_and_warn(self, tmp_path):
        write(tmp_path, *(f"{i}/1.png" for i in (0, 1, 2, 10, 11)))
        with pytest.warns(UserWarning, match=r"numbers \('0', '1', '2'\).*pass class_names={'0': ...}"):
            data = load_images(tmp_path)
        assert data.class_ids == ["0", "1", "2", "10", "11"]
        assert data.target.tolist() == ["0", "1", "10", "11", "2"]

    def test_accents_are_composed(self, tmp_path):
        name = unicodedata.normalize("NFD", "Épagneul")
        data = load_images(write(tmp_path, f"{name}/é #%.png"))
        assert data.class_ids == [unicodedata.normalize("NFC", name)]
        assert read_image(data.images, 0).size == (5, 4)

    def test_order_does_not_depend_on_the_file_system(self, pets, monkeypatch):
        expected = load_images(pets).paths
        scan = os.scandir

        class Reversed:
            def __init__(self, path):
                self.entries = sorted(scan(path), key=lambda entry: entry.name, reverse=True)

            def __enter__(self):
                return iter(self.entries)

            def __exit__(self, *args):
                pass

        monkeypatch.setattr(os, "scandir", Reversed)
        assert load_images(pets).paths == expected

    def test_links_to_folders_are_followed(self, pets, tmp_path):
        (tmp_path / "linked").mkdir()
        (tmp_path / "linked/dog").symlink_to(pets / "pug")
        assert load_images(tmp_path / "linked").target.tolist() == ["dog"] * 3


class TestSplitFolders:
    @pytest.fixture
    def root(self, tmp_path):
        return write(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/dog/1.png", "test/cow/1.png")

    @pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation"])
    def test_splits(self, root, name):
        (root / "val").rename(root / name)
        data = load_images(root)
        assert data.train.paths == ("train/cat/1.png", "train/dog/1.png")
        assert data.train.target.tolist() == ["cat", "dog"]
        assert data.validation.paths == (f"{name}/dog/1.png",)
        assert data.test.target.tolist() == ["cow"]
        assert data.class_ids == ["cat", "cow", "dog"]
        assert "2 train, 1 validation, 1 test" in data.DESCR
        assert "images" not in data
        assert read_image(data.test.images, 0).size == (5, 4)

    def test_one_split(self, root):
        for split in ("validation", "val"):
            data = load_images(root, split=split)
            assert data.target.tolist() == ["dog"]
            # All classes, so that labels of two splits have the same order.
            assert data.class_ids == ["cat", "cow", "dog"]
        assert load_images(root, split="test", return_X_y=True)[1].tolist() == ["cow"]

    def test_missing_splits_are_empty(self, tmp_path):
        data = load_images(write(tmp_path, "train/a/1.png", "train/bc/1.png"))
        assert len(data.test.images) == len(data.validation.images) == 0
        assert data.test.target.shape == (0,)
        assert data.test.target.dtype == data.train.target.dtype

    def test_classes_may_be_named_after_splits(self, tmp_path):
        data = load_images(write(tmp_path, "train/1.png", "test/1.png", "ship/1.png"))
        assert data.class_ids == ["ship", "test", "train"]


class TestUnlabeled:
    def test_all_images_below_the_folder(self, pets):
        write(pets, "top.png", "pug/deep/er/1.png", ".hidden/1.png")
        (pets / "pug/loop").symlink_to(pets)
        data = load_images(pets, labeled=False)
        assert data.paths == (
            "beagle/a.png", "beagle/b.PNG", "pug/1.jpg", "pug/10.jpg", "pug/2.JPEG", "pug/deep/er/1.png",
            "top.png",
        )  # fmt: skip
        assert data.target is None
        assert data.class_ids == []
        assert data.images == ImagePaths(data.paths, pets)

    def test_table_without_labels(self, pets):
        (pets / "new.csv").write_text("path\npug/1.jpg\n")
        assert load_images(pets / "new.csv", labeled=False).paths == ("pug/1.jpg",)


ERRORS = {
    "flat": (["1.png", "2.png"], r"2 images, but no class folders.*load_images\('.*', labeled=False\)"),
    "empty": ([], "no images in .*it is empty"),
    "other files": (["cat/readme", "notes"], r"no images in .*it has \['"),
    "too deep": (
        ["pets/train/cat/1.png"],
        r"first image is 'pets/train/cat/1.png'.*load_images\('.*train'\)",
    ),
    "two validations": (["val/a/1.png", "valid/a/1.png"], r"several folders for the split 'validation'"),
    "unlabeled test": (
        ["train/a/1.png", "test/1.png"],
        r"test' holds images without class folders.*load_images\('.*train'\).*labeled=False",
    ),
    "splits and classes": (
        ["train/a/1.png", "dog/1.png"],
        r"split folders \('train'\) and class folders \('dog'\)",
    ),
}


@pytest.mark.parametrize(("names", "match"), ERRORS.values(), ids=ERRORS)
def test_errors_of_folders(tmp_path, names, match):
    with pytest.raises(ValueError, match=match):
        load_images(write(tmp_path, *names))


def test_advice_for_flat_and_deep_folders_works(tmp_path):
    write(tmp_path, "all/pets/cat/1.png")
    for folder in ("all", "all/pets/cat"):
        with pytest.raises(ValueError, match="load_images") as caught:
            load_images(tmp_path / folder)
        code = re.search(r"(load_images\(.+?\))\.", str(caught.value))[1]
        assert len(eval(code, {"load_images": load_images}).images) == 1


def rows_of(pets):
    return [
        ["pug/1.jpg", "pug", "train", "a pug"],
        ["beagle/a.png", "001", "val", "a beagle"],
        ["pug/10.jpg", "pug", "train", "a pug"],
        ["pug/2.JPEG", "NA", "test", "none"],
    ]


def table(path, rows, header=("path", "label", "split", "class_name"), delimiter=",", **kwargs):
    with open(path, "w", newline="", encoding=kwargs.pop("encoding", "utf-8")) as file:
        csv.writer(file, delimiter=delimiter, **kwargs).writerows([header, *rows])
    return path


class TestTables:
    @pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".CSV", ","), (".tsv", "\t")])
    def test_all_columns(self, pets, suffix, delimiter):
        path = table(pets / f"list{suffix}", rows_of(pets), delimiter=delimiter, encoding="utf-8-sig")
        data = load_images(path)
        assert data.train.paths == ("pug/1.jpg", "pug/10.jpg")
        assert data.validation.target.tolist() == ["001"]
        assert data.test.target.tolist() == ["NA"]
        assert data.class_ids == ["001", "NA", "pug"]
        assert data.class_names == {"001": "a beagle", "NA": "none", "pug": "a pug"}
        assert data.train.images == ImagePaths(("pug/1.jpg", "pug/10.jpg"), root=pets)

    def test_two_columns(self, pets):
        data = load_images(table(pets / "a.csv", [row[:2] for row in rows_of(pets)], ("path", "label")))
        assert data.target.tolist() == ["pug", "001", "pug", "NA"]
        assert data.class_names == {"001": "001", "NA": "NA", "pug": "pug"}

    def test_columns_are_configurable(self, pets):
        path = table(pets / "a.csv", rows_of(pets), ("x", "y", "part", "z"))
        with pytest.raises(ValueError, match=r"no column 'path' or.*columns are \['x', 'y', 'part', 'z'\]"):
            load_images(path)
        data = load_images(path, columns={"image": "x", "label": "z", "split": "part"})
        assert data.train.target.tolist() == ["a pug", "a pug"]
        with pytest.raises(ValueError, match="no column 'w'"):
            load_images(path, columns={"image": "w"})
        with pytest.raises(ValueError, match="key 'name'; the keys are 'image', 'label'"):
            load_images(path, columns={"name": "x"})

    def test_quotes_and_line_breaks(self, pets):
        name = 'a, "b"\nc.png'
        write(pets, name)
        data = load_images(table(pets / "a.csv", [[name, "cat, dog"]], ("path", "label")))
        assert data.paths == (name,)
        assert data.target.tolist() == ["cat, dog"]

    def test_root_and_absolute_paths(self, pets, tmp_path):
        path = table(tmp_path / "a.csv", [["pug/1.jpg", "x"], [pets / "pug/10.jpg", "x"]], ("path", "label"))
        data = load_images(path, root=pets)
        assert [read_image(data.images, i).size for i in range(2)] == [(5, 4)] * 2
        with pytest.raises(ImageReadError, match=r"1 of the 2 images.*pug/1.jpg'.*pass root="):
            load_images(path)

    def test_other_split_names_are_kept(self, pets):
        data = load_images(table(pets / "a.csv", [["pug/1.jpg", "x", "fold 1"]], ("path", "label", "split")))
        assert data["fold 1"].paths == ("pug/1.jpg",)
        assert len(data.train.images) == 0

    @pytest.mark.parametrize(
        ("rows", "match"),
        [
            ([["pug/1.jpg", "", "train", "x"]], r"line 2 of .*the 'label' is empty"),
            ([["pug/1.jpg", "x"]], r"line 2 of .*2 fields, but there are 4 columns"),
            ([], "lists no images"),
            (
                [["pug/1.jpg", "x", "train", "a"], ["pug/10.jpg", "x", "train", "b"]],
                "label 'x' has the class names 'a' and 'b'",
            ),
            (
                [["pug/1.jpg", "x", "train", "a"], ["pug/1.jpg", "y", "train", "b"]],
                "'pug/1.jpg' occurs with the labels 'x' and 'y'",
            ),
        ],
    )
    def test_errors(self, pets, rows, match):
        with pytest.raises(ValueError, match=match):
            load_images(table(pets / "a.csv", rows))

    def test_repeated_images(self, pets):
        row = ["pug/1.jpg", "x", "train", "a"]
        with pytest.warns(UserWarning, match=r"1 rows of .* repeat the image of an earlier row"):
            assert len(load_images(table(pets / "a.csv", [row, row])).train.images) == 2
        rows = [row, ["pug/1.jpg", "x", "test", "a"]]
        with (
            pytest.warns(UserWarning, match="repeat"),
            pytest.raises(ValueError, match=r"'pug/1.jpg' is in the splits 'train' and 'test'"),
        ):
            load_images(table(pets / "a.csv", rows))


class TestSplitsOfCoOp:
    def made(self, pets, **parts):
        (pets / "split.json").write_text(json.dumps(parts))
        return pets / "split.json"

    def test_order_of_classes_is_that_of_the_numbers(self, pets):
        path = self.made(
            pets,
            train=[["pug/1.jpg", 1, "a_pug"], ["beagle/a.png", 0, "small_beagle"]],
            val=[["pug/10.jpg", 1, "a_pug"]],
            test=[],
        )
        data = load_images(path)
        assert data.class_ids == ["small_beagle", "a_pug"]
        assert data.class_names == {"small_beagle": "small beagle", "a_pug": "a pug"}
        assert data.train.target.tolist() == ["a_pug", "small_beagle"]
        assert data.validation.paths == ("pug/10.jpg",)
        assert len(data.test.images) == 0

    def test_root(self, pets, tmp_path):
        path = self.made(pets, train=[["1.jpg", 0, "pug"]])
        assert read_image(load_images(path, root=pets / "pug").train.images, 0).size == (5, 4)

    @pytest.mark.parametrize(
        "parts",
        [
            {"train": [["a.png", "0", "x"]]},
            {"train": [["a.png", 0]]},
            {"train": [["a.png", 0, "x", 1]]},
            {"train": 3},
        ],
    )
    def test_other_json_files_raise(self, pets, parts):
        with pytest.raises(ValueError, match="is not a JSON object"):
            load_images(self.made(pets, **parts))
        (pets / "split.json").write_text('["a"]')
        with pytest.raises(ValueError, match="is not a JSON object"):
            load_images(pets / "split.json")
        (pets / "split.json").write_text("{")
        with pytest.raises(ValueError, match="is not a JSON object"):
            load_images(pets / "split.json")

    def test_ambiguous_names_and_numbers_raise(self, pets):
        for rows in ([["a", 0, "x"], ["b", 1, "x"]], [["a", 0, "x"], ["b", 0, "y"]]):
            with pytest.raises(ValueError, match=r"(0|'x') belongs to several classes"):
                load_images(self.made(pets, train=rows))


class TestParquet:
    def made(self, path, **columns):
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table(columns), path, row_group_size=2)
        return path

    @pytest.mark.parametrize("kind", ["paths", "bytes", "records"])
    def test_images(self, pets, kind):
        contents = [content(i) for i in range(4)]
        images = {
            "paths": ["pug/1.jpg", "pug/10.jpg", "pug/2.JPEG", "beagle/a.png"],
            "bytes": contents,
            "records": [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(contents)],
        }[kind]
        path = self.made(pets / "a.parquet", image=images, label=["001", "NA", "001", "NA"])
        data = load_images(path)
        assert data.target.tolist() == ["001", "NA", "001", "NA"]
        names = ("00000000", "00000001", "00000002", "00000003")
        assert data.paths == {
            "paths": tuple(images), "bytes": names, "records": ("0.png", "1.png", "2.png", "3.png")
        }[kind]  # fmt: skip
        for i in range(4):
            assert np.all(
                np.asarray(read_image(data.images, i)) == (i if kind != "paths" else [0, 1, 2, 3][i])
            )
        clf = ZeroShotCLIPClassifier("mini", class_names={"001": "a", "NA": "b"})
        assert clf.fit(data.images[1:], data.target[1:]).predict(data.images[:2]).shape == (2,)

    def test_integer_labels_names_and_splits(self, pets):
        path = self.made(
            pets / "a.parquet",
            image=[content(i) for i in range(3)],
            label=[2, 10, 2],
            class_name=["two", "ten", "two"],
            split=["test", "train", "train"],
        )
        data = load_images(path)
        assert data.class_ids == [2, 10]
        assert data.class_names == {2: "two", 10: "ten"}
        assert data.train.target.tolist() == [10, 2]
        assert read_image(data.train.images, 1).getpixel((0, 0)) == (2, 2, 2)

    def test_paths_in_a_dictionary_array(self, pets):
        arrow = pytest.importorskip("pyarrow")
        paths = arrow.array(["pug/1.jpg", "pug/10.jpg", "pug/1.jpg"]).dictionary_encode()
        path = self.made(pets / "a.parquet", image=paths, label=["x", "y", "x"])
        with pytest.warns(UserWarning, match=r"1 rows of .* repeat"):
            assert load_images(path).images == ImagePaths(["pug/1.jpg", "pug/10.jpg", "pug/1.jpg"], pets)

    def test_missing_labels_raise(self, pets):
        path = self.made(pets / "a.parquet", image=[content(), content()], label=["x", None])
        with pytest.raises(ValueError, match=r"Row 1 of .*: the 'label' is missing"):
            load_images(path)

    def test_missing_package(self, pets, monkeypatch):
        (pets / "a.parquet").write_bytes(b"")
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(ImportError, match=r'pip install "clipcal\[parquet\]"'):
            load_images(pets / "a.parquet")


def test_other_sources_raise(pets):
    with pytest.raises(FileNotFoundError, match=r"no file or folder '.*gone'"):
        load_images(pets / "gone")
    with pytest.raises(ValueError, match=r"1.jpg' is not a folder, and its format is unknown"):
        load_images(pets / "pug/1.jpg")
    lists = ([str(pets / "pug/1.jpg")], np.zeros((2, 4, 4)), ImagePaths(["a.jpg"]), load_images(pets))
    frame = pd.DataFrame({"path": ["a.jpg"], "label": ["a"]})
    for source in (*lists, frame, frame["path"], None, 3, {"a": 1}, DataLoader([1, 2])):
        with pytest.raises(TypeError, match="load_images takes a folder"):
            load_images(source)


def test_parameters_without_effect_raise(pets):
    with pytest.raises(ValueError, match=r"split='test' is not in .*; it has no splits"):
        load_images(pets, split="test")
    with pytest.raises(ValueError, match="columns is for files"):
        load_images(pets, columns={"label": "x"})
    with pytest.raises(ValueError, match="root is for files"):
        load_images(pets, root=pets)
    write(pets, "split/train/a/1.png", "split/test/a/1.png")
    with pytest.raises(ValueError, match="'train', 'test'; choose one for return_X_y=True"):
        load_images(pets / "split", return_X_y=True)
    with pytest.raises(ValueError, match="its splits are 'train', 'test'"):
        load_images(pets / "split", split="val")


def test_optional_packages_are_not_imported(pets):
    code = (
        f"import sys, clipcal; clipcal.load_images({str(pets)!r});"
        "print([name for name in ('torch', 'torchvision', 'datasets') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
