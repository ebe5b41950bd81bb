"""Sample-adaptive logit scaling: the range of the logits of each row becomes that of zero-shot CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._logit_range import match_range
from clipcal.calibration._base import CalibrationRows, Calibrator, as_given, probabilities, put_first

__all__ = ["SampleAdaptiveLogitScaling"]

Floats = NDArray[np.float64]


class SampleAdaptiveLogitScaling(Calibrator):
    """Scale the logits of each row to the range of its zero-shot logits (SaLS).

    Tuning CLIP increases the range of the logits, the difference of the highest and the smallest one, and so
    the confidence. Here the logits ``z`` of a row are mapped linearly to

    ``(z - min z) / (max z - min z) * (max z0 - min z0) + min z0``

    where ``z0`` are the logits of zero-shot CLIP for the same row and the same classes [1]_. Nothing is
    fitted, and predicted classes do not change.

    Parameters
    ----------
    template : str or sequence of str, default=None
        Template of the zero-shot logits, if :class:`~clipcal.calibration.CalibratedCLIPClassifier` computes
        them: a template with one ``{}``, the name of a known template, or a sequence of these (see
        :func:`clipcal.text.find_templates`). None means the default of ``zero_shot`` of the classifier. It
        has no effect on logits that are passed to ``calibrate`` and ``transform``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    n_features_in_ : int
        Number of columns in ``fit``.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns in ``fit``. Only defined if all are strings.

    See Also
    --------
    DistanceAwareCalibration : Lowers the confidence in new classes, without fitted parameters either.
    clipcal.regularizers.ZeroShotNormRegularizer : The same formula in training.

    Notes
    -----
    As nothing is fitted, ``fit`` only checks its input. In
    :class:`~clipcal.calibration.CalibratedCLIPClassifier`, use ``cv="prefit"``, with any labeled images,
    because other values of ``cv`` fit the classifier several times to no effect. It can be used for other
    classes: their zero-shot logits are then computed.

    Only the range becomes that of zero-shot CLIP. The confidence also depends on the logits in between, and
    the accuracy does not change. It can reduce the calibration error of overconfident classifiers, and
    increases it where zero-shot CLIP is underconfident.

    The formula was read from the published code. Logits of a row that are all equal, for which it is 0 / 0,
    are mapped to ``min z0``, so that all classes have the same probability. Classes that are excluded by
    minus infinity stay excluded, and their zero-shot logits are ignored.

    References
    ----------
    .. [1] B. Murugesan, J. Silva-Rodríguez, I. Ben Ayed, J. Dolz. "Robust Calibration of Large
       Vision-Language Adapters", ECCV 2024. :arxiv:`2407.13588`

    Examples
    --------
    >>> from clipcal.calibration import SampleAdaptiveLogitScaling
    >>> scaling = SampleAdaptiveLogitScaling().fit([[8.0, 0.0], [0.0, 9.0]], ["cat", "dog"])
    >>> scaling.transform([[8.0, 0.0], [0.0, 9.0]], zero_shot_logits=[[21.0, 20.0], [23.0, 20.0]])
    array([[21., 20.],
           [20., 23.]])
    >>> scaling.calibrate([[8.0, 0.0]], zero_shot_logits=[[21.0, 20.0]]).round(2)
    array([[0.73, 0.27]])
    """

    preserves_argmax = True
    class_agnostic = True
    side_inputs: ClassVar[tuple[str, ...]] = ("zero_shot_logits",)
    samples_needed: ClassVar[str] = "none"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"template": [str, "array-like", None]}

    def __init__(self, *, template: str | Sequence[str] | None = None) -> None:
        self.template = template

    def calibrate(self, logits: ArrayLike, *, zero_shot_logits: ArrayLike | None = None) -> Floats:
        """Return calibrated probabilities.

        Parameters
        ----------
        logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Logits. A 1-D array holds the log-odds of two classes.

        zero_shot_logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Finite logits of zero-shot CLIP for the same rows and classes, with the same scale as the logits,
            such as ``clf.zero_shot().decision_function(X)``. Required.

        Returns
        -------
        y_prob : ndarray of shape (n_samples, n_classes)
            Rows sum to 1.

        Raises
        ------
        ValueError
            If `zero_shot_logits` is missing, not finite, or has another shape than `logits`.
        """
        return probabilities(self._scaled(logits, zero_shot_logits, "calibrate"))

    def transform(self, logits: ArrayLike, *, zero_shot_logits: ArrayLike | None = None) -> Floats:
        """Return scaled logits, whose softmax is the calibrated probabilities.

        Parameters
        ----------
        logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Logits. A 1-D array holds the log-odds of two classes.

        zero_shot_logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Finite logits of zero-shot CLIP for the same rows and classes. Required.

        Returns
        -------
        calibrated : ndarray of shape (n_samples, n_classes) or (n_samples,)
            Log-odds if `logits` holds log-odds.

        Raises
        ------
        ValueError
            If `zero_shot_logits` is missing, not finite, or has another shape than `logits`.
        """
        return as_given(self._scaled(logits, zero_shot_logits, "transform"), logits)

    def _fit_rows(self, rows: CalibrationRows) -> None:
        """Do nothing, as nothing is fitted."""

    def _scaled(self, logits: ArrayLike, zero_shot_logits: ArrayLike | None, method: str) -> Floats:
        z = self._read_logits(logits)
        z0 = self._read_zero_shot(zero_shot_logits, z.shape, method)
        possible = np.isfinite(z)
        ends = _ends(z, possible)
        scaled = match_range(np.where(possible, z, ends[0]), ends, _ends(z0, possible))
        scaled[~possible] = -np.inf
        put_first(scaled, z.argmax(axis=1))
        return scaled

    def _read_zero_shot(self, values: ArrayLike | None, shape: tuple[int, ...], method: str) -> Floats:
        caller = f"{type(self).__name__}.{method}"
        if values is None:
            raise ValueError(
                f"{caller} needs the zero-shot logits of each row. Pass zero_shot_logits="
                "clf.zero_shot().decision_function(X), or use the calibrator in CalibratedCLIPClassifier, "
                "which computes them."
            )
        z0 = self._read_logits(values, "zero_shot_logits")
        if z0.shape != shape:
            raise ValueError(
                f"{caller} got zero_shot_logits of shape {z0.shape} for logits of shape {shape}. Pass the "
                "zero-shot logits of the same rows and classes."
            )
        if np.isneginf(z0).any():
            raise ValueError("zero_shot_logits contains -inf; pass finite logits of all classes.")
        return z0


def _ends(logits: Floats, possible: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the smallest and the highest logit of each row among the possible classes."""
    low = logits.min(axis=1, keepdims=True, where=possible, initial=np.inf)
    return low, logits.max(axis=1, keepdims=True, where=possible, initial=-np.inf)
