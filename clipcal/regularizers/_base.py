"""Interface of regularizers."""

from __future__ import annotations

from typing import ClassVar

from sklearn.base import BaseEstimator

from clipcal.training import Learner, LossTerm, TuningProblem

__all__ = ["Regularizer"]


class Regularizer(BaseEstimator):
    """Base class of regularizers, which hold the hyperparameters of a loss term.

    Attributes
    ----------
    name : str
        Name that selects the regularizer, as in ``regularizer="dor"``.
    """

    name: ClassVar[str]

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Return the loss term for a tuning problem and its learner. It is called once per fit."""
        raise NotImplementedError
