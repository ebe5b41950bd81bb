"""Log loss of a learner on data that it was not trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clipcal.training._data import TrainingData
from clipcal.training._learner import Learner
from clipcal.training._prompts import Prompts

__all__ = ["log_loss"]


@torch.no_grad()
def log_loss(
    learner: Learner, prompts: Prompts, data: TrainingData, batch_size: int, *, text_depends_on_image: bool
) -> float:
    """Return the mean log loss of the predictions of a learner, weighted by the weights of the samples.

    Parameters
    ----------
    learner : Learner
        Learner in evaluation mode.
    prompts : Prompts
        Prompts of the classes to predict.
    data : TrainingData
        Samples, whose targets are rows of the prompts.
    batch_size : int
        Number of samples predicted at once.
    text_depends_on_image : bool
        Whether the text features depend on the image.
    """
    texts = None if text_depends_on_image else learner.encode_texts(prompts, None)
    total = 0.0
    for batch in data.in_order(batch_size):
        images = learner.encode_images(batch)
        logits = learner.logits(images, learner.encode_texts(prompts, images) if texts is None else texts)
        losses = F.cross_entropy(logits.double(), batch.targets, reduction="none")
        total += float((batch.weights * losses).sum())
    return total / len(data)
