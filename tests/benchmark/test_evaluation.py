"""Evaluation on one's own images, and own images in plans."""

import json

import numpy as np
import pytest
from PIL import Image

from clipcal import make_shapes
from clipcal.benchmark import evaluation_plan, expand, run_plan
from clipcal.cli import main
from clipcal.datasets import load_benchmark
from clipcal.exceptions import DatasetError, PlanError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of 10 images of each of four classes, with suffixes of several kinds."""
    place = tmp_path_factory.mktemp("own") / "shapes"
    data = make_shapes("shapes", n_per_class=10, random_state=0)
    names = data.class_names[:4]
    for name in names:
        (place / name).mkdir(parents=True)
        for number, row in enumerate(np.flatnonzero(data.target == name)):
            suffix = (".png", ".PNG", ".jpeg", ".JPG")[number % 4]
            Image.fromarray(data.images[row]).save(place / name / f"{number:02d}{suffix}")
    return place


def test_own_images_are_split_class_by_class(folder):
    data = load_benchmark(f"own:{folder}")
    sizes = {part: len(data[part].images) for part in ("train", "validation", "test")}
    assert sizes == {"train": 20, "validation": 8, "test": 12}
    paths = [path for part in sizes for path in data[part].paths]
    assert len(set(paths)) == 40
    for part in sizes:
        for path, label, image in zip(data[part].paths, data[part].target, data[part].images, strict=True):
            assert path.split("/")[0] == label and str(image).endswith(path)


def test_split_does_not_depend_on_the_draw_and_draws_are_nested(folder):
    few = load_benchmark(f"own:{folder}", n_shots=2, random_state=1)
    with pytest.warns(UserWarning, match="have fewer than 4 images and are used whole: '"):
        more = load_benchmark(f"own:{folder}", n_shots=4, random_state=1)
    other = load_benchmark(f"own:{folder}", n_shots=2, random_state=2)
    assert set(few.train.paths) < set(more.train.paths)
    assert few.train.paths != other.train.paths
    assert few.test.paths == more.test.paths == other.test.paths


def test_relative_paths_are_below_root(folder, monkeypatch):
    below = load_benchmark("own:shapes", root=folder.parent)
    monkeypatch.chdir(folder.parent)
    assert load_benchmark("own:shapes").test.paths == below.test.paths


def test_own_splits_are_kept_and_validation_images_come_from_training_images(folder, tmp_path):
    for part, numbers in (("train", range(6)), ("test", range(6, 10))):
        for name in folder.iterdir():
            target = tmp_path / part / name.name
            target.mkdir(parents=True)
            for path in sorted(name.iterdir())[numbers.start : numbers.stop]:
                (target / path.name).write_bytes(path.read_bytes())
    data = load_benchmark(f"own:{tmp_path}", n_shots=3)
    assert all(path.startswith("test/") for path in data.test.paths) and len(data.test.paths) == 16
    assert len(data.train.paths) == len(data.validation.paths) == 12
    assert not set(data.train.paths) & set(data.validation.paths)
    assert [str(path) for path in data.validation.images] == [
        str(tmp_path / path) for path in data.validation.paths
    ]
    everything = load_benchmark(f"own:{tmp_path}")
    assert len(everything.train.paths) == 20 and len(everything.validation.paths) == 4


def test_too_few_images_are_told(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / name / "1.png")
    with pytest.raises(DatasetError, match="too few images per class for a test"):
        load_benchmark(f"own:{tmp_path}")
    for number in range(2, 6):
        Image.new("RGB", (32, 32)).save(tmp_path / "b" / f"{number}.png")
    with pytest.warns(UserWarning, match="1 classes have too few images for a test, such as 'a'"):
        data = load_benchmark(f"own:{tmp_path}")
    assert set(data.test.target) == {"b"}


def test_plan_has_baselines():
    plan = evaluation_plan(
        "pets", method="kgcoop", regularizer="dor", new_classes=True, template="{} texture."
    )
    cells = {(c.method, c.regularizer, c.calibrator, c.classes) for fit in expand(plan) for c in fit.cells}
    for classes in ("all", "base", "new"):
        for calibrator in ("none", "temperature"):
            assert ("zero-shot", "none", calibrator, classes) in cells
            assert ("kgcoop", "none", calibrator, classes) in cells
            assert ("kgcoop", "dor", calibrator, classes) in cells
    assert plan.templates == {"own:pets": "{} texture."}


def test_template_of_a_plan_is_used(folder, tmp_path):
    plan = evaluation_plan(
        folder, backbone="mini", method="zero-shot", calibrator=None, template="{} texture."
    )
    run_plan(plan, tmp_path)
    (path,) = (tmp_path / "cells").glob("*.json")
    record = json.loads(path.read_text())
    assert record["data"]["template"] == record["settings"]["estimator"]["template"] == "{} texture."


def test_command_shows_the_averages(folder, tmp_path, capsys):
    out = tmp_path / "results"
    command = ["evaluate", str(folder), "--backbone", "mini", "--recipe", "original", "--n-shots", "2"]
    assert main([*command, "--method", "kgcoop", "--new-classes", "--out", str(out), "-q"]) == 0
    shown = capsys.readouterr().out
    assert "## Few-shot classification" in shown and "## Base to new classes" in shown
    for model in ("zero-shot", "zero-shot + temperature", "kgcoop", "kgcoop + temperature"):
        assert f"| {model} " in shown
    assert "12 cells: 0 were complete, 12 were completed now" in shown
    main([*command, "--method", "kgcoop", "--new-classes", "--out", str(out), "-q"])
    assert "12 cells: 12 were complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "There is no file or folder 'nowhere'"),
        (["{}", "--method", "coopp"], "method 'coopp' is unknown"),
        (["{}", "--template", "a photo"], "exactly one"),
        (["{}", "--backbone", "ViT-B-99/openai"], "ViT-B-99"),
    ],
)
def test_faults_are_told_without_a_traceback(folder, tmp_path, capsys, arguments, message):
    arguments = [argument.format(folder) for argument in arguments]
    if "--backbone" not in arguments:
        arguments += ["--backbone", "mini"]
    with pytest.raises(SystemExit) as raised:
        main(["evaluate", *arguments, "--out", str(tmp_path), "-q"])
    assert raised.value.code == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_none_is_no_component():
    made = evaluation_plan("pets", regularizer="none", calibrator="none")
    assert [entry.name for entry in (*made.regularizers, *made.calibrators)] == ["none", "none"]
    with pytest.raises(PlanError, match="'tip-adapter' is not trained, so the regularizer 'dor'"):
        evaluation_plan("pets", method="tip-adapter", regularizer="dor")
