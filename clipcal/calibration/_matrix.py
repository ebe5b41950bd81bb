"""Matrix scaling, including Dirichlet calibration."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Literal

from clipcal._compat import Interval
from clipcal.calibration._linear_calibrator import PENALTY, LinearCalibrator, penalty_or
from clipcal.calibration._linear_fit import Penalty

__all__ = ["MatrixScaling"]


class MatrixScaling(LinearCalibrator):
    """Multiply log-probabilities by a matrix and add intercepts, as Dirichlet calibration does.

    Matrix scaling can correct confusions between pairs of classes. It starts from temperature scaling. The
    default penalties decrease with the number of rows, so a few rows of each class are sufficient. Predicted
    classes may change, and the calibrator cannot be used for other classes.

    Probabilities are tempered, and mixed with the uniform distribution with weight ``1 / (n_samples + 1)``.
    With their logarithm `log_prob`, the new probabilities are
    ``softmax(log_prob @ coef_.T + intercept_)``. Sample weights count as rows.

    The three penalties multiply the squared distances of the matrix from the identity and of the intercepts
    from 0, and are added to the mean log loss. With "auto" for all, this is structured matrix scaling [1]_.
    With ``diagonal_penalty=0`` and numbers for the two others, it is Dirichlet calibration with off-diagonal
    and intercept regularization [2]_, which needs many times ``n_classes ** 2`` rows, and penalties chosen
    by cross-validation, for example from 1e-5 to 0.1.

    Parameters
    ----------
    diagonal_penalty : "auto" or float, default="auto"
        Penalty on the weight of each class in its own logit. "auto" is ``n_classes / n_samples``.

    off_diagonal_penalty : "auto" or float, default="auto"
        Penalty on the weights of classes in the logits of other classes. "auto" is
        ``n_classes * (n_classes - 1) / n_samples``.

    intercept_penalty : "auto" or float, default="auto"
        Penalty on the intercepts. "auto" is ``n_classes / n_samples``.

    max_classes : int, default=200
        Maximum number of classes, since the size of the matrix is quadratic. More classes raise an error.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    coef_ : ndarray of shape (n_classes, n_classes)
        ``coef_[k, j]`` is the weight of the log-probability of class ``j`` in the new logit of class
        ``k``. For a class without rows, row ``k`` is that of the identity.

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
    VectorScaling : Scaling with a weight and an intercept per class, for any number of classes.

    References
    ----------
    .. [1] E. Berta, D. Holzmüller, M. I. Jordan, F. Bach. "Structured matrix scaling for multi-class
       calibration", AISTATS 2026.
    .. [2] M. Kull, M. Perello-Nieto, M. Kängsepp, T. Silva Filho, H. Song, P. Flach. "Beyond temperature
       scaling: obtaining well-calibrated multiclass probabilities with Dirichlet calibration",
       NeurIPS 2019. :arxiv:`1910.12656`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import MatrixScaling
    >>> rng = np.random.default_rng(0)
    >>> logits = 2 * rng.normal(size=(2000, 3))
    >>> y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    >>> leaky = logits @ [[1, 0, 0], [0.5, 1, 0], [0, 0, 1]]  # adds the second class to the first
    >>> MatrixScaling().fit(leaky, y).coef_[0].round(1)  # subtracts it
    array([ 1.1, -0.2,  0.1])
    """

    samples_needed = "a few of each class; with smaller penalties many times the square of their number"
    _full = True

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "diagonal_penalty": PENALTY,
        "off_diagonal_penalty": PENALTY,
        "intercept_penalty": PENALTY,
        "max_classes": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        diagonal_penalty: float | Literal["auto"] = "auto",
        off_diagonal_penalty: float | Literal["auto"] = "auto",
        intercept_penalty: float | Literal["auto"] = "auto",
        max_classes: int = 200,
    ) -> None:
        self.diagonal_penalty = diagonal_penalty
        self.off_diagonal_penalty = off_diagonal_penalty
        self.intercept_penalty = intercept_penalty
        self.max_classes = max_classes

    def _penalty(self, n_classes: int, n_rows: float) -> Penalty:
        if n_classes > self.max_classes:
            raise ValueError(
                f"MatrixScaling needs {n_classes * (n_classes + 1):,} parameters for {n_classes} classes, "
                f"which is more than max_classes={self.max_classes}. Use VectorScaling(), or pass "
                f"max_classes={n_classes}."
            )
        per_class = n_classes / n_rows
        return Penalty(
            diagonal=penalty_or(self.diagonal_penalty, per_class),
            off_diagonal=penalty_or(self.off_diagonal_penalty, (n_classes - 1) * per_class),
            intercept=penalty_or(self.intercept_penalty, per_class),
        )
