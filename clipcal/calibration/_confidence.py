"""Base classes of calibrators that apply functions of a single score.

The score is the confidence of the predicted class, the probability of each class, or any probability.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from clipcal._compat import Interval, StrOptions
from clipcal.calibration._base import CalibrationRows, Calibrator, probabilities, put_first

__all__ = [
    "SMOOTHING",
    "TIE_DECIMALS",
    "ScoreCalibrator",
    "ScoreMap",
    "SmoothedCalibrator",
    "TopChoice",
    "redistribute",
    "top_choice",
]

Floats = NDArray[np.float64]
Scope = Literal["top-label", "one-vs-rest", "pooled"]

# Scores are rounded to this number of decimals, since step functions amplify rounding errors, which depend on
# constants added to a row and on the order of the classes.
TIE_DECIMALS = 12

SMOOTHING: list[Any] = [StrOptions({"auto"}), Interval(Real, 0.0, 1.0, closed="left")]


class TopChoice(NamedTuple):
    """The predicted class of each row, and the distribution of the remaining probability."""

    column: NDArray[np.intp]
    confidence: Floats
    share: Floats  # (n_samples, n_classes), rows sum to 1; 0 for the predicted class
    n_possible: NDArray[np.intp]  # number of classes with a finite logit


def top_choice(logits: Floats) -> TopChoice:
    """Split the probabilities of each row into the confidence and the proportions of the other classes.

    The proportions are computed from the logits, so they are exact even if the confidence rounds to 1. The
    first of several largest logits is the predicted class.
    """
    rows = np.arange(len(logits))
    column = logits.argmax(axis=1)
    # With a fixed memory layout, the rounding of sums does not depend on the other rows.
    others = np.array(logits, order="C")
    highest = others[rows, column]
    others[rows, column] = -np.inf
    n_possible = np.isfinite(others).sum(axis=1) + 1
    alone = n_possible == 1
    runner_up = np.where(alone, 0.0, others.max(axis=1))
    others -= runner_up[:, None]
    share = np.exp(others, out=others)
    total = np.where(alone, 1.0, share.sum(axis=1))
    share /= total[:, None]
    confidence = expit(highest - runner_up - np.log(total))
    confidence[alone] = 1.0
    return TopChoice(column, confidence, share, n_possible)


def redistribute(top: TopChoice, confidence: Floats, *, keep_argmax: bool = True) -> Floats:
    """Set the probability of the predicted class; the other probabilities keep their proportions.

    Parameters
    ----------
    top : TopChoice
        Result of :func:`top_choice`.

    confidence : ndarray of shape (n_samples,)
        The new probability of the predicted class, in [0, 1]. 1 is used if no other class is possible.

    keep_argmax : bool, default=True
        Whether to raise it to the probability of the runner-up if it would be lower.

    Returns
    -------
    y_prob : ndarray of shape (n_samples, n_classes)
        Rows sum to 1.
    """
    first = np.where(top.n_possible == 1, 1.0, confidence)
    if keep_argmax:
        runner_up = top.share.max(axis=1)
        first = np.maximum(first, runner_up / (1.0 + runner_up))
    prob = top.share * (1.0 - first)[:, None]
    prob[np.arange(len(prob)), top.column] = first
    if keep_argmax:
        put_first(prob, top.column)
    return prob


class ScoreMap(Protocol):
    """A function of one score in [0, 1] with values in [0, 1]."""

    def __call__(self, score: Floats) -> Floats: ...


class ScoreCalibrator(Calibrator):
    """Base class of calibrators that apply functions of a single score.

    Subclasses implement ``_fit_map``. ``scope`` determines the scores: the confidence of the predicted
    class, the probability of each class separately, or the probabilities of all classes.

    Attributes
    ----------
    maps_ : list of callable
        The fitted function, or the functions of all classes. None is the identity, for a class without
        rows.
    """

    scope: Scope
    keep_argmax: bool

    maps_: list[Any]

    @property
    def preserves_argmax(self) -> bool:
        """Whether the predicted classes are unchanged."""
        return self.scope == "pooled" or (self.scope == "top-label" and self.keep_argmax)

    @property
    def class_agnostic(self) -> bool:
        """Whether the fitted calibrator can be used for classes other than those of ``fit``."""
        return self.scope != "one-vs-rest"

    def _fit_map(self, score: Floats, hit: Floats, weight: Floats) -> ScoreMap:
        """Return a function that maps a score to the frequency of hits, which are 0 or 1."""
        raise NotImplementedError

    def _fit_pooled(self, rows: CalibrationRows) -> ScoreMap:
        raise NotImplementedError

    def _pooled(self, logits: Floats) -> Floats:
        raise NotImplementedError

    def _fit_rows(self, rows: CalibrationRows) -> None:
        if self.scope == "top-label":
            top = top_choice(rows.logits)
            hit = (top.column == rows.true_column).astype(np.float64)
            self.maps_ = [self._fit_map(top.confidence, hit, rows.weight)]
        elif self.scope == "pooled":
            self.maps_ = [self._fit_pooled(rows)]
        else:
            self.maps_ = self._fit_columns(rows)

    def _fit_columns(self, rows: CalibrationRows) -> list[ScoreMap | None]:
        prob, possible = class_probabilities(rows.logits)
        maps: list[ScoreMap | None] = [None] * prob.shape[1]
        for k in np.unique(rows.true_column):
            kept = possible[:, k]
            hit = (rows.true_column[kept] == k).astype(np.float64)
            maps[k] = self._fit_map(prob[kept, k], hit, rows.weight[kept])
        return maps

    def _probabilities(self, logits: Floats) -> Floats:
        if self.scope == "pooled":
            return self._pooled(logits)
        if self.scope == "one-vs-rest":
            return self._one_vs_rest(logits)
        top = top_choice(logits)
        confidence = self._blend(self.maps_[0](top.confidence), top.n_possible)
        return redistribute(top, confidence, keep_argmax=self.keep_argmax)

    def _one_vs_rest(self, logits: Floats) -> Floats:
        prob, possible = class_probabilities(logits)
        for k, score_map in enumerate(self.maps_):
            if score_map is not None:
                prob[:, k] = score_map(prob[:, k])
        return self._blend(normalized(prob, possible), possible.sum(axis=1)[:, None]) * possible

    def _blend(self, prob: Floats, n_possible: NDArray[np.intp]) -> Floats:
        """Mix probabilities with the uniform distribution; by default, return them unchanged."""
        return prob


class SmoothedCalibrator(ScoreCalibrator):
    """Base class of score calibrators whose functions can return 0 or 1, and which need smoothing.

    Attributes
    ----------
    smoothing_ : float
        Weight of the uniform distribution.
    """

    smoothing: float | Literal["auto"]

    smoothing_: float

    def _fit_rows(self, rows: CalibrationRows) -> None:
        super()._fit_rows(rows)
        automatic = 1.0 / (rows.weight.sum() + 2.0)
        self.smoothing_ = float(automatic if self.smoothing == "auto" else self.smoothing)

    def _blend(self, prob: Floats, n_possible: NDArray[np.intp]) -> Floats:
        return (1.0 - self.smoothing_) * prob + self.smoothing_ / n_possible


def class_probabilities(logits: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the softmax of logits, and a mask of the classes with finite logits."""
    # With a fixed memory layout, the rounding of sums does not depend on the other rows.
    logits = np.ascontiguousarray(logits)
    return probabilities(logits), np.isfinite(logits)


def normalized(prob: Floats, possible: NDArray[np.bool_]) -> Floats:
    """Normalize rows over the possible classes; rows of zeros become uniform."""
    prob = prob * possible
    total = prob.sum(axis=1, keepdims=True)
    prob = np.where(total > 0, prob, possible)
    return prob / np.where(total > 0, total, possible.sum(axis=1, keepdims=True))
