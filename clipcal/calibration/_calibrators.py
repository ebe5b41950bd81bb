"""The calibrators by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .._compat import validate_parameters
from ._base import Calibrator
from ._beta import BetaCalibration
from ._bin_mean_shift import BinMeanShift
from ._density_ratio import DensityRatioCalibration
from ._distance_aware import DistanceAwareCalibration
from ._histogram import HistogramBinning
from ._isotonic import IsotonicCalibration
from ._matrix import MatrixScaling
from ._temperature_scaling import TemperatureScaling
from ._vector import VectorScaling
from ._venn_abers import VennAbersCalibration

__all__ = ["CALIBRATORS", "named_calibrator"]

# Unfitted; whoever uses one makes a clone.
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
    }
)


def named_calibrator(method: str | Calibrator) -> Calibrator:
    """Return the unfitted calibrator that `method` names or is, with its parameters checked."""
    if isinstance(method, type):
        raise TypeError(f"method is the class {method.__name__}; pass an instance: {method.__name__}().")
    known = ", ".join(map(repr, CALIBRATORS))
    if isinstance(method, str) and method not in CALIBRATORS:
        elsewhere = " scikit-learn's CalibratedClassifierCV has it." if method == "sigmoid" else ""
        raise ValueError(
            f"method={method!r} is not known; choose among {known}, or pass a Calibrator.{elsewhere}"
        )
    if not isinstance(method, str | Calibrator):
        raise TypeError(
            f"method must be one of {known}, or a Calibrator such as VectorScaling(); got {method!r}."
        )
    calibrator = CALIBRATORS[method] if isinstance(method, str) else method
    # Before anything is fitted, which may take long.
    validate_parameters(calibrator)
    return calibrator
