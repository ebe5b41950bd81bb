"""What users see where the files of published data sets are not as expected."""

import json
import re
import unicodedata

import pytest
from published_trees import EUROSAT, split_of, write_eurosat, write_image, write_jpeg, write_set

from clipcal.cli import main
from clipcal.datasets import BenchmarkCheck, check_benchmark, load_benchmark
from clipcal.datasets._catalog import CATALOG
from clipcal.exceptions import DatasetError

pytestmark = pytest.mark.filterwarnings("ignore:.*differs from the published data set")


def told(name, root):
    """Return the message of load_benchmark; that of check_benchmark must contain the same text."""
    with pytest.raises(DatasetError) as raised:
        load_benchmark(name, root=root)
    message = str(raised.value).removesuffix(' To load the others, pass missing="drop".')
    result = check_benchmark(name, root=root)
    assert not result.ok and message in result.problems[0]
    return message


def write_cars(root, images=""):
    content = split_of(["2000 AM General Hummer SUV", "2012 Acura RL Sedan"], path="cars_{part}/{number}.jpg")
    for items in content.values():
        for number, item in enumerate(items):
            item[0] = item[0].replace("val", "train").rpartition("/")[0] + f"/{item[1]}{number:04d}.jpg"
    content["val"] = []
    return write_set(root, "stanford_cars", images, "split_zhou_StanfordCars.json", content)


# Missing files


@pytest.mark.parametrize("name", CATALOG)
def test_missing_data_set_names_all_expected_files_and_folders_tried(name, tmp_path):
    facts = CATALOG[name]
    message = told(name, tmp_path)
    assert f"{facts.title} was not found" in message
    for folder in facts.folders:
        assert str(tmp_path / folder) in message
    expected = [facts.split_file] if facts.split_file else list(facts.lists)
    assert all(file in message for file in expected)
    if facts.images_url:
        assert facts.images_url in message


def test_split_files_on_google_drive_only(tmp_path):
    write_eurosat(tmp_path)
    (tmp_path / "eurosat" / "split_zhou_EuroSAT.json").unlink()
    message = told("eurosat", tmp_path)
    assert "the split file is missing; looked for" in message and "it is not made anew" in message
    assert "https://raw.githubusercontent.com/linzhiqiu/cross_modal_adaptation/main/splits/" in message
    assert "There are no images" not in message


def test_missing_split_file_and_images_are_one_message(tmp_path):
    (tmp_path / "caltech-101").mkdir()
    message = told("caltech101", tmp_path)
    assert "the split file is missing" in message and "There are no images, either, in" in message


def test_missing_images_are_counted(tmp_path):
    images = write_eurosat(tmp_path)
    for path in sorted((images / "Forest").iterdir())[:3]:
        path.unlink()
    message = told("eurosat", tmp_path)
    assert f"3 of 130 images are missing in {images}, such as Forest/" in message


def test_missing_images_can_be_left_out(tmp_path):
    images = write_eurosat(tmp_path)
    for name in ("Forest/Forest_1.jpg", "Forest/Forest_2.jpg", "River/River_12.jpg"):
        (images / name).unlink()
    with pytest.warns(
        UserWarning, match=r"left out, of the classes Forest \(2\), River \(1\); results are not"
    ):
        data = load_benchmark("eurosat", root=tmp_path, missing="drop")
    assert "Forest/Forest_1.jpg" not in data.train.paths and len(data.train.paths) == 58
    assert len(data.test.paths) == 19
    assert any("3 missing images were left out" in note for note in data.split_info["notes"])


def test_classes_of_which_all_images_are_missing_raise(tmp_path):
    images = write_eurosat(tmp_path)
    for path in (images / "River").iterdir():
        path.unlink()
    with (
        pytest.warns(UserWarning, match=r"River \(13\)"),
        pytest.raises(DatasetError, match="1 classes have no training images left, such as 'River'"),
    ):
        load_benchmark("eurosat", root=tmp_path, missing="drop")


# Dead hosts


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stanford_cars", "official host is offline"),
        ("sun397", "official host, vision.princeton.edu, is offline"),
        ("caltech101", "data.caltech.edu"),
        ("eurosat", "zenodo.org"),
        ("ucf101", "middle frames of the videos"),
    ],
)
def test_dead_links_are_named_with_those_that_work(name, text, tmp_path):
    assert text in told(name, tmp_path)


# Copies in other layouts


