"""Calibration errors, proper scores, confidence intervals, tests and scorers for predicted probabilities."""

from clipcal.metrics._base_to_new_summary import BaseToNewSummary, base_to_new_summary, harmonic_mean
from clipcal.metrics._bins import CalibrationBins, calibration_bins
from clipcal.metrics._brier import (
    BinnedBrierDecomposition,
    BrierDecomposition,
    brier_decomposition,
    brier_score,
    top_label_brier_score,
)
from clipcal.metrics._chance import (
    CalibrationTest,
    ConsistencyBand,
    calibration_error_floor,
    calibration_test,
    consistency_band,
)
from clipcal.metrics._class_bins import class_calibration_bins
from clipcal.metrics._classwise import classwise_calibration_error
from clipcal.metrics._comparison import CalibrationComparison, compare_calibration
from clipcal.metrics._debiased import debiased_calibration_error
from clipcal.metrics._divergence import feature_divergence
from clipcal.metrics._errors import (
    adaptive_calibration_error,
    expected_calibration_error,
    root_mean_square_calibration_error,
)
from clipcal.metrics._gaps import (
    OverUnderConfidence,
    maximum_calibration_error,
    mean_confidence_gap,
    over_under_confidence,
)
from clipcal.metrics._intervals import CalibrationInterval, calibration_interval
from clipcal.metrics._log_loss import negative_log_likelihood, negative_log_likelihood_from_logits
from clipcal.metrics._proximity import (
    ProximityBias,
    proximity,
    proximity_bias,
    proximity_informed_calibration_error,
)
from clipcal.metrics._scorers import (
    ace_scorer,
    brier_scorer,
    calibration_scorers,
    classwise_ece_scorer,
    cross_val_calibration_error,
    ece_scorer,
    make_calibration_scorer,
    mce_scorer,
    nll_scorer,
    smooth_ece_scorer,
)
from clipcal.metrics._selective import RiskCoverageCurve, area_under_risk_coverage, risk_coverage_curve
from clipcal.metrics._smooth import SmoothCalibrationCurve, smooth_calibration_curve, smooth_calibration_error
from clipcal.metrics._summary import summary
from clipcal.metrics._sweep import sweep_calibration_error

__all__ = [
    "BaseToNewSummary",
    "BinnedBrierDecomposition",
    "BrierDecomposition",
    "CalibrationBins",
    "CalibrationComparison",
    "CalibrationInterval",
    "CalibrationTest",
    "ConsistencyBand",
    "OverUnderConfidence",
    "ProximityBias",
    "RiskCoverageCurve",
    "SmoothCalibrationCurve",
    "ace_scorer",
    "adaptive_calibration_error",
    "area_under_risk_coverage",
    "base_to_new_summary",
    "brier_decomposition",
    "brier_score",
    "brier_scorer",
    "calibration_bins",
    "calibration_error_floor",
    "calibration_interval",
    "calibration_scorers",
    "calibration_test",
    "class_calibration_bins",
    "classwise_calibration_error",
    "classwise_ece_scorer",
    "compare_calibration",
    "consistency_band",
    "cross_val_calibration_error",
    "debiased_calibration_error",
    "ece_scorer",
    "expected_calibration_error",
    "feature_divergence",
    "harmonic_mean",
    "make_calibration_scorer",
    "maximum_calibration_error",
    "mce_scorer",
    "mean_confidence_gap",
    "negative_log_likelihood",
    "negative_log_likelihood_from_logits",
    "nll_scorer",
    "over_under_confidence",
    "proximity",
    "proximity_bias",
    "proximity_informed_calibration_error",
    "risk_coverage_curve",
    "root_mean_square_calibration_error",
    "smooth_calibration_curve",
    "smooth_calibration_error",
    "smooth_ece_scorer",
    "summary",
    "sweep_calibration_error",
    "top_label_brier_score",
]
