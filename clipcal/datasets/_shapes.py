"""Generate images of coloured, textured shapes for several tasks and domains."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch, check_random_state

from clipcal.scenes import MEDIA, SHAPES, TEXTURES, Conditions, color_table, render, sample_scenes

_COLORS = (
    "rusty orange", "raw sienna", "periwinkle blue", "bluegrey", "leaf", "lightish blue", "mud green",
    "dull red", "purply blue", "violet pink", "rust red", "purpley pink", "coffee", "greenish cyan",
    "petrol", "dried blood", "black", "ecru", "dark rose", "purplish grey", "lighter green", "apricot",
    "soft green", "pinkish tan", "off blue", "pastel yellow", "blood", "plum purple", "light plum",
    "green yellow",
)  # fmt: skip
_COLORED_SHAPES = (
    "teal pentagon", "dull red heart", "olive star", "periwinkle octagon", "mustard gear",
    "turquoise hexagon", "salmon flower", "moss green star", "lavender hexagon", "ochre cross",
    "teal octagon", "brick red crescent", "khaki hexagram", "lilac pentagon", "mustard flower",
    "aqua hexagon", "dull red drop", "olive hexagram", "periwinkle circle", "ochre gear",
    "turquoise octagon", "salmon heart", "moss green flower", "lavender octagon", "mustard cross",
    "aqua circle", "brick red drop", "khaki star", "lilac circle", "ochre flower",
)  # fmt: skip

TASKS: dict[str, tuple[str, ...]] = {
    "colors": _COLORS,
    "shapes": SHAPES,
    "textures": TEXTURES,
    "colored-shapes": _COLORED_SHAPES,
}


def _only(medium: str) -> tuple[float, ...]:
    return tuple(float(name == medium) for name in MEDIA)


_EVEN_LIGHT = (1.0, 0, 0, 0, 0, 0, 0)
DOMAINS: dict[str, Conditions] = {
    "studio": Conditions(lights=_EVEN_LIGHT, media=_only("clear"), color_spread=0.04, noise=0.02, tail=0.5),
    "street": Conditions(color_spread=0.08, noise=0.09),
    "grainy": Conditions(media=_only("grainy"), color_spread=0.05, noise=0.06, strength=(0.4, 1.0)),
    "faded": Conditions(
        media=_only("faded"), color_spread=0.03, noise=0.02, tint=(0.72, 0.88, 1.12), strength=(0.75, 0.95)
    ),
}
_SUBSETS = ("train", "validation", "test")

_DESCRIPTIONS = {
    "colors": "The colour of a shape, by its name in the xkcd colour survey.",
    "shapes": "The outline of an object.",
    "textures": "The pattern on an object.",
    "colored-shapes": "Colour and outline of an object together; neighbors share one of the two.",
}


@dataclass(frozen=True)
class _ClassContent:
    """Colour, shape and texture of a class; ``None`` for properties that vary within the class."""

    color: NDArray[np.float32] | None = None
    shape: int | None = None
    texture: int | None = None


def _content(task: str, name: str) -> _ClassContent:
    names, values = color_table()
    if task == "colors":
        return _ClassContent(color=values[names.index(name)])
    if task == "shapes":
        return _ClassContent(shape=SHAPES.index(name))
    if task == "textures":
        return _ClassContent(texture=TEXTURES.index(name))
    color, shape = name.rsplit(" ", 1)
    return _ClassContent(color=values[names.index(color)], shape=SHAPES.index(shape))


def _one_of(value: str, options: tuple[str, ...], parameter: str) -> str:
    if value not in options:
        choices = ", ".join(map(repr, options))
        raise ValueError(f"{parameter}={value!r} is not supported; choose one of {choices}.")
    return value


def _stream(
    random_state: int | np.random.RandomState | None, task: str, domain: str, subset: str
) -> np.random.Generator:
    """Return a random number generator that is independent for each task, domain and subset."""
    if isinstance(random_state, Integral):
        seed = int(random_state)
    else:
        seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    place = (tuple(TASKS).index(task), tuple(DOMAINS).index(domain), _SUBSETS.index(subset))
    return np.random.default_rng([seed, *place])


def make_shapes(
    task: str = "colors",
    *,
    domain: str = "studio",
    subset: str = "train",
    n_per_class: int = 16,
    image_size: int = 32,
    random_state: int | np.random.RandomState | None = None,
    return_X_y: bool = False,
) -> Any:
    """Generate labeled images of coloured, textured shapes.

    The embedded CLIP model (``backbone="mini"``) was trained on images of this kind, so the library can be
    used and evaluated without a download.

    Parameters
    ----------
    task : {"colors", "shapes", "textures", "colored-shapes"}, default="colors"
        The property that the labels name. The other properties of the objects vary freely.
    domain : {"studio", "street", "grainy", "faded"}, default="studio"
        Imaging conditions: ``"studio"`` is evenly lit and clear, ``"street"`` has all lights and media,
        ``"grainy"`` has strong grain, ``"faded"`` is faded and bluish.
    subset : {"train", "validation", "test"}, default="train"
        The subset. Subsets of the same ``random_state`` are drawn from independent random number generators.
    n_per_class : int, default=16
        Number of images per class.
    image_size : int, default=32
        Height and width of the images in pixels, a multiple of 4.
    random_state : int, RandomState instance or None, default=None
        Pass an int for reproducible output across calls.
    return_X_y : bool, default=False
        If True, return ``(images, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : ndarray of uint8, shape (n_classes * n_per_class, image_size, image_size, 3)
            The images in random order.
        target : ndarray of str, shape (n_classes * n_per_class,)
            The class name of each image.
        class_names : list of str
            All classes in the order of the task, which determines the base and the new classes.
        DESCR : str
            Description of the data set.

    Raises
    ------
    ValueError
        If a parameter is invalid.

    Examples
    --------
    >>> from clipcal.datasets import make_shapes
    >>> data = make_shapes("shapes", n_per_class=2, random_state=0)
    >>> data.images.shape, data.images.dtype
    ((48, 32, 32, 3), dtype('uint8'))
    >>> data.class_names[:3]
    ['circle', 'square', 'triangle']
    """
    class_names = TASKS[_one_of(task, tuple(TASKS), "task")]
    conditions = DOMAINS[_one_of(domain, tuple(DOMAINS), "domain")]
    _one_of(subset, _SUBSETS, "subset")
    for value, name, step in ((n_per_class, "n_per_class", 1), (image_size, "image_size", 4)):
        if not isinstance(value, Integral) or value < step or value % step:
            kind = "integer" if step == 1 else f"multiple of {step}"
            raise ValueError(f"{name} must be a positive {kind}; got {value!r}.")
    generator = _stream(random_state, task, domain, subset)

    label = generator.permutation(np.repeat(np.arange(len(class_names)), n_per_class))
    contents = [_content(task, name) for name in class_names]

    def of_class(field: str) -> NDArray | None:
        values = [getattr(content, field) for content in contents]
        return None if values[0] is None else np.asarray(values)[label]

    scenes = sample_scenes(
        generator,
        len(label),
        conditions,
        shape=of_class("shape"),
        texture=of_class("texture"),
        color=of_class("color"),
    )
    images = np.concatenate(
        [
            render(scenes.take(slice(start, start + 512)), generator, image_size=image_size)
            for start in range(0, len(label), 512)
        ]
    )
    target = np.asarray(class_names)[label]
    if return_X_y:
        return images, target
    description = (
        f"Generated images, task {task!r}, domain {domain!r}, subset {subset!r}: {len(images)} images "
        f"of {len(class_names)} classes, {image_size} x {image_size} pixels, uint8 RGB.\n"
        f"{_DESCRIPTIONS[task]}"
    )
    return Bunch(images=images, target=target, class_names=list(class_names), DESCR=description)