def test_cars_in_nested_folders(tmp_path):
    place = write_cars(tmp_path)
    (place / "cars_train").rename(place / "inner")
    (place / "cars_train").mkdir()
    (place / "inner").rename(place / "cars_train" / "cars_train")
    message = told("stanford_cars", tmp_path)
    nested = place / "cars_train" / "cars_train"
    assert f"one folder deeper, in {nested}; move them to {place / 'cars_train'}" in message


def test_cars_in_folders_by_class(tmp_path):
    place = write_cars(tmp_path)
    for path in (place / "cars_train").iterdir():
        path.unlink()
    write_image(place / "cars_train" / "Acura RL Sedan 2012" / "00001.jpg")
    message = told("stanford_cars", tmp_path)
    assert (
        "has folders such as 'Acura RL Sedan 2012'" in message and "sorted by class cannot be used" in message
    )


def test_sun397_sorted_anew_into_train_and_test(tmp_path):
    content = split_of(["abbey", "indoor apse"], path="a/{folder}/sun_{number}.jpg")
    place = write_set(tmp_path, "sun397", "SUN397", "split_zhou_SUN397.json", content)
    (place / "a").rename(tmp_path / "elsewhere")
    for part in ("train", "test"):
        write_image(place / part / "abbey" / "sun_1.jpg")
    assert "has the folders 'train' and 'test'" in told("sun397", tmp_path)


def test_images_one_folder_deeper(tmp_path):
    images = write_eurosat(tmp_path)
    images.rename(tmp_path / "inner")
    images.mkdir()
    (tmp_path / "inner").rename(images / "2750")
    assert f"one folder deeper, in {images / '2750'}; move them to {images}" in told("eurosat", tmp_path)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("Handstand_Pushups/v_HandstandPushups_1.jpg", "Handstand_Pushups/v_HandStandPushups_1.jpg"),
        ("HandStand_Pushups/v_HandStandPushups_1.jpg", "Handstand_Pushups/v_HandStandPushups_1.jpg"),
    ],
)
def test_case_of_ucf101_file_names(wrong, right, tmp_path):
    content = {
        "train": [[right, 0, "Handstand_Pushups"], ["Yo_Yo/v_YoYo_1.jpg", 1, "Yo_Yo"]],
        "val": [],
        "test": [],
    }
    place = write_set(tmp_path, "ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", content)
    (place / right).unlink()
    (place / right).parent.rmdir()
    write_image(place / wrong)
    if (place / right).exists():
        pytest.skip("the file system does not distinguish case")
    bad, good = next(
        (bad, good) for bad, good in zip(wrong.split("/"), right.split("/"), strict=True) if bad != good
    )
    assert f"has {bad!r} instead of {good!r}; rename it" in told("ucf101", tmp_path)


def test_names_in_another_form_of_unicode(tmp_path):
    content = {"train": [["Crêpe/1.jpg", 0, "crêpe"], ["b/1.jpg", 1, "b"]], "val": [], "test": []}
    images = write_set(tmp_path, "dtd", "images", "split_zhou_DescribableTextures.json", content)
    (images / "Crêpe").rename(images / unicodedata.normalize("NFD", "Crêpe"))
    if not (images / "Crêpe").exists():  # file systems such as that of macOS find it
        assert "instead of 'Crêpe'; rename it" in told("dtd", tmp_path)


# ImageNet


def test_imagenet_validation_images_are_not_in_folders(tmp_path):
    for number in range(3):
        write_image(tmp_path / "imagenet" / "images" / "val" / f"ILSVRC2012_val_{number}.JPEG")
    message = told("imagenet", tmp_path)
    place = tmp_path / "imagenet" / "images"
    assert f"{place / 'val'} has 3 images that are not in folders by class" in message
    assert str(place / "val" / "n01440764") in message and "valprep.sh" in message
    # The same message names the other fault.
    assert f"the folder {place / 'train'} is missing" in message


def test_imagenet_without_some_classes(tmp_path):
    for part in ("train", "val"):
        write_image(tmp_path / "imagenet" / "images" / part / "n01440764" / "1.JPEG")
    assert "has no folder for 999 of the 1,000 classes, such as 'n01443537'" in told("imagenet", tmp_path)


# Check


