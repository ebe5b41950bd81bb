"""The one training loop: cross-entropy of cosine logits, plus penalties."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clipcal.methods import Prompts, TextLearner
from clipcal.regularizers import Penalty
from clipcal.training._schedule import cosine_with_warmup

__all__ = ["LabelledEmbeddings", "tune"]

_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4


@dataclass(frozen=True)
class LabelledEmbeddings:
    """Training data on the device.

    Attributes
    ----------
    embeddings : Tensor, shape (n_samples, n_views, embedding_dim)
        Of unit length.
    targets : Tensor of int, shape (n_samples,)
        Positions in the class order.
    weights : Tensor, shape (n_samples,)
    """

    embeddings: Tensor
    targets: Tensor
    weights: Tensor

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield one epoch in random order, a random view of each sample, full batches only.

        Data smaller than a batch is one batch. The generator is on the data's device, which draws for itself.
        """
        n_samples, n_views, _ = self.embeddings.shape
        device = self.embeddings.device
        order = torch.randperm(n_samples, generator=generator, device=device)
        views = torch.randint(n_views, (n_samples,), generator=generator, device=device)
        size = min(batch_size, n_samples)
        for start in range(0, n_samples - size + 1, size):
            rows = order[start : start + size]
            yield self.embeddings[rows, views[rows]], self.targets[rows], self.weights[rows]


def tune(
    learner: TextLearner,
    class_prompts: Prompts,
    data: LabelledEmbeddings,
    penalties: Sequence[Penalty],
    *,
    logit_scale: float,
    n_epochs: int,
    learning_rate: float,
    batch_size: int,
    data_generator: torch.Generator,
    penalty_generator: torch.Generator,
    on_epoch_end: Callable[[dict[str, float]], bool] | None = None,
) -> list[dict[str, float]]:
    """Train a learner in place by stochastic gradient descent.

    Each step encodes the class prompts together with the prompts that penalties draw, and descends
    on ``cross-entropy + sum of penalties``. Momentum is 0.9, weight decay 5e-4; the rate follows
    :func:`cosine_with_warmup`.

    Parameters
    ----------
    learner : TextLearner
    class_prompts : Prompts
        One row a class.
    data : LabelledEmbeddings
    penalties : sequence of Penalty
    logit_scale : float
        Factor of the cosines.
    n_epochs : int
    learning_rate : float
    batch_size : int
    data_generator : torch.Generator
        Order of samples and choice of views, on the data's device.
    penalty_generator : torch.Generator
        What penalties draw, on the CPU. The two are apart so that the outliers do not depend on the number
        of samples.
    on_epoch_end : callable, default=None
        Gets each record; a true return value ends the training.

    Returns
    -------
    history : list of dict
        One record an epoch: ``epoch``, ``learning_rate``, ``loss``, ``cross_entropy``, ``accuracy``
        and one entry a penalty, means over the epoch's steps.

    Raises
    ------
    FloatingPointError
        If the loss stops being a finite number.
    """
    optimizer = torch.optim.SGD(
        learner.parameters(), lr=learning_rate, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY
    )
    history: list[dict[str, float]] = []
    for epoch, rate in enumerate(cosine_with_warmup(n_epochs, learning_rate)):
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Sums stay on the device until the epoch ends: reading one number stalls a GPU.
        terms: list[Tensor] = []
        for embeddings, targets, weights in data.batches(batch_size, data_generator):
            text_features, drawn = _encode_step(learner, class_prompts, penalties, penalty_generator)
            logits = logit_scale * embeddings @ text_features.T
            losses = F.cross_entropy(logits, targets, reduction="none")
            cross_entropy = (weights * losses).sum() / weights.sum()
            extra = [penalty(text_features, part) for penalty, part in zip(penalties, drawn, strict=True)]
            loss = cross_entropy + sum(extra)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            accuracy = (logits.argmax(dim=1) == targets).float().mean()
            terms.append(torch.stack([loss, cross_entropy, accuracy, *extra]).detach())
        means = torch.stack(terms).mean(dim=0).tolist()
        names = ["loss", "cross_entropy", "accuracy", *(penalty.name for penalty in penalties)]
        history.append({"epoch": epoch, "learning_rate": rate, **dict(zip(names, means, strict=True))})
        if not all(map(math.isfinite, means)):
            raise FloatingPointError(
                f"The loss is {means[0]} in epoch {epoch}; lower learning_rate (now {learning_rate}) "
                "or the regularizer's weight."
            )
        if on_epoch_end is not None and on_epoch_end(history[-1]):
            break
    return history


def _encode_step(
    learner: TextLearner, class_prompts: Prompts, penalties: Sequence[Penalty], generator: torch.Generator
) -> tuple[Tensor, list[Tensor | None]]:
    """Encode the class prompts and whatever the penalties draw in one text pass."""
    wanted = [penalty.draw(generator) for penalty in penalties]
    prompts = class_prompts
    for more in wanted:
        if more is not None:
            prompts = prompts.joined(more)
    features = learner(prompts)
    sizes = [len(class_prompts), *(len(more) for more in wanted if more is not None)]
    class_features, *parts = features.split(sizes)
    remaining = iter(parts)
    return class_features, [None if more is None else next(remaining) for more in wanted]
