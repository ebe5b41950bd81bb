"""Confidence penalty."""

import math

import numpy as np
import pytest
import torch
from loss_terms import LOGITS, TARGETS, X, fitted, term_of, value
from scipy.stats import entropy

from clipcal.regularizers import EntropyRegularizer


def test_hand_computed_value():
    # Probabilities 1/2, 1/4 and 1/4 have an entropy of 1.5 bits.
    term = term_of(EntropyRegularizer(0.2))
    logits = torch.tensor([[4.0, 2.0, 2.0]]).log()
    assert value(term, logits, targets=[0]).item() == pytest.approx(-0.2 * 1.5 * math.log(2), abs=1e-6)
    assert value(term, [[7.0, 7.0, 7.0]], targets=[0]).item() == pytest.approx(-0.2 * math.log(3), abs=1e-6)


def test_equals_the_entropy_of_scipy_and_is_weighted():
    term = term_of(EntropyRegularizer())
    entropies = entropy(torch.tensor(LOGITS).double().softmax(dim=1).numpy(), axis=1)
    assert value(term).item() == pytest.approx(-0.1 * entropies.mean(), rel=1e-5)
    weights = [1.0, 0.0, 2.0, 5.0]
    expected = -0.1 * np.average(entropies, weights=weights)
    assert value(term, weights=weights).item() == pytest.approx(expected, rel=1e-5)
    assert value(term, targets=TARGETS[::-1]).item() == value(term).item()


def test_certain_predictions_have_a_finite_gradient():
    logits = torch.tensor([[500.0, 0.0, -500.0]], requires_grad=True)
    found = value(term_of(EntropyRegularizer()), logits, targets=[0])
    assert found.item() == 0
    assert torch.autograd.grad(found, logits)[0].abs().max() == 0


def test_is_added_to_the_loss_and_reduces_the_confidence():
    clf = fitted("entropy")
    for record in clf.history_:
        assert record["entropy"] < 0
        assert record["loss"] == pytest.approx(record["cross_entropy"] + record["entropy"], abs=1e-5)
    penalized, plain = (fitted(each, max_epochs=20) for each in (EntropyRegularizer(1.0), None))
    assert penalized.predict_proba(X).max(axis=1).mean() < plain.predict_proba(X).max(axis=1).mean()


def test_invalid_weight_raises():
    with pytest.raises(ValueError, match="'weight' parameter of EntropyRegularizer"):
        fitted(EntropyRegularizer(-1.0))
