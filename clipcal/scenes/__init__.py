"""Generated images: what they show, and how it is drawn.

:func:`clipcal.datasets.make_shapes` and the training of the embedded CLIP draw from the same scenes.
"""

from clipcal.scenes._render import render
from clipcal.scenes._scenes import (
    LIGHTS,
    MEDIA,
    SHAPES,
    TEXTURES,
    Conditions,
    Scenes,
    color_table,
    sample_scenes,
)

__all__ = [
    "LIGHTS",
    "MEDIA",
    "SHAPES",
    "TEXTURES",
    "Conditions",
    "Scenes",
    "color_table",
    "render",
    "sample_scenes",
]
