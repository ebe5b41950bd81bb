"""Matrix scaling, which includes Dirichlet calibration: every class may act on every other."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Literal

from clipcal._compat import Interval
from clipcal.calibration._linear_calibrator import PENALTY, LinearCalibrator, penalty_or
from clipcal.calibration._linear_fit import Penalty

__all__ = ["MatrixScaling"]


class MatrixScaling(LinearCalibrator):
    """Multiply log-probabilities by a matrix and add intercepts, as Dirichlet calibration does.

    It mends confusions between pairs of classes. It begins with temperature scaling and by default leaves
    it only as far as the number of rows allows, so a few rows of each class are enough. Predictions may
    change, and what was fitted belongs to the classes of ``fit``.

    Probabilities are first tempered, and mixed with ``1 / (n_samples + 1)`` of the uniform distribution.
    With `log_prob` for their logarithm, the new ones are ``softmax(log_prob @ coef_.T + intercept_)``.
    Weights of samples count as numbers of rows.

    Added to the mean log loss are squared distances from the identity and from intercepts 0, which is
    temperature scaling, times the three penalties. All on "auto" is structured matrix scaling [1]_. With
    ``diagonal_penalty=0`` and numbers for the two others it is Dirichlet calibration with off-diagonal
    and intercept regularization [2]_; that needs many times ``n_classes ** 2`` rows, and penalties chosen
    by cross-validation, say from 1e-5 to 0.1.

    Parameters
    ----------
    diagonal_penalty : "auto" or float, default="auto"
        For the weight of each class in its own logit. "auto" is ``n_classes / n_samples``.

    off_diagonal_penalty : "auto" or float, default="auto"
        For the weights of classes in the logits of others. "auto" is
        ``n_classes * (n_classes - 1) / n_samples``.

    intercept_penalty : "auto" or float, default="auto"
        For the intercepts. "auto" is ``n_classes / n_samples``.

    max_classes : int, default=200
        Refuse to fit more classes than this, since the matrix grows with their square.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    coef_ : ndarray of shape (n_classes, n_classes)
        ``coef_[k, j]`` is the weight of the log-probability of class ``j`` in the new logit of class
        ``k``. For a class that no row belongs to, row ``k`` is that of the identity.

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
    VectorScaling : A weight and an intercept for each class, for any number of classes.

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
    >>> leaky = logits @ [[1, 0, 0], [0.5, 1, 0], [0, 0, 1]]  # the first class gets some of the second
    >>> MatrixScaling().fit(leaky, y).coef_[0].round(1)  # and here gives it back
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
                f"MatrixScaling would fit {n_classes * (n_classes + 1):,} numbers for {n_classes} classes; "
                f"max_classes={self.max_classes} forbids that. Use VectorScaling(), or pass "
                f"max_classes={n_classes}."
            )
        per_class = n_classes / n_rows
        return Penalty(
            diagonal=penalty_or(self.diagonal_penalty, per_class),
            off_diagonal=penalty_or(self.off_diagonal_penalty, (n_classes - 1) * per_class),
            intercept=penalty_or(self.intercept_penalty, per_class),
        )
