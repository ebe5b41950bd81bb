"""Pictures with labels."""

from clipcal.datasets._shapes import make_shapes

__all__ = ["make_shapes"]
