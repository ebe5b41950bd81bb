"""Vector scaling: a weight and an intercept for each class."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from clipcal.calibration._linear_calibrator import PENALTY, LinearCalibrator, penalty_or
from clipcal.calibration._linear_fit import Penalty

__all__ = ["VectorScaling"]


class VectorScaling(LinearCalibrator):
    """Multiply each class's log-probability by a weight of its own and add an intercept.

    It mends what one temperature cannot: classes that are predicted too often or too rarely, or too
    surely. It begins with temperature scaling and by default leaves it only as far as the number of rows
    allows, so a few rows of each class are enough. Predictions may change, and what was fitted belongs to
    the classes of ``fit``.

    Probabilities are first tempered, and mixed with ``1 / (n_samples + 1)`` of the uniform distribution.
    With `log_prob` for their logarithm, the new ones are ``softmax(coef_ * log_prob + intercept_)``.
    Weights of samples count as numbers of rows.

    Parameters
    ----------
    penalty : "auto" or float, default="auto"
        Added to the mean log loss is so many times the squared distance from weights 1 and intercepts 0,
        which is temperature scaling. "auto" is ``n_classes / n_samples``; this is structured vector
        scaling [2]_. With 0, the plain form [1]_, at least 20 rows of each class are needed.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    coef_ : ndarray of shape (n_classes,)
        Weights of the log-probabilities. It is 1 for a class that no row belongs to.

    intercept_ : ndarray of shape (n_classes,)
        What is added. It is 0 for a class that no row belongs to.

    temperature_ : float
        What logits are divided by beforehand. It is 1 if the data do not determine it.

    smoothing_ : float
        The part of the uniform distribution that is mixed in beforehand.

    n_features_in_ : int
        Number of columns seen during fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns seen during fit. Only defined if they all are strings.

    See Also
    --------
    MatrixScaling : Let the log-probability of each class act on all others.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. "On calibration of modern neural networks",
       ICML 2017. :arxiv:`1706.04599`
    .. [2] E. Berta, D. Holzmüller, M. I. Jordan, F. Bach. "Structured matrix scaling for multi-class
       calibration", AISTATS 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import VectorScaling
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(300, 3))
    >>> y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    >>> biased = 2 * logits + [0, 0, 3]
    >>> prob = VectorScaling().fit(biased, y).calibrate(biased)
    >>> (np.bincount(y) / 300).round(2), prob.mean(axis=0).round(2)
    (array([0.31, 0.35, 0.34]), array([0.31, 0.34, 0.35]))
    """

    samples_needed = "a few of each class; with a penalty of 0 about 20 of each"
    _full = False

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"penalty": PENALTY}

    def __init__(self, penalty: float | Literal["auto"] = "auto") -> None:
        self.penalty = penalty

    def _penalty(self, n_classes: int, n_rows: float) -> Penalty:
        factor = penalty_or(self.penalty, n_classes / n_rows)
        return Penalty(factor, factor, factor)
