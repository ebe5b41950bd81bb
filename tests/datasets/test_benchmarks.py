"""Published data sets in their layouts on disk."""

import json
import os
import random
import socket
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from published_trees import EUROSAT, split_of, write_eurosat, write_image, write_set

from clipcal.datasets import check_benchmark, list_benchmarks, load_benchmark
from clipcal.datasets._benchmarks import published_digest
from clipcal.datasets._catalog import CATALOG
from clipcal.exceptions import DatasetError

pytestmark = pytest.mark.filterwarnings("ignore:.*differs from the published data set")

PUBLISHED = [
    "imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft",
    "sun397", "dtd", "eurosat", "ucf101",
]  # fmt: skip
VARIANTS = ["imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_eurosat(root)
    return root


# Names


def test_names_of_data_sets():
    names = list_benchmarks()
    assert names[:15] == PUBLISHED + VARIANTS
    assert len(names) == 15 + 16 and "mini/colored-shapes-faded" in names


@pytest.mark.parametrize("name", ["eurosat", "EuroSAT", "EUROSAT", "euro-sat", "vtab/eurosat"])
def test_other_names(name, root):
    assert load_benchmark(name, root=root).name == "eurosat"


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ("DescribableTextures", "dtd"),
        ("Flowers102", "oxford_flowers"),
        ("OxfordFlowers", "oxford_flowers"),
        ("FGVC Aircraft", "fgvc_aircraft"),
        ("cars", "stanford_cars"),
        ("imagenet1k", "imagenet"),
        ("imagenet-a", "imagenet_a"),
        ("ImageNetR", "imagenet_r"),
        ("pets", "oxford_pets"),
    ],
)
def test_names_of_papers_and_other_libraries(other, name, tmp_path):
    with pytest.raises(DatasetError, match=f"{CATALOG[name].title} was not found"):
        load_benchmark(other, root=tmp_path)


def test_unknown_name_raises_with_close_names():
    with pytest.raises(DatasetError, match="'oxford_pet' is unknown; did you mean 'oxford_pets'"):
        load_benchmark("oxford_pet")
    with pytest.raises(DatasetError, match="list_benchmarks"):
        load_benchmark("zzz")


def test_templates_are_those_of_the_data_sets(root):
    assert load_benchmark("eurosat", root=root).template == "a centered satellite photo of {}."
    assert load_benchmark("mini/shapes-studio").template == "a photo of a {}."


# Content


def test_whole_data_set(root):
    data = load_benchmark("eurosat", root=root)
    assert [len(data[part].images) for part in ("train", "validation", "test")] == [60, 50, 20]
    assert data.class_ids == list(EUROSAT.values())
    assert data.class_names == {name: name for name in EUROSAT.values()}
    assert data.n_base == 5
    assert data.train.paths[:2] == ("AnnualCrop/AnnualCrop_1.jpg", "AnnualCrop/AnnualCrop_2.jpg")
    assert data.train.images[0] == root / "eurosat" / "2750" / "AnnualCrop" / "AnnualCrop_1.jpg"
    assert_array_equal(data.train.target[[0, 6, 59]], ["Annual Crop Land", "Forest", "Sea or Lake"])
    assert all(os.path.isfile(path) for part in ("train", "test") for path in data[part].images)


def test_base_and_new_classes(root):
    base, new = (load_benchmark("eurosat", root=root, classes=half) for half in ("base", "new"))
    assert base.class_ids[-1] == "Industrial Buildings" and new.class_ids[0] == "Pasture Land"
    assert set(base.test.target) == set(base.class_ids) and set(new.test.target) == set(new.class_ids)
    assert not set(base.test.paths) & set(new.test.paths)
    assert base.n_base == new.n_base == 5


