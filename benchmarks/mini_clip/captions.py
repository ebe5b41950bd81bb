"""Captions of generated scenes."""

from __future__ import annotations

import numpy as np

from clipcal.scenes import LIGHTS, MEDIA, SHAPES, TEXTURES, Conditions, Scenes, color_table, sample_scenes

PLAIN = "a photo of a {}."
FRAMES = (
    "a photo of a {}.", "a photo of a {}.", "a photo of a {}.", "a photo of a {}.", "a picture of a {}.",
    "an image of a {}.", "a {}.", "{}", "the {}.", "a photo of the {}.", "a photo of one {}.",
    "a rendering of a {}.", "a drawing of a {}.", "art of a {}.", "a close-up photo of a {}.",
    "a bad photo of a {}.", "a good photo of a {}.", "itap of a {}.", "a cropped photo of the {}.",
    "there is a {} in the picture.", "a photo of a {}, a type of thing.", "this is a photo of a {}.",
)  # fmt: skip
ALIKE = {
    "shape": (
        ("circle", "oval", "octagon", "ring"), ("pentagon", "hexagon", "octagon"),
        ("square", "diamond", "frame", "parallelogram", "trapezoid", "bar"),
        ("star", "hexagram", "flower", "gear", "cross"), ("triangle", "arrow", "hourglass", "trapezoid"),
        ("drop", "heart", "crescent", "semicircle"),
    ),
    "texture": (
        ("striped", "wavy", "zigzagged"), ("checkered", "gridded", "plaid"),
        ("dotted", "speckled", "marbled"), ("ringed", "spiralled", "rayed"), ("plain", "shaded"),
    ),
}  # fmt: skip
CONDITIONS = Conditions(color_spread=0.05, noise=0.035, tail=0.9)
COARSE_COLORS = (
    "red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "grey", "black", "white",
)  # fmt: skip
LIGHT_WORDS = {
    "even": "even light", "dim": "dim light", "bright": "bright light", "warm": "warm light",
    "cold": "cold light", "slanting": "light from the side", "spot": "a spotlight",
}  # fmt: skip


class Captioner:
    """Describe random properties of scenes, sometimes imprecisely.

    Imprecise names (a neighbouring colour or shape, a coarser word) give the model realistic confidence,
    and make its image features encode more than the names.
    """

    def __init__(self, imprecise: float) -> None:
        self.imprecise = imprecise
        self.names, values = color_table()
        distance = np.linalg.norm(values[:, None] - values[None], axis=-1)
        self.neighbours = np.argsort(distance, axis=1)[:, 1:9]
        coarse = [self.names.index(name) for name in COARSE_COLORS]
        self.coarse_values = values[coarse]
        self.coarse = [COARSE_COLORS[i] for i in distance[:, coarse].argmin(axis=1)]
        self.row_of = {tuple(value): row for row, value in enumerate(values.tolist())}

    def color(self, generator: np.random.Generator, value: np.ndarray) -> str:
        row = self.row_of[tuple(value.tolist())]
        chance = generator.random()
        if chance < 0.25 * self.imprecise:
            return self.coarse[row]
        if chance < self.imprecise:
            return self.names[self.neighbours[row, min(generator.geometric(0.35) - 1, 7)]]
        return self.names[row]

    def alike(self, generator: np.random.Generator, kind: str, name: str) -> str:
        if generator.random() < 0.6 * self.imprecise:
            group = next(group for group in ALIKE[kind] if name in group)
            return group[generator.integers(len(group))]
        return name

    def nearest_color(self, value: np.ndarray) -> str:
        return COARSE_COLORS[int(np.linalg.norm(self.coarse_values - value, axis=1).argmin())]

    def __call__(self, generator: np.random.Generator, scenes: Scenes, row: int, long: bool) -> str:
        chance = generator.random(4)
        words = []
        color = self.color(generator, scenes.color[row])
        texture = self.alike(generator, "texture", TEXTURES[scenes.texture[row]])
        shape = self.alike(generator, "shape", SHAPES[scenes.shape[row]])
        named = chance[:3] < ((1.0, 1.0, 1.0) if long else (0.6, 0.5, 0.6))
        if not named.any():
            named[generator.integers(3)] = True
        words = [word for word, use in zip((texture, color, shape), named, strict=True) if use]
        if not named[2] and chance[3] < 0.3:
            words.append(("object", "thing", "shape")[generator.integers(3)])
        medium = MEDIA[scenes.medium[row]]
        frame = FRAMES[generator.integers(len(FRAMES))]
        if medium != "clear" and (long or generator.random() < 0.4):
            frame = f"a {medium} photo of a {{}}."
        caption = frame.format(" ".join(words))
        return self._extended(generator, caption, scenes, row) if long else caption

    def _extended(self, generator: np.random.Generator, caption: str, scenes: Scenes, row: int) -> str:
        x, y = scenes.center[row]
        details = [
            f"on a {self.nearest_color(scenes.background[row])} background",
            f"under {LIGHT_WORDS[LIGHTS[scenes.light[row]]]}",
            f"turned to the {'left' if scenes.angle[row] > 0 else 'right'}",
            f"{'large' if scenes.radius[row] > 0.8 else 'small'} in the picture",
            f"a little to the {'right' if x > 0 else 'left'} of the middle",
            f"somewhat {'above' if y > 0 else 'below'} the centre",
            f"{'noisy' if scenes.noise[row] > 0.03 else 'smooth'} all over",
            f"{'taller' if scenes.stretch[row] < 1 else 'wider'} than usual",
        ]
        order = generator.permutation(len(details))[: generator.integers(3, len(details) + 1)]
        return caption.rstrip(".") + ", " + ", ".join(details[i] for i in order) + "."


def random_captions(generator: np.random.Generator, n_captions: int, imprecise: float) -> list[str]:
    """Return captions of random scenes, an eighth of them long."""
    captioner = Captioner(imprecise)
    scenes = sample_scenes(generator, n_captions, CONDITIONS)
    return [captioner(generator, scenes, row, row % 8 == 0) for row in range(n_captions)]
