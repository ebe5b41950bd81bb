"""How well confidence ranks the predictions: errors that remain when the least confident are set aside."""

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
    """One point for each distinct confidence, from the most confident rows to all rows."""

    coverage: Floats
    risk: Floats
    threshold: Floats


class _Blocks(NamedTuple):
    """Rows of equal confidence taken together, the most confident first."""

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
    """Compute the error rate among the rows whose confidence reaches a threshold, for every threshold.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default the sorted distinct values
        of `y_true`, provided that there are as many as columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    Returns
    -------
    curve : RiskCoverageCurve
        A named tuple ``(coverage, risk, threshold)`` of arrays of shape (n_thresholds,). `threshold`
        holds the distinct confidences in falling order, `coverage` the share of rows at least as
        confident, in (0, 1] and rising to 1, and `risk` the share of errors among those.

    Raises
    ------
    ValueError
        If the input is empty, holds NaN or infinity, is no probability, or does not fit together.

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

    Rows are taken in falling order of confidence. The area is the mean over rows of the error rate up
    to and including the row. Only the order of the confidences counts, not their values, so the number
    says whether confidence can tell right from wrong, and nothing about calibration.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default the sorted distinct values
        of `y_true`, provided that there are as many as columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative. Whole numbers count as repetitions of the row. Of other
        weights only the ratios count: they are scaled to sum to the number of rows.

    excess : bool, default=False
        Whether to subtract the area of the best order, in which all wrong rows come last. The result is
        0 for a perfect ranking, whatever the error rate.

    Returns
    -------
    area : float
        A fraction in [0, 1]; lower is better.

    Raises
    ------
    ValueError
        If the input is empty, holds NaN or infinity, is no probability, or does not fit together.

    See Also
    --------
    risk_coverage_curve : The curve itself.

    Notes
    -----
    Rows of equal confidence have no order of their own. Their errors are spread evenly over them, which
    is the mean over all orders, so the area does not depend on how the rows are arranged.

    Temperature scaling can change this number when there are more than two classes, since it may swap
    the confidences of two rows.

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

    In a block that follows N units with E errors, and has error rate e, the k-th unit has the risk
    (E + k e) / (N + k) = e + (E - N e) / (N + k). A sum of reciprocals is a difference of digammas,
    which is also defined for parts of a unit.
    """
    weight, errors = weight[weight > 0], errors[weight > 0]
    after = np.cumsum(weight)
    before, errors_before = after - weight, np.cumsum(errors) - errors
    # A single unit needs no difference, and gets the exact value.
    reciprocals = np.where(weight == 1.0, 1.0 / after, digamma(after + 1.0) - digamma(before + 1.0))
    total = errors + (errors_before - before * errors / weight) * reciprocals
    return float(total.sum() / after[-1])