@pytest.mark.parametrize("draw", ["stable", "dassl"])
def test_images_are_drawn_before_the_classes_are_halved(draw, root):
    settings = {"root": root, "n_shots": 5, "draw": draw, "random_state": 1}
    parts = [load_benchmark("eurosat", classes=half, **settings) for half in ("base", "new")]
    whole = load_benchmark("eurosat", **settings)
    for part in ("train", "validation"):
        assert parts[0][part].paths + parts[1][part].paths == whole[part].paths
    assert len(whole.train.paths) == 50
    assert len(whole.validation.paths) == 40  # at most 4 per class
    assert len(whole.test.paths) == 20
    assert parts[0].split_info["digest"]["train"] != whole.split_info["digest"]["train"]


def test_published_draw_uses_one_stream_for_training_and_validation(root):
    data = load_benchmark("eurosat", root=root, n_shots=2, draw="dassl", random_state=3)
    content = json.loads((root / "eurosat" / "split_zhou_EuroSAT.json").read_text())
    stream = random.Random(3)
    for part, key in (("train", "train"), ("validation", "val")):
        expected = []
        for label in range(10):
            expected += stream.sample([path for path, other, _ in content[key] if other == label], 2)
        assert list(data[part].paths) == expected


def test_label_order_is_that_of_the_labels(tmp_path):
    # The first images have label 1, and names are not sorted.
    content = {
        "train": [["z/1.jpg", 1, "beta"], ["a/1.jpg", 0, "zeta"], ["m/1.jpg", 2, "alpha"]],
        "val": [],
        "test": [["z/2.jpg", 1, "beta"]],
    }
    write_set(tmp_path, "dtd", "images", "split_zhou_DescribableTextures.json", content)
    data = load_benchmark("dtd", root=tmp_path, classes="base")
    assert data.class_ids == ["zeta", "beta"]
    assert_array_equal(data.train.target, ["beta", "zeta"])


def test_underscores_of_names_become_spaces_in_prompts_only(tmp_path):
    content = split_of(["american_pit_bull_terrier", "Bombay"], path="{folder}_{number}.jpg")
    write_set(tmp_path, "oxford_pets", "images", "split_zhou_OxfordPets.json", content)
    data = load_benchmark("oxford_pets", root=tmp_path)
    assert data.class_ids == ["american_pit_bull_terrier", "Bombay"]
    assert data.class_names["american_pit_bull_terrier"] == "american pit bull terrier"
    assert data.class_names["Bombay"] == "Bombay"


@pytest.mark.parametrize(
    ("name", "folder", "images", "n_base", "n_new"),
    [
        ("caltech101", "caltech-101", "101_ObjectCategories", 50, 50),
        ("caltech101", "caltech101", "101_ObjectCategories", 50, 50),
        ("oxford_pets", "oxford-iiit-pet", "images", 19, 18),
        ("stanford_cars", "stanford_cars", "", 98, 98),
        ("oxford_flowers", "flowers-102", "jpg", 51, 51),
        ("food101", "food-101", "images", 51, 50),
        ("sun397", "sun397", "SUN397", 199, 198),
        ("sun397", "SUN397", "", 199, 198),
        ("dtd", "dtd", "images", 24, 23),
        ("dtd", "dtd", "dtd/images", 24, 23),
        ("ucf101", "ucf101", "UCF-101-midframes", 51, 50),
        ("ucf101", "UCF101", "UCF-101-midframes", 51, 50),
    ],
)
def test_layouts_and_numbers_of_classes(name, folder, images, n_base, n_new, tmp_path):
    facts = CATALOG[name]
    names = [f"class {i}" for i in range(facts.n_classes)]
    content = split_of(names, {"train": 1, "val": 1, "test": 1}, path="{folder}/{part} {number}.jpg")
    write_set(tmp_path, folder, images, facts.split_file, content)
    base, new = (load_benchmark(name, root=tmp_path, classes=half) for half in ("base", "new"))
    assert (len(base.class_ids), len(new.class_ids)) == (n_base, n_new)
    assert all(path.is_file() for path in base.test.images)


