"""Prompt templates, strings with one ``{}`` for the class name, and published templates by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from clipcal.exceptions import ClassNameError

__all__ = ["DEFAULT_TEMPLATE", "TEMPLATES", "fill", "find_templates"]

DEFAULT_TEMPLATE = "a photo of a {}."

# CLIP's notebook "Prompt_Engineering_for_ImageNet", in its order, which is also open_clip's.
_IMAGENET_80 = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)

# The same notebook: chosen among the 80 by forward selection on ImageNet.
_IMAGENET_7 = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

# PromptSRC's trainer; the other 20 of the 80.
_NOT_IN_PROMPTSRC = {
    "a black and white photo of a {}.",
    "a dark photo of a {}.",
    "a drawing of the {}.",
    "a good photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a photo of the large {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "a plushie {}.",
    "a tattoo of the {}.",
    "a toy {}.",
    "art of the {}.",
    "graffiti of the {}.",
    "itap of a {}.",
    "itap of my {}.",
    "the cartoon {}.",
    "the plushie {}.",
}

# CoOp's zero-shot trainer; the names are those of its configuration files.
_BY_DATA_SET = {
    "caltech101": DEFAULT_TEMPLATE,
    "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.",
    "food101": "a photo of {}, a type of food.",
    "imagenet": DEFAULT_TEMPLATE,
    "imagenet_a": DEFAULT_TEMPLATE,
    "imagenet_r": DEFAULT_TEMPLATE,
    "imagenet_sketch": DEFAULT_TEMPLATE,
    "imagenetv2": DEFAULT_TEMPLATE,
    "oxford_flowers": "a photo of a {}, a type of flower.",
    "oxford_pets": "a photo of a {}, a type of pet.",
    "stanford_cars": DEFAULT_TEMPLATE,
    "sun397": DEFAULT_TEMPLATE,
    "ucf101": "a photo of a person doing {}.",
}

TEMPLATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "imagenet-80": _IMAGENET_80,
        "imagenet-7": _IMAGENET_7,
        "promptsrc-60": tuple(template for template in _IMAGENET_80 if template not in _NOT_IN_PROMPTSRC),
        **{name: (template,) for name, template in _BY_DATA_SET.items()},
    }
)

_EXPECTED = (
    f"A template must be a string with exactly one '{{}}' and no other braces, such as {DEFAULT_TEMPLATE!r}"
)


def find_templates(template: str | Sequence[str]) -> tuple[str, ...]:
    """Return the templates that a parameter ``template`` stands for.

    Parameters
    ----------
    template : str or sequence of str
        A template, such as ``"a photo of a {}, a type of pet."``, with one ``{}`` and words before it, after
        it or both; or a name in ``clipcal.text.TEMPLATES``; or a sequence of these, whose templates together
        are an ensemble. The names are:

        - ``"imagenet-80"``: the 80 templates that CLIP's authors use for ImageNet [1]_, in open_clip
          ``OPENAI_IMAGENET_TEMPLATES``;
        - ``"imagenet-7"``: the seven of these that the authors selected, in open_clip
          ``SIMPLE_IMAGENET_TEMPLATES``;
        - ``"promptsrc-60"``: the 60 of these that PromptSRC's trainer lists;
        - names of data sets, for the template of CoOp's zero-shot trainer [2]_: ``"caltech101"``,
          ``"dtd"``, ``"eurosat"``, ``"fgvc_aircraft"``, ``"food101"``, ``"imagenet"``, ``"imagenet_a"``,
          ``"imagenet_r"``, ``"imagenet_sketch"``, ``"imagenetv2"``, ``"oxford_flowers"``, ``"oxford_pets"``,
          ``"stanford_cars"``, ``"sun397"`` and ``"ucf101"``.

    Returns
    -------
    templates : tuple of str
        At least one, in the order given.

    Raises
    ------
    ClassNameError
        If a string is neither a template nor a known name, or the sequence is empty.

    Notes
    -----
    Published trainers use different templates for some data sets. MaPLe, PromptSRC and CLIP-Adapter use those
    of CoOp. KgCoOp uses ``"a photo of a {}, a type of texture."`` for DTD. TCP uses the same one, and
    ``"a photo of an aircraft {}."`` and ``"a photo of a {}, a type of food."`` for FGVC Aircraft and Food101.
    ProGrad reverses the order of the clauses, as in ``"a type of pet, a photo of a {}."``. To reproduce
    these, pass the template itself.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
       ICML 2021, arXiv:2103.00020. Templates: notebook "Prompt_Engineering_for_ImageNet" of
       https://github.com/openai/CLIP.
    .. [2] K. Zhou, J. Yang, C. C. Loy, Z. Liu, "Learning to Prompt for Vision-Language Models",
       IJCV 2022, arXiv:2109.01134. Templates: https://github.com/KaiyangZhou/CoOp.

    Examples
    --------
    >>> from clipcal.text import find_templates
    >>> find_templates("oxford_pets")
    ('a photo of a {}, a type of pet.',)
    >>> find_templates(["a sketch of a {}.", "dtd"])
    ('a sketch of a {}.', '{} texture.')
    >>> len(find_templates("imagenet-80"))
    80
    """
    parts: list[Any] = (
        [template] if isinstance(template, str) or not isinstance(template, Iterable) else [*template]
    )
    if not parts:
        raise ClassNameError(f"template is empty; pass at least one, such as {DEFAULT_TEMPLATE!r}.")
    return tuple(found for part in parts for found in _find(part))


def fill(template: str, names: Sequence[str]) -> list[str]:
    """Insert each class name into the template.

    Braces in a name are kept.

    Parameters
    ----------
    template : str
        With one ``{}``. Names of known templates are not accepted; see :func:`find_templates`.
    names : sequence of str, length n_names
        Texts to put in the place of ``{}``.

    Returns
    -------
    texts : list of str, length n_names

    Raises
    ------
    ClassNameError
        If the template is not a string with exactly one ``{}`` and no other braces.

    Examples
    --------
    >>> from clipcal.text import fill
    >>> fill("a photo of a {}, a type of pet.", ["beagle"])
    ['a photo of a beagle, a type of pet.']
    """
    if not _is_template(template):
        raise ClassNameError(f"{_EXPECTED}; got {template!r}.")
    before, after = template.split("{}")
    return [before + name + after for name in names]


def _is_template(template: Any) -> bool:
    if not isinstance(template, str) or template.count("{}") != 1:
        return False
    rest = template.replace("{}", "")
    # "{c}" and "{0}", placeholders of other libraries, would stay in the prompt.
    return "{" not in rest and "}" not in rest


def _find(template: Any) -> tuple[str, ...]:
    if isinstance(template, str) and template in TEMPLATES:
        return TEMPLATES[template]
    if _is_template(template):
        return (str(template),)
    if not isinstance(template, str) or "{" in template or "}" in template:
        raise ClassNameError(f"{_EXPECTED}; got {template!r}.")
    by_key = {_key(name): name for name in TEMPLATES}
    close = [by_key[key] for key in get_close_matches(_key(template), by_key, cutoff=0.5)]
    hint = (
        f"Did you mean {' or '.join(map(repr, close))}?" if close else f"Known names: {', '.join(TEMPLATES)}."
    )
    raise ClassNameError(f"{_EXPECTED}, or the name of a known one; got {template!r}. {hint}")


def _key(name: str) -> str:
    """Return a name without case and punctuation, in which spellings differ."""
    return "".join(character for character in name.lower() if character.isalnum())
