"""Display objects in the style of scikit-learn; matplotlib is only needed for drawing.

Names of models, classes, methods, metrics and loss terms are drawn literally: ``"US$ 5"`` is not parsed as a
formula, ``"_x"`` is not hidden from legends, and bytes are decoded as UTF-8. Long names are wrapped, and new
figures are enlarged for them. To use a formula, replace the name with
``display.ax_.set_title(formula, parse_math=True)``. With ``rcParams["text.usetex"]``, names are passed to
LaTeX and must be valid LaTeX.
"""

from clipcal.plots._base_to_new_scatter import BaseToNewDisplay
from clipcal.plots._confidence_histogram import ConfidenceHistogramDisplay
from clipcal.plots._feature_divergence import FeatureDivergenceDisplay
from clipcal.plots._grid import ReliabilityGridDisplay
from clipcal.plots._reliability import ReliabilityDisplay
from clipcal.plots._risk_coverage import RiskCoverageDisplay
from clipcal.plots._training_history import TrainingHistoryDisplay

__all__ = [
    "BaseToNewDisplay",
    "ConfidenceHistogramDisplay",
    "FeatureDivergenceDisplay",
    "ReliabilityDisplay",
    "ReliabilityGridDisplay",
    "RiskCoverageDisplay",
    "TrainingHistoryDisplay",
]
