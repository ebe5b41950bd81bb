"""Logits in, better probabilities out."""

from ._base import Calibrator
from ._beta import BetaCalibration
from ._bin_mean_shift import BinMeanShift
from ._calibrated_classifier import CalibratedCLIPClassifier
from ._calibrators import CALIBRATORS
from ._density_ratio import DensityRatioCalibration
from ._distance_aware import DistanceAwareCalibration
from ._histogram import HistogramBinning
from ._isotonic import IsotonicCalibration
from ._matrix import MatrixScaling
from ._temperature_fit import fit_temperature
from ._temperature_scaling import TemperatureScaling
from ._vector import VectorScaling
from ._venn_abers import VennAbersCalibration

__all__ = [
    "CALIBRATORS",
    "BetaCalibration",
    "BinMeanShift",
    "CalibratedCLIPClassifier",
    "Calibrator",
    "DensityRatioCalibration",
    "DistanceAwareCalibration",
    "HistogramBinning",
    "IsotonicCalibration",
    "MatrixScaling",
    "TemperatureScaling",
    "VectorScaling",
    "VennAbersCalibration",
    "fit_temperature",
]
