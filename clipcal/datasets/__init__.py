"""Labeled images: the user's own, and generated ones."""

from clipcal.datasets._load_images import load_images
from clipcal.datasets._shapes import DOMAINS, TASKS, make_shapes

__all__ = ["DOMAINS", "TASKS", "load_images", "make_shapes"]
