"""Display objects in the manner of scikit-learn; matplotlib is needed only when they draw."""

from ._base_to_new import BaseToNewDisplay
from ._confidence_histogram import ConfidenceHistogramDisplay
from ._feature_divergence import FeatureDivergenceDisplay
from ._grid import ReliabilityGridDisplay
from ._reliability import ReliabilityDisplay
from ._risk_coverage import RiskCoverageDisplay
from ._training_history import TrainingHistoryDisplay

__all__ = [
    "BaseToNewDisplay",
    "ConfidenceHistogramDisplay",
    "FeatureDivergenceDisplay",
    "ReliabilityDisplay",
    "ReliabilityGridDisplay",
    "RiskCoverageDisplay",
    "TrainingHistoryDisplay",
]