def test_split_file_may_lie_in_the_root(tmp_path):
    write_eurosat(tmp_path)
    (tmp_path / "eurosat" / "split_zhou_EuroSAT.json").rename(tmp_path / "split_zhou_EuroSAT.json")
    assert len(load_benchmark("eurosat", root=tmp_path).test.paths) == 20


def test_aircraft_from_its_lists(tmp_path):
    folder = tmp_path / "fgvc-aircraft-2013b" / "data"
    write_image(folder / "images" / "0034309.jpg")
    write_image(folder / "images" / "0034958.jpg")
    write_image(folder / "images" / "1.jpg")
    write_image(folder / "images" / "2.jpg")
    (folder / "variants.txt").write_text("707-320\nCessna 525\nCessna 560\nF/A-18\n")
    # Class 0 to 3, one training image each.
    (folder / "images_variant_train.txt").write_text(
        "0034309 707-320\n0034958 F/A-18\n1 Cessna 525\n2 Cessna 560\n"
    )
    (folder / "images_variant_val.txt").write_text("")
    (folder / "images_variant_test.txt").write_text("")
    data = load_benchmark("fgvc_aircraft", root=tmp_path, classes="base")
    assert data.class_ids == ["707-320", "Cessna 525"]
    assert "0034309.jpg" in data.train.paths
    (folder / "images_variant_val.txt").unlink()
    with pytest.raises(DatasetError, match=r"lacks images_variant_val\.txt"):
        load_benchmark("fgvc_aircraft", root=tmp_path)


# Reproducibility


def test_split_info(root):
    info = load_benchmark("eurosat", root=root, n_shots=2, random_state=1).split_info
    assert (info["draw"], info["seed"], info["n_shots"]) == ("stable", 1, 2)
    assert info["published_draw"] is None
    assert all(len(digest) == 64 for digest in info["digest"].values())
    whole = load_benchmark("eurosat", root=root).split_info
    assert whole["draw"] is None and whole["digest"]["test"] == info["digest"]["test"]
    assert whole["digest"]["train"] != info["digest"]["train"]


def test_hash_of_the_content_does_not_depend_on_the_form_of_the_file(root, tmp_path):
    write_eurosat(tmp_path)
    file = tmp_path / "eurosat" / "split_zhou_EuroSAT.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=4))
    first, second = (load_benchmark("eurosat", root=place).split_info for place in (root, tmp_path))
    assert first["sha256"] == second["sha256"]
    assert first["file_sha256"] != second["file_sha256"]


def test_digest_of_published_draws():
    # printf 'a/1.jpg\nb/2.jpg\n--\nc/3.jpg' | sha256sum
    assert published_digest(["a/1.jpg", "b/2.jpg"], ["c/3.jpg"]) == "cc4bbe85000e"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_draws_of_other_split_files_are_not_the_published_ones(seed, tmp_path):
    write_eurosat(tmp_path, n_images={"train": 17, "val": 5, "test": 1})
    data = load_benchmark("eurosat", root=tmp_path, n_shots=16, draw="dassl", random_state=seed)
    assert data.split_info["published_draw"] is False
    assert any("are not the published ones" in note for note in data.split_info["notes"])


@pytest.mark.parametrize("name", [name for name in CATALOG if CATALOG[name].draws])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_published_draws_with_the_published_files(name, seed):
    root = os.environ.get("CLIPCAL_DATA", "")
    try:
        data = load_benchmark(name, root=root or None, n_shots=16, draw="dassl", random_state=seed)
    except DatasetError as error:
        pytest.skip(str(error)[:80])
    assert data.split_info["published_draw"] is True


