"""Choice of the number of training epochs on held-out training data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipcal._caller import warn_caller
from clipcal._progress import end_early, progress_bar
from clipcal.model_selection import LeaveClassesOut

if TYPE_CHECKING:
    import torch

    from clipcal.training import Learner, LossTerm, Prompts, Recipe, TrainingData

__all__ = ["EpochChoice", "StartRun", "TrainingRun", "choose_n_epochs"]

# Training stops after this number of epochs without a lower log loss.
_PATIENCE = 5
# The log loss on few samples is noisy, so small training data are split more often.
_N_SPLITS, _N_SPLITS_OF_FEW, _FEW = 2, 4, 1000
# Part of the samples of each training class that is held out.
_HELD_OUT = 0.25
# Used if nothing can be held out: one sample per class, and classes that cannot be held out.
_WITHOUT_VALIDATION = 5

# Number of samples predicted at once.
_AT_ONCE = 64

Record = dict[str, float]
Split = tuple[NDArray[np.intp], NDArray[np.intp]]


class TrainingRun(NamedTuple):
    """Learner of a training run, with the prompts of its classes and its loss terms."""

    learner: Learner
    prompts: Prompts
    terms: Sequence[LossTerm]


# Starts a training run for some classes from their names, their data and a random number generator.
StartRun: TypeAlias = "Callable[[Sequence[str], TrainingData, torch.Generator], TrainingRun]"


class EpochChoice(NamedTuple):
    """Chosen number of epochs, and the log losses that decided."""

    n_epochs: int
    history: list[Record]


def choose_n_epochs(
    start: StartRun,
    names: Sequence[str],
    targets: NDArray[np.intp],
    data: TrainingData,
    recipe: Recipe,
    *,
    new_classes: bool,
    text_depends_on_image: bool,
    random_state: np.random.RandomState,
    verbose: int = 0,
) -> EpochChoice:
    """Choose a number of epochs by the log loss on held-out classes and held-out samples.

    In each of several splits, half of the classes and a quarter of the samples of the other classes are held
    out. There are two splits, or four for fewer than 1,000 samples. They are trained epoch by epoch, until
    the mean log loss on seen and on held-out classes has not decreased for five epochs. Classes are not held
    out if there are fewer than four.

    Parameters
    ----------
    start : callable
        ``start(names, data, generator)`` returns a new training run for some of the classes.
    names : sequence of str, length n_classes
        Names of the classes.
    targets : ndarray of intp, shape (n_samples,)
        Class indices.
    data : TrainingData
        Training data.
    recipe : Recipe
        Training settings.
    new_classes : bool
        Whether the method predicts classes that were not in the training data, so that classes can be held
        out.
    text_depends_on_image : bool
        Whether the text features depend on the image.
    random_state : RandomState
        Random number generator for splits and training runs.
    verbose : int, default=0
        If at least 1, a progress bar is shown.

    Returns
    -------
    n_epochs : int
        The number of epochs with the lowest log loss, which may be 0. With mini-batches, a split has fewer
        steps per epoch, and it is the number of epochs with as many steps. It is 5 if nothing can be held
        out.
    history : list of dict
        Means over the splits after each number of epochs: ``n_epochs``, ``log_loss`` on held-out samples of
        the training classes, ``new_log_loss`` on held-out classes, and their mean ``mean_log_loss``. A loss
        is missing if nothing was held out for it.
    """
    samples = _Samples(names, targets, data).weighted()
    splits = list(_splits(samples.targets, new_classes, random_state))
    if not splits:
        return EpochChoice(min(_WITHOUT_VALIDATION, recipe.max_epochs), [])
    seeds = random_state.randint(np.iinfo(np.int32).max, size=len(splits))
    curves = [
        _held_out_losses(start, samples, split, int(seed), recipe, text_depends_on_image)
        for split, seed in zip(splits, seeds, strict=True)
    ]
    history: list[Record] = []
    best = 0
    for n_epochs, losses in enumerate(_until_divergence(curves, recipe.max_epochs, verbose)):
        means = {name: float(np.mean([loss[name] for loss in losses])) for name in losses[0]}
        mean = float(np.mean(list(means.values())))
        history.append({"n_epochs": n_epochs, **means, "mean_log_loss": mean})
        if mean < history[best]["mean_log_loss"]:
            best = n_epochs
        elif n_epochs - max(best, recipe.warmup_epochs) >= _PATIENCE:
            break
    return EpochChoice(_epochs_of_all(best, splits, recipe, len(targets)), history)


def _epochs_of_all(best: int, splits: Sequence[Split], recipe: Recipe, n_samples: int) -> int:
    """Return the number of epochs of all samples with as many steps as in the splits; warn if it is 0."""
    if best == 0 and recipe.max_epochs:
        warn_caller(
            "Training does not lower the log loss on held-out training data, so nothing was trained; set "
            "max_epochs and early_stopping=False to train anyway."
        )
    of_split = np.mean([recipe.steps_per_epoch(len(train)) for train, _ in splits])
    return math.ceil(best * of_split / recipe.steps_per_epoch(n_samples))


def _until_divergence(
    curves: Sequence[Iterator[Record]], max_epochs: int, verbose: int
) -> Iterator[tuple[Record, ...]]:
    """Yield the losses of all splits after each epoch, and end with a warning if a split diverges."""
    bar = progress_bar(
        shown=bool(verbose), description="Choosing the number of epochs", unit="epoch", total=max_epochs
    )
    yield tuple(next(curve) for curve in curves)
    with bar:
        try:
            for losses in zip(*curves, strict=True):
                bar.update()
                yield losses
        except GeneratorExit:  # the caller needs no further epochs
            end_early(bar)
            raise
        except FloatingPointError as error:
            end_early(bar)
            warn_caller(f"Training diverged while the number of epochs was chosen. {error}")


def _splits(
    targets: NDArray[np.intp], new_classes: bool, random_state: np.random.RandomState
) -> Iterator[Split]:
    """Yield training and test rows of each split, none if nothing can be held out."""
    n_splits = _N_SPLITS_OF_FEW if len(targets) < _FEW else _N_SPLITS
    counts = np.bincount(targets)
    if new_classes and len(counts) >= 4:
        # Only if each split is sure to have a training class with a sample to spare.
        seen_size = _HELD_OUT if (counts > 1).sum() > len(counts) / 2 else 0.0
        yield from LeaveClassesOut(n_splits, seen_size=seen_size, random_state=random_state).split(
            targets, targets
        )
    elif counts.max() > 1:
        n_out = np.where(counts > 1, np.maximum(1, np.round(_HELD_OUT * counts)), 0)
        for _ in range(n_splits):
            order = random_state.permutation(len(targets))
            # Position of each sample among those of its class, in the random order.
            place = np.empty(len(targets), dtype=np.intp)
            for code in range(len(counts)):
                members = order[targets[order] == code]
                place[members] = np.arange(len(members))
            in_test = place < n_out[targets]
            yield np.flatnonzero(~in_test), np.flatnonzero(in_test)


@dataclass(frozen=True)
class _Samples:
    """Training data with the names of its classes."""

    names: Sequence[str]
    targets: NDArray[np.intp]
    data: TrainingData

    def weighted(self) -> _Samples:
        """Return the samples with a positive weight, and the classes that have any."""
        rows = np.flatnonzero(self.data.weights.cpu().numpy() > 0)
        return self.part(rows, np.unique(self.targets[rows]))

    def part(self, rows: NDArray[np.intp], classes: NDArray[np.intp]) -> _Samples:
        """Return those of the rows that belong to some classes, with class indices among these."""
        import torch

        rows = rows[np.isin(self.targets[rows], classes)]
        targets = np.searchsorted(classes, self.targets[rows])
        device = self.data.targets.device
        data = self.data.take(torch.as_tensor(rows, device=device), torch.as_tensor(targets, device=device))
        return _Samples([self.names[code] for code in classes], targets, data)


def _held_out_losses(
    start: StartRun,
    samples: _Samples,
    split: Split,
    seed: int,
    recipe: Recipe,
    text_depends_on_image: bool,
) -> Iterator[Record]:
    """Train on one part of a split, and yield the log losses on the other, first without training."""
    from clipcal.training import finished, log_loss, torch_generator, train_epochs

    train, test = split
    seen = np.unique(samples.targets[train])
    new = np.setdiff1d(np.arange(len(samples.names)), seen)
    training = samples.part(train, seen)
    generator = torch_generator(seed)
    learner, prompts, terms = start(training.names, training.data, generator)
    held_out = {"log_loss": samples.part(test, seen), "new_log_loss": samples.part(test, new)}
    held_out = {name: part for name, part in held_out.items() if len(part.targets)}

    def learner_for(name: str) -> Learner:
        # With the current parameters, which a learner for other names may copy.
        return learner if name == "log_loss" else learner.for_names(held_out[name].names)

    # Prompts do not depend on learned parameters, so they are needed once.
    prompts_of = {name: learner_for(name).prompts(part.names) for name, part in held_out.items()}
    at_once = recipe.batch_size_for(_AT_ONCE) if text_depends_on_image else _AT_ONCE

    loss_of = partial(log_loss, batch_size=at_once, text_depends_on_image=text_depends_on_image)

    def losses() -> Record:
        with finished(learner):
            return {
                name: loss_of(learner_for(name), prompts_of[name], part.data)
                for name, part in held_out.items()
            }

    yield losses()
    epochs = train_epochs(
        learner,
        prompts,
        training.data,
        terms,
        recipe=recipe,
        data_generator=torch_generator(seed, training.data.targets.device),
        term_generator=generator,
    )
    for _ in epochs:
        yield losses()
