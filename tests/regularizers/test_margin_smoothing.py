"""Margin-based label smoothing: value, gradient, and training."""

import numpy as np
import pytest
import torch
from loss_terms import LOGITS, X, fitted, term_of, value

from clipcal.regularizers import MarginSmoothingRegularizer


def test_hand_computed_value():
    # Distances from the highest logit: (0, 1, 3), (3, 0, 2.5), (5, 4, 0), (0.5, 0, 0.5). Beyond 2 there are
    # 1, 1 + 0.5, 3 + 2 and nothing, so the means over classes are 1/3, 1/2, 5/3 and 0.
    term = term_of(MarginSmoothingRegularizer(0.4, margin=2.0))
    assert value(term).item() == pytest.approx(0.4 * (1 / 3 + 1 / 2 + 5 / 3) / 4, abs=1e-6)
    assert value(term, weights=[0, 1, 3, 0]).item() == pytest.approx(0.4 * (0.5 + 5) / 4, abs=1e-6)


def test_logits_within_the_margin_have_no_loss_and_no_gradient():
    term = term_of(MarginSmoothingRegularizer(margin=5.0))
    logits = torch.tensor(LOGITS, requires_grad=True)
    found = value(term, logits)
    assert found.item() == 0
    assert torch.autograd.grad(found, logits)[0].abs().max() == 0


def test_gradient_lowers_the_highest_logit_and_raises_distant_ones():
    logits = torch.tensor([[4.0, 1.0, -3.0]], requires_grad=True)
    term = term_of(MarginSmoothingRegularizer(0.3, margin=2.0))
    (gradient,) = torch.autograd.grad(value(term, logits, targets=[1]), logits)
    torch.testing.assert_close(gradient, torch.tensor([[0.2, -0.1, -0.1]]))


def test_does_not_change_if_a_constant_is_added_to_the_logits():
    term = term_of(MarginSmoothingRegularizer(margin=1.0))
    torch.testing.assert_close(value(term, torch.tensor(LOGITS) + 7.0), value(term))


def test_is_added_to_the_loss_and_reduces_distances():
    strong = fitted(MarginSmoothingRegularizer(weight=2.0, margin=0.0), max_epochs=20)
    for record in strong.history_:
        assert record["mbls"] > 0
        assert record["loss"] == pytest.approx(record["cross_entropy"] + record["mbls"], rel=1e-5)
    plain, zero = (
        fitted(each, max_epochs=20) for each in (None, MarginSmoothingRegularizer(weight=0.0, margin=0.0))
    )
    ranges = [np.ptp(clf.decision_function(X), axis=1).mean() for clf in (strong, plain)]
    assert ranges[0] < ranges[1]
    np.testing.assert_allclose(zero.text_features_, plain.text_features_, atol=1e-6)


@pytest.mark.parametrize("params", [{"weight": -1.0}, {"margin": -1.0}, {"margin": None}])
def test_invalid_parameters_raise(params):
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter of MarginSmoothingRegularizer"):
        fitted(MarginSmoothingRegularizer(**params))