@pytest.mark.parametrize("draw", ["stable", "dassl"])
def test_loading_leaves_global_generators_and_the_folder_as_they_are(draw, root, monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("no network")

    monkeypatch.setattr(socket, "socket", refuse)
    before = random.getstate(), np.random.get_state()[1].tolist(), sorted(root.rglob("*"))
    load_benchmark("eurosat", root=root, n_shots=2, draw=draw)
    assert (random.getstate(), np.random.get_state()[1].tolist(), sorted(root.rglob("*"))) == before


def test_listing_order_does_not_matter(root, monkeypatch):
    first = load_benchmark("eurosat", root=root, n_shots=2)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listdir(path)[::-1])
    assert load_benchmark("eurosat", root=root, n_shots=2).split_info == first.split_info


def test_folder_of_the_environment(root, monkeypatch):
    monkeypatch.setenv("CLIPCAL_DATA", str(root))
    assert load_benchmark("eurosat").name == "eurosat"
    monkeypatch.delenv("CLIPCAL_DATA")
    with pytest.raises(DatasetError, match=r"pass root='...', or set the environment variable CLIPCAL_DATA"):
        load_benchmark("eurosat")


def test_folders_with_special_names(tmp_path):
    root = tmp_path / "my data #1 50% é"
    write_eurosat(root)
    assert load_benchmark("eurosat", root=root).train.images[0].is_file()


# Generated data sets


@pytest.mark.parametrize("name", [name for name in list_benchmarks() if "textures" in name])
def test_generated_data_sets(name):
    data = load_benchmark(name, n_shots=8, random_state=1)
    n_classes = len(data.class_ids)
    assert data.train.images.shape == (8 * n_classes, 32, 32, 3)
    assert len(data.validation.images) == 4 * n_classes
    assert data.train.images.dtype == np.uint8
    assert len(set(data.train.paths)) == len(data.train.paths)
    again = load_benchmark(name, n_shots=8, random_state=1)
    assert_array_equal(again.train.images, data.train.images)
    assert load_benchmark(name, n_shots=8, random_state=2).train.paths != data.train.paths


def test_changes_of_generated_images_do_not_reach_later_calls():
    first = load_benchmark("mini/shapes-studio")
    first.test.images[:] = 0
    assert load_benchmark("mini/shapes-studio").test.images.any()


# Invalid parameters and files


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": "novel"}, "classes='novel' is not supported; choose one of 'all', 'base', 'new'"),
        ({"missing": "ignore"}, "missing='ignore' is not supported; choose one of 'raise', 'drop'"),
        ({"draw": "sorted"}, "draw='sorted' is not supported; choose one of 'stable', 'dassl'"),
        ({"n_shots": 0}, "n_shots must be a positive integer or None, got 0"),
        ({"random_state": None}, "random_state must be an integer"),
    ],
)
def test_invalid_parameters_raise(settings, message, root):
    with pytest.raises(DatasetError, match=message):
        load_benchmark("eurosat", root=root, **settings)


def test_root_that_is_no_folder_raises(tmp_path):
    with pytest.raises(DatasetError, match="is not a folder"):
        load_benchmark("eurosat", root=tmp_path / "absent")


