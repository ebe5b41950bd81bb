"""Names of the calibrators."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from sklearn.base import clone

from clipcal._compat import validate_parameters
from clipcal._components import named_component
from clipcal.calibration._base import Calibrator
from clipcal.calibration._beta import BetaCalibration
from clipcal.calibration._bin_mean_shift import BinMeanShift
from clipcal.calibration._density_ratio import DensityRatioCalibration
from clipcal.calibration._distance_aware import DistanceAwareCalibration
from clipcal.calibration._histogram import HistogramBinning
from clipcal.calibration._isotonic import IsotonicCalibration
from clipcal.calibration._matrix import MatrixScaling
from clipcal.calibration._sample_adaptive import SampleAdaptiveLogitScaling
from clipcal.calibration._temperature_scaling import TemperatureScaling
from clipcal.calibration._vector import VectorScaling
from clipcal.calibration._venn_abers import VennAbersCalibration

__all__ = ["CALIBRATORS", "named_calibrator"]

# Unfitted calibrators; clone them before fitting.
CALIBRATORS: Mapping[str, Calibrator] = MappingProxyType(
    {
        "temperature": TemperatureScaling(),
        "vector": VectorScaling(),
        "matrix": MatrixScaling(),
        "histogram": HistogramBinning(),
        "isotonic": IsotonicCalibration(),
        "beta": BetaCalibration(),
        "venn-abers": VennAbersCalibration(),
        "density-ratio": DensityRatioCalibration(),
        "bin-mean-shift": BinMeanShift(),
        "dac": DistanceAwareCalibration(),
        "sals": SampleAdaptiveLogitScaling(),
    }
)


def named_calibrator(method: str | Calibrator) -> Calibrator:
    """Return the unfitted calibrator for a name or a calibrator, with validated parameters."""
    example = "VectorScaling()"
    if isinstance(method, str) and method == "sigmoid":
        example += ". scikit-learn's CalibratedClassifierCV has it"
    makers = {name: partial(clone, calibrator) for name, calibrator in CALIBRATORS.items()}
    calibrator = named_component("method", method, makers, example=example)
    if not isinstance(calibrator, Calibrator):
        raise TypeError(
            f"method must be one of {', '.join(map(repr, CALIBRATORS))}, or a Calibrator such as "
            f"VectorScaling(); got {method!r}."
        )
    # Raise errors before the classifier is fitted, which may take long.
    validate_parameters(calibrator)
    return calibrator
