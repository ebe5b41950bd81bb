"""Label smoothing: value, gradient, and the cross-entropy that it replaces."""

import math

import numpy as np
import pytest
import torch
from loss_terms import LOGITS, TARGETS, X, fitted, term_of, value

from clipcal.regularizers import LabelSmoothingRegularizer


def test_hand_computed_value():
    # Odds 4 : 2 : 2 give probabilities 1/2, 1/4 and 1/4; the sample is of the first class.
    logits = torch.tensor([[4.0, 2.0, 2.0]]).log()
    expected = 0.9 * math.log(2) + 0.1 * (math.log(2) + 2 * math.log(4)) / 3
    term = term_of(LabelSmoothingRegularizer(0.1))
    assert value(term, logits, targets=[0]).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_value_and_gradient_equal_those_of_smoothed_targets(weight):
    logits = torch.tensor(LOGITS, requires_grad=True)
    found = value(term_of(LabelSmoothingRegularizer(weight)), logits)
    targets = (1 - weight) * torch.eye(3)[TARGETS] + weight / 3
    expected = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(gradient, (logits.softmax(dim=1) - targets) / 4)


def test_samples_are_weighted():
    term = term_of(LabelSmoothingRegularizer())
    single = [value(term, [row], targets=[target]) for row, target in zip(LOGITS, TARGETS, strict=True)]
    expected = (3 * single[0] + single[2]) / 4
    torch.testing.assert_close(value(term, weights=[3, 0, 1, 0]), expected)


def test_replaces_the_cross_entropy_in_training():
    clf = fitted("label-smoothing")
    for record in clf.history_:
        assert "cross_entropy" not in record
        assert record["loss"] == pytest.approx(record["label-smoothing"])
    assert clf.history_[-1]["loss"] < clf.history_[0]["loss"]


def test_zero_is_the_cross_entropy():
    smoothed, plain = fitted(LabelSmoothingRegularizer(0.0)), fitted(None)
    np.testing.assert_allclose(smoothed.text_features_, plain.text_features_, atol=1e-6)
    for one, other in zip(smoothed.history_, plain.history_, strict=True):
        assert one["label-smoothing"] == pytest.approx(other["cross_entropy"], rel=1e-5)
    assert np.abs(fitted(LabelSmoothingRegularizer(0.5)).text_features_ - plain.text_features_).max() > 1e-4


def test_smoothed_targets_reduce_the_confidence():
    smoothed, plain = (fitted(each, max_epochs=30) for each in (LabelSmoothingRegularizer(0.5), None))
    assert smoothed.predict_proba(X).max(axis=1).mean() < plain.predict_proba(X).max(axis=1).mean()


@pytest.mark.parametrize("weight", [-0.1, 1.1, "auto"])
def test_invalid_weight_raises(weight):
    with pytest.raises(ValueError, match="'weight' parameter of LabelSmoothingRegularizer"):
        fitted(LabelSmoothingRegularizer(weight))
