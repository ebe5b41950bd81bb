"""Few-shot tuning of CLIP classifiers, and calibration of their probabilities."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("clipcal")
except PackageNotFoundError:  # run from a source tree without installation
    __version__ = "0.0.0"

_HOMES = {
    "CLIPImageEncoder": "clipcal.images",
    "CalibratedCLIPClassifier": "clipcal.calibration",
    "CoOp": "clipcal.methods",
    "DynamicOutlierRegularizer": "clipcal.regularizers",
    "FeatureCache": "clipcal.caching",
    "ImagePaths": "clipcal.images",
    "KgCoOp": "clipcal.methods",
    "LeaveClassesOut": "clipcal.model_selection",
    "PromptTunedCLIPClassifier": "clipcal.classifiers",
    "ReliabilityDisplay": "clipcal.plots",
    "TemperatureScaling": "clipcal.calibration",
    "ZeroShotCLIPClassifier": "clipcal.classifiers",
    "ace_scorer": "clipcal.metrics",
    "adaptive_calibration_error": "clipcal.metrics",
    "ece_scorer": "clipcal.metrics",
    "expected_calibration_error": "clipcal.metrics",
    "make_shapes": "clipcal.datasets",
    "maximum_calibration_error": "clipcal.metrics",
    "mce_scorer": "clipcal.metrics",
    "load": "clipcal.persistence",
    "load_images": "clipcal.datasets",
    "open_vocabulary": "clipcal.model_selection",
    "save": "clipcal.persistence",
}
_PACKAGES = (
    "backbones", "benchmark", "caching", "calibration", "classifiers", "datasets", "exceptions", "images",
    "methods", "metrics", "model_selection", "persistence", "plots", "regularizers", "text", "training",
)  # fmt: skip

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    # Names are imported on first use, so that importing clipcal does not load torch or open_clip.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return import_module(f"clipcal.{name}")
    raise AttributeError(f"module 'clipcal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
