"""The template of the text features before tuning, which the classifier computes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from toy_backbone import AnyWidthBackbone

from clipcal import CalibratedCLIPClassifier, PromptTunedCLIPClassifier
from clipcal.calibration import DistanceAwareCalibration
from clipcal.exceptions import ClassNameError
from clipcal.methods import zero_shot_features

BACKBONE = AnyWidthBackbone(32)
BASE, NEW = ["ant", "bee", "cow"], ["dog", "elk"]
X = np.random.default_rng(0).normal(size=(12, 32))
Y = np.array(BASE * 4)


@pytest.fixture(scope="module")
def tuned():
    return PromptTunedCLIPClassifier(BACKBONE, max_epochs=3, random_state=0).fit(X, Y)


def calibrated(clf, template):
    method = DistanceAwareCalibration(n_neighbors=2, template=template)
    return CalibratedCLIPClassifier(clf, method=method, cv="prefit").fit(X, Y)


@pytest.mark.parametrize(
    ("template", "same"),
    [
        (None, "a photo of a {}."),
        ("a photo of a {}, a type of pet.", "a photo of a {}, a type of pet."),
        ("dtd", "{} texture."),
        (["dtd", "the {}."], ["{} texture.", "the {}."]),
    ],
)
def test_features_before_tuning_use_the_template(tuned, template, same):
    scaled = calibrated(tuned, template)
    expected = zero_shot_features(BACKBONE, BASE, same).numpy()
    assert_allclose(scaled.calibrator_.base_zero_shot_features_, expected, atol=1e-6)
    assert_allclose(scaled.calibrator_.base_text_features_, tuned.text_features_, atol=1e-6)
    other = scaled.with_classes(NEW)
    by_hand = scaled.calibrator_.for_classes(
        NEW,
        text_features=tuned.with_classes(NEW).text_features_,
        zero_shot_features=zero_shot_features(BACKBONE, NEW, same),
    )
    assert_allclose(other.calibrator_.scales_, by_hand.scales_, rtol=1e-6)
    assert (other.calibrator_.scales_ != 1).all()


def test_the_template_changes_the_scales_of_new_classes(tuned):
    plain, texture = (
        calibrated(tuned, template).with_classes(NEW).calibrator_.scales_ for template in (None, "dtd")
    )
    assert np.abs(plain - texture).max() > 1e-3


def test_zero_shot_accepts_a_template(tuned):
    for template in ("dtd", ["a {}.", "dtd"], "a {}, a type of pet."):
        before = tuned.zero_shot(template)
        assert before.template == template
        assert_allclose(before.text_features_, zero_shot_features(BACKBONE, BASE, template), atol=1e-6)
        new = before.with_classes(NEW).text_features_
        assert_allclose(new, zero_shot_features(BACKBONE, NEW, template), atol=1e-6)
    assert tuned.zero_shot().template == "a photo of a {}."
    assert_array_equal(tuned.zero_shot(template="dtd").classes_, tuned.classes_)
    with pytest.raises(ClassNameError, match="Did you mean 'imagenet-80'"):
        tuned.zero_shot("imagenet80")


@pytest.mark.parametrize("template", ["no place", "{} {}", [], ["a {}.", "pets"]])
def test_invalid_template_raises_before_fitting(template):
    method = DistanceAwareCalibration(template=template)
    with pytest.raises(ClassNameError, match="template"):
        CalibratedCLIPClassifier(PromptTunedCLIPClassifier("no-such/backbone"), method=method).fit(X, Y)
    with pytest.raises(ClassNameError, match="template"):
        method.fit(9 * np.eye(2), [0, 1], text_features=np.eye(2), zero_shot_features=np.eye(2))


@pytest.mark.parametrize("template", [3, b"a {}."])
def test_template_of_invalid_type_raises(template):
    with pytest.raises(ValueError, match="template"):
        DistanceAwareCalibration(template=template).fit(
            9 * np.eye(2), [0, 1], text_features=np.eye(2), zero_shot_features=np.eye(2)
        )


def test_passed_features_do_not_depend_on_the_template():
    fitted = DistanceAwareCalibration(template="dtd").fit(
        9 * np.eye(2), [0, 1], text_features=np.eye(2), zero_shot_features=np.eye(2)
    )
    assert_array_equal(fitted.base_zero_shot_features_, np.eye(2))
    assert clone(fitted).template == "dtd"


def test_classifiers_whose_zero_shot_takes_no_template():
    class Plain(PromptTunedCLIPClassifier):
        def zero_shot(self):
            return super().zero_shot()

    clf = Plain(BACKBONE, max_epochs=1, random_state=0).fit(X, Y)
    expected = zero_shot_features(BACKBONE, BASE, "a photo of a {}.")
    assert_allclose(calibrated(clf, None).calibrator_.base_zero_shot_features_, expected, atol=1e-6)
