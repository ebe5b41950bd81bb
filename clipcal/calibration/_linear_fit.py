"""Minimization of a penalized log loss over weights and intercepts, a convex problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

__all__ = ["LinearMap", "Penalty", "fit_linear_map", "row_blocks"]

Floats = NDArray[np.float64]

# Number of entries of a block of rows, such that blocks stay in the processor cache and memory is bounded.
_BLOCK_ENTRIES = 2**17
# Minimum penalty, with the weight of a millionth of a row. It makes the solution unique if neither data nor
# penalties do: if all rows are correct, or if several solutions give the same probabilities.
_PULL = 1e-6
# Maximum penalty: larger values have no effect on the solution, and would cause overflow.
_STIFFEST = 1e12
_GRADIENT_TOLERANCE = 1e-8
_MAX_ITERATIONS = 1000


class Penalty(NamedTuple):
    """Factors of the squared distances from the identity, which are added to the mean log loss."""

    diagonal: float
    off_diagonal: float
    intercept: float


class LinearMap(NamedTuple):
    """Weights, of shape (n_classes,) or (n_classes, n_classes), and intercepts."""

    coef: Floats
    intercept: Floats

    def __call__(self, log_prob: Floats) -> Floats:
        """Return new logits; excluded classes remain excluded and have no effect on the others."""
        excluded = np.isneginf(log_prob)
        scores = self.finite(np.where(excluded, 0.0, log_prob))
        scores[excluded] = -np.inf
        return scores

    def finite(self, log_prob: Floats) -> Floats:
        """Return new logits if no class is excluded."""
        product = log_prob * self.coef if self.coef.ndim == 1 else log_prob @ self.coef.T
        return np.asarray(product + self.intercept)


def fit_linear_map(
    log_prob: Floats, true_column: NDArray[np.intp], weight: Floats, penalty: Penalty, *, full: bool
) -> tuple[LinearMap, float]:
    """Minimize the penalized mean log loss of ``softmax(coef @ log_prob + intercept)``.

    Parameters
    ----------
    log_prob : ndarray of shape (n_samples, n_classes)
        Log-probabilities. The array is overwritten: minus infinity becomes 0.

    true_column : ndarray of shape (n_samples,)
        Column of the true class of each row.

    weight : ndarray of shape (n_samples,)
        Positive weights.

    penalty : Penalty
        Penalties on the distance of `coef` from the identity and of `intercept` from 0.

    full : bool
        Whether to fit a matrix or only its diagonal.

    Returns
    -------
    fitted : LinearMap
        The minimum. Classes without rows keep weight 1 and intercept 0.

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
    """The objective as a function of the distance from the identity.

    Distances have the shape (n_classes, 2) or (n_classes, n_classes + 1). Each row has the weights of one
    class and its intercept.
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
        """Return a preconditioner, which maps scaled variables to distances, and its transpose."""
        unit = self.linear_map(np.zeros(self.shape))
        squares, spread = np.zeros(self.shape), np.zeros(self.shape[0])
        moments = np.zeros((self.shape[1], self.shape[1]))
        for rows in row_blocks(self.log_prob.shape):
            prob = self._predict(unit, rows)[0]
            # The added constant is needed for classes whose initial probabilities are close to 0 or 1.
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
    """Return an approximate inverse square root of the Hessian for a full matrix, and its transpose.

    A change common to all classes does not affect probabilities, so in these directions the Hessian is that
    of the penalty; in all others, `curvature` is added. The different penalty of the diagonal is handled by a
    low-rank correction.
    """
    n_classes = len(curvature) - 1
    stiffness = np.full(n_classes + 1, 2.0 * penalty.off_diagonal)
    stiffness[-1] = 2.0 * penalty.intercept
    # Bound the inverse in directions that few rows determine.
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
    """Yield slices that split the rows of an array of this shape into blocks."""
    height = max(1, _BLOCK_ENTRIES // shape[1])
    for first in range(0, shape[0], height):
        yield slice(first, first + height)
