"""Calibrators, which map logits to calibrated probabilities."""

from clipcal.calibration._base import Calibrator
from clipcal.calibration._beta import BetaCalibration, BetaMap
from clipcal.calibration._bin_mean_shift import BinMeanShift
from clipcal.calibration._calibrated_classifier import CalibratedCLIPClassifier
from clipcal.calibration._calibrators import CALIBRATORS
from clipcal.calibration._density_ratio import DensityRatioCalibration
from clipcal.calibration._distance_aware import DistanceAwareCalibration
from clipcal.calibration._histogram import HistogramBinning, HistogramMap
from clipcal.calibration._isotonic import IsotonicCalibration, IsotonicMap
from clipcal.calibration._matrix import MatrixScaling
from clipcal.calibration._sample_adaptive import SampleAdaptiveLogitScaling
from clipcal.calibration._temperature_fit import fit_temperature
from clipcal.calibration._temperature_scaling import TemperatureScaling
from clipcal.calibration._vector import VectorScaling
from clipcal.calibration._venn_abers import VennAbersCalibration, VennAbersMap

__all__ = [
    "CALIBRATORS",
    "BetaCalibration",
    "BetaMap",
    "BinMeanShift",
    "CalibratedCLIPClassifier",
    "Calibrator",
    "DensityRatioCalibration",
    "DistanceAwareCalibration",
    "HistogramBinning",
    "HistogramMap",
    "IsotonicCalibration",
    "IsotonicMap",
    "MatrixScaling",
    "SampleAdaptiveLogitScaling",
    "TemperatureScaling",
    "VectorScaling",
    "VennAbersCalibration",
    "VennAbersMap",
    "fit_temperature",
]
