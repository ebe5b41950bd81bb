"""Regularizers: loss terms that are added to a method's own loss, or replace a part of it."""

from clipcal.regularizers._anchor import AnchorRegularizer
from clipcal.regularizers._base import Regularizer
from clipcal.regularizers._label_smoothing import LabelSmoothingRegularizer
from clipcal.regularizers._outlier import DynamicOutlierRegularizer, rank_outliers

REGULARIZERS: dict[str, type[Regularizer]] = {
    regularizer.name: regularizer
    for regularizer in (DynamicOutlierRegularizer, AnchorRegularizer, LabelSmoothingRegularizer)
}

__all__ = [
    "REGULARIZERS",
    "AnchorRegularizer",
    "DynamicOutlierRegularizer",
    "LabelSmoothingRegularizer",
    "Regularizer",
    "rank_outliers",
]
