"""Training loop of all methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import islice

import torch
from torch import Tensor

from clipcal.training._data import Batch, TrainingData
from clipcal.training._learner import Learner, LossTerm
from clipcal.training._problem import Forward
from clipcal.training._prompts import Prompts
from clipcal.training._recipe import Recipe

__all__ = ["finished", "train_epochs", "tune"]

Record = dict[str, float]


def tune(
    learner: Learner,
    class_prompts: Prompts,
    data: TrainingData,
    terms: Sequence[LossTerm],
    *,
    recipe: Recipe,
    data_generator: torch.Generator,
    term_generator: torch.Generator,
    n_epochs: int | None = None,
    on_epoch_end: Callable[[Record], bool] | None = None,
) -> list[Record]:
    """Train a learner in place.

    Each step encodes the class prompts together with the prompts or images drawn by the loss terms, and
    minimizes the sum of the learner's own losses and the loss terms.

    See :doc:`/development/adding_a_method`.

    Parameters
    ----------
    learner : Learner
    class_prompts : Prompts
        One row per class.
    data : TrainingData
    terms : sequence of LossTerm
    recipe : Recipe
        Optimizer, schedule, number of epochs, batch size.
    data_generator : torch.Generator
        Random number generator for the order of samples and the choice of views, on the device of the data.
    term_generator : torch.Generator
        Random number generator for the loss terms, on the CPU. It is separate from `data_generator` so that
        the outliers do not depend on the number of samples.
    n_epochs : int or None, default=None
        Number of epochs, if fewer than those of the recipe. The learning rate schedule is that of the recipe.
    on_epoch_end : callable, default=None
        Called with the record of each epoch. Training stops if it returns True.

    Returns
    -------
    history : list of dict
        One record per epoch: ``epoch``, ``learning_rate``, ``loss``, each part of the learner's loss,
        ``accuracy`` and each loss term, averaged over the steps of the epoch.

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    """
    history: list[Record] = []
    epochs = train_epochs(
        learner,
        class_prompts,
        data,
        terms,
        recipe=recipe,
        data_generator=data_generator,
        term_generator=term_generator,
    )
    for record in islice(epochs, n_epochs):
        history.append(record)
        if on_epoch_end is not None and on_epoch_end(record):
            break
    learner.finish()
    return history


def train_epochs(
    learner: Learner,
    class_prompts: Prompts,
    data: TrainingData,
    terms: Sequence[LossTerm],
    *,
    recipe: Recipe,
    data_generator: torch.Generator,
    term_generator: torch.Generator,
) -> Iterator[Record]:
    """Train a learner in place, and yield the record of each epoch after it. See :func:`tune`."""
    optimizer = recipe.make_optimizer(learner.parameter_groups())
    rates = [recipe.rates(group.get("rate_factor", 1.0)) for group in optimizer.param_groups]
    batch_size = recipe.batch_size_for(len(data))
    for epoch, learning_rate in enumerate(recipe.rates()):
        for group, by_epoch in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = by_epoch[epoch]
        learner.train()
        steps: list[dict[str, Tensor]] = []
        for batch in data.batches(batch_size, data_generator, drop_last=recipe.drop_last):
            out, drawn = _encode(learner, class_prompts, batch, terms, term_generator)
            losses = _losses(learner, out, batch, terms, drawn)
            optimizer.zero_grad(set_to_none=True)
            learner.backward(losses)
            optimizer.step()
            steps.append(_measured(losses, out, batch))
        learner.eval()
        learner.end_epoch(epoch, recipe.max_epochs)
        record = {"epoch": epoch, "learning_rate": learning_rate, **_means(steps, terms)}
        _check_finite(record, recipe)
        yield record


@contextmanager
def finished(learner: Learner) -> Iterator[None]:
    """Give a learner the parameters of its :meth:`Learner.finish`, and its own again on exit."""
    if type(learner).finish is Learner.finish:
        yield
        return
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    learner.finish()
    try:
        yield
    finally:
        learner.load_state_dict(before)


def _encode(
    learner: Learner,
    class_prompts: Prompts,
    batch: Batch,
    terms: Sequence[LossTerm],
    generator: torch.Generator,
) -> tuple[Forward, list[Tensor | None]]:
    """Encode a batch, the class prompts and what the loss terms draw, with all prompts in one text pass."""
    wanted = [term.draw(generator) for term in terms]
    more = [drawn for drawn in wanted if isinstance(drawn, Prompts)]
    prompts = reduce(Prompts.joined, more, class_prompts)
    out, others = learner(batch, prompts, len(class_prompts))
    parts = iter(others.split([len(drawn) for drawn in more], dim=-2))
    features: list[Tensor | None] = []
    for drawn in wanted:
        if isinstance(drawn, Batch):
            features.append(learner.encode_images(drawn))
        else:
            features.append(None if drawn is None else next(parts))
    return out, features


def _losses(
    learner: Learner,
    out: Forward,
    batch: Batch,
    terms: Sequence[LossTerm],
    drawn: Sequence[Tensor | None],
) -> dict[str, Tensor]:
    """Return the learner's losses, except those replaced by a loss term, and the loss terms.

    All of them include the factors of the learner.
    """
    replaced = {term.replaces for term in terms}
    losses = {name: loss for name, loss in learner.losses(out, batch).items() if name not in replaced}
    factors = {name: learner.loss_factors.get(name, 1.0) for name in losses}
    for term, part in zip(terms, drawn, strict=True):
        losses[term.name] = term(out, batch, part)
        factors[term.name] = 1.0 if term.replaces is None else learner.loss_factors.get(term.replaces, 1.0)
    for name, loss in losses.items():
        if loss.ndim:
            raise ValueError(
                f"The loss {name!r} has shape {tuple(loss.shape)}; average it, as batch.mean does."
            )
    return {name: loss if factors[name] == 1 else factors[name] * loss for name, loss in losses.items()}


def _measured(losses: Mapping[str, Tensor], out: Forward, batch: Batch) -> dict[str, Tensor]:
    """Return losses and accuracy of one step, on the device: reading a value would stall a GPU."""
    accuracy = (out.logits.argmax(dim=1) == batch.targets).float().mean()
    numbers = {**losses, "accuracy": accuracy}
    return {name: value.detach() for name, value in numbers.items()}


def _means(steps: Sequence[Mapping[str, Tensor]], terms: Sequence[LossTerm]) -> Record:
    """Average the steps of an epoch, with the total loss first and the loss terms last."""
    names = list(steps[0])
    stacked = torch.stack([torch.stack([step[name] for name in names]) for step in steps])
    means = dict(zip(names, stacked.mean(dim=0).tolist(), strict=True))
    accuracy = means.pop("accuracy")
    added = {term.name: means.pop(term.name) for term in terms}
    return {"loss": sum(means.values()) + sum(added.values()), **means, "accuracy": accuracy, **added}


def _check_finite(record: Record, recipe: Recipe) -> None:
    if not all(map(math.isfinite, record.values())):
        raise FloatingPointError(
            f"The loss is {record['loss']} in epoch {record['epoch']}; lower learning_rate "
            f"(now {recipe.learning_rate}) or the regularizer's weight."
        )
