"""Classifiers for precomputed features: zero-shot, calibrated, trained, and scikit-learn's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from feature_backbone import FeatureBackbone, Features, MissingTextError
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from clipcal import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.calibration import CALIBRATORS, CalibratedCLIPClassifier, TemperatureScaling
from clipcal.exceptions import BackboneError
from clipcal.methods import METHODS, LinearProbe, TuningMethod
from clipcal.regularizers import REGULARIZERS, Regularizer

ZERO_SHOT = "zero-shot"
LOSS_TERMS = ("label-smoothing", "mbls", "zs-norm", "tcpt")
# These start from unnormalized text features, whose norm decides how much a step changes their direction.
NORM_MATTERS = ("taskres", "linear-probe", "linear-probe, clap")
# Calibrators of trained classifiers. Those after the first compare them with zero-shot predictions.
CALIBRATED = {
    "clip-adapter": ("temperature", "sals"),
    "taskres": ("temperature",),
    "linear-probe": ("temperature", "dac", "sals"),
}
# Other parameters of methods that are measured besides the defaults.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "linear-probe": {"clap": {"constraint": "clap"}},
    "tip-adapter": {"searched": {"alpha": "search", "beta": "search"}},
}
# Only these are fitted for fewer shots than the most.
BY_SHOTS = (
    "zero-shot",
    "zero-shot + temperature",
    "zero-shot + temperature, shrinkage=1",
    "zero-shot + vector",
    "zero-shot + matrix",
    "clip-adapter",
    "tip-adapter",
    "tip-adapter, searched",
    "tip-adapter-f",
    "taskres",
    "linear-probe",
    "linear-probe, unit texts",
    "linear-probe + temperature",
    "linear-probe, clap",
    "lp++",
    "LogisticRegression",
    "LogisticRegression + temperature",
    "LogisticRegression, C by CV",
)
N_FOLDS = 4
C_VALUES = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5]

Fit = Callable[[np.ndarray, np.ndarray], Any]


@dataclass(frozen=True)
class Options:
    """Settings of all fits.

    `text_norm` replaces the norms of the stored text features, and `max_epochs` limits all trainings.
    """

    template: str
    logit_scale: float = 100.0
    text_norm: float | None = None
    max_epochs: int | None = None


def contenders(
    features: Features, options: Options, n_shots: int, seed: int, *, complete: bool = True
) -> dict[str, Fit]:
    """Return for each name a function that fits a classifier on training embeddings and labels.

    It returns None if there are too few images. Unless `complete`, only those of BY_SHOTS are returned.
    """
    backbone = features.backbone(options.logit_scale, text_norm=options.text_norm)
    of_units = features.backbone(options.logit_scale, text_norm=1.0)
    zero_shot = ZeroShotCLIPClassifier(backbone, template=options.template)
    ensemble = ZeroShotCLIPClassifier(backbone, template=features.templates)
    found: dict[str, Fit] = {ZERO_SHOT: zero_shot.fit, f"{ZERO_SHOT}, all templates": ensemble.fit}
    for name, calibrator in calibrators():
        found[f"{ZERO_SHOT} + {name}"] = partial(fit_calibrated, zero_shot, calibrator)

    def tuned(method: TuningMethod, backbone: FeatureBackbone = backbone, **given: Any) -> Any:
        return PromptTunedCLIPClassifier(
            backbone,
            method=method,
            recipe="original",
            max_epochs=options.max_epochs,
            random_state=seed,
            **given,
        )

    for name, method in methods(features, options).items():
        found[name] = tuned(method).fit
        if name in NORM_MATTERS:
            found[f"{name}, unit texts"] = tuned(method, of_units).fit
        for kind in CALIBRATED.get(name, ()) if n_shots > 1 else ():
            calibrator = with_template(clone(CALIBRATORS[kind]), options.template)
            found[f"{name} + {kind}"] = CalibratedCLIPClassifier(
                tuned(method), method=calibrator, cv=N_FOLDS
            ).fit
    for name in LOSS_TERMS:
        term = with_template(REGULARIZERS[name](), options.template)
        method = LinearProbe(template=options.template)
        found[f"linear-probe + {name}"] = tuned(method, regularizer=term).fit
    found |= regressions(n_shots)
    return {name: fit for name, fit in found.items() if complete or name in BY_SHOTS}


def calibrators() -> Iterator[tuple[str, Any]]:
    """Yield calibrators that do not compare a classifier with zero-shot predictions."""
    for name, calibrator in CALIBRATORS.items():
        if set(calibrator.side_inputs) <= {"proximity"}:
            yield name, calibrator
            if name == "temperature":
                yield "temperature, shrinkage=1", TemperatureScaling(shrinkage=1.0)


def fit_calibrated(classifier: Any, calibrator: Any, X: np.ndarray, y: np.ndarray) -> Any:
    """Fit a calibrator on all training images, which zero-shot classifiers do not learn from.

    Returns None if the calibrator needs more images.
    """
    fitted = classifier.fit(X, y)
    try:
        return CalibratedCLIPClassifier(fitted, method=calibrator, cv="prefit").fit(X, y)
    except ValueError:
        return None


def methods(features: Features, options: Options) -> dict[str, TuningMethod]:
    """Return the methods of clipcal that train on stored features, without the text tower."""
    found = {}
    backbone = features.backbone(options.logit_scale)
    for name, kind in METHODS.items():
        method = with_template(kind(), options.template)
        if method.needs_pixels:
            continue
        method.set_params(**method.recipes["original"].method_params)
        untrained = PromptTunedCLIPClassifier(backbone, method=method, max_epochs=0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of embeddings of unit length
                untrained.fit(features.images[:2], features.class_names[:2])
        except (MissingTextError, BackboneError):  # it encodes other texts, or needs the inside of the tower
            continue
        found[name] = method
        for variant, params in VARIANTS.get(name, {}).items():
            found[f"{name}, {variant}"] = clone(method).set_params(**params)
    return found


def with_template(component: TuningMethod | Regularizer, template: str) -> Any:
    """Set the parameter ``template`` of a method or a loss term, if it has one."""
    return component.set_params(template=template) if "template" in component.get_params() else component


def regressions(n_shots: int) -> dict[str, Fit]:
    """Return scikit-learn's logistic regression on embeddings of unit length."""
    plain = make_pipeline(Normalizer(), LogisticRegression(max_iter=5000))
    found: dict[str, Any] = {"LogisticRegression": plain}
    if n_shots > 1:
        values = {"logisticregression__C": C_VALUES}
        folds = min(N_FOLDS, n_shots)
        found["LogisticRegression + temperature"] = CalibratedCLIPClassifier(plain, cv=N_FOLDS)
        found["LogisticRegression, C by CV"] = GridSearchCV(plain, values, scoring="neg_log_loss", cv=folds)
    return {name: classifier.fit for name, classifier in found.items()}
