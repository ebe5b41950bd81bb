"""Regularizers: loss terms that are added to a method's own loss, or replace a part of it."""

from clipcal.regularizers._anchor import AnchorRegularizer
from clipcal.regularizers._base import Regularizer
from clipcal.regularizers._entropy import EntropyRegularizer
from clipcal.regularizers._label_smoothing import LabelSmoothingRegularizer
from clipcal.regularizers._margin import MarginRegularizer
from clipcal.regularizers._margin_moment import MarginMomentRegularizer
from clipcal.regularizers._margin_smoothing import MarginSmoothingRegularizer
from clipcal.regularizers._moment_matching import MomentMatchingRegularizer
from clipcal.regularizers._outlier import DynamicOutlierRegularizer, rank_outliers
from clipcal.regularizers._visual_outlier import VisualOutlierRegularizer
from clipcal.regularizers._zero_shot_range import LogitRangeRegularizer, ZeroShotNormRegularizer

REGULARIZERS: dict[str, type[Regularizer]] = {
    regularizer.name: regularizer
    for regularizer in (
        DynamicOutlierRegularizer,
        VisualOutlierRegularizer,
        AnchorRegularizer,
        LabelSmoothingRegularizer,
        MarginSmoothingRegularizer,
        ZeroShotNormRegularizer,
        LogitRangeRegularizer,
        MarginRegularizer,
        MomentMatchingRegularizer,
        MarginMomentRegularizer,
        EntropyRegularizer,
    )
}

__all__ = [
    "REGULARIZERS",
    "AnchorRegularizer",
    "DynamicOutlierRegularizer",
    "EntropyRegularizer",
    "LabelSmoothingRegularizer",
    "LogitRangeRegularizer",
    "MarginMomentRegularizer",
    "MarginRegularizer",
    "MarginSmoothingRegularizer",
    "MomentMatchingRegularizer",
    "Regularizer",
    "VisualOutlierRegularizer",
    "ZeroShotNormRegularizer",
    "rank_outliers",
]
