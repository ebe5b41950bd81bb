"""Prompt templates: strings with one ``{}`` for the class name."""

from __future__ import annotations

from collections.abc import Sequence

from clipcal.exceptions import ClassNameError

__all__ = ["DEFAULT_TEMPLATE", "SELECT_TEMPLATES", "fill"]

DEFAULT_TEMPLATE = "a photo of a {}."

# The seven of CLIP's eighty ImageNet templates that Radford et al. found to perform nearly as well as all.
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
    """Insert each class name into the template.

    Braces in a name are kept.

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
            f"A template must be a string with exactly one '{{}}', such as {DEFAULT_TEMPLATE!r}; "
            f"got {template!r}."
        )
    before, after = template.split("{}")
    return [before + name + after for name in names]
