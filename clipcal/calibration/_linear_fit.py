"""Weights and intercepts that minimise a penalised log loss: one convex problem, solved in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

__all__ = ["LinearMap", "Penalty", "fit_linear_map", "row_blocks"]

Floats = NDArray[np.float64]

# Rows are read in blocks that stay in the processor's cache; memory does not grow with their number.
_BLOCK_ENTRIES = 2**17
# A pull to the start, worth a millionth of a row. It decides where neither the data nor a penalty do, as
# when all rows are right or when two solutions give the same probabilities.
_PULL = 1e-6
# Stiffer than this the start is kept to the last digit that matters, and numbers stay far from overflow.
_STIFFEST = 1e12
_GRADIENT_TOLERANCE = 1e-8
_MAX_ITERATIONS = 1000


class Penalty(NamedTuple):
    """Factors of the sums of squared distances from the start, which are added to the mean log loss."""

    diagonal: float
    off_diagonal: float
    intercept: float


class LinearMap(NamedTuple):
    """Weights, of shape (n_classes,) or (n_classes, n_classes), and intercepts."""

    coef: Floats
    intercept: Floats

    def __call__(self, log_prob: Floats) -> Floats:
        """Return new logits; a class that is excluded stays so and adds nothing to the others."""
        excluded = np.isneginf(log_prob)
        scores = self.finite(np.where(excluded, 0.0, log_prob))
        scores[excluded] = -np.inf
        return scores

    def finite(self, log_prob: Floats) -> Floats:
        """Do the same where no class is excluded."""
        product = log_prob * self.coef if self.coef.ndim == 1 else log_prob @ self.coef.T
        return np.asarray(product + self.intercept)


def fit_linear_map(
    log_prob: Floats, true_column: NDArray[np.intp], weight: Floats, penalty: Penalty, *, full: bool
) -> tuple[LinearMap, float]:
    """Minimise the penalised mean log loss of ``softmax(coef @ log_prob + intercept)``.

    Parameters
    ----------
    log_prob : ndarray of shape (n_samples, n_classes)
        Log-probabilities. It is overwritten: minus infinity becomes 0.

    true_column : ndarray of shape (n_samples,)
        Column of the true class of each row.

    weight : ndarray of shape (n_samples,)
        Positive weights.

    penalty : Penalty
        How strongly `coef` is drawn to the identity and `intercept` to 0.

    full : bool
        Whether to fit a matrix or its diagonal only.

    Returns
    -------
    fitted : LinearMap
        The minimum. Classes that no row belongs to keep weight 1 and intercept 0.

    largest_derivative : float
        Largest absolute derivative at the minimum.
    """
    problem = _Problem(log_prob, true_column, weight, penalty, full)
    forth, back = problem.change_of_variables()

    def objective(flat: Floats) -> tuple[float, Floats]:
        value, gradient = problem.value_and_gradient(forth(flat.reshape(problem.shape)))
        return value, back(gradient).ravel()

    options = {
        "maxiter": _MAX_ITERATIONS,
        "maxfun": 2 * _MAX_ITERATIONS,
        "maxcor": 20,
        "ftol": 0.0,
        "gtol": _GRADIENT_TOLERANCE,
    }
    start = np.zeros(problem.shape).ravel()
    best = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    distance = forth(best.x.reshape(problem.shape))
    derivatives = problem.value_and_gradient(distance)[1]
    return problem.linear_map(distance), float(np.abs(derivatives).max())


class _Problem:
    """The objective as a function of the distance from the start.

    Distances are of shape (n_classes, 2) or (n_classes, n_classes + 1): a row holds the weights of one
    class, then its intercept.
    """

    def __init__(
        self,
        log_prob: Floats,
        true_column: NDArray[np.intp],
        weight: Floats,
        penalty: Penalty,
        full: bool,
    ) -> None:
        n_classes, total = log_prob.shape[1], weight.sum()
        excluded = np.isneginf(log_prob)
        self.excluded = excluded if excluded.any() else None
        log_prob[excluded] = 0.0
        self.log_prob = log_prob
        self.true_column = true_column
        self.weight = weight / total
        self.full = full
        self.identity = np.eye(n_classes) if full else np.ones((n_classes, 1))
        self.shape = (n_classes, self.identity.shape[1] + 1)
        self.factors = Penalty(*np.clip(penalty, _PULL / max(total, _PULL), _STIFFEST).tolist())
        self.penalty = np.full(self.shape, self.factors.intercept)
        self.penalty[:, :-1] = np.where(self.identity == 1.0, *self.factors[:2])
        self.absent = np.bincount(true_column, minlength=n_classes) == 0

    def linear_map(self, distance: Floats) -> LinearMap:
        moved = np.where(self.absent[:, None], 0.0, distance)
        coef = self.identity + moved[:, :-1]
        return LinearMap(coef if self.full else coef[:, 0], moved[:, -1])

    def value_and_gradient(self, distance: Floats) -> tuple[float, Floats]:
        fitted = self.linear_map(distance)
        distance = np.where(self.absent[:, None], 0.0, distance)
        value = float((self.penalty * distance**2).sum())
        gradient = 2.0 * self.penalty * distance
        for rows in row_blocks(self.log_prob.shape):
            prob, loss = self._predict(fitted, rows)
            value += loss
            prob *= self.weight[rows, None]
            prob[np.arange(len(prob)), self.true_column[rows]] -= self.weight[rows]
            gradient[:, :-1] += self._times(prob, self.log_prob[rows])
            gradient[:, -1] += prob.sum(axis=0)
        gradient[self.absent] = 0.0
        return value, gradient

    def change_of_variables(self) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
        """Return a map from variables in which the problem is round to distances, and its transpose."""
        unit = self.linear_map(np.zeros(self.shape))
        squares, spread = np.zeros(self.shape), np.zeros(self.shape[0])
        moments = np.zeros((self.shape[1], self.shape[1]))
        for rows in row_blocks(self.log_prob.shape):
            prob = self._predict(unit, rows)[0]
            # The floor keeps classes in play that the start is too sure of.
            variance = (prob * (1.0 - prob) + 0.01 / prob.shape[1]) * self.weight[rows, None]
            spread += variance.sum(axis=0)
            if self.full:
                features = np.column_stack([self.log_prob[rows], np.ones(len(prob))])
                moments += features.T @ (features * self.weight[rows, None])
            else:
                squares[:, :-1] += self._times(variance, self.log_prob[rows] ** 2)
        if self.full:
            return _round_matrix(spread.mean() * moments, self.factors)
        squares[:, -1] = spread
        scale = 1.0 / np.sqrt(squares + 2.0 * self.penalty)
        return scale.__mul__, scale.__mul__

    def _predict(self, fitted: LinearMap, rows: slice) -> tuple[Floats, float]:
        scores = fitted.finite(self.log_prob[rows])
        if self.excluded is not None:
            scores[self.excluded[rows]] = -np.inf
        scores -= scores.max(axis=1, keepdims=True)
        of_truth = scores[np.arange(len(scores)), self.true_column[rows]]
        prob = np.exp(scores, out=scores)
        total = prob.sum(axis=1)
        prob /= total[:, None]
        return prob, float(self.weight[rows] @ (np.log(total) - of_truth))

    def _times(self, left: Floats, right: Floats) -> Floats:
        return left.T @ right if self.full else np.einsum("ij,ij->j", left, right)[:, None]


def _round_matrix(
    curvature: Floats, penalty: Penalty
) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
    """Approximate the second derivatives of the whole matrix, and return their inverse square root.

    What all classes have in common does not change probabilities, so there only the penalty bends the
    objective; elsewhere `curvature` does too. The diagonal, which has a penalty of its own, is put right
    by a correction of low rank.
    """
    n_classes = len(curvature) - 1
    stiffness = np.full(n_classes + 1, 2.0 * penalty.off_diagonal)
    stiffness[-1] = 2.0 * penalty.intercept
    # Without a floor the inverse would blow up in directions that few rows leave open.
    stiffness += 1e-4 * np.trace(curvature) / len(curvature)
    values, vectors = np.linalg.eigh(curvature + np.diag(stiffness))
    own = (vectors / np.sqrt(values)) @ vectors.T
    common = 1.0 / np.sqrt(stiffness)

    def root(array: Floats) -> Floats:
        mean = array.mean(axis=0)
        return np.asarray((array - mean) @ own + mean * common)

    diagonal = np.arange(n_classes)
    overlap = (own @ own)[:-1, :-1] * (np.eye(n_classes) - 1.0 / n_classes)
    overlap += np.diag(common[:-1] ** 2) / n_classes
    values, vectors = np.linalg.eigh(overlap)
    change = 2.0 * (penalty.diagonal - penalty.off_diagonal) * values
    factor = (vectors * ((1.0 / np.sqrt(np.maximum(1.0 + change, 1e-6)) - 1.0) / values)) @ vectors.T

    def correct(array: Floats) -> Floats:
        on_diagonal = np.zeros_like(array)
        on_diagonal[diagonal, diagonal] = factor @ root(array)[diagonal, diagonal]
        return np.asarray(array + root(on_diagonal))

    return lambda array: root(correct(array)), lambda array: correct(root(array))


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut the rows of an array of this shape into blocks."""
    height = max(1, _BLOCK_ENTRIES // shape[1])
    for first in range(0, shape[0], height):
        yield slice(first, first + height)
