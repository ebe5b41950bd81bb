"""Selective prediction: the error rate of the most confident predictions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

from clipcal._compat import validate_params
from clipcal.metrics._top_label import TopLabel, read_top_label

__all__ = ["RiskCoverageCurve", "area_under_risk_coverage", "risk_coverage_curve"]

Floats = NDArray[np.float64]


class RiskCoverageCurve(NamedTuple):
    """One point for each distinct confidence, from the most confident rows to all rows.

    Result of :func:`risk_coverage_curve`.
    """

    coverage: Floats
    risk: Floats
    threshold: Floats


class _Blocks(NamedTuple):
    """Rows grouped by equal confidence, in decreasing order of confidence."""

    weight: Floats
    errors: Floats  # weight of the wrong rows
    confidence: Floats


@validate_params({})
def risk_coverage_curve(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> RiskCoverageCurve:
    """Compute the error rate among rows whose confidence is at least a threshold, for all thresholds.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default, the sorted unique values
        of `y_true`, which must match the number of columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    Returns
    -------
    curve : RiskCoverageCurve
        A named tuple ``(coverage, risk, threshold)`` of arrays of shape (n_thresholds,). `threshold`
        holds the distinct confidences in decreasing order, `coverage` the fraction of rows at least as
        confident, which increases to 1, and `risk` the error rate of these rows.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    area_under_risk_coverage : The curve as one number.

    References
    ----------
    .. [1] Y. Geifman, R. El-Yaniv. "Selective classification for deep neural networks", NeurIPS 2017.
       :arxiv:`1705.08500`

    Examples
    --------
    >>> from clipcal.metrics import risk_coverage_curve
    >>> curve = risk_coverage_curve([1, 0, 1, 1], [0.95, 0.4, 0.3, 0.8])
    >>> curve.threshold
    array([0.95, 0.8 , 0.7 , 0.6 ])
    >>> curve.coverage
    array([0.25, 0.5 , 0.75, 1.  ])
    >>> curve.risk.round(2)
    array([0.  , 0.  , 0.33, 0.25])
    """
    blocks = _blocks(read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight))
    accepted = np.cumsum(blocks.weight)
    risk = np.minimum(np.cumsum(blocks.errors) / accepted, 1.0)
    return RiskCoverageCurve(accepted / accepted[-1], risk, blocks.confidence)


@validate_params({"excess": ["boolean"]})
def area_under_risk_coverage(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    excess: bool = False,
) -> float:
    """Compute the area under the risk-coverage curve (AURC), or its excess over the best ranking (E-AURC).

    Rows are sorted by decreasing confidence. The area is the mean over rows of the error rate up to and
    including the row. It depends only on the order of the confidences: it measures how well confidence
    separates correct from wrong predictions, not calibration.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default, the sorted unique values
        of `y_true`, which must match the number of columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative. Integer weights count as repetitions of the row. Other weights
        are scaled to sum to the number of rows, so only their ratios matter.

    excess : bool, default=False
        Whether to subtract the area of the optimal order, in which all wrong rows come last. The result is
        0 for a perfect ranking, for any error rate.

    Returns
    -------
    area : float
        A fraction in [0, 1]; lower is better.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    risk_coverage_curve : The curve itself.

    Notes
    -----
    Errors of rows of equal confidence are distributed evenly over these rows. This is the mean over all
    orders, so the area does not depend on the order of the input.

    With more than two classes, temperature scaling can change this number, since it may swap the order of
    two confidences.

    References
    ----------
    .. [1] Y. Geifman, G. Uziel, R. El-Yaniv. "Bias-reduced uncertainty estimation for deep neural
       classifiers", ICLR 2019. :arxiv:`1805.08206`

    Examples
    --------
    >>> from clipcal.metrics import area_under_risk_coverage
    >>> y_true, y_prob = [1, 0, 1, 1], [0.95, 0.4, 0.3, 0.8]
    >>> round(area_under_risk_coverage(y_true, y_prob), 4)
    0.1458
    >>> round(area_under_risk_coverage(y_true, y_prob, excess=True), 4)
    0.0833
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    weight = top_label.weight
    if (weight != np.floor(weight)).any():
        top_label = top_label._replace(weight=weight * (len(weight) / weight.sum()))
    weight, errors, _ = _blocks(top_label)
    area = _area(weight, errors)
    if not excess:
        return float(np.clip(area, 0.0, 1.0))
    n_wrong = errors.sum()
    best = _area(np.array([weight.sum() - n_wrong, n_wrong]), np.array([0.0, n_wrong]))
    return float(np.clip(area - best, 0.0, 1.0))


def _blocks(top_label: TopLabel) -> _Blocks:
    confidence, correct, weight = top_label
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    weight = weight[order]
    return _Blocks(
        weight=np.add.reduceat(weight, starts),
        errors=np.add.reduceat(weight * (1.0 - correct[order]), starts),
        confidence=ordered[starts],
    )


def _area(weight: Floats, errors: Floats) -> float:
    """Return the mean, over units of weight, of the error rate up to that unit.

    The k-th unit of a block with error rate e, after N units with E errors, has the risk
    (E + k e) / (N + k) = e + (E - N e) / (N + k). The sum of reciprocals is a difference of digamma
    functions, which extends it to fractional weights.
    """
    weight, errors = weight[weight > 0], errors[weight > 0]
    after = np.cumsum(weight)
    before, errors_before = after - weight, np.cumsum(errors) - errors
    # For a single unit, use the exact reciprocal.
    reciprocals = np.where(weight == 1.0, 1.0 / after, digamma(after + 1.0) - digamma(before + 1.0))
    total = errors + (errors_before - before * errors / weight) * reciprocals
    return float(total.sum() / after[-1])
