"""ImageNet and its variants."""

import pytest
from published_trees import write_image

from clipcal.datasets import load_benchmark, load_images
from clipcal.datasets._imagenet import imagenet_classes
from clipcal.exceptions import DatasetError

pytestmark = pytest.mark.filterwarnings("ignore:.*differs from the published data set")

CLASSES = imagenet_classes()
IDS = list(CLASSES)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for wnid in IDS:
        for number in range(5):
            write_image(root / "imagenet" / "images" / "train" / wnid / f"{wnid}_{number}.JPEG")
        write_image(root / "imagenet" / "images" / "val" / wnid / f"ILSVRC2012_val_{wnid}.JPEG")
    return root


@pytest.fixture(scope="module")
def data(root):
    return load_benchmark("imagenet", root=root, n_shots=2, random_state=1)


# Classes


def test_packaged_names():
    assert len(CLASSES) == 1000
    assert sorted(IDS) == IDS
    assert len(set(CLASSES.values())) == 998
    positions = {
        name: [i for i, wnid in enumerate(IDS) if CLASSES[wnid] == name] for name in CLASSES.values()
    }
    assert positions["missile"] == [657, 744] and positions["sunglasses"] == [836, 837]
    assert [IDS[i] for i in (657, 744, 836, 837)] == ["n03773504", "n04008634", "n04355933", "n04356056"]
    assert [CLASSES[IDS[i]] for i in (0, 499, 500)] == ["tench", "cleaver", "cliff dwelling"]


def test_packaged_names_are_those_of_open_clip():
    open_clip = pytest.importorskip("open_clip")
    assert list(CLASSES.values()) == list(open_clip.IMAGENET_CLASSNAMES)


def test_packaged_ids_are_those_of_timm():
    timm_data = pytest.importorskip("timm.data")
    assert timm_data.ImageNetInfo().label_names() == IDS


def test_equal_names_are_kept_apart_by_ids(data):
    assert len(data.class_ids) == 1000
    assert data.class_names["n03773504"] == data.class_names["n04008634"] == "missile"
    assert len(set(data.test.target)) == 1000


def test_base_and_new_classes(root):
    base, new = (load_benchmark("imagenet", root=root, classes=half, n_shots=1) for half in ("base", "new"))
    assert base.class_names[base.class_ids[-1]] == "cleaver"
    assert new.class_names[new.class_ids[0]] == "cliff dwelling"
    assert (len(base.class_ids), len(new.class_ids)) == (500, 500)


def test_names_of_a_file_are_used(root):
    file = root / "imagenet" / "classnames.txt"
    try:
        file.write_text("".join(f"{wnid} name of {wnid}\n" for wnid in reversed(IDS)), encoding="utf-8")
        data = load_benchmark("imagenet", root=root, n_shots=1)
        assert data.class_ids == IDS and data.class_names[IDS[0]] == f"name of {IDS[0]}"
        file.write_text("n01440764 tench\n", encoding="utf-8")
        with pytest.raises(DatasetError, match="one line for each of the 1,000 classes"):
            load_benchmark("imagenet", root=root)
    finally:
        file.unlink()


# Subsets


@pytest.mark.parametrize("draw", ["stable", "dassl"])
def test_validation_images_are_not_the_test_images(draw, root):
    data = load_benchmark("imagenet", root=root, n_shots=2, draw=draw, random_state=1)
    assert len(data.train.paths) == 2000
    assert len(data.validation.paths) == 2000
    assert len(data.test.paths) == 1000
    assert not set(data.validation.paths) & set(data.train.paths)
    assert all(path.startswith("train/") for path in data.train.paths + data.validation.paths)
    assert all(path.startswith("val/") for path in data.test.paths)
    notes = " ".join(data.split_info["notes"])
    assert "official validation images are the test images" in notes
    assert "Validation images are at most 2 of the other training images per class" in notes
    assert ("publications drew from unsorted listings" in notes) == (draw == "dassl")
    assert data.split_info["published_draw"] is None


def test_whole_training_set_has_held_out_images(root):
    data = load_benchmark("imagenet", root=root)
    # 20 per class, or a fifth of smaller classes.
    assert len(data.validation.paths) == 1000 and len(data.train.paths) == 4000
    assert not set(data.validation.paths) & set(data.train.paths)
    assert len(set(data.train.target)) == 1000


