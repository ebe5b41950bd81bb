"""Prompt templates: strings with one ``{}`` where the class name goes."""

from __future__ import annotations

from collections.abc import Sequence

from clipcal.exceptions import ClassNameError

__all__ = ["DEFAULT_TEMPLATE", "SELECT_TEMPLATES", "fill"]

DEFAULT_TEMPLATE = "a photo of a {}."

# The seven of CLIP's eighty ImageNet templates that Radford et al. found to do nearly as well as all.
SELECT_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def fill(template: str, names: Sequence[str]) -> list[str]:
    """Put each name in the template's place.

    Names are inserted literally: braces in them are kept.

    Raises
    ------
    ClassNameError
        If the template is not a string with exactly one ``{}``.

    Examples
    --------
    >>> from clipcal.text import fill
    >>> fill("a photo of a {}, a type of pet.", ["beagle"])
    ['a photo of a beagle, a type of pet.']
    """
    if not isinstance(template, str) or template.count("{}") != 1:
        raise ClassNameError(
            f"A template is a string with exactly one '{{}}', such as {DEFAULT_TEMPLATE!r}; got {template!r}."
        )
    before, after = template.split("{}")
    return [before + name + after for name in names]
