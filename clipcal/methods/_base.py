"""The interface of tuning methods."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from sklearn.base import BaseEstimator

from clipcal.regularizers import Regularizer
from clipcal.training import Learner, Recipe, TuningProblem

__all__ = ["TuningMethod"]


class TuningMethod(BaseEstimator):
    """Hyper-parameters of a tuning method; :meth:`learner` makes its learnable part.

    Attributes
    ----------
    name : str
        What selects the method, as in ``method="coop"``.
    recipes : mapping of str to Recipe
        Published training settings by name. ``"original"`` is that of the method's authors.
    needs_pixels : bool
        Whether something is learned inside the image tower, so that embeddings do not suffice.
    text_depends_on_image : bool
        Whether each image has text features of its own.
    linear : bool
        Whether predictions are scaled cosines between embeddings and fixed text features, so that they need
        nothing but the text features.
    """

    name: ClassVar[str]
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType({"original": Recipe()})

    needs_pixels: ClassVar[bool] = False
    text_depends_on_image: ClassVar[bool] = False
    linear: ClassVar[bool] = True

    def learner(self, problem: TuningProblem) -> Learner:
        """Return freshly initialised learnable parameters for a tuning problem.

        Random start values come from the problem's generator, or from torch's global one, which the caller
        seeds and restores. They are drawn on the CPU, so that a seed gives the same values on every device;
        the caller moves the learner to the backbone's device.
        """
        raise NotImplementedError

    def regularizers(self) -> list[Regularizer]:
        """Return the loss terms that belong to the method.

        Returns
        -------
        regularizers : list of Regularizer
        """
        return []
