"""Vector scaling."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from clipcal.calibration._linear_calibrator import PENALTY, LinearCalibrator, penalty_or
from clipcal.calibration._linear_fit import Penalty

__all__ = ["VectorScaling"]


class VectorScaling(LinearCalibrator):
    """Multiply the log-probability of each class by a weight, and add an intercept.

    Unlike temperature scaling, vector scaling can correct classes that are predicted too often or too rarely,
    or with too much confidence. It starts from temperature scaling. The default penalty decreases with the
    number of rows, so a few rows of each class are sufficient. Predicted classes may change, and the
    calibrator cannot be used for other classes.

    Probabilities are tempered, and mixed with the uniform distribution with weight ``1 / (n_samples + 1)``.
    With their logarithm `log_prob`, the new probabilities are ``softmax(coef_ * log_prob + intercept_)``.
    Sample weights count as rows.

    Parameters
    ----------
    penalty : "auto" or float, default="auto"
        Factor of the squared distance from weights 1 and intercepts 0 (temperature scaling), which is added
        to the mean log loss. "auto" is ``n_classes / n_samples``, as in structured vector scaling [2]_.
        0 is vector scaling without regularization [1]_, which needs at least 20 rows of each class.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    coef_ : ndarray of shape (n_classes,)
        Weights of the log-probabilities. 1 for a class without rows.

    intercept_ : ndarray of shape (n_classes,)
        Intercepts. 0 for a class without rows.

    temperature_ : float
        Temperature by which logits are divided first. It is 1 if the data do not determine it.

    smoothing_ : float
        Weight of the uniform distribution that is mixed in first.

    n_features_in_ : int
        Number of columns seen during fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns seen during fit. Only defined if all are strings.

    See Also
    --------
    MatrixScaling : Scaling with a matrix of weights between all classes.

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
