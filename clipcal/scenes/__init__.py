"""Sample and render the scenes of generated images.

Both :func:`clipcal.datasets.make_shapes` and the training of the embedded CLIP model use them.
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
