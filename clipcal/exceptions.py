"""Exceptions of clipcal.

Each is a subclass of a built-in exception, so ``except ValueError`` also catches it.
"""

__all__ = [
    "BackboneError",
    "ClassNameError",
    "DatasetError",
    "ImageReadError",
    "ModelFileError",
    "PlanError",
    "ResultsError",
    "WeightsUnavailableError",
]


class BackboneError(ValueError):
    """A backbone is invalid or not supported."""


class WeightsUnavailableError(BackboneError, OSError):
    """Pretrained weights could not be loaded from disk or a hub."""


class ClassNameError(ValueError):
    """Class names cannot be converted to prompts."""


class ImageReadError(ValueError, OSError):
    """An image could not be read; the message gives its position and its path or type."""


class ModelFileError(ValueError):
    """A file is not one that :func:`clipcal.save` has written, is damaged, or needs a newer clipcal."""


class PlanError(ValueError):
    """A benchmark plan is invalid."""


class ResultsError(ValueError):
    """A folder does not contain benchmark results, or a file in it is damaged."""


class DatasetError(ValueError):
    """A data set is unknown, missing or damaged, or cannot be drawn from as asked."""
