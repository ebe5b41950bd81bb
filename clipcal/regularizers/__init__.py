"""Loss terms that join cross-entropy."""

from clipcal.regularizers._anchor import AnchorRegularizer
from clipcal.regularizers._base import Penalty, Regularizer, TuningProblem
from clipcal.regularizers._outlier import DynamicOutlierRegularizer, rank_outliers

REGULARIZERS: dict[str, type[Regularizer]] = {
    "dor": DynamicOutlierRegularizer,
    "kg": AnchorRegularizer,
}

__all__ = [
    "REGULARIZERS",
    "AnchorRegularizer",
    "DynamicOutlierRegularizer",
    "Penalty",
    "Regularizer",
    "TuningProblem",
    "rank_outliers",
]
