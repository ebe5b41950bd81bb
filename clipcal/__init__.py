"""Few-shot tuning of CLIP classifiers, and calibration of their probabilities."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names that __getattr__ finds
    from clipcal import backbones as backbones
    from clipcal import benchmark as benchmark
    from clipcal import caching as caching
    from clipcal import calibration as calibration
    from clipcal import classifiers as classifiers
    from clipcal import datasets as datasets
    from clipcal import exceptions as exceptions
    from clipcal import images as images
    from clipcal import methods as methods
    from clipcal import metrics as metrics
    from clipcal import model_selection as model_selection
    from clipcal import persistence as persistence
    from clipcal import plots as plots
    from clipcal import regularizers as regularizers
    from clipcal import text as text
    from clipcal import training as training
    from clipcal.caching import FeatureCache as FeatureCache
    from clipcal.calibration import CalibratedCLIPClassifier as CalibratedCLIPClassifier
    from clipcal.calibration import TemperatureScaling as TemperatureScaling
    from clipcal.classifiers import PromptTunedCLIPClassifier as PromptTunedCLIPClassifier
    from clipcal.classifiers import ZeroShotCLIPClassifier as ZeroShotCLIPClassifier
    from clipcal.datasets import load_images as load_images
    from clipcal.datasets import make_shapes as make_shapes
    from clipcal.images import CLIPImageEncoder as CLIPImageEncoder
    from clipcal.images import ImagePaths as ImagePaths
    from clipcal.methods import CoOp as CoOp
    from clipcal.methods import KgCoOp as KgCoOp
    from clipcal.metrics import ace_scorer as ace_scorer
    from clipcal.metrics import adaptive_calibration_error as adaptive_calibration_error
    from clipcal.metrics import ece_scorer as ece_scorer
    from clipcal.metrics import expected_calibration_error as expected_calibration_error
    from clipcal.metrics import maximum_calibration_error as maximum_calibration_error
    from clipcal.metrics import mce_scorer as mce_scorer
    from clipcal.model_selection import LeaveClassesOut as LeaveClassesOut
    from clipcal.model_selection import open_vocabulary as open_vocabulary
    from clipcal.persistence import load as load
    from clipcal.persistence import save as save
    from clipcal.plots import ReliabilityDisplay as ReliabilityDisplay
    from clipcal.regularizers import DynamicOutlierRegularizer as DynamicOutlierRegularizer

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


if not TYPE_CHECKING:  # unknown names are errors of type checkers

    def __getattr__(name: str) -> Any:
        # Names are imported on first use, so that importing clipcal does not load torch or open_clip.
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        if name in _PACKAGES:
            return import_module(f"clipcal.{name}")
        raise AttributeError(f"module 'clipcal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