def test_layout_without_the_folder_images(root, tmp_path):
    (tmp_path / "ImageNet").symlink_to(root / "imagenet" / "images")
    assert len(load_benchmark("imagenet", root=tmp_path, n_shots=1).test.paths) == 1000


# Variants


def test_folders_of_imagenetv2_are_numbers(tmp_path):
    place = tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    for number in range(1000):
        write_image(place / str(number) / "a.jpeg")
    data = load_benchmark("ImageNetV2", root=tmp_path)
    assert data.class_ids == IDS
    target = dict(zip(data.test.paths, data.test.target, strict=True))
    # Sorted as text, folder "10" would be the third.
    assert target["10/a.jpeg"] == IDS[10] and target["2/a.jpeg"] == IDS[2]
    assert [len(data[part].images) for part in ("train", "validation", "test")] == [0, 0, 1000]
    assert load_benchmark("ImageNetV2", root=tmp_path, n_shots=16).train.paths == ()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("imagenet_a", "imagenet-adversarial/imagenet-a"),
        ("imagenet_a", "imagenet-a"),
        ("imagenet_r", "imagenet-rendition/imagenet-r"),
        ("imagenet_r", "imagenet-r"),
    ],
)
def test_classes_of_a_and_r_are_those_with_a_folder(name, place, tmp_path):
    chosen = IDS[3::5]
    for wnid in chosen:
        write_image(tmp_path / place / wnid / "0.jpg")
    (tmp_path / place / "README.txt").write_text("read me")
    data = load_benchmark(name, root=tmp_path)
    assert data.class_ids == chosen and len(data.class_ids) == 200
    assert set(data.class_names) == set(chosen)
    assert data.class_names[chosen[0]] == CLASSES[IDS[3]]
    assert "README.txt" not in data.test.paths and len(data.test.paths) == 200


@pytest.mark.parametrize("images", ["images", "sketch"])
def test_sketches_before_and_after_renaming(images, tmp_path):
    for wnid in IDS:
        write_image(tmp_path / "imagenet-sketch" / images / wnid / "sketch_0.JPEG")
    assert load_benchmark("imagenet_sketch", root=tmp_path).class_ids == IDS


@pytest.mark.parametrize("folder", ["1000", "tench", "007"])
def test_other_folders_raise(folder, tmp_path):
    place = tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    write_image(place / "0" / "a.jpeg")
    write_image(place / folder / "a.jpeg")
    with pytest.raises(DatasetError, match=f"must be named by 0, 1, ..., 999; got {folder!r}"):
        load_benchmark("imagenetv2", root=tmp_path)


def test_empty_folder_raises(tmp_path):
    (tmp_path / "imagenet-r").mkdir()
    with pytest.raises(
        DatasetError, match=r"must be named by WordNet ids.*; there are none.*imagenet-r\.tar"
    ):
        load_benchmark("imagenet_r", root=tmp_path)


def test_hidden_folders_and_other_files_are_ignored(root, data, tmp_path):
    place = tmp_path / "imagenet-a"
    write_image(place / IDS[0] / "0.jpg")
    write_image(place / IDS[0] / "._0.jpg")
    write_image(place / IDS[0] / "Thumbs.db")
    (place / "__MACOSX").mkdir()
    (place / ".cache").mkdir()
    write_image(place / IDS[1] / "0.jpg")
    assert load_benchmark("imagenet_a", root=tmp_path).test.paths == (f"{IDS[0]}/0.jpg", f"{IDS[1]}/0.jpg")


def test_images_are_recognized_as_by_load_images(tmp_path):
    """One rule for folders of published data sets and of own images."""
    for name in ("1.JPEG", "2.ppm", "Thumbs.db", "._1.JPEG", "readme.txt"):
        write_image(tmp_path / "imagenet-r" / "n01443537" / name)
        write_image(tmp_path / "imagenet-r" / "n01484850" / name)
    write_image(tmp_path / "imagenet-r" / "$RECYCLE.BIN" / "1.JPEG")
    with pytest.warns(UserWarning, match="differs from"):
        data = load_benchmark("imagenet_r", root=tmp_path)
    assert data.test.paths == load_images(tmp_path / "imagenet-r").paths
    assert len(data.test.paths) == 4
