"""The temperature: the solver and the calibrator."""

import warnings

import numpy as np
import pytest
from drawn_logits import drawn_from, random_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.datasets import load_iris

from clipcal.calibration import TemperatureScaling, fit_temperature

IRIS_X, IRIS_Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[IRIS_Y]


def log_loss_at(beta, logits, y, weight=None):
    return -np.average(log_softmax(beta * logits, axis=1)[np.arange(len(y)), y], weights=weight)


def test_temperature_by_hand():
    # Three of four rows with the same margin are correct, so the optimal probability is 3/4.
    beta = fit_temperature([[0.0, 5.0]] * 4, [1, 1, 1, 0])
    assert_allclose(beta * 5, np.log(3), rtol=1e-12)
    assert_allclose(fit_temperature([[0.0, 5.0]] * 2, [1, 0], [3, 1]), beta, rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_log_loss_is_minimal(weighted):
    logits = random_logits()
    y = drawn_from(0.4 * logits)
    weight = np.random.default_rng(1).random(len(y)) if weighted else None
    beta = fit_temperature(logits, y, weight)
    best = minimize_scalar(
        lambda u: log_loss_at(np.exp(u), logits, y, weight), bounds=(-5, 5), method="bounded"
    )
    assert_allclose(beta, np.exp(best.x), rtol=1e-4)
    assert log_loss_at(beta, logits, y, weight) <= best.fun + 1e-12


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.floats(-6, 6), st.integers(2, 8))
def test_scale_shift_and_repetition(seed, log_factor, n_classes):
    logits = random_logits(60, n_classes, seed)
    y = drawn_from(logits * 0.5, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        beta = fit_temperature(logits, y)
        assert_allclose(fit_temperature(logits * 10**log_factor, y) * 10**log_factor, beta, rtol=1e-8)
        shift = np.random.default_rng(seed).normal(size=(60, 1)) * 100
        assert_allclose(fit_temperature(logits + shift, y), beta, rtol=1e-8)
        assert_allclose(fit_temperature(np.tile(logits, (3, 1)), np.tile(y, 3)), beta, rtol=1e-8)
        weight = np.random.default_rng(seed).integers(1, 4, 60)
        weighted = fit_temperature(logits, y, weight)
        assert_allclose(weighted, fit_temperature(logits.repeat(weight, axis=0), y.repeat(weight)), rtol=1e-8)
    assert log_loss_at(beta, logits, y) <= log_loss_at(1.0, logits, y) + 1e-12


@pytest.mark.parametrize(
    ("logits", "y", "reason"),
    [
        ([[3, 0], [0, 2]], [0, 1], "classified correctly"),
        ([[3, 0], [0, 2]], [1, 0], "no higher than the average"),
        ([[1, 1], [1, 1]], [1, 0], "do not determine"),
    ],
)
def test_warns_if_there_is_no_optimum(logits, y, reason):
    with pytest.warns(UserWarning, match=reason):
        assert fit_temperature(logits, y) == 1.0


def test_excluded_classes_have_no_effect():
    logits = random_logits(200, 3)
    y = drawn_from(logits)
    padded = np.column_stack([logits, np.full(200, -np.inf)])
    assert_allclose(fit_temperature(padded, y), fit_temperature(logits, y), rtol=1e-10)
    with pytest.raises(ValueError, match="-inf in 1 rows"):
        fit_temperature(padded, np.append(y[:-1], 3))


@pytest.mark.parametrize(
    ("logits", "y", "weight", "message"),
    [
        ([[np.nan, 0]], [0], None, "NaN"),
        ([[1, 0]], [2], None, "searchsorted"),
        ([[1, 0]], ["a"], None, "searchsorted"),
        ([[1, 0]], [0], [0], "zero"),
        ([[1, 0], [0, 1]], [0], None, "inconsistent"),
        (np.empty((0, 2)), [], None, "0 sample"),
    ],
)
def test_invalid_input_raises(logits, y, weight, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, y, weight)


@pytest.mark.parametrize("mask", [-1e8, -1e9, -1e15, np.finfo(np.float32).min, -1e300])
def test_classes_masked_by_large_negative_logits_have_no_effect(mask):
    logits = random_logits(300, 4)
    y = drawn_from(logits * 0.3)
    masked = np.column_stack([logits, np.full(300, mask)])
    with np.errstate(all="raise", under="ignore"):
        assert_allclose(fit_temperature(masked, y), fit_temperature(logits, y), rtol=1e-8)


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30, 1e160])
def test_scale_of_logits(size):
    logits = random_logits(300, 4)
    y = drawn_from(logits * 0.3)
    with np.errstate(all="raise", under="ignore"):
        assert_allclose(fit_temperature(logits * size, y) * size, fit_temperature(logits, y), rtol=1e-8)


