"""Display objects in the manner of scikit-learn; matplotlib is needed only when they draw.

Names of models, classes, methods, metrics and terms are drawn as they are spelled: ``"US$ 5"`` and ``"_x"``
are no formula and no hidden entry, and bytes are decoded as UTF-8. Long names are broken into lines, and a
new figure is made larger for them. To have a formula, write it over the name with
``display.ax_.set_title(formula, parse_math=True)``. With ``rcParams["text.usetex"]`` LaTeX reads names as it
reads all text, so spell them for LaTeX there.
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
