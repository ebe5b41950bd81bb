"""Generated data sets of labelled images."""

from clipcal.datasets._shapes import DOMAINS, TASKS, make_shapes

__all__ = ["DOMAINS", "TASKS", "make_shapes"]
