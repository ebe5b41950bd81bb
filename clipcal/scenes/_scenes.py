"""Sample the content of generated images as arrays with one row per image.

A scene is the shape, position, colour, texture, light and medium of an object, and the random deviation
of each. :mod:`clipcal.scenes._render` renders scenes to pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

SHAPES = (
    "circle", "square", "triangle", "pentagon", "hexagon", "octagon", "star", "hexagram", "cross",
    "ring", "crescent", "heart", "diamond", "oval", "bar", "semicircle", "arrow", "drop", "gear",
    "flower", "trapezoid", "parallelogram", "hourglass", "frame",
)  # fmt: skip
TEXTURES = (
    "plain", "striped", "checkered", "dotted", "wavy", "zigzagged", "gridded", "speckled",
    "marbled", "ringed", "plaid", "rayed", "spiralled", "shaded",
)  # fmt: skip
LIGHTS = ("even", "dim", "bright", "warm", "cold", "slanting", "spot")
MEDIA = ("clear", "blurry", "grainy", "faded", "negative", "pixelated", "foggy", "sepia")


@cache
def color_table() -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Return the colour names and their sRGB values in [0, 1], shape (n_colors, 3)."""
    text = files("clipcal.scenes").joinpath("xkcd_colors.txt").read_text(encoding="utf-8")
    rows = [line.split(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    names = tuple(name for _, name in rows)
    values = np.array([[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code, _ in rows], dtype=np.float32)
    return names, values / 255.0


@dataclass
class Scenes:
    """Scene parameters; every field has one row per image.

    Lengths are in units of half the image width, colours are sRGB in [0, 1], angles are in radians.
    """

    shape: NDArray[np.intp]
    texture: NDArray[np.intp]
    light: NDArray[np.intp]
    medium: NDArray[np.intp]
    color: NDArray[np.float32]  # (n, 3), the named colour
    color_shift: NDArray[np.float32]  # (n, 3), rendered colour minus named colour
    background: NDArray[np.float32]  # (n, 3)
    background_slope: NDArray[np.float32]  # (n, 2), brightness gradient of the background
    center: NDArray[np.float32]  # (n, 2)
    radius: NDArray[np.float32]
    stretch: NDArray[np.float32]  # aspect ratio of the object
    angle: NDArray[np.float32]
    texture_depth: NDArray[np.float32]  # darkness of the pattern, in [0, 1]
    texture_scale: NDArray[np.float32]  # cycles across the object's radius
    texture_angle: NDArray[np.float32]
    noise: NDArray[np.float32]  # standard deviation of the pixel noise
    strength: NDArray[np.float32]  # of the medium, in [0, 1]
    tint: NDArray[np.float32]  # (n, 3), channel factors of the whole image

    def __len__(self) -> int:
        return len(self.shape)

    def take(self, rows: NDArray[np.intp] | slice) -> Scenes:
        """Return the scenes of the given rows."""
        return Scenes(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class Conditions:
    """Imaging conditions of a domain: the lights and media, and the size of the random deviations.

    Parameters
    ----------
    lights, media : tuple of float
        Relative frequencies, in the order of ``LIGHTS`` and ``MEDIA``.
    color_spread : float
        Median standard deviation of the rendered colour around the named one, per sRGB channel.
    noise : float
        Median standard deviation of the pixel noise.
    tail : float
        Standard deviation of the logarithm of both standard deviations; larger values give heavier tails.
    pose : float
        Range of rotation, aspect ratio and position, in [0, 1].
    tint : tuple of 3 floats
        Constant factors of the three channels.
    strength : tuple of 2 floats
        Range of the strength of the medium.
    """

    lights: tuple[float, ...] = (4, 1, 1, 1, 1, 1, 1)
    media: tuple[float, ...] = (6, 1, 1, 1, 0.4, 1, 1, 0.6)
    color_spread: float = 0.05
    noise: float = 0.03
    tail: float = 0.7
    pose: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    strength: tuple[float, float] = (0.3, 1.0)


def sample_scenes(
    generator: np.random.Generator,
    n_scenes: int,
    conditions: Conditions,
    *,
    shape: NDArray[np.intp] | None = None,
    texture: NDArray[np.intp] | None = None,
    color: NDArray[np.float32] | None = None,
) -> Scenes:
    """Sample scenes under the given conditions; shape, texture and color are drawn uniformly if None."""
    n = n_scenes

    def uniform(low: float, high: float, *size: int) -> NDArray[np.float32]:
        return generator.uniform(low, high, (n, *size)).astype(np.float32)

    def spread(median: float) -> NDArray[np.float32]:
        return (median * np.exp(conditions.tail * generator.standard_normal(n))).astype(np.float32)

    def choose(weights: tuple[float, ...]) -> NDArray[np.intp]:
        p = np.asarray(weights, dtype=float)
        return generator.choice(len(p), size=n, p=p / p.sum())

    _, colors = color_table()
    shift = spread(conditions.color_spread)[:, None] * generator.standard_normal((n, 3))
    grey = uniform(0.0, 1.0, 1)
    pose = conditions.pose
    return Scenes(
        shape=generator.integers(len(SHAPES), size=n) if shape is None else shape,
        texture=generator.integers(len(TEXTURES), size=n) if texture is None else texture,
        light=choose(conditions.lights),
        medium=choose(conditions.media),
        color=colors[generator.integers(len(colors), size=n)] if color is None else color,
        color_shift=shift.astype(np.float32),
        background=np.clip(grey + uniform(-0.25, 0.25, 3), 0, 1),
        background_slope=uniform(-0.2, 0.2, 2),
        center=uniform(-0.12 * pose, 0.12 * pose, 2),
        radius=uniform(0.85 - 0.15 * pose, 0.85 + 0.1 * pose),
        stretch=np.exp(uniform(-0.2 * pose, 0.2 * pose)),
        angle=uniform(-0.45 * pose, 0.45 * pose),
        texture_depth=uniform(0.4, 0.8),
        texture_scale=uniform(1.1, 1.7),
        texture_angle=uniform(-0.5, 0.5),
        noise=np.minimum(spread(conditions.noise), 0.5),
        strength=uniform(*conditions.strength),
        tint=np.broadcast_to(np.asarray(conditions.tint, dtype=np.float32), (n, 3)),
    )