@pytest.fixture
def calls(monkeypatch):
    """Number of rows in each evaluation of the derivatives."""
    from clipcal.calibration import _temperature_fit

    calls = []
    original = _temperature_fit._TemperatureProblem._derivatives

    def counted(self, beta):
        calls.append(len(self.logits))
        return original(self, beta)

    monkeypatch.setattr(_temperature_fit._TemperatureProblem, "_derivatives", counted)
    return calls


@pytest.mark.parametrize("shrinkage", [0.0, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("n", [12, 40, 300])
def test_almost_separable_rows_and_shrinkage(shrinkage, n, calls):
    rng = np.random.default_rng(n)
    y = rng.integers(0, 10, n)
    logits = rng.normal(size=(n, 10)) + 6 * np.eye(10)[y]
    logits[0] = np.roll(logits[0], 1) * 0.05
    scaling = TemperatureScaling(shrinkage=shrinkage).fit(logits, y, classes=range(10))

    def total(u):
        return n * log_loss_at(np.exp(u), logits, y) + shrinkage * u**2

    best = minimize_scalar(total, bounds=(-8, 8), method="bounded", options={"xatol": 1e-10})
    assert total(-np.log(scaling.temperature_)) <= best.fun + 1e-9
    assert len(calls) < 40


def test_few_steps_on_many_rows(calls):
    logits = random_logits(20_000, 5)
    fit_temperature(logits, drawn_from(logits * 0.4))
    assert calls.count(20_000) <= 5 and len(calls) < 20


@pytest.mark.parametrize("near", [1e-16, 1e-15])
def test_rounding_does_not_change_the_argmax(near):
    logits = np.array([[1.0, 1.0 + 4 * near, 0.0], [2.0, 0.0, np.nextafter(2.0, 3.0)]] * 20)
    y = np.array([1, 2, 0, 0] * 10)
    scaling = TemperatureScaling().fit(logits, y)
    for values in (scaling.calibrate(logits), scaling.transform(logits)):
        np.testing.assert_array_equal(values.argmax(axis=1), logits.argmax(axis=1))


def test_agrees_with_probmetrics():
    calibrators = pytest.importorskip(
        "probmetrics.calibrators", reason="probmetrics is only used for comparison"
    )
    from probmetrics.distributions import CategoricalLogits

    torch = pytest.importorskip("torch")
    logits = random_logits(800, 6)
    y = drawn_from(logits * 0.45)
    theirs = calibrators.get_calibrator("temp-scaling").fit_torch(
        CategoricalLogits(torch.from_numpy(logits)), torch.from_numpy(y)
    )
    assert_allclose(fit_temperature(logits, y), float(theirs.invtemp_), rtol=1e-6)


@pytest.mark.parametrize("seed", [100, 174, 223])
def test_masked_classes_do_not_slow_down_the_search(seed, calls):
    rng = np.random.default_rng(seed)
    logits = rng.standard_t(1.2, size=(30, 4)) * 1e-4
    y = np.where(rng.random(30) < 0.9, logits.argmax(axis=1), rng.integers(0, 4, 30))
    masked = np.column_stack([logits, np.full(30, -1e60)])
    assert_allclose(fit_temperature(masked, y), fit_temperature(logits, y), rtol=1e-8)
    assert len(calls) < 90
