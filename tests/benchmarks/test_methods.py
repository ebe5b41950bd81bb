"""The scripts that compare methods: statistics, stored features, short runs, and the page of results."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, ZeroShotCLIPClassifier, make_shapes
from clipcal.backbones import open_backbone
from clipcal.demo import ZERO_SHOT, Cell, class_halves, image_subset, run_cell
from clipcal.exceptions import BackboneError, ClassNameError
from clipcal.methods import TaskRes, zero_shot_features

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks" / "methods"
PAGE = ROOT / "docs" / "results" / "methods.rst"
# Source distributions have no benchmarks.
pytestmark = pytest.mark.skipif(not SCRIPTS.exists(), reason="there are no benchmarks here")


@pytest.fixture(scope="module")
def runs(scripts):
    return scripts("runs")


@pytest.fixture(scope="module")
def images():
    """Return images of four classes and their class indices."""
    images, y = make_shapes("textures", n_per_class=6, random_state=0, return_X_y=True)
    classes = np.unique(y)[:4]
    rows = np.isin(y, classes)
    return images[rows], np.searchsorted(classes, y[rows])


@pytest.fixture(scope="module")
def feature_file(scripts, images, tmp_path_factory):
    """Run the example in the help of real_features.py with the embedded CLIP."""
    text = scripts("real_features").__doc__
    code = inspect.cleandoc(
        re.search(r"( +import numpy as np\n(?:(?:    .*)?\n)*?    np\.savez.*\n)", text)[1]
    )
    code = code.replace("ViT-B-32/openai", "mini").replace("ViT-B-32", "mini")
    path = tmp_path_factory.mktemp("features") / "features.npz"
    code = code.replace('"features.npz"', repr(str(path)))
    paths, labels = images
    exec(code, {"paths": paths, "labels": labels})
    return path


@pytest.fixture(scope="module")
def features(scripts, feature_file):
    (found,) = scripts("feature_backbone").read_features(feature_file)
    return found


class TestStatistics:
    def test_interval_by_hand(self, runs):
        # Deviations from the mean 0.1: 0, 0.2, -0.2, 0; their squares sum to 0.08. The quantile of t with
        # three degrees of freedom is 3.1824.
        mean, half = runs.mean_and_half([0.1, 0.3, -0.1, 0.1])
        assert mean == pytest.approx(0.1)
        assert half == pytest.approx(3.1824463 * np.sqrt(0.08 / 3 / 4))
        assert np.isnan(runs.mean_and_half([0.5])[1])

    def test_quantities_by_hand(self, runs):
        y_prob = np.array([[0.8, 0.2], [0.6, 0.4]])
        found = runs.measure(np.array(["a", "b"]), y_prob, np.array(["a", "b"]))
        assert found["accuracy"] == 0.5
        assert found["confidence"] == pytest.approx(0.7)
        assert found["ece"] == pytest.approx((0.2 + 0.6) / 2)
        assert found["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
        assert found["brier"] == pytest.approx((0.08 + 0.72) / 2)

    def test_differences_are_paired_by_seed(self, scripts):
        def record(method, seed, value):
            numbers = dict.fromkeys(("accuracy", "confidence", "ece", "log_loss", "brier"), value)
            return {"model": "m", "classes": "all", "shots": 1, "method": method, "seed": seed, **numbers}

        records = [
            record("probe", 1, 0.9),
            record("zero-shot", 0, 0.1),
            record("probe", 0, 0.4),
            record("zero-shot", 1, 0.5),
        ]
        probe, zero_shot = scripts("real_features").summarize(records)
        # Differences of 0.3 and 0.4; the quantile of t with one degree of freedom is 12.706.
        assert probe[:5] == ["m", "all", 1, "probe", 2]
        assert probe[5][0] == pytest.approx(0.65)
        assert probe[5][2:] == [pytest.approx(0.35), pytest.approx(12.706 * 0.05, abs=1e-3)]
        assert zero_shot[5][2:] == [0.0, 0.0]

    def test_terms_are_paired_by_cell(self, scripts):
        def record(method, term, seed, value):
            cell = ["colors", "street", seed]
            return {"method": method, "term": term, "cell": cell, "numbers": {"base ece": value}}

        records = [
            record("zero-shot", "none", 0, 0.1),
            record("zero-shot", "none", 1, 0.2),
            record("coop", "dor", 1, 0.3),
            record("coop", "dor", 0, 0.6),
            record("coop", "none", 0, 0.9),
            record("coop", "none", 1, 0.4),
        ]
        rows = {(row["method"], row["term"]): row for row in scripts("grid").compare(records)}
        assert set(rows) == {("coop", "dor"), ("coop", "none")}
        assert rows["coop", "dor"]["base ece"][0] == pytest.approx(-0.2)
        assert rows["coop", "dor"]["base ece"][2] == 2
        assert rows["coop", "none"]["minus"] == "zero-shot none"
        assert rows["coop", "none"]["base ece"][0] == pytest.approx(0.5)

    def test_methods_are_compared_in_pairs(self, scripts):
        def record(method, seed, value):
            numbers = dict.fromkeys(("accuracy", "confidence", "ece", "log_loss", "brier"), value)
            return {"model": "m", "classes": "all", "shots": 2, "method": method, "seed": seed, **numbers}

        records = [record("linear-probe", seed, 0.5 + seed / 10) for seed in (1, 0, 2)]
        records += [record("LogisticRegression", 0, 0.1), record("LogisticRegression", 1, 0.4)]
        records += [record("linear-probe + tcpt", seed, 0.5 + seed / 10) for seed in (0, 1, 2)]
        # Nothing is said of equal results.
        (row,) = scripts("real_features").compare(records)
        assert (row["first"], row["second"], row["runs"]) == ("linear-probe", "LogisticRegression", 2)
        assert row["ece"][0] == pytest.approx((0.4 + 0.2) / 2)


class TestClaims:
    def numbers(self, *, accuracy, confidence, ece, divergence):
        found = {"accuracy": accuracy, "confidence": confidence, "ece": ece, "divergence": divergence}
        both = {f"{half} {name}": value for half in ("base", "new") for name, value in found.items()}
        return both | {"mean accuracy": accuracy, "mean ece": ece}

    def test_verdicts_by_hand(self, scripts):
        records = []
        # Two runs: the margin of a claim is its mean, plus or minus 12.706 * deviation / sqrt(2).
        for seed, noise in enumerate((0.0, 0.001)):
            rows = {
                ("zero-shot", "none"): self.numbers(accuracy=0.6, confidence=0.6, ece=0.05, divergence=0.3),
                ("coop", "none"): self.numbers(accuracy=0.5, confidence=0.7, ece=0.2, divergence=0.4),
                ("coop", "dor"): self.numbers(accuracy=0.45, confidence=0.5, ece=0.1 + noise, divergence=0.3),
                ("coop", "temperature"): self.numbers(
                    accuracy=0.5, confidence=0.5, ece=0.1005, divergence=0.4
                ),
            }
            for (method, term), numbers in rows.items():
                cell = ["colors", "street", seed]
                records.append({"method": method, "term": term, "cell": cell, "numbers": numbers})
        checked = scripts("grid_claims").check(records, {"coop": "dor"})
        found = {(row["claim"], row["method"]): row for row in checked}
        verdicts = {claim: row["verdict"] for (claim, _), row in found.items()}
        assert verdicts == {
            "zero-shot has an ECE of at most 0.08": "holds",
            "overconfident on new classes": "holds",
            "training enlarges the divergence of new classes": "holds",
            "DOR reduces the divergence of new classes": "holds",
            "DOR lowers the ECE on new classes": "holds",
            "DOR costs less than 0.01 of base accuracy": "fails",
            "DOR costs less than 0.01 of harmonic mean": "fails",
            "new classes: higher ECE with a temperature than with DOR": "open",
        }
        row = found["DOR lowers the ECE on new classes", "coop"]
        assert row["margin"] == [pytest.approx(0.0995), pytest.approx(12.706 * 0.0005, abs=1e-4)]
        assert (row["agreeing"], row["runs"]) == (2, 2)

    def test_one_run_is_open(self, scripts):
        assert scripts("grid_claims").verdict(0.3, float("nan")) == "open"


class TestTables:
    def test_simple_table(self, runs):
        expected = "======  =\nmethod  a\n======  =\nb       1\n======  ="
        assert runs.simple_table(["method", "a"], [["b", "1"]]) == expected

    def test_only_the_named_table_is_replaced(self, runs):
        page = "Title\n\n.. table: one\n\nold\nrows\n\nText.\n\n.. table: two\n\nkept\n\nEnd.\n"
        expected = page.replace("old\nrows", "new\nrow")
        assert runs.with_tables(page, {"one": "new\nrow", "three": "x"}) == expected

    def test_an_empty_place_is_filled(self, runs):
        assert (
            runs.with_tables(".. table: one\n\n\nText.\n", {"one": "new"})
            == ".. table: one\n\nnew\n\nText.\n"
        )


def test_finished_runs_are_kept(runs, tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return [{"ece": 0.1}]

    for _ in range(2):
        assert runs.kept(tmp_path, "RN50 all 16 zero-shot", compute) == [{"ece": 0.1}]
    assert runs.kept(tmp_path, "RN50 all 16 zero shot", compute) == [{"ece": 0.1}]
    assert len(calls) == 2
    assert runs.kept(None, "RN50 all 16 zero-shot", compute) == [{"ece": 0.1}]
    assert len(calls) == 3


class TestStoredFeatures:
    def test_file_holds_what_the_backbone_computes(self, features, images):
        assert features.class_names == ["beach", "forest", "park", "port"]
        texts = zero_shot_features(
            open_backbone("mini"), features.class_names, features.templates[1], normalize=False
        )
        np.testing.assert_allclose(features.texts[1], texts, rtol=1e-5)
        np.testing.assert_allclose(features.images, CLIPImageEncoder("mini").transform(images[0]), rtol=1e-5)

    @pytest.mark.parametrize("both", [False, True])
    def test_zero_shot_predictions_are_those_of_the_backbone(self, features, both):
        template = features.templates if both else features.templates[0]
        stored = features.backbone(open_backbone("mini").logit_scale)
        found, expected = (
            ZeroShotCLIPClassifier(backbone, template=template).fit(features.images, features.labels)
            for backbone in (stored, "mini")
        )
        np.testing.assert_allclose(
            found.predict_proba(features.images), expected.predict_proba(features.images), atol=1e-5
        )

    def test_training_is_that_on_the_backbone(self, features):
        method = TaskRes(template=features.templates[0])
        stored = features.backbone(open_backbone("mini").logit_scale)
        found, expected = (
            PromptTunedCLIPClassifier(backbone, method=method, max_epochs=3, random_state=0).fit(
                features.images, features.labels
            )
            for backbone in (stored, "mini")
        )
        np.testing.assert_allclose(found.text_features_, expected.text_features_, atol=1e-5)
        other = found.with_classes(features.class_names[2:])
        np.testing.assert_allclose(
            other.text_features_, expected.with_classes(features.class_names[2:]).text_features_, atol=1e-5
        )

    def test_norms_of_texts_are_replaced(self, features):
        backbone = features.backbone(100.0, text_norm=10.0)
        texts = zero_shot_features(backbone, ["park"], features.templates[0], normalize=False)
        assert float(texts.norm()) == pytest.approx(10.0, rel=1e-5)
        direction = features.texts[0][2] / np.linalg.norm(features.texts[0][2])
        np.testing.assert_allclose(texts[0] / 10, direction, atol=1e-6)

    def test_unknown_texts_and_images_are_refused(self, features):
        backbone = features.backbone(100.0)
        with pytest.raises(ClassNameError, match=r"no stored features of the text 'a photo of a park.'"):
            zero_shot_features(backbone, ["park"], "a photo of a {}.")
        with pytest.raises(BackboneError, match="pass embeddings"):
            backbone.encode_images(None)

    def test_templates_of_published_files(self, scripts):
        as_template = scripts("feature_backbone").as_template
        assert as_template("a_photo_of_a") == "a photo of a {}."
        assert as_template("a {} texture.") == "a {} texture."

    def test_the_average_is_no_template(self, scripts, features, tmp_path):
        path = tmp_path / "features.npz"
        np.savez(
            path,
            class_names=features.class_names,
            templates=["a_photo_of_a", "averageprompt"],
            labels=features.target,
            images_m=features.images,
            texts_m=features.texts,
        )
        (found,) = scripts("feature_backbone").read_features(path)
        assert found.templates == ["a photo of a {}."]
        np.testing.assert_array_equal(found.texts, features.texts[:1])

    @pytest.mark.parametrize("missing", ["labels", "texts_mini", "images_mini"])
    def test_missing_arrays_are_named(self, scripts, feature_file, tmp_path, missing):
        with np.load(feature_file) as file:
            arrays = {name: file[name] for name in file.files if name != missing}
        np.savez(tmp_path / "less.npz", **arrays)
        message = "images_MODEL" if missing == "images_mini" else missing
        with pytest.raises(SystemExit, match=message):
            list(scripts("feature_backbone").read_features(tmp_path / "less.npz"))


def test_methods_without_the_text_tower_are_found(scripts, features):
    contenders = scripts("contenders")
    found = contenders.methods(features, contenders.Options(features.templates[0]))
    assert {"clip-adapter", "taskres", "linear-probe", "linear-probe, clap"} <= set(found)
    assert not {"coop", "kgcoop", "cocoop", "prograd"} & set(found)
    assert all(method.get_params()["template"] == features.templates[0] for method in found.values())


def test_training_and_test_images_are_apart(scripts):
    target = np.repeat(np.arange(3), 5)
    split = scripts("real_features").split
    pool, test = split(target, 2, 0)
    assert pool.shape == (3, 2)
    assert sorted([*pool.ravel(), *test]) == list(range(15))
    np.testing.assert_array_equal(target[pool], [[0, 0], [1, 1], [2, 2]])
    assert not np.array_equal(split(target, 2, 1)[0], pool)


def test_short_run_on_stored_features(scripts, run_script, features, feature_file, tmp_path, capsys):
    module, out, cells = scripts("real_features"), tmp_path / "results.json", tmp_path / "cells"
    options = ["--template", features.templates[0], "--shots", 1, 2, "--seeds", 2, "--epochs", 1]
    scale = open_backbone("mini").logit_scale
    arguments = [feature_file, *options, "--scale", scale, "--out", out, "--cells", cells]
    run_script(module, *arguments)
    printed = capsys.readouterr().out
    results = json.loads(out.read_text(encoding="utf-8"))
    rows = {tuple(row[:4]): row[5:] for row in results["table"]}
    assert {key[1:3] for key in rows} == {("all", 1), ("all", 2), ("base", 2), ("new", 2)}
    # New classes are those without a calibrator of their own, or a vector that was learned.
    assert ("mini", "new", 2, "zero-shot + temperature") in rows
    assert ("mini", "new", 2, "zero-shot + vector") not in rows
    assert ("mini", "new", 2, "LogisticRegression") not in rows
    assert rows["mini", "new", 2, "taskres"] == rows["mini", "new", 2, "zero-shot"]
    test = [module.split(features.target, 2, seed)[1] for seed in range(2)]
    expected = []
    for seed in range(2):
        clf = ZeroShotCLIPClassifier("mini", template=features.templates[0])
        clf.fit(features.images, features.labels)
        expected.append(clf.score(features.images[test[seed]], features.labels[test[seed]]))
    assert rows["mini", "all", 1, "zero-shot"][0][0] == pytest.approx(np.mean(expected), abs=1e-4)
    assert results["setup"]["data"] == "features"
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    # The second run finds all fits.
    before = out.read_text(encoding="utf-8").split('"table"')[1]
    stamps = {path: path.stat().st_mtime_ns for path in cells.iterdir()}
    run_script(module, *arguments)
    assert out.read_text(encoding="utf-8").split('"table"')[1] == before
    assert {path: path.stat().st_mtime_ns for path in cells.iterdir()} == stamps
    assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_short_run_of_the_grid(scripts, run_script, tmp_path):
    module, out = scripts("grid"), tmp_path / "grid.json"
    run_script(module, "--quick", "--methods", "zero-shot", "coop", "taskres", "--out", out)
    results = json.loads(out.read_text(encoding="utf-8"))
    rows = {(row["method"], row["term"]): row for row in results["table"]}
    assert {key for key in rows if key[0] != "coop"} == {
        ("zero-shot", "none"),
        ("zero-shot", "temperature"),
        ("taskres", "none"),
        ("taskres", "temperature"),
    }
    cell = Cell("colors", "street", 0, 1, 64)
    for expected in run_cell(cell, ZERO_SHOT):
        row = rows["zero-shot", "none"]
        for quantity in ("accuracy", "confidence", "ece"):
            found = row[f"{expected.half} {quantity}"][0]
            assert found == pytest.approx(getattr(expected, quantity), abs=2e-4)
    base = class_halves(cell)["base"]
    train, test = (image_subset(cell, *subset).of(base) for subset in (("train", 16), ("test", 50)))
    clf = PromptTunedCLIPClassifier("mini", recipe="dor", max_epochs=1, n_views=10, random_state=0)
    found = rows["coop", "none"]["base accuracy"][0]
    assert found == pytest.approx(clf.fit(*train).score(*test), abs=2e-4)


@pytest.mark.parametrize(("name", "tables"), [("real_features", "real_tables"), ("grid", "grid_tables")])
class TestStoredResults:
    def test_page_has_the_tables_of_the_results(self, scripts, name, tables):
        path = SCRIPTS / "results" / f"{name}.json"
        page = PAGE.read_text(encoding="utf-8")
        results = json.loads(path.read_text(encoding="utf-8"))
        for title, table in scripts(tables).tables(results).items():
            assert f".. table: {title}\n\n{table}\n" in page, f"run {name}.py --page {PAGE.name}"

    def test_results_are_small_and_hold_no_paths(self, name, tables):
        text = (SCRIPTS / "results" / f"{name}.json").read_text(encoding="utf-8")
        assert len(text) < 200_000
        assert not re.search(r"\.npz|/[a-z]+/", text)
