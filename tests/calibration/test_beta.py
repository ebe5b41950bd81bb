"""Beta calibration: the identity, the optimum, degenerate data, and agreement with betacal and netcal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import expit, softmax

from clipcal.calibration import BetaCalibration


def problem(n, seed=0, scale=2.0, n_classes=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 1.5
    return scale * logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def binary(logits, y):
    prob = softmax(logits, axis=1)
    return prob.max(axis=1), (prob.argmax(axis=1) == y).astype(float)


def log_loss(theta, score, hit):
    log_odds = theta[0] * np.log(score) - theta[1] * np.log1p(-score) + theta[2]
    return np.mean(np.logaddexp(0, log_odds) - hit * log_odds)


def test_recovers_the_temperature_of_two_classes():
    # Log-odds that are twice too large need a = b = 1/2 and c = 0.
    logits, y = problem(200_000, n_classes=2)
    a, b, c = BetaCalibration("one-vs-rest").fit(logits, y).maps_[0]
    assert_allclose([a, b, c], [0.5, 0.5, 0], atol=0.02)


def test_formula():
    score_map = BetaCalibration().fit(*problem(300)).maps_[0]
    score = np.array([0.3, 0.6, 0.99])
    log_odds = score_map.a * np.log(score) - score_map.b * np.log(1 - score) + score_map.c
    assert_allclose(score_map(score), expit(log_odds))


@given(st.integers(0, 2**31), st.floats(0.3, 5))
@settings(deadline=None, max_examples=25)
def test_no_neighboring_parameters_are_better(seed, scale):
    logits, y = problem(400, seed, scale)
    theta = np.array(BetaCalibration().fit(logits, y).maps_[0])
    assert (theta[:2] >= 0).all()
    score, hit = binary(logits, y)
    best = log_loss(theta, score, hit)
    assert best <= log_loss([1, 1, 0], score, hit) + 1e-9
    for step in np.vstack([np.eye(3), -np.eye(3)]) * 0.05:
        moved = theta + step
        moved[:2] = np.maximum(moved[:2], 0)
        # The penalty has a weight of about 1e-3 / 400 rows.
        assert best <= log_loss(moved, score, hit) + 1e-4


@given(st.integers(0, 2**31), st.integers(1, 30))
@settings(deadline=None, max_examples=25)
def test_functions_are_non_decreasing(seed, n):
    rng = np.random.default_rng(seed)
    # Labels that are independent of the scores, or negatively related, drive a and b to zero.
    logits = rng.normal(size=(n, 3)) * 3
    score_map = BetaCalibration().fit(logits, logits.argsort(axis=1)[:, rng.integers(3)], classes=range(3))
    values = score_map.maps_[0](np.linspace(0, 1, 300))
    assert np.isfinite(values).all() and (np.diff(values) >= -1e-12).all()


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("n", [1, 4, 100])
def test_degenerate_data_give_finite_parameters(n, right):
    logits = np.random.default_rng(0).normal(size=(n, 3))
    y = logits.argmax(axis=1) if right else logits.argmin(axis=1)
    fitted = BetaCalibration(keep_argmax=False).fit(logits, y, classes=range(3))
    assert np.abs(fitted.maps_[0]).max() < 30
    top = fitted.calibrate(logits)[np.arange(n), logits.argmax(axis=1)]
    assert (top > 0.6).all() if right else (top < 0.3).all()
    assert top.max() < 1


def test_saturated_rows():
    logits = np.where(np.eye(3)[[0, 1, 2, 0]] == 1, 1e3, -1e3)
    prob = BetaCalibration().fit(logits, [0, 1, 2, 1]).calibrate(logits)
    assert_allclose(prob.max(axis=1), 0.75, atol=0.1)


def confidence_problem():
    logits, y = problem(3000, scale=1.7)
    score, hit = binary(logits, y)
    return logits, y, score, hit, BetaCalibration(smoothing=0).fit(logits, y).maps_[0]


def test_agrees_with_betacal():
    betacal = pytest.importorskip("betacal")
    _, _, score, hit, ours = confidence_problem()
    expected = betacal.BetaCalibration(parameters="abm").fit(score.reshape(-1, 1), hit).predict(score)
    assert_allclose(ours(score), expected, atol=5e-3)


def test_agrees_with_netcal():
    scaling = pytest.importorskip("netcal.scaling")
    _, _, score, hit, ours = confidence_problem()
    theirs = scaling.BetaCalibration().fit(score, hit, random_state=0, tensorboard=False)
    assert_allclose(ours(score), theirs.transform(score), atol=1e-3)
