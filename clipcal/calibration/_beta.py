"""Beta calibration."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from clipcal._compat import StrOptions
from clipcal.calibration._confidence import SMOOTHING, SmoothedCalibrator

__all__ = ["BetaCalibration", "BetaMap"]

Floats = NDArray[np.float64]

# Scores are clipped to this distance from 0 and 1, which bounds the influence of a single row.
_MARGIN = 1e-12
# Strength of an L2 penalty on the distance from the identity. It has far less weight than one row, and makes
# the solution unique if there are few rows, or if all are correct.
_PULL = 1e-3
_IDENTITY = np.array([1.0, 1.0, 0.0])


class BetaMap(NamedTuple):
    """The function ``1 / (1 + exp(-(a * log(s) - b * log(1 - s) + c)))``.

    Parameters
    ----------
    a, b, c : float
        The parameters; ``a = b = 1`` and ``c = 0`` is the identity.

    Examples
    --------
    >>> from clipcal.calibration import BetaMap
    >>> BetaMap(a=1.0, b=1.0, c=0.0)([0.2, 0.7]).round(6).tolist()
    [0.2, 0.7]
    """

    a: float
    b: float
    c: float

    def __call__(self, score: Floats) -> Floats:
        """Return the value at each score."""
        return np.asarray(expit(_features(score) @ np.array(self)))


class BetaCalibration(SmoothedCalibrator):
    """Map a score by a smooth S-shaped or inverse S-shaped function with three parameters.

    The log-odds of a score ``s`` become ``a * log(s) - b * log(1 - s) + c`` with ``a, b >= 0``. The identity
    is a special case, and the correction may differ near 0 and near 1. About 100 rows are needed. With
    ``scope="top-label"``, predicted classes are unchanged if `keep_argmax` is true, and the function can be
    used for other classes. Neither holds with ``scope="one-vs-rest"``.

    Parameters
    ----------
    scope : {"top-label", "one-vs-rest"}, default="top-label"
        With "top-label", the function is applied to the largest probability of each row, and the other
        probabilities keep their proportions. With "one-vs-rest", each class has its own function, and rows
        are normalized.

    keep_argmax : bool, default=True
        With ``scope="top-label"``, keep the predicted class, even if its calibrated confidence is lower.

    smoothing : float in [0, 1) or "auto", default="auto"
        Weight of the uniform distribution that is mixed in, since the function approaches certainty if all
        rows are correct. "auto" is ``1 / (n_samples + 2)``, where weights count as rows.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    maps_ : list of BetaMap or None
        Parameters ``a``, ``b`` and ``c`` of the fitted function, or of the function of each class. None
        is the identity, for a class without rows.

    smoothing_ : float
        Weight of the uniform distribution.

    n_features_in_ : int
        Number of columns seen during fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns seen during fit. Only defined if all are strings.

    References
    ----------
    .. [1] M. Kull, T. Silva Filho, P. Flach. "Beta calibration: a well-founded and easily implemented
       improvement on logistic calibration for binary classifiers", AISTATS 2017.
       https://proceedings.mlr.press/v54/kull17a.html

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import BetaCalibration
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(2000, 3))
    >>> y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    >>> overconfident = 3 * logits
    >>> prob = BetaCalibration().fit(overconfident, y).calibrate(overconfident)
    >>> round(float((prob.argmax(axis=1) == y).mean()), 2), round(float(prob.max(axis=1).mean()), 2)
    (0.6, 0.61)
    """

    samples_needed = "about 100 in all; one-vs-rest: about 50 of each class"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "scope": [StrOptions({"top-label", "one-vs-rest"})],
        "keep_argmax": ["boolean"],
        "smoothing": SMOOTHING,
    }

    def __init__(
        self,
        scope: Literal["top-label", "one-vs-rest"] = "top-label",
        *,
        keep_argmax: bool = True,
        smoothing: float | Literal["auto"] = "auto",
    ) -> None:
        self.scope = scope
        self.keep_argmax = keep_argmax
        self.smoothing = smoothing

    def _fit_map(self, score: Floats, hit: Floats, weight: Floats) -> BetaMap:
        features, total = _features(score), weight.sum()

        def loss(theta: Floats) -> tuple[float, Floats]:
            log_odds, moved = features @ theta, theta - _IDENTITY
            value = weight @ (np.logaddexp(0.0, log_odds) - hit * log_odds) + _PULL / 2 * moved @ moved
            gradient = features.T @ (weight * (expit(log_odds) - hit)) + _PULL * moved
            return float(value / total), gradient / total

        bounds = [(0.0, None), (0.0, None), (None, None)]
        options = {"ftol": 0.0, "gtol": 1e-10, "maxiter": 1000}
        best = minimize(loss, _IDENTITY, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return BetaMap(*best.x.tolist())


def _features(score: Floats) -> Floats:
    inside = np.clip(score, _MARGIN, 1.0 - _MARGIN)
    return np.column_stack([np.log(inside), -np.log1p(-inside), np.ones_like(inside)])