ITEMS = {"train": [["a/1.jpg", 0, "a"], ["b/1.jpg", 1, "b"]], "val": [], "test": [["a/2.jpg", 0, "a"]]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": [["a/1.jpg", 0, "a"]]}, r"the image 'a/1\.jpg' is in train and in test"),
        ({"train": [["a/1.jpg", 0, "a"], ["b/1.jpg", 2, "b"]]}, "labels must be 0 to 1, but 1 is missing"),
        ({"test": [["c/1.jpg", 0, "c"]]}, "label 0 has the names 'a' and 'c'"),
        ({"test": [["c/1.jpg", 2, "c"]]}, "1 classes have no training images, such as 'c'"),
        (
            {"train": [["a/1.jpg", 0, "a"], ["b/1.jpg", 1, "A"]]},
            "classes 0 and 1 have the same text, 'a' and 'A'",
        ),
        ({"train": [["a/1.jpg", 0, "b_c"], ["b/1.jpg", 1, "b c"]], "test": []}, "have the same text"),
        ({"train": [["a/1.jpg", 0, "a"]], "test": []}, "at least two classes"),
        ({"train": [], "test": []}, "at least two classes"),
        ({"train": None}, "must be lists"),
        ({"val": {}}, "must be lists"),
        ({"train": [[".", 0, "a"]]}, "is not below the folder of the images"),
        ({"train": [["../1.jpg", 0, "a"]]}, "is not below the folder of the images"),
        ({"train": [["/etc/1.jpg", 0, "a"]]}, "is not below the folder of the images"),
        ({"train": [["a/1.jpg", "0", "a"]]}, "the label must be an integer, got '0'"),
        ({"train": [["a/1.jpg", 0, ""]]}, "the class name must be a string, got ''"),
        ({"train": [["a/1.jpg", 0]]}, r"must be \[path, label, class name\]"),
    ],
)
def test_invalid_split_files_raise(changes, message, tmp_path):
    write_set(tmp_path, "dtd", "images", "split_zhou_DescribableTextures.json", ITEMS)
    file = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    file.write_text(json.dumps({**ITEMS, **changes}))
    with pytest.raises(DatasetError, match=message):
        load_benchmark("dtd", root=tmp_path, missing="drop")
    assert not check_benchmark("dtd", root=tmp_path).ok


@pytest.mark.parametrize("text", ["<html>", "[]", '{"train": []}', ""])
def test_files_that_are_no_split_raise(text, tmp_path):
    write_eurosat(tmp_path)
    (tmp_path / "eurosat" / "split_zhou_EuroSAT.json").write_text(text)
    with pytest.raises(
        DatasetError, match=r"split_zhou_EuroSAT\.json (is not a JSON file|must have the keys)"
    ):
        load_benchmark("eurosat", root=tmp_path)


def test_repeated_training_images_warn(tmp_path):
    content = {**ITEMS, "train": [*ITEMS["train"], ITEMS["train"][0]]}
    write_set(tmp_path, "dtd", "images", "split_zhou_DescribableTextures.json", content)
    with pytest.warns(UserWarning, match="lists 1 images more than once"):
        load_benchmark("dtd", root=tmp_path)


def test_backslashes_in_split_files(tmp_path):
    write_set(tmp_path, "dtd", "images", "split_zhou_DescribableTextures.json", ITEMS)
    file = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    file.write_text(file.read_text().replace("a/1.jpg", r"a\\1.jpg"))
    assert load_benchmark("dtd", root=tmp_path).train.paths[0] == "a/1.jpg"


@pytest.mark.skipif(not os.path.supports_unicode_filenames and os.name == "nt", reason="needs bytes as names")
def test_files_in_another_form_of_unicode_are_recognized(tmp_path):
    content = {
        "train": [["Crêpe/1.jpg", 0, "crêpe"], ["b/1.jpg", 1, "b"]],
        "val": [],
        "test": [],
    }
    images = write_set(tmp_path, "dtd", "images", "split_zhou_DescribableTextures.json", content)
    (images / "Crêpe").rename(images / unicodedata.normalize("NFD", "Crêpe"))
    if not (images / "Crêpe").exists():  # as on Linux
        with pytest.raises(DatasetError, match=r"instead of 'Crêpe'; rename it"):
            load_benchmark("dtd", root=tmp_path)


def test_differences_from_the_published_set_warn(root):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.warns(UserWarning, match=r"60 train images \(published: 13,500\)") as caught:
            data = load_benchmark("eurosat", root=root)
    assert "a split file with SHA-256" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert data.split_info["notes"] == [str(caught[0].message)]


def test_paths_are_relative_to_the_folder_of_images(root):
    data = load_benchmark("eurosat", root=str(root))
    assert Path(data.train.images.root) == root / "eurosat" / "2750"
    assert data.train.images.paths == data.train.paths
