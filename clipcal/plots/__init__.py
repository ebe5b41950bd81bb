"""Display objects in the manner of scikit-learn; matplotlib is needed only when they draw."""

from ._grid import save_reliability_grid
from ._reliability import ReliabilityDisplay

__all__ = ["ReliabilityDisplay", "save_reliability_grid"]
