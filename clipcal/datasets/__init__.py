"""Pictures with labels, and how to split them."""

from clipcal.datasets._shapes import make_shapes

__all__ = ["make_shapes"]
