"""Calibrators that map one score to one probability: of the first choice, of each class, or of all alike."""

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

# Scores that differ less are equal: a constant added to a row, or another order of classes, moves a score
# by rounding alone, and must not carry it across a step.
TIE_DECIMALS = 12

SMOOTHING: list[Any] = [StrOptions({"auto"}), Interval(Real, 0.0, 1.0, closed="left")]


class TopChoice(NamedTuple):
    """The first choice of each row, and how the remaining probability is shared out."""

    column: NDArray[np.intp]
    confidence: Floats
    share: Floats  # (n_samples, n_classes), rows sum to 1; 0 for the first choice
    n_possible: NDArray[np.intp]  # classes whose logit is finite


def top_choice(logits: Floats) -> TopChoice:
    """Split the probabilities of each row into that of the first choice and the shares of the others.

    The shares come from the logits, so they are exact even where the confidence rounds to 1. Of equal
    logits the first column wins.
    """
    rows = np.arange(len(logits))
    column = logits.argmax(axis=1)
    # A fixed memory layout makes sums, and so the result, independent of the other rows.
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
    """Give the first choice a new probability; the others keep their proportions.

    Parameters
    ----------
    top : TopChoice
        What :func:`top_choice` returned.

    confidence : ndarray of shape (n_samples,)
        The new probability of the first choice, in [0, 1]. It is 1 where no other class is possible.

    keep_argmax : bool, default=True
        Raise it where it would otherwise fall below the probability of the runner-up.

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
    """Base of calibrators that rest on functions of one score.

    A subclass writes ``_fit_map``. Which scores it is applied to depends on ``scope``: the confidence of
    the first choice, the probability of each class on its own, or all probabilities together.

    Attributes
    ----------
    maps_ : list of callable
        The fitted functions: one in all, or one for each class. None stands for the identity, for a class
        that no row belongs to.
    """

    scope: Scope
    keep_argmax: bool

    maps_: list[Any]

    @property
    def preserves_argmax(self) -> bool:
        """Whether predictions stay the same."""
        return self.scope == "pooled" or (self.scope == "top-label" and self.keep_argmax)

    @property
    def class_agnostic(self) -> bool:
        """Whether what was fitted may be applied to other classes than those of ``fit``."""
        return self.scope != "one-vs-rest"

    def _fit_map(self, score: Floats, hit: Floats, weight: Floats) -> ScoreMap:
        """Return a function from the score to the frequency of hits, which are 0 or 1."""
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
        """Keep probabilities away from 0 and 1; by default they are there already."""
        return prob


class SmoothedCalibrator(ScoreCalibrator):
    """Base of those whose functions reach 0 and 1, which a finite number of rows cannot justify.

    Attributes
    ----------
    smoothing_ : float
        The part of the uniform distribution in each row.
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
    """Return the softmax of logits, and which classes are possible."""
    # A fixed memory layout makes sums, and so the result, independent of the other rows.
    logits = np.ascontiguousarray(logits)
    return probabilities(logits), np.isfinite(logits)


def normalized(prob: Floats, possible: NDArray[np.bool_]) -> Floats:
    """Divide rows by their sums, over possible classes only; a row of zeros becomes uniform."""
    prob = prob * possible
    total = prob.sum(axis=1, keepdims=True)
    prob = np.where(total > 0, prob, possible)
    return prob / np.where(total > 0, total, possible.sum(axis=1, keepdims=True))
