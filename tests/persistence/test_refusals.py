"""Errors for estimators and values that cannot be saved."""

import numpy as np
import pytest
import torch
from saved_models import NEW, X, Y, calibrated, fitted_calibrator, tuned, zero_shot
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from toy_backbone import AnyWidthBackbone

import clipcal
from clipcal import CalibratedCLIPClassifier, CLIPImageEncoder, PromptTunedCLIPClassifier
from clipcal.calibration import CALIBRATORS, TemperatureScaling
from clipcal.methods import CoOp
from clipcal.regularizers import AnchorRegularizer


class OwnMethod(CoOp):
    """A user's method."""


class OwnRegularizer(AnchorRegularizer):
    """A user's regularizer."""


class OwnCalibrator(TemperatureScaling):
    """A user's calibrator."""


OwnNamedLikeOurs = type("CoOp", (CoOp,), {})


def refused(estimator, path, error, *words):
    with pytest.raises(error) as caught:
        clipcal.save(estimator, path)
    assert not path.exists()
    for word in words:
        assert word in str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.clipcal"


@pytest.mark.parametrize(
    "estimator",
    [
        PromptTunedCLIPClassifier("mini"),
        CalibratedCLIPClassifier(PromptTunedCLIPClassifier("mini")),
        *CALIBRATORS.values(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_unfitted_estimators_raise(estimator, path):
    refused(estimator, path, NotFittedError, type(estimator).__name__)


def test_error_for_calibrated_other_classifiers_suggests_saving_the_calibrator(path):
    clf = CalibratedCLIPClassifier(LogisticRegression(), cv=2).fit(X, Y)
    refused(clf, path, TypeError, "LogisticRegression", "clipcal.save(clf.calibrator_, path)")
    clipcal.save(clf.calibrator_, path)
    assert clipcal.load(path).temperature_ == clf.calibrator_.temperature_


def test_other_objects_raise(path):
    pipeline = make_pipeline(CLIPImageEncoder("mini"), LogisticRegression())
    refused(pipeline, path, TypeError, "got Pipeline", "pipeline[-1]")
    refused(LogisticRegression(), path, TypeError, "got LogisticRegression")
    refused(TemperatureScaling, path, TypeError, "the class TemperatureScaling")
    refused(None, path, TypeError, "NoneType")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("method", OwnMethod(context_init=None, n_context=2), "OwnMethod"),
        ("method", OwnNamedLikeOurs(context_init=None, n_context=2), "CoOp"),
        ("regularizer", OwnRegularizer(), "OwnRegularizer"),
        ("regularizer", ["dor", OwnRegularizer()], "OwnRegularizer"),
    ],
)
def test_custom_classes_raise(name, value, kind, path):
    clf = tuned().set_params(**{name: value})
    refused(clf, path, TypeError, f"PromptTunedCLIPClassifier.{name}", kind, "set_params", "joblib")


def test_fitted_custom_method_raises(path):
    clf = tuned(method=OwnMethod(context_init=None, n_context=2))
    refused(clf, path, TypeError, "OwnMethod", __name__)


def test_custom_calibrators_raise(path):
    refused(OwnCalibrator().fit([[4.0, 0.0]] * 3, [0, 0, 1]), path, TypeError, "OwnCalibrator")
    clf = CalibratedCLIPClassifier(zero_shot(), method=OwnCalibrator(), cv=2).fit(X, Y)
    refused(clf, path, TypeError, "CalibratedCLIPClassifier.method", "OwnCalibrator")


def test_other_splitters_raise(path):
    splits = ((np.arange(40), np.arange(40, 80)) for _ in range(1))
    clf = CalibratedCLIPClassifier(zero_shot(), cv=splits).fit(X, Y)
    refused(clf, path, TypeError, "CalibratedCLIPClassifier.cv", "set_params(cv=5)")
    before = clf.predict_proba(NEW)
    clipcal.save(clf.set_params(cv=5), path)
    assert np.array_equal(clipcal.load(path, backbone=AnyWidthBackbone()).predict_proba(NEW), before)


def test_other_optimizers_raise(path):
    clf = tuned(optimizer=torch.optim.RAdam)
    refused(
        clf, path, TypeError, "PromptTunedCLIPClassifier.optimizer", "RAdam", "set_params(optimizer=None)"
    )
    clipcal.save(clf.set_params(optimizer=None), path)
    assert clipcal.load(path, backbone=AnyWidthBackbone()).recipe_["optimizer"] == "RAdam"


def test_other_values_raise(path):
    circle = []
    circle.append(circle)
    refused(tuned().set_params(class_names={"ant": circle}), path, TypeError, "nested too deeply")
    refused(tuned().set_params(class_names={"ant": 1j}), path, TypeError, "class_names", "complex")
    clf = zero_shot()
    clf.extra_ = np.zeros(2, dtype=complex)
    refused(clf, path, TypeError, "extra_", "complex128")
    clf.extra_ = np.zeros(2, dtype=np.longdouble)
    refused(clf, path, TypeError, "extra_")


def test_estimators_that_could_not_be_loaded_raise(path):
    refused(tuned().set_params(max_epochs=-1), path, ValueError, "max_epochs")
    clf = zero_shot()
    clf.text_features_ = clf.text_features_[:-1]
    refused(clf, path, ValueError, "text_features_", "fit it again")
    scaling = fitted_calibrator(TemperatureScaling())
    scaling.temperature_ = float("nan")
    refused(scaling, path, ValueError, "temperature_")


def test_failed_save_keeps_the_old_file(path):
    clipcal.save(calibrated(), path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        clipcal.save(LogisticRegression(), path)
    assert path.read_bytes() == before
