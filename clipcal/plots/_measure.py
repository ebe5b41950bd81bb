"""Computation of the contents of reliability diagrams from labels and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import binom

from clipcal._columns import class_probabilities
from clipcal._weights import rows_to_score
from clipcal.metrics import (
    CalibrationBins,
    calibration_bins,
    calibration_error_floor,
    calibration_interval,
    class_calibration_bins,
    consistency_band,
)

__all__ = ["measure", "predictions_of"]

Floats = NDArray[np.float64]


def predictions_of(estimator: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None) -> dict[str, Any]:
    """Predict the rows of positive weight, and return the arguments of ``from_predictions``."""
    X, y, weight = rows_to_score(X, y, sample_weight)
    classes, prob = class_probabilities(estimator, X)
    return {"y_true": y, "y_prob": prob, "labels": classes, "sample_weight": weight}


def measure(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    class_label: Any = None,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int,
    strategy: Any,
    band: float | None = None,
    interval: float | None = None,
    with_floor: bool = False,
    random_state: Any = None,
) -> dict[str, Any]:
    """Return the arguments of the constructor of ReliabilityDisplay, except its name."""
    for option, level in (("band", band), ("interval", interval)):
        if level is not None and not 0 < level < 1:
            raise ValueError(f"{option} must lie between 0 and 1, such as {option}=0.95; got {level!r}.")
    rows: dict[str, Any] = {"sample_weight": sample_weight, "random_state": random_state}
    table: dict[str, Any] = {"n_bins": n_bins, "strategy": strategy}
    if class_label is not None:
        if interval is not None:
            raise ValueError("interval supports top-label confidences only; omit interval or class_label.")
        bins = class_calibration_bins(
            y_true, y_prob, class_label, labels=labels, sample_weight=sample_weight, **table
        )
        around = None if band is None else _binomial_band(bins, band)
        return {"bins": bins, "class_label": class_label, "band": around}
    bins = calibration_bins(y_true, y_prob, labels=labels, sample_weight=sample_weight, **table)
    found: dict[str, Any] = {"bins": bins}
    if band is not None:
        found["band"] = tuple(consistency_band(bins, y_prob, confidence_level=band, **rows))
    if interval is not None:
        ends = calibration_interval(y_true, y_prob, labels=labels, confidence_level=interval, **table, **rows)
        found["interval"] = (ends.low, ends.high)
    if with_floor:
        found["floor"] = calibration_error_floor(y_prob, **table, **rows)
    return found


def _binomial_band(bins: CalibrationBins, level: float) -> tuple[Floats, Floats]:
    """Return the range of the frequency in each bin for a calibrated model, NaN where the bin is empty.

    All rows of a bin are assumed to have its mean probability, which makes the band slightly too wide. With
    unequal weights, a normal approximation with the effective sample size is used.
    """
    low, high = np.full((2, len(bins)), np.nan)
    filled = bins.count > 0
    n, p = bins.effective_count[filled], np.clip(bins.confidence[filled], 0.0, 1.0)
    if np.allclose(n, bins.count[filled]):
        count = bins.count[filled]
        low[filled] = binom.ppf((1 - level) / 2, count, p) / count
        high[filled] = binom.ppf((1 + level) / 2, count, p) / count
    else:
        half = ndtri((1 + level) / 2) * np.sqrt(p * (1 - p) / n)
        low[filled], high[filled] = np.clip([p - half, p + half], 0.0, 1.0)
    return low, high
