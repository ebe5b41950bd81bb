"""Base-to-new protocol: tune on half of the classes, measure on test images of both halves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from joblib import Memory
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from clipcal.calibration import CalibratedCLIPClassifier
from clipcal.classifiers import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.datasets import make_shapes
from clipcal.images import CLIPImageEncoder
from clipcal.metrics import expected_calibration_error
from clipcal.text import load_nouns

if TYPE_CHECKING:
    from clipcal.regularizers import DynamicOutlierRegularizer

__all__ = [
    "COOP",
    "COOP_DOR",
    "COOP_TEMPERATURE",
    "FAST_COOP",
    "FAST_COOP_DOR",
    "KGCOOP",
    "KGCOOP_DOR",
    "MAPLE",
    "MAPLE_DOR",
    "METHODS",
    "N_SHOTS",
    "N_TEST",
    "N_VALIDATION",
    "ZERO_SHOT",
    "Cell",
    "CellResult",
    "Split",
    "candidate_nouns",
    "class_halves",
    "embedded_subset",
    "image_subset",
    "run_cell",
]

ZERO_SHOT, COOP, KGCOOP = "zero-shot", "CoOp", "KgCoOp"
COOP_DOR, KGCOOP_DOR, COOP_TEMPERATURE = "CoOp + DOR", "KgCoOp + DOR", "CoOp + temperature"
FAST_COOP, FAST_COOP_DOR = "CoOp, fast", "CoOp, fast + DOR"
MAPLE, MAPLE_DOR = "MaPLe", "MaPLe + DOR"

N_SHOTS = 16
# Published calibration trainers use at most four validation images per class.
N_VALIDATION = 4
N_TEST = 50


@dataclass(frozen=True)
class Cell:
    """One run: a generated task in a domain, a method and a seed.

    Parameters
    ----------
    task, domain : str
        Task and domain; see :func:`clipcal.datasets.make_shapes`.
    seed : int
        Seed of images and training.
    max_epochs : int
        Number of training epochs.
    noun_step : int, default=1
        Candidates for outliers are every `noun_step`-th noun of WordNet.
    """

    task: str
    domain: str
    seed: int
    max_epochs: int
    noun_step: int = 1


class Split(NamedTuple):
    """Embeddings or images, and labels."""

    X: NDArray[Any]
    y: NDArray[np.str_]

    def of(self, classes: list[str]) -> Split:
        """Return the samples of some classes."""
        rows = np.isin(self.y, classes)
        return Split(self.X[rows], self.y[rows])


class CellResult(NamedTuple):
    """Result of one method on one half of the classes in one cell."""

    cell: Cell
    method: str
    half: str
    accuracy: float
    confidence: float
    ece: float
    n_test: int
    y_true: NDArray[np.str_]
    y_prob: NDArray[np.float64]
    classes: NDArray[np.str_]

    def record(self) -> dict[str, Any]:
        """Return the numbers as a flat record."""
        return {
            "task": self.cell.task,
            "domain": self.cell.domain,
            "seed": self.cell.seed,
            "method": self.method,
            "half": self.half,
            "n_test": self.n_test,
            "accuracy": self.accuracy,
            "confidence": self.confidence,
            "ece": self.ece,
        }


def _tuned(
    cell: Cell, memory: Memory | None, recipe: str = "original", **parameters: Any
) -> PromptTunedCLIPClassifier:
    if recipe == "original":
        parameters |= {"max_epochs": cell.max_epochs, "batch_size": 32}
    return PromptTunedCLIPClassifier(
        backbone="mini", recipe=recipe, random_state=cell.seed, memory=memory, **parameters
    )


def _zero_shot(cell: Cell, memory: Memory | None) -> BaseEstimator:
    return ZeroShotCLIPClassifier(backbone="mini")


def _dor(cell: Cell) -> DynamicOutlierRegularizer:
    from clipcal.regularizers import DynamicOutlierRegularizer

    return DynamicOutlierRegularizer(lexicon=candidate_nouns(cell.noun_step))


def _coop(
    cell: Cell,
    memory: Memory | None,
    regularizer: DynamicOutlierRegularizer | None = None,
    **parameters: Any,
) -> BaseEstimator:
    from clipcal.methods import CoOp

    # With 16 random vectors, as published, accuracy on new classes decreases.
    method = CoOp(context_init=None, n_context=16)
    return _tuned(cell, memory, method=method, regularizer=regularizer, **parameters)


def _kgcoop(
    cell: Cell, memory: Memory | None, regularizer: DynamicOutlierRegularizer | None = None
) -> BaseEstimator:
    return _tuned(cell, memory, method="kgcoop", regularizer=regularizer)


def _maple(
    cell: Cell, memory: Memory | None, regularizer: DynamicOutlierRegularizer | None = None
) -> BaseEstimator:
    # The recipe of the authors of DOR is complete: it has few epochs.
    return _tuned(cell, memory, recipe="dor", method="maple", regularizer=regularizer)


# In the order of tables and figures.
METHODS: dict[str, Callable[[Cell, Memory | None], BaseEstimator]] = {
    ZERO_SHOT: _zero_shot,
    COOP: _coop,
    KGCOOP: _kgcoop,
    COOP_DOR: lambda cell, memory: _coop(cell, memory, _dor(cell)),
    KGCOOP_DOR: lambda cell, memory: _kgcoop(cell, memory, _dor(cell)),
    COOP_TEMPERATURE: _coop,
    FAST_COOP: lambda cell, memory: _coop(cell, memory, recipe="fast"),
    FAST_COOP_DOR: lambda cell, memory: _coop(cell, memory, _dor(cell), recipe="fast"),
    MAPLE: _maple,
    MAPLE_DOR: lambda cell, memory: _maple(cell, memory, _dor(cell)),
}


def run_cell(cell: Cell, method: str, memory: Memory | None = None) -> list[CellResult]:
    """Fit one method on the base classes, and evaluate it on the test images of both halves.

    The first half of the classes of a task are base classes, the others are new classes. For temperature
    scaling, the temperature is fitted on validation images of the base classes and used for both halves.

    Parameters
    ----------
    cell : Cell
        The run.
    method : str
        A key of ``METHODS``.
    memory : joblib.Memory, default=None
        Cache of the text features of candidates for outliers, which are the same in all cells.

    Returns
    -------
    results : list of CellResult
        Results on base and new classes. ``CoOp`` also returns those of ``CoOp + temperature``, from the same
        fit.
    """
    halves = class_halves(cell)
    # Methods that prompt the image tower need images.
    subset = image_subset if method in (MAPLE, MAPLE_DOR) else embedded_subset
    train = subset(cell, "train", N_SHOTS).of(halves["base"])
    test = subset(cell, "test", N_TEST)
    classifier = METHODS[method](cell, memory).fit(train.X, train.y)
    results = _measure(cell, method, classifier, test, halves)
    if method == COOP:
        validation = embedded_subset(cell, "validation", N_VALIDATION).of(halves["base"])
        scaled = CalibratedCLIPClassifier(classifier, cv="prefit").fit(validation.X, validation.y)
        results += _measure(cell, COOP_TEMPERATURE, scaled, test, halves)
    return results


def candidate_nouns(step: int) -> list[str]:
    """Return every `step`-th noun of WordNet."""
    return list(load_nouns()[::step])


def class_halves(cell: Cell) -> dict[str, list[str]]:
    """Return the base and the new classes of a task, its first and its second half.

    Parameters
    ----------
    cell : Cell
        The run.

    Returns
    -------
    halves : dict
        Class names under ``"base"`` and ``"new"``, in the order of the task.
    """
    names = make_shapes(cell.task, domain=cell.domain, n_per_class=1, random_state=cell.seed).class_names
    n_base = (len(names) + 1) // 2
    return {"base": names[:n_base], "new": names[n_base:]}


def image_subset(cell: Cell, subset: str, n_per_class: int) -> Split:
    """Generate images of a task.

    Parameters
    ----------
    cell : Cell
        The run.
    subset : {"train", "validation", "test"}
        Subset; see :func:`clipcal.datasets.make_shapes`.
    n_per_class : int
        Number of images per class.

    Returns
    -------
    split : Split
        Images ``X`` of shape (n_samples, height, width, 3) and class names ``y`` of shape (n_samples,).
    """
    images, target = make_shapes(
        cell.task,
        domain=cell.domain,
        subset=subset,
        n_per_class=n_per_class,
        random_state=cell.seed,
        return_X_y=True,
    )
    return Split(images, target)


def embedded_subset(cell: Cell, subset: str, n_per_class: int) -> Split:
    """Generate images of a task and encode them.

    Parameters
    ----------
    cell : Cell
        The run.
    subset : {"train", "validation", "test"}
        Subset; see :func:`clipcal.datasets.make_shapes`.
    n_per_class : int
        Number of images per class.

    Returns
    -------
    split : Split
        Embeddings ``X`` of shape (n_samples, n_features) and class names ``y`` of shape (n_samples,).
    """
    images, target = image_subset(cell, subset, n_per_class)
    return Split(CLIPImageEncoder(backbone="mini").transform(images), target)


def _measure(
    cell: Cell, method: str, classifier: Any, test: Split, halves: dict[str, list[str]]
) -> list[CellResult]:
    results = []
    for half, classes in halves.items():
        X, y = test.of(classes)
        of_half = classifier if half == "base" else classifier.with_classes(classes)
        y_prob = of_half.predict_proba(X)
        results.append(
            CellResult(
                cell=cell,
                method=method,
                half=half,
                accuracy=float((of_half.classes_[y_prob.argmax(axis=1)] == y).mean()),
                confidence=float(y_prob.max(axis=1).mean()),
                ece=expected_calibration_error(y, y_prob, labels=of_half.classes_),
                n_test=len(y),
                y_true=y,
                y_prob=y_prob,
                classes=of_half.classes_,
            )
        )
    return results
