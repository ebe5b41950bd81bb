"""Numbers that say how far probabilities can be trusted."""

from ._bins import CalibrationBins, calibration_bins
from ._divergence import feature_divergence
from ._errors import (
    OverUnderConfidence,
    adaptive_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    mean_confidence_gap,
    over_under_confidence,
)
from ._scorers import (
    ace_scorer,
    cross_val_calibration_error,
    ece_scorer,
    make_calibration_scorer,
    mce_scorer,
)

__all__ = [
    "CalibrationBins",
    "OverUnderConfidence",
    "ace_scorer",
    "adaptive_calibration_error",
    "calibration_bins",
    "cross_val_calibration_error",
    "ece_scorer",
    "expected_calibration_error",
    "feature_divergence",
    "make_calibration_scorer",
    "maximum_calibration_error",
    "mce_scorer",
    "mean_confidence_gap",
    "over_under_confidence",
]
