"""Display objects in the manner of scikit-learn; matplotlib is needed only when they draw."""

from ._reliability import ReliabilityDisplay

__all__ = ["ReliabilityDisplay"]
