"""Collect the errors of images that cannot be read, or raise the first one."""

from __future__ import annotations

from clipcal.exceptions import ImageReadError

__all__ = ["Faults"]


class Faults:
    """Errors of unreadable images, by position.

    Parameters
    ----------
    skip : bool, default=False
        Whether to collect the errors. If False, the first one is raised.
    start : int, default=0
        Number that messages show for position 0.

    Attributes
    ----------
    errors : dict
        The error of each unreadable image, by position.
    """

    def __init__(self, *, skip: bool = False, start: int = 0) -> None:
        self.skip = skip
        self.start = start
        self.errors: dict[int, ImageReadError] = {}

    def add(self, i: int, error: ImageReadError) -> None:
        """Collect the error of position i, or raise it."""
        if self.start:
            text = str(error).removeprefix(f"Image {i}")
            shown = ImageReadError(f"Image {self.start + i}{text}")
            shown.__cause__ = error.__cause__
            error = shown
        if not self.skip:
            raise error
        self.errors[i] = error