def test_complete_data_set(tmp_path, capsys):
    write_eurosat(tmp_path)
    result = check_benchmark("eurosat", root=tmp_path)
    assert result.ok and isinstance(result, BenchmarkCheck)
    assert result.n_images == {"train": 60, "validation": 50, "test": 20}
    assert any("60 train images (published: 13,500)" in remark for remark in result.remarks)
    assert main(["data", "check", "EuroSAT", "--root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("eurosat: complete\n  Images: 60 train, 50 validation, 20 test, in ")
    assert "Differs from the published data set: 60 train images (published: 13,500)" in shown


def test_check_does_not_open_images_unless_asked(tmp_path):
    write_eurosat(tmp_path, image=lambda path: write_image(path, b"no image"))
    assert check_benchmark("eurosat", root=tmp_path).ok
    assert len(check_benchmark("eurosat", root=tmp_path, check="decode").unreadable) == 130


def test_unreadable_images_are_listed(tmp_path, capsys):
    images = write_eurosat(tmp_path, image=write_jpeg)
    assert check_benchmark("eurosat", root=tmp_path, check="decode").ok
    whole = (images / "River" / "River_1.jpg").read_bytes()
    (images / "River" / "River_1.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "Forest" / "Forest_13.jpg").write_bytes(b"")
    (images / "Highway" / "Highway_1.jpg").unlink()
    result = check_benchmark("eurosat", root=tmp_path, check="decode")
    assert result.unreadable == ("River/River_1.jpg", "Forest/Forest_13.jpg")
    assert main(["data", "check", "eurosat", "--decode", "--root", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("eurosat: not usable\n")
    assert "1 of 130 images are missing" in shown
    assert "2 images cannot be decoded; get them again:\n    River/River_1.jpg\n" in shown


def test_images_in_other_formats_than_their_suffix_are_readable(tmp_path):
    from PIL import Image

    def write_png(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (8, 8)).save(path, "PNG")

    write_eurosat(tmp_path, image=write_png)
    assert check_benchmark("eurosat", root=tmp_path, check="decode").ok


def test_check_says_how_to_download(tmp_path):
    assert (
        f"fetch_benchmark('eurosat', root={str(tmp_path)!r})"
        in check_benchmark("eurosat", root=tmp_path).problems[0]
    )
    assert "fetch_benchmark" not in check_benchmark("stanford_cars", root=tmp_path).problems[0]
    write_eurosat(tmp_path)
    (tmp_path / "eurosat/2750/Forest/Forest_1.jpg").unlink()
    # fetch_benchmark keeps a folder that has images.
    assert (
        f"delete {tmp_path / 'eurosat/2750'}, and call fetch_benchmark('eurosat'"
        in (check_benchmark("eurosat", root=tmp_path).problems[0])
    )


def test_exit_status_of_the_command(tmp_path, capsys, monkeypatch):
    assert main(["data", "check", "eurosat", "--root", str(tmp_path)]) == 1
    assert "eurosat: not usable\n  Problem: EuroSAT was not found" in capsys.readouterr().out
    assert main(["data", "check", "mini/shapes-studio"]) == 0
    monkeypatch.delenv("CLIPCAL_DATA", raising=False)
    for arguments in (["eurosat"], ["eurosatt", "--root", str(tmp_path)]):
        with pytest.raises(SystemExit) as raised:
            main(["data", "check", *arguments])
        assert raised.value.code == 1
        assert re.match("clipcal: The (folder with the data sets|data set)", capsys.readouterr().err)


def test_unknown_check_raises(tmp_path):
    with pytest.raises(DatasetError, match="check='hash' is not supported; choose one of 'exists', 'decode'"):
        check_benchmark("eurosat", root=tmp_path, check="hash")


# Own data sets and reproducibility


def test_format_of_a_split_file_is_told(tmp_path):
    write_eurosat(tmp_path)
    file = tmp_path / "eurosat" / "split_zhou_EuroSAT.json"
    file.write_text(json.dumps({"train": [["1.jpg", "Forest"]], "val": [], "test": []}))
    assert "train[0] must be [path, label, class name], got ['1.jpg', 'Forest']" in told("eurosat", tmp_path)


def test_unknown_data_set_refers_to_load_images():
    with pytest.raises(DatasetError, match="For your own images, use load_images"):
        load_benchmark("my images")


def test_same_seed_and_other_images_can_be_told_apart(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write_eurosat(first)
    content = split_of(list(EUROSAT.values()), folders=list(EUROSAT))
    content["train"].reverse()
    write_set(second, "eurosat", "2750", "split_zhou_EuroSAT.json", content)
    data = {
        draw: [
            load_benchmark("eurosat", root=root, n_shots=2, draw=draw, random_state=1).split_info["digest"][
                "train"
            ]
            for root in (first, second)
        ]
        for draw in ("dassl", "stable")
    }
    # The published draw depends on the order of the file, and the digests show it.
    assert data["dassl"][0] != data["dassl"][1]
    assert data["stable"][0] == data["stable"][1]
