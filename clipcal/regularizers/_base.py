"""The interface of regularizers."""

from __future__ import annotations

from typing import ClassVar

from sklearn.base import BaseEstimator

from clipcal.training import Learner, LossTerm, TuningProblem

__all__ = ["Regularizer"]


class Regularizer(BaseEstimator):
    """Hyper-parameters of a loss term; :meth:`prepare` does what is needed once per fit.

    Attributes
    ----------
    name : str
        What selects the regularizer, as in ``regularizer="dor"``.
    """

    name: ClassVar[str]

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Return the loss term for one tuning problem and what is learned there."""
        raise NotImplementedError
