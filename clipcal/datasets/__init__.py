"""Generated data sets of labeled images."""

from clipcal.datasets._shapes import DOMAINS, TASKS, make_shapes

__all__ = ["DOMAINS", "TASKS", "make_shapes"]
