"""Interface of regularizers."""

from __future__ import annotations

from typing import ClassVar

import torch
from sklearn.base import BaseEstimator
from torch import Tensor
from torch.nn.functional import normalize

from clipcal.training import Batch, Learner, LossTerm, TuningProblem

__all__ = ["Regularizer", "check_tuned_texts", "mean_cosine"]


class Regularizer(BaseEstimator):
    """Base class of regularizers, which hold the hyperparameters of a loss term.

    See :doc:`/development/adding_a_method`.

    Attributes
    ----------
    name : str
        Name that selects the regularizer, as in ``regularizer="dor"``.
    """

    name: ClassVar[str]

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Return the loss term for a tuning problem and its learner. It is called once per fit."""
        raise NotImplementedError


def check_tuned_texts(name: str, problem: TuningProblem, learner: Learner) -> None:
    """Raise a ValueError if the method does not train its text features.

    A loss term that reads only the text features would then be constant.

    Parameters
    ----------
    name : str
        Name of the regularizer, for the error message.
    problem : TuningProblem
    learner : Learner
    """
    with torch.enable_grad():
        texts = learner.encode_texts(learner.prompts(problem.names), None)
    if not texts.requires_grad:
        raise ValueError(
            f"regularizer={name!r} has no effect on method={problem.method!r}, which does not train the text "
            "features; use a regularizer of the logits, such as 'label-smoothing' or 'mbls', or 'dor-visual' "
            "if the method trains image features."
        )


def mean_cosine(texts: Tensor, targets: Tensor, batch: Batch) -> Tensor:
    """Return the mean cosine similarity of text features and their targets.

    Parameters
    ----------
    texts : Tensor, shape (n_prompts, embedding_dim) or (n_images, n_prompts, embedding_dim)
        Features. They do not have unit length if the logits of the method need other features.
    targets : Tensor, shape (n_prompts, embedding_dim)
        Features of unit length.
    batch : Batch
        The images of the second shape, whose weights are used.
    """
    means = (normalize(texts, dim=-1) * targets).sum(dim=-1).mean(dim=-1)
    return batch.mean(means) if means.ndim else means
