"""Render scenes to pixels with NumPy, vectorized over images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from clipcal.scenes._scenes import LIGHTS, MEDIA, SHAPES, TEXTURES, Scenes

Plane = NDArray[np.floating]  # (n, side, side)


def _polygon(n_corners: int) -> Callable[[Plane, Plane], Plane]:
    def inside(x: Plane, y: Plane) -> Plane:
        half = np.pi / n_corners
        angle = np.arctan2(x, y) % (2 * half) - half
        return np.cos(half) - np.hypot(x, y) * np.cos(angle)

    return inside


def _star(n_tips: int, inner: float) -> Callable[[Plane, Plane], Plane]:
    def inside(x: Plane, y: Plane) -> Plane:
        half = np.pi / n_tips
        from_tip = half - np.abs(np.arctan2(x, y) % (2 * half) - half)
        edge = inner * np.sin(half) / (np.sin(from_tip) + inner * np.sin(half - from_tip))
        return 0.7 * (edge - np.hypot(x, y))

    return inside


def _box(width: float, height: float) -> Callable[[Plane, Plane], Plane]:
    return lambda x, y: np.minimum(width - np.abs(x), height - np.abs(y))


def _disc(radius: float, cx: float = 0.0, cy: float = 0.0) -> Callable[[Plane, Plane], Plane]:
    return lambda x, y: radius - np.hypot(x - cx, y - cy)


def _heart(x: Plane, y: Plane) -> Plane:
    return 0.6 * (0.95 - np.hypot(x, 1.15 * (y + 0.15) - 0.65 * np.sqrt(np.abs(x))))


def _drop(x: Plane, y: Plane) -> Plane:
    cone = 0.8 * np.minimum(0.95 - y, y + 0.3) * 10
    side = 0.52 * (0.95 - y) / 1.25 - np.abs(x)
    return np.maximum(_disc(0.55, 0, -0.38)(x, y), np.minimum(side, cone))


def _arrow(x: Plane, y: Plane) -> Plane:
    head = np.minimum(0.8 * (0.95 - y) - np.abs(x), y)
    return np.maximum(head, np.minimum(_box(0.25, 0.9)(x, y), 0.2 - y))


def _wave_disc(n_waves: int, mean: float, depth: float) -> Callable[[Plane, Plane], Plane]:
    def inside(x: Plane, y: Plane) -> Plane:
        return 0.7 * (mean + depth * np.cos(n_waves * np.arctan2(x, y)) - np.hypot(x, y))

    return inside


# Distance of a point inside the outline of each shape, in units of the object's radius; y points up.
_INSIDE: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": _disc(0.9),
    "square": _box(0.78, 0.78),
    "triangle": _polygon(3),
    "pentagon": _polygon(5),
    "hexagon": _polygon(6),
    "octagon": _polygon(8),
    "star": _star(5, 0.42),
    "hexagram": _star(6, 0.55),
    "cross": lambda x, y: np.maximum(_box(0.92, 0.3)(x, y), _box(0.3, 0.92)(x, y)),
    "ring": lambda x, y: 0.24 - np.abs(np.hypot(x, y) - 0.7),
    "crescent": lambda x, y: np.minimum(_disc(0.95)(x, y), -_disc(0.78, 0.45, 0.0)(x, y)),
    "heart": _heart,
    "diamond": lambda x, y: 0.55 * (1 - np.abs(x) / 0.62 - np.abs(y)),
    "oval": lambda x, y: 0.6 * (0.95 - np.hypot(x, y / 0.55)),
    "bar": _box(0.98, 0.3),
    "semicircle": lambda x, y: np.minimum(_disc(0.95, 0, -0.4)(x, y), y + 0.4),
    "arrow": _arrow,
    "drop": _drop,
    "gear": lambda x, y: 0.76 + 0.16 * np.tanh(4 * np.sin(8 * np.arctan2(x, y))) - np.hypot(x, y),
    "flower": _wave_disc(5, 0.66, 0.3),
    "trapezoid": lambda x, y: np.minimum(0.6 - np.abs(y), 0.66 - 0.45 * y - np.abs(x)),
    "parallelogram": lambda x, y: np.minimum(0.5 - np.abs(y), 0.65 - np.abs(x - 0.6 * y)),
    "hourglass": lambda x, y: np.minimum(0.85 - np.abs(y), 0.12 + 0.75 * np.abs(y) - np.abs(x)),
    "frame": lambda x, y: 0.2 - np.abs(np.maximum(np.abs(x), np.abs(y)) - 0.66),
}

_WAVE = 2 * np.pi


def _spots(x: Plane, y: Plane) -> Plane:
    return (np.cos(_WAVE * x) * np.cos(_WAVE * y) > 0.2).astype(np.float32)


def _checks(x: Plane, y: Plane) -> Plane:
    return (np.sin(_WAVE * x) * np.sin(_WAVE * y) > 0).astype(np.float32)


def _lines(x: Plane, share: float) -> Plane:
    return ((x % 1.0) < share).astype(np.float32)


def _speckles(x: Plane, y: Plane) -> Plane:
    cell = np.sin(np.floor(5 * x) * 12.9898 + np.floor(5 * y) * 78.233) * 43758.547
    return ((cell % 1.0) < 0.35).astype(np.float32)


def _marble(x: Plane, y: Plane) -> Plane:
    veins = np.sin(_WAVE * 0.6 * x + 2.4 * np.sin(3.1 * y + 1.3 * np.sin(4.7 * x)))
    return (1 - np.abs(veins)) ** 2


# Darkness of each texture at a point, in [0, 1]; lengths are in cycles.
_DARK: dict[str, Callable[[Plane, Plane], Plane]] = {
    "plain": lambda x, y: np.zeros_like(x),
    "striped": lambda x, y: _lines(x, 0.5),
    "checkered": _checks,
    "dotted": _spots,
    "wavy": lambda x, y: _lines(x + 0.25 * np.sin(_WAVE * 0.8 * y), 0.5),
    "zigzagged": lambda x, y: _lines(x + np.abs((1.2 * y) % 1.0 - 0.5), 0.5),
    "gridded": lambda x, y: np.maximum(_lines(x, 0.28), _lines(y, 0.28)),
    "speckled": _speckles,
    "marbled": _marble,
    "ringed": lambda x, y: _lines(np.hypot(x, y), 0.5),
    "plaid": lambda x, y: 0.5 * (_lines(0.7 * x, 0.5) + _lines(0.7 * y, 0.5)),
    "rayed": lambda x, y: _lines(np.arctan2(y, x) * 8 / _WAVE, 0.5),
    "spiralled": lambda x, y: _lines(np.hypot(x, y) + np.arctan2(y, x) / _WAVE, 0.5),
    "shaded": lambda x, y: np.clip(0.5 + 0.35 * x, 0, 1),
}


def _by_kind(kinds: NDArray[np.intp], names: tuple[str, ...], table: dict, x: Plane, y: Plane) -> Plane:
    out = np.empty_like(x)
    for kind in np.unique(kinds):
        rows = kinds == kind
        out[rows] = table[names[kind]](x[rows], y[rows])
    return out


def _column(values: NDArray) -> NDArray:
    return values[:, None, None]


def _blur(pixels: NDArray[np.floating]) -> NDArray[np.floating]:
    for axis in (1, 2):
        padded = np.pad(pixels, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
        side = pixels.shape[axis]
        parts = [padded.take(range(i, i + side), axis=axis) for i in range(3)]
        pixels = (parts[0] + parts[1] + parts[2]) / 3
    return pixels


def _pixelate(pixels: NDArray[np.floating], cell: int = 4) -> NDArray[np.floating]:
    n, side = pixels.shape[:2]
    coarse = pixels.reshape(n, side // cell, cell, side // cell, cell, 3).mean(axis=(2, 4))
    return coarse.repeat(cell, axis=1).repeat(cell, axis=2)


def _apply_lights(pixels: NDArray[np.float32], scenes: Scenes, x: Plane, y: Plane) -> None:
    factors = {"dim": (0.55,) * 3, "bright": (1.3,) * 3, "warm": (1.15, 1.0, 0.75), "cold": (0.8, 0.97, 1.15)}
    for kind, light in enumerate(LIGHTS):
        rows = scenes.light == kind
        if light in factors:
            pixels[rows] *= np.asarray(factors[light], dtype=np.float32)
        elif light == "slanting":
            pixels[rows] *= (1 + 0.45 * x[rows] + 0.15 * y[rows])[..., None]
        elif light == "spot":
            pixels[rows] *= (1.2 - 0.55 * (x[rows] ** 2 + y[rows] ** 2))[..., None]


def _apply_media(
    pixels: NDArray[np.floating], scenes: Scenes, y: Plane, generator: np.random.Generator
) -> NDArray[np.floating]:
    sepia = np.asarray([1.05, 0.85, 0.6], dtype=np.float32)
    for kind, medium in enumerate(MEDIA):
        rows = np.flatnonzero(scenes.medium == kind)
        if medium == "clear" or len(rows) == 0:
            continue
        old, share = pixels[rows], scenes.strength[rows][:, None, None, None]
        if medium == "blurry":
            new = _blur(_blur(old))
        elif medium == "grainy":
            new = old + 0.25 * generator.standard_normal(old.shape, dtype=np.float32)
        elif medium == "faded":
            new = 0.62 + 0.25 * (old - 0.5)
        elif medium == "negative":
            new = 1 - old
            share = np.ones_like(share)
        elif medium == "pixelated":
            new = _pixelate(old)
        elif medium == "foggy":
            thickness = np.clip(0.75 + 0.25 * y[rows], 0, 1)[..., None]
            new = old + thickness * (0.85 - old)
        else:
            new = old.mean(axis=-1, keepdims=True) * sepia
        pixels[rows] = old + share * (new - old)
    return pixels


def render(scenes: Scenes, generator: np.random.Generator, *, image_size: int = 32) -> NDArray[np.uint8]:
    """Render scenes to pixels.

    Parameters
    ----------
    scenes : Scenes
        The scenes.
    generator : numpy.random.Generator
        Random number generator of the pixel noise.
    image_size : int, default=32
        Height and width of the images in pixels, a multiple of 4.

    Returns
    -------
    images : ndarray of uint8, shape (n_scenes, image_size, image_size, 3)
    """
    n = len(scenes)
    axis = (np.arange(image_size, dtype=np.float32) + 0.5) * (2 / image_size) - 1
    px = np.broadcast_to(axis[None, None, :], (n, image_size, image_size))
    py = np.broadcast_to(-axis[None, :, None], (n, image_size, image_size))

    dx, dy = px - _column(scenes.center[:, 0]), py - _column(scenes.center[:, 1])
    cos, sin = _column(np.cos(scenes.angle)), _column(np.sin(scenes.angle))
    scale = 1 / _column(scenes.radius)
    stretch = _column(np.sqrt(scenes.stretch))
    x = (cos * dx + sin * dy) * scale / stretch
    y = (cos * dy - sin * dx) * scale * stretch
    edge = _by_kind(scenes.shape, SHAPES, _INSIDE, x, y) / scale * (image_size / 2)
    mask = np.clip(edge + 0.5, 0, 1)[..., None]

    cos, sin = _column(np.cos(scenes.texture_angle)), _column(np.sin(scenes.texture_angle))
    cycles = _column(scenes.texture_scale)
    dark = _by_kind(
        scenes.texture, TEXTURES, _DARK, (cos * x + sin * y) * cycles, (cos * y - sin * x) * cycles
    )
    paint = np.clip(scenes.color + scenes.color_shift, 0, 1)[:, None, None, :]
    surface = paint * (1 - _column(scenes.texture_depth) * dark)[..., None]

    slope = scenes.background_slope
    shade = _column(slope[:, 0]) * px + _column(slope[:, 1]) * py
    ground = np.clip(scenes.background[:, None, None, :] + shade[..., None], 0, 1)
    pixels = ground + mask * (surface - ground)

    _apply_lights(pixels, scenes, px, py)
    pixels = _apply_media(pixels * scenes.tint[:, None, None, :], scenes, py, generator)
    pixels += _column(scenes.noise)[..., None] * generator.standard_normal(pixels.shape, dtype=np.float32)
    return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
