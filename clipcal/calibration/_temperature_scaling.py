"""Temperature scaling."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from clipcal._compat import Interval
from clipcal.calibration._base import CalibrationRows, Calibrator, put_first
from clipcal.calibration._temperature_fit import solve_temperature

__all__ = ["TemperatureScaling"]

Floats = NDArray[np.float64]


class TemperatureScaling(Calibrator):
    """Divide logits by a temperature that minimizes the log loss.

    Predicted classes are unchanged; only confidences change. The single parameter needs few rows, and can be
    used for unseen classes.

    Parameters
    ----------
    shrinkage : float, default=0.0
        Strength of a penalty that draws the temperature to 1: ``shrinkage * log(temperature) ** 2`` is added
        to the log loss, summed over rows. With very few rows, such as four per class, 1.0 avoids extreme
        temperatures if almost all rows are classified correctly; with hundreds of rows it has a negligible
        effect. Logits should be on their natural scale, not cosine similarities.

    Attributes
    ----------
    temperature_ : float
        The divisor of the logits. Values above 1 lower confidences.

    identified_ : bool
        Whether the data determine a temperature. If not, `temperature_` is 1 and ``fit`` warns.

    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    n_features_in_ : int
        Number of columns in ``fit``.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns in ``fit``. Only defined if all are strings.

    See Also
    --------
    CalibratedCLIPClassifier : Fit a calibrator on held-out rows of a classifier.
    fit_temperature : The same fit for column indices instead of labels.

    Notes
    -----
    The temperature depends on the scale of the logits, not on a class, so it can be used for other classes.
    About 50 rows in total are sufficient.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. "On calibration of modern neural networks",
       ICML 2017. :arxiv:`1706.04599`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import TemperatureScaling
    >>> logits = np.tile([[4.0, 0.0]], (4, 1))
    >>> scaling = TemperatureScaling().fit(logits, ["cat", "cat", "cat", "dog"])
    >>> scaling.calibrate(logits[:1]).round(4)  # the accuracy
    array([[0.75, 0.25]])
    """

    preserves_argmax: ClassVar[bool] = True
    class_agnostic: ClassVar[bool] = True
    samples_needed: ClassVar[str] = "about 50 in all"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "shrinkage": [Interval(Real, 0, None, closed="left")]
    }

    temperature_: float
    identified_: bool

    def __init__(self, *, shrinkage: float = 0.0) -> None:
        self.shrinkage = shrinkage

    def _fit_rows(self, rows: CalibrationRows) -> None:
        solution = solve_temperature(rows.logits, rows.true_column, rows.weight, shrinkage=self.shrinkage)
        self.temperature_ = 1.0 / solution.inverse_temperature
        self.identified_ = solution.identified

    def _probabilities(self, logits: Floats) -> Floats:
        prob = softmax(logits / self.temperature_, axis=1)
        put_first(prob, logits.argmax(axis=1))
        return prob

    def _calibrated_logits(self, logits: Floats) -> Floats:
        scaled = logits / self.temperature_
        put_first(scaled, logits.argmax(axis=1))
        return scaled
