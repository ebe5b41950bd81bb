"""Small fitted estimators, and functions that read and write their files."""

from __future__ import annotations

import functools

import numpy as np
from sklearn.base import clone
from toy_backbone import AnyWidthBackbone

from clipcal import CalibratedCLIPClassifier, PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.calibration import CALIBRATORS
from clipcal.persistence._container import pack, read_file

NAMES = np.array(["ant", "bee", "cat", "dog"])
_RNG = np.random.default_rng(0)
Y = NAMES[np.arange(80) % 4]
_TEXTS = ZeroShotCLIPClassifier(AnyWidthBackbone()).fit(_RNG.normal(size=(80, 12)), Y).text_features_
# Images are near the text features of their classes, with some misclassified.
X = _TEXTS[np.arange(80) % 4] + _RNG.normal(size=(80, 12)) / 4
NEW = _TEXTS[np.arange(7) % 4] + _RNG.normal(size=(7, 12)) / 4

SIDE = {
    "proximity": lambda n, k: {"proximity": np.random.default_rng(1).uniform(0.2, 1, n)},
    "text_features": lambda n, k: {
        "text_features": np.random.default_rng(1).normal(size=(k, 8)),
        "zero_shot_features": np.random.default_rng(2).normal(size=(k, 8)),
    },
    "zero_shot_logits": lambda n, k: {},  # not needed in fit
}


def tuned(**params):
    defaults = {"max_epochs": 2, "random_state": 0, "backbone": AnyWidthBackbone()}
    return PromptTunedCLIPClassifier(**{**defaults, **params}).fit(X, Y)


def zero_shot(**params):
    return ZeroShotCLIPClassifier(**{"backbone": AnyWidthBackbone(), **params}).fit(X, Y)


@functools.cache
def calibrated(method="temperature", cv=3):
    return CalibratedCLIPClassifier(clone(tuned()), method=method, cv=cv).fit(X, Y)


def rows(n=200, n_classes=4, seed=0):
    """Return overconfident logits, twice those that labels are drawn from, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 2
    y = (0.5 * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return logits, y


def fitted_calibrator(calibrator, n_classes=4):
    logits, y = rows(n_classes=n_classes)
    side = {k: v for name in calibrator.side_inputs for k, v in SIDE[name](len(y), n_classes).items()}
    return clone(calibrator).fit(logits, y, **side)


def named_calibrator(name, **params):
    return clone(CALIBRATORS[name]).set_params(**params)


def answers(estimator):
    """Return all predictions of an estimator for new rows."""
    if hasattr(estimator, "predict_proba"):
        return [estimator.decision_function(NEW), estimator.predict_proba(NEW), estimator.predict(NEW)]
    logits = rows(n=50, n_classes=len(estimator.classes_), seed=9)[0]
    of_rows = {"proximity": np.linspace(0, 1.5, 50), "zero_shot_logits": np.cos(logits)}
    side = {name: of_rows[name] for name in estimator.side_inputs if name in of_rows}
    return [estimator.calibrate(logits, **side), estimator.transform(logits, **side)]


def content_of(path):
    with open(path, "rb") as file:
        return read_file(file, path.stat().st_size)


def write(path, document, tensors):
    """Write a file with the given content and a valid checksum."""
    path.write_bytes(pack(document, tensors, "0.1.0"))
