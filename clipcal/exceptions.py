"""Errors and warnings that a user may want to catch.

Each one is also the built-in kind that it refines, so ``except ValueError`` keeps working.
"""

__all__ = [
    "BackboneError",
    "ClassNameError",
    "ImageReadError",
    "WeightsUnavailableError",
]


class BackboneError(ValueError):
    """A backbone was named or built in a way that clipcal cannot use."""


class WeightsUnavailableError(BackboneError, OSError):
    """Pretrained weights could not be loaded from disk or from a hub."""


class ClassNameError(ValueError):
    """The class names cannot be turned into prompts."""


class ImageReadError(ValueError, OSError):
    """An image could not be read; the message names it and its position."""
