"""Regularizer of the mean and the variance of margins."""

import numpy as np
import pytest
import torch
from loss_terms import LOGITS, TARGETS, X, Y, fitted, term_of, value

from clipcal.regularizers import MarginRegularizer

MARGINS = [1.0, 2.5, 4.0, -0.5]  # 2 - 1, 3 - 0.5, 4 - 0 and 1 - 1.5


def test_hand_computed_value():
    # Mean 7 / 4; deviations -0.75, 0.75, 2.25 and -2.25; variance 2 (0.5625 + 5.0625) / 4 = 2.8125.
    term = term_of(MarginRegularizer(0.2, variance_weight=0.04))
    assert value(term).item() == pytest.approx(-0.2 * 1.75 + 0.04 * 2.8125, abs=1e-6)
    assert value(term_of(MarginRegularizer())).item() == pytest.approx(-0.175 + 0.028125, abs=1e-6)


def test_mean_and_variance_are_weighted():
    weights = np.array([3.0, 0.0, 1.0, 2.0])
    mean = np.average(MARGINS, weights=weights)
    variance = np.average((np.array(MARGINS) - mean) ** 2, weights=weights)
    term = term_of(MarginRegularizer(0.2, variance_weight=0.04))
    assert value(term, weights=weights).item() == pytest.approx(-0.2 * mean + 0.04 * variance, abs=1e-6)


def test_one_sample_has_no_variance():
    term = term_of(MarginRegularizer(0.5, variance_weight=100.0))
    assert value(term, [[1.0, 4.0, 2.0]], targets=[1]).item() == pytest.approx(-1.0)


def test_gradient_is_that_of_the_published_formula():
    ours, theirs = (torch.tensor(LOGITS[:3], requires_grad=True) for _ in range(2))
    found = value(term_of(MarginRegularizer()), ours, targets=TARGETS[:3])
    masked = theirs.clone()
    masked[range(3), TARGETS[:3]] = -float("inf")
    margins = theirs[range(3), TARGETS[:3]] - masked.max(dim=1).values
    expected = -0.1 * margins.mean() + 0.01 * margins.var(unbiased=False)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found, ours)[0], torch.autograd.grad(expected, theirs)[0]
    assert gradients[0].isfinite().all() and gradients[1].norm() > 1e-2
    torch.testing.assert_close(*gradients)


def test_two_classes():
    term = term_of(MarginRegularizer(1.0, variance_weight=0.0))
    assert value(term, [[1.0, 3.0], [2.0, 7.0]], targets=[1, 0]).item() == pytest.approx(-(2 - 5) / 2)


def test_is_added_to_the_loss_and_changes_margins():
    clf = fitted("margin")
    for record in clf.history_:
        assert record["loss"] == pytest.approx(record["cross_entropy"] + record["margin"], abs=1e-5)

    def margins(clf):
        logits = clf.decision_function(X)
        own = clf.classes_ == Y[:, None]
        return logits[own] - np.where(own, -np.inf, logits).max(axis=1)

    large, plain, even = (
        margins(fitted(each, max_epochs=20))
        for each in (
            MarginRegularizer(1.0, variance_weight=0.0),
            None,
            MarginRegularizer(0.0, variance_weight=1.0),
        )
    )
    assert large.mean() > plain.mean()
    assert even.var() < plain.var()


@pytest.mark.parametrize("params", [{"weight": -1.0}, {"variance_weight": -1.0}])
def test_invalid_parameters_raise(params):
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter of MarginRegularizer"):
        fitted(MarginRegularizer(**params))
