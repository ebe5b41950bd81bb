"""The public API as described in the README, whose code blocks and commands run in ``test_snippets.py``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

import clipcal
from clipcal import (
    CalibratedCLIPClassifier,
    CLIPImageEncoder,
    CoOp,
    DynamicOutlierRegularizer,
    ImagePaths,
    LeaveClassesOut,
    PromptTunedCLIPClassifier,
    ReliabilityDisplay,
    ZeroShotCLIPClassifier,
    ece_scorer,
    expected_calibration_error,
    make_shapes,
    open_vocabulary,
)
from clipcal.metrics import cross_val_calibration_error

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
NOUNS = ["denim", "river", "violin", "hammer", "twilight", "brick", "marble", "curtain"]
NAMES = ["plain", "striped", "checkered", "dotted"]
OTHER_NAMES = ["wavy", "gridded", "ringed"]


@pytest.fixture(scope="module")
def data():
    X, y = make_shapes("textures", n_per_class=6, random_state=0, return_X_y=True)
    rows = np.isin(y, NAMES)
    return X[rows], y[rows]


@pytest.fixture(scope="module")
def embedded(data):
    return CLIPImageEncoder("mini", device="cpu").transform(data[0]), data[1]


def tuned(**parameters):
    return PromptTunedCLIPClassifier(
        "mini", **{"max_epochs": 3, "random_state": 0, "device": "cpu", **parameters}
    )


@pytest.fixture(scope="module")
def fitted(embedded):
    return tuned().fit(*embedded)


# Top-level names


@pytest.mark.parametrize("name", clipcal.__all__)
def test_top_level_names_can_be_imported(name):
    found = getattr(clipcal, name)
    home = getattr(found, "__module__", "clipcal")
    assert home.startswith("clipcal") or name == "__version__"


def test_dir_lists_names_and_packages():
    assert set(clipcal.__all__) < set(dir(clipcal))
    for name in dir(clipcal):
        getattr(clipcal, name)


def test_unknown_names_raise():
    with pytest.raises(AttributeError, match="no attribute 'PromptTuned'"):
        getattr(clipcal, "PromptTuned")  # noqa: B009


def test_version_is_valid():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", clipcal.__version__)


# Commands and examples in the README


def test_readme_commands():
    first, second = re.findall(r"```bash\n(.*?)\n```", README, flags=re.DOTALL)
    assert first == 'pip install ".[plot]" && clipcal demo --quick'
    assert second.startswith("pip install --upgrade pip && ") and "--group test && pytest" in second


def test_readme_names_are_public():
    for name in re.findall(r"from clipcal import (.*)", README):
        assert set(name.split(", ")) <= set(clipcal.__all__)
    for package in re.findall(r"`(clipcal\.[a-z]+)`", README):
        assert hasattr(clipcal, package.removeprefix("clipcal."))


def test_readme_example_without_clip():
    pytest.importorskip("matplotlib").use("agg")
    code = PYTHON_BLOCKS[2] + "\nimport sys; assert 'torch' not in sys.modules"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


# Statements in the README


def test_all_input_types_give_the_same_probabilities(fitted, data, embedded, tmp_path):
    X = data[0][:4]
    expected = fitted.predict_proba(embedded[0][:4])
    names = [f"{i}.png" for i in range(len(X))]
    for name, pixels in zip(names, X, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    forms = {
        "uint8 array": X,
        "list of arrays": list(X),
        "PIL images": [Image.fromarray(pixels) for pixels in X],
        "paths": [tmp_path / name for name in names],
        "array of paths": np.array([str(tmp_path / name) for name in names]),
        "ImagePaths": ImagePaths(names, root=tmp_path),
    }
    for form, images in forms.items():
        assert_allclose(fitted.predict_proba(images), expected, atol=1e-5, err_msg=form)


def test_predictions_are_labels_and_columns_are_sorted(fitted, embedded):
    X, y = embedded
    assert fitted.classes_.tolist() == sorted(NAMES)
    assert set(fitted.predict(X)) <= set(y)
    assert_array_equal(fitted.classes_[fitted.predict_proba(X).argmax(axis=1)], fitted.predict(X))


def test_integer_labels_with_class_names(embedded):
    X, y = embedded
    numbers = np.array([NAMES.index(label) for label in y])
    by_number = ZeroShotCLIPClassifier("mini", class_names=dict(enumerate(NAMES))).fit(X, numbers)
    by_name = ZeroShotCLIPClassifier("mini").fit(X, y)
    assert_array_equal(np.array(NAMES)[by_number.predict(X)], by_name.predict(X))


def test_with_classes_needs_no_images(fitted, embedded):
    other = fitted.with_classes(OTHER_NAMES)
    assert other.predict_proba(embedded[0]).shape == (len(embedded[0]), 3)
    assert other.classes_.tolist() == sorted(OTHER_NAMES)
    assert fitted.classes_.tolist() == sorted(NAMES)


@pytest.mark.parametrize("method", ["coop", "kgcoop"])
def test_dor_keeps_text_features_of_nouns_near_zero_shot(embedded, method):
    dor = DynamicOutlierRegularizer(weight=8.0, lexicon=NOUNS, batch_size=8)
    zero_shot = ZeroShotCLIPClassifier("mini").fit(*embedded).with_classes(NOUNS).text_features_
    kept = []
    for regularizer in (None, dor):
        # With a high learning rate the context moves far in a few steps.
        clf = tuned(method=method, regularizer=regularizer, max_epochs=15, learning_rate=0.02).fit(*embedded)
        kept.append(np.sum(clf.with_classes(NOUNS).text_features_ * zero_shot, axis=1).mean())
    assert kept[1] > kept[0]


def test_random_context_has_sixteen_vectors(embedded):
    clf = tuned(method=CoOp(context_init=None)).fit(*embedded)
    assert clf.learned_["context"].shape[0] == 16


def test_fit_is_reproducible_with_a_seed(fitted, embedded):
    again = clone(fitted).fit(*embedded)
    assert_array_equal(again.text_features_, fitted.text_features_)
    other = tuned(random_state=1).fit(*embedded)
    assert not np.array_equal(other.text_features_, fitted.text_features_)


def test_global_random_state_is_unchanged(embedded):
    import torch

    np.random.seed(5)
    torch.manual_seed(5)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    tuned(method=CoOp(context_init=None), regularizer=DynamicOutlierRegularizer(lexicon=NOUNS)).fit(*embedded)
    assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_text_chunk_size_does_not_change_the_result(fitted, embedded):
    in_chunks = tuned(method=CoOp(text_chunk_size=1)).fit(*embedded)
    assert_allclose(in_chunks.text_features_, fitted.text_features_, atol=1e-4)


def test_memory_caches_features_on_disk(data, tmp_path):
    clf = tuned(memory=str(tmp_path / "cache")).fit(*data)
    assert any((tmp_path / "cache").rglob("*.shard"))
    assert_allclose(clf.predict_proba(data[0]), tuned().fit(*data).predict_proba(data[0]), atol=1e-5)


def test_scorers_return_negated_errors(fitted, embedded):
    X, y = embedded
    error = expected_calibration_error(y, fitted.predict_proba(X), labels=fitted.classes_)
    assert ece_scorer(fitted, X, y) == -error
    assert (cross_val_score(tuned(), X, y, cv=2, scoring=ece_scorer) <= 0).all()
    assert 0 <= cross_val_calibration_error(tuned(), X, y, cv=2) <= 1


def test_grid_search_over_parameters_of_the_method(embedded):
    grid = {"method__n_context": [2, 4]}
    search = GridSearchCV(tuned(method=CoOp(context_init=None)), grid, cv=2, scoring="neg_log_loss")
    assert search.fit(*embedded).best_params_["method__n_context"] in (2, 4)


def test_temperature_scaling_does_not_change_predictions(fitted, embedded):
    X, y = embedded
    scaled = CalibratedCLIPClassifier(tuned(), cv=2).fit(X, y)
    assert_array_equal(scaled.predict(X), scaled.estimator_.predict(X))
    other = scaled.with_classes(OTHER_NAMES)
    assert other.calibrator_.temperature_ == scaled.calibrator_.temperature_
    assert other.predict_proba(X).shape == (len(X), 3)


def test_only_class_agnostic_calibrators_support_with_classes(fitted, embedded):
    X, y = embedded
    for method, carries_over in (("temperature", True), ("beta", True), ("vector", False), ("matrix", False)):
        scaled = CalibratedCLIPClassifier(fitted, method=method, cv="prefit").fit(X, y)
        if carries_over:
            assert scaled.with_classes(OTHER_NAMES).predict_proba(X).shape == (len(X), 3)
        else:
            with pytest.raises(ValueError, match="cannot be used for other classes"):
                scaled.with_classes(OTHER_NAMES)


def test_leave_classes_out_selects_hyperparameters_for_unseen_classes(embedded):
    dor = DynamicOutlierRegularizer(lexicon=NOUNS)
    grid = {"regularizer__weight": [0.0, 8.0]}
    cv = LeaveClassesOut(n_splits=2, random_state=0)
    search = GridSearchCV(tuned(regularizer=dor), grid, cv=cv, scoring=open_vocabulary(ece_scorer))
    search.fit(*embedded)
    X, y = embedded
    by_hand = []
    for weight in grid["regularizer__weight"]:
        clf = tuned(regularizer=clone(dor).set_params(weight=weight))
        later = [
            ece_scorer(clone(clf).fit(X[train], y[train]).with_classes(np.unique(y[test])), X[test], y[test])
            for train, test in cv.split(X, y)
        ]
        by_hand.append(np.mean(later))
    assert_allclose(search.cv_results_["mean_test_score"], by_hand)
    assert search.best_params_["regularizer__weight"] == grid["regularizer__weight"][np.argmax(by_hand)]


def test_second_temperature_is_used_for_unseen_classes(embedded):
    scaled = CalibratedCLIPClassifier(tuned(), cv="classes").fit(*embedded)
    later = scaled.with_classes(OTHER_NAMES)
    logits = later.estimator_.decision_function(embedded[0])
    assert_allclose(later.decision_function(embedded[0]), logits / scaled.unseen_calibrator_.temperature_)
    assert scaled.unseen_calibrator_.temperature_ != scaled.calibrator_.temperature_


def test_reliability_display_draws(fitted, embedded):
    pytest.importorskip("matplotlib").use("agg")
    display = ReliabilityDisplay.from_estimator(fitted, *embedded)
    expected = expected_calibration_error(
        embedded[1], fitted.predict_proba(embedded[0]), labels=fitted.classes_
    )
    assert_allclose(display.bins.error, expected)


def test_all_tasks_and_domains_can_be_generated():
    for task in ("colors", "shapes", "textures", "colored-shapes"):
        for domain in ("studio", "street", "grainy", "faded"):
            made = make_shapes(task, domain=domain, n_per_class=1, random_state=0)
            assert sorted(made.target) == sorted(made.class_names)


def test_citation_file_cites_the_paper():
    text = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    assert "Miscalibration in Prompt Tuning" in text and "2410.02681" in text
