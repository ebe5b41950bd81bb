"""Interface of tuning methods."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from sklearn.base import BaseEstimator

from clipcal.regularizers import Regularizer
from clipcal.training import Learner, Recipe, TuningProblem

__all__ = ["TuningMethod"]


class TuningMethod(BaseEstimator):
    """Base class of tuning methods, which hold hyperparameters and create the :class:`Learner` of a fit.

    See :doc:`/development/adding_a_method`.

    Attributes
    ----------
    name : str
        Name of the method, such as ``"coop"``. Methods of clipcal can be selected by it; pass an instance of
        your own methods.
    recipes : mapping of str to Recipe
        Training settings by name. ``"original"`` are those of the authors of the method, ``"fast"``, if there
        is one, is the default.
    needs_pixels : bool
        Whether the method has parameters in the image tower, so that it needs images instead of embeddings.
    text_depends_on_image : bool
        Whether the text features depend on the image.
    linear : bool
        Whether logits are scaled dot products of normalized embeddings and fixed text features, so that
        prediction needs only the text features. Must be False for methods whose learner changes image
        features or logits.
    training_free : bool
        Whether the learner has no parameters, so that everything is computed from the data before the first
        step. Training settings are then ignored, and regularizers are refused.
    """

    name: ClassVar[str]
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType({"original": Recipe()})

    needs_pixels: ClassVar[bool] = False
    text_depends_on_image: ClassVar[bool] = False
    linear: ClassVar[bool] = True
    training_free: ClassVar[bool] = False

    @property
    def default_recipe(self) -> str:
        """Name of the recipe used by default: ``"fast"`` if the method has it, otherwise ``"original"``."""
        return "fast" if "fast" in self.recipes else "original"

    def recipe(self, name: str) -> Recipe:
        """Return the training settings of a recipe for the parameters of this method.

        Parameters
        ----------
        name : str
            Key of `recipes`.

        Returns
        -------
        recipe : Recipe
            By default the entry of `recipes`.

        Raises
        ------
        KeyError
            If there is no recipe of this name.
        """
        return self.recipes[name]

    def learner(self, problem: TuningProblem) -> Learner:
        """Return a learner with initial parameters for a tuning problem.

        Random initial values come from the generator of the problem, or from torch's global generator, which
        the caller seeds and restores. They are drawn on the CPU, so that a seed gives the same values on
        every device. The caller moves the learner to the device of the backbone.
        """
        raise NotImplementedError

    def regularizers(self) -> list[Regularizer]:
        """Return the regularizers that are part of the method.

        Returns
        -------
        regularizers : list of Regularizer
            Regularizers, by default none.
        """
        return []
