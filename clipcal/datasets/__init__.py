"""Images with labels."""

from clipcal.datasets._shapes import DOMAINS, TASKS, make_shapes

__all__ = ["DOMAINS", "TASKS", "make_shapes"]
