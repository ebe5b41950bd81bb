"""Additional inputs of calibrators: features of the images or of the class texts, or zero-shot logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import check_array

from clipcal._arrays import plain_labels, to_numpy
from clipcal._columns import column_names, column_order
from clipcal._compat import _safe_indexing
from clipcal.calibration._base import Calibrator
from clipcal.calibration._logits import class_logits
from clipcal.metrics import proximity
from clipcal.text import find_templates

__all__ = [
    "check_side_inputs",
    "class_side_inputs",
    "encoded_once",
    "row_side_inputs",
    "side_inputs",
    "zero_shot_classifier",
]

_OF_ROWS = {"proximity", "zero_shot_logits"}
_OF_ZERO_SHOT = {"text_features", "zero_shot_logits"}


def image_features(estimator: Any, X: Any) -> NDArray[np.floating]:
    """Return a feature vector for each row, for computing proximities.

    Parameters
    ----------
    estimator : fitted classifier
        Its ``image_features`` method is used if it has one; otherwise `X` must be numeric.

    X : object
        Input of `estimator`.

    Returns
    -------
    features : ndarray of shape (n_samples, n_features)

    Raises
    ------
    TypeError
        If there are no features.
    """
    if hasattr(estimator, "image_features"):
        return np.asarray(to_numpy(estimator.image_features(X)))
    if issparse(X):
        raise TypeError(
            "This calibrator computes proximities of rows, which does not support sparse data. "
            "Pass X.toarray(), or use a calibrator without proximity."
        )
    names, known = column_names(X), getattr(estimator, "feature_names_in_", None)
    order = None if names is None or known is None else column_order(names, list(known))
    try:
        features = check_array(to_numpy(X), dtype=np.float64)
        # A classifier that selects columns by name accepts them in any order.
        return features if order is None else features[:, order]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"This calibrator computes proximities of rows, but {type(estimator).__name__} has no "
            "image_features and X is not a 2-D array of numbers. Encode the images first, or use a "
            "calibrator without proximity."
        ) from error


def encoded_once(calibrator: Calibrator, estimator: Any, X: Any) -> Any:
    """Return embeddings in place of images if they are needed more than once, to avoid encoding twice."""
    wanted = _OF_ROWS & set(calibrator.side_inputs) and hasattr(estimator, "encode")
    return estimator.encode(X) if wanted else X


def check_side_inputs(calibrator: Calibrator, estimator: Any) -> None:
    """Check, before any fit, that zero-shot CLIP is available if the calibrator needs it.

    Raises
    ------
    TypeError
        If the classifier has no text features.
    ClassNameError
        If the calibrator's template is invalid.
    """
    if not _OF_ZERO_SHOT & set(calibrator.side_inputs):
        return
    if not hasattr(estimator, "zero_shot"):
        raise TypeError(
            f"{type(calibrator).__name__} needs the zero-shot features of a tuned classifier, but "
            f"{type(estimator).__name__} has none. Use it with a CLIP classifier, such as "
            "PromptTunedCLIPClassifier."
        )
    if (template := getattr(calibrator, "template", None)) is not None:
        find_templates(template)


def _zero_shot(calibrator: Calibrator, estimator: Any) -> Any:
    """Return the zero-shot classifier with the calibrator's template, if it has one."""
    template = getattr(calibrator, "template", None)
    return estimator.zero_shot() if template is None else estimator.zero_shot(template=template)


def zero_shot_classifier(calibrator: Calibrator, estimator: Any) -> Any:
    """Return the zero-shot classifier for the classes of `estimator`, or None if it is not needed."""
    return _zero_shot(calibrator, estimator) if "zero_shot_logits" in calibrator.side_inputs else None


def class_side_inputs(calibrator: Calibrator, estimator: Any) -> dict[str, NDArray[np.floating]]:
    """Return the text features of the classes after and before tuning, if the calibrator needs them.

    Parameters
    ----------
    calibrator : Calibrator
        Its ``template``, if any, is used for the features before tuning.
    estimator : fitted classifier
        A classifier with ``text_features_`` and ``zero_shot``.

    Returns
    -------
    side : dict
        ``text_features`` and ``zero_shot_features``, both of shape (n_classes, n_features), in the order of
        the sorted labels. Empty if they are not needed.
    """
    if "text_features" not in calibrator.side_inputs:
        return {}
    sources = {"text_features": estimator, "zero_shot_features": _zero_shot(calibrator, estimator)}
    return {
        name: np.asarray(to_numpy(source.text_features_))[np.argsort(plain_labels(source.classes_))]
        for name, source in sources.items()
    }


def row_side_inputs(calibrated: Any, X: Any) -> dict[str, NDArray[np.floating]]:
    """Return the additional inputs of ``calibrate`` and ``transform`` by name.

    Parameters
    ----------
    calibrated : fitted CalibratedCLIPClassifier
        Its ``estimator_`` computes features, and its ``zero_shot_`` logits.
    X : object
        Input of the classifier.
    """
    side: dict[str, NDArray[np.floating]] = {}
    if calibrated.reference_features_ is not None:
        features = image_features(calibrated.estimator_, X)
        side["proximity"] = proximity(features, calibrated.reference_features_)
    # Files of early versions have no zero_shot_.
    if (zero_shot := vars(calibrated).get("zero_shot_")) is not None:
        side["zero_shot_logits"] = class_logits(zero_shot, X, calibrated.classes_)
    return side


def side_inputs(
    calibrator: Calibrator, estimator: Any, X: Any, rows: NDArray[np.intp]
) -> tuple[NDArray[np.floating] | None, dict[str, Any]]:
    """Return the reference features for later proximities, and the additional inputs of ``fit`` by name."""
    if "proximity" not in calibrator.side_inputs:
        return None, class_side_inputs(calibrator, estimator)
    # Rows held out in several splits would be their own nearest neighbors.
    distinct, place = np.unique(rows, return_inverse=True)
    features = image_features(estimator, _safe_indexing(X, distinct))
    return features, {"proximity": proximity(features, features, exclude_self=True)[place]}
