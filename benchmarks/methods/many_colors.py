"""A task with 200 classes: names of colours of the generated images."""

from __future__ import annotations

import numpy as np

from clipcal import CLIPImageEncoder
from clipcal.datasets import DOMAINS
from clipcal.demo import Split
from clipcal.scenes import color_table, render, sample_scenes

N_CLASSES = 200
DOMAIN = "studio"
SUBSETS = ("train", "validation", "test")


def class_names() -> list[str]:
    """Return 200 of the names of colours, in a fixed random order."""
    names = color_table()[0]
    return [names[row] for row in np.random.default_rng(0).permutation(len(names))[:N_CLASSES]]


def embedded_colors(subset: str, n_per_class: int, seed: int) -> Split:
    """Return embeddings and names of images of the embedded CLIP."""
    names, values = color_table()
    classes = class_names()
    generator = np.random.default_rng([seed, SUBSETS.index(subset)])
    label = generator.permutation(np.repeat(np.arange(len(classes)), n_per_class))
    color = values[[names.index(name) for name in classes]][label]
    encoder = CLIPImageEncoder(backbone="mini")
    parts = []
    scenes = sample_scenes(generator, len(label), DOMAINS[DOMAIN], color=color)
    for start in range(0, len(label), 512):
        parts.append(encoder.transform(render(scenes.take(slice(start, start + 512)), generator)))
    return Split(np.concatenate(parts), np.asarray(classes)[label])
