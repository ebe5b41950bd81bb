"""Vector and matrix scaling: the optimum, penalties, degenerate rows, and other libraries."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq, check_grad
from scipy.special import expit, log_softmax, logsumexp, softmax
from sklearn.exceptions import ConvergenceWarning

from clipcal.calibration import MatrixScaling, VectorScaling, _linear_fit, fit_temperature
from clipcal.calibration._linear_fit import Penalty, fit_linear_map

BOTH = pytest.mark.parametrize("make", [VectorScaling, MatrixScaling])


def problem(n, n_classes=5, seed=0, truth=None):
    """Over-confident logits with biased and mixed columns; `truth` is the seed of the distortion."""
    world = np.random.default_rng(7 if truth is None else truth)
    leak = np.eye(n_classes) + 0.15 * world.normal(size=(n_classes, n_classes))
    bias = 0.7 * world.normal(size=n_classes)
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, n_classes))
    logits[np.arange(n), rng.integers(n_classes, size=n)] += 2
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return 3 * (logits @ leak.T + bias), y


def log_loss(prob, y, weight=None):
    return -np.average(np.log(prob[np.arange(len(y)), y]), weights=weight)


def smoothed_temperature(logits, y):
    prob = softmax(logits * fit_temperature(logits, y), axis=1)
    return (len(y) * prob + 1 / logits.shape[1]) / (len(y) + 1)


def free_matrix(**changes):
    options = {"diagonal_penalty": 0.0, "off_diagonal_penalty": 0.0, "intercept_penalty": 0.0}
    return MatrixScaling(**{**options, **changes})


def slope(fitted, logits, y, diagonal, off_diagonal, intercept):
    """Largest derivative of the objective, in an independent implementation."""
    log_prob = np.log(smoothed_temperature(logits, y))
    surplus = (fitted.calibrate(logits) - np.eye(logits.shape[1])[y]) / len(y)
    by_intercept = surplus.sum(axis=0) + 2 * intercept * fitted.intercept_
    if fitted.coef_.ndim == 1:
        by_coef = (surplus * log_prob).sum(axis=0) + 2 * diagonal * (fitted.coef_ - 1)
    else:
        identity = np.eye(logits.shape[1])
        factor = np.where(identity == 1, diagonal, off_diagonal)
        by_coef = surplus.T @ log_prob + 2 * factor * (fitted.coef_ - identity)
    return max(np.abs(by_coef).max(), np.abs(by_intercept).max())


# --- the optimum ------------------------------------------------------------------------------------


def test_by_hand():
    # With constant logits, the optimal probabilities are the class frequencies.
    y = [0, 0, 0, 1]
    for free in (VectorScaling(0), free_matrix()):
        assert_allclose(free.fit(np.zeros((4, 2)), y).calibrate([[0, 0]]), [[0.75, 0.25]], atol=1e-5)
    # With a penalty, the margin is smaller. Of all weights and intercepts with a margin s, the nearest to the
    # start have the squared distance s^2 / (2 + 2 log(2)^2), since all log-probabilities are -log(2).
    margin = brentq(lambda s: expit(s) - 0.75 + 2 * 0.1 * s / (2 + 2 * np.log(2) ** 2), 0, 2)
    prob = VectorScaling(0.1).fit(np.zeros((4, 2)), y).calibrate([[0, 0]])
    assert_allclose(prob, [[expit(margin), expit(-margin)]], atol=1e-8)


def test_formula():
    logits, y = problem(300)
    log_prob = np.log(smoothed_temperature(logits, y))
    vector = VectorScaling().fit(logits, y)
    assert_allclose(vector.temperature_, 1 / fit_temperature(logits, y))
    assert vector.smoothing_ == 1 / 301
    expected = softmax(vector.coef_ * log_prob + vector.intercept_, axis=1)
    assert_allclose(vector.calibrate(logits), expected, atol=1e-12)
    matrix = MatrixScaling().fit(logits, y)
    expected = softmax(log_prob @ matrix.coef_.T + matrix.intercept_, axis=1)
    assert_allclose(matrix.calibrate(logits), expected, atol=1e-12)


@pytest.mark.parametrize(("n", "n_classes"), [(12, 3), (40, 10), (500, 5), (1000, 12)])
def test_gradient_is_zero(n, n_classes):
    logits, y = problem(n, n_classes)
    y[:n_classes] = np.arange(n_classes)
    r = n_classes / n
    assert slope(VectorScaling().fit(logits, y), logits, y, r, 0, r) < 1e-6
    assert slope(VectorScaling(0.02).fit(logits, y), logits, y, 0.02, 0, 0.02) < 1e-6
    assert slope(MatrixScaling().fit(logits, y), logits, y, r, r * (n_classes - 1), r) < 1e-6
    odir = free_matrix(off_diagonal_penalty=0.1, intercept_penalty=0.01)
    assert slope(odir.fit(logits, y), logits, y, 0, 0.1, 0.01) < 1e-6


@pytest.mark.parametrize("full", [False, True])
def test_derivatives(full):
    logits, y = problem(50, 4)
    logits[:10, 3], y[:10] = -np.inf, 0
    weight = np.random.default_rng(0).random(50) + 0.1
    log_prob = log_softmax(logits / 3, axis=1)
    task = _linear_fit._Problem(log_prob, y, weight, Penalty(0.1, 0.3, 0.2), full)
    point = np.random.default_rng(1).normal(size=task.shape).ravel()
    error = check_grad(
        lambda flat: task.value_and_gradient(flat.reshape(task.shape))[0],
        lambda flat: task.value_and_gradient(flat.reshape(task.shape))[1].ravel(),
        point,
    )
    assert error < 1e-5
    # The two changes of variables are transposes of each other.
    forth, back = task.change_of_variables()
    left, right = np.random.default_rng(2).normal(size=(2, *task.shape))
    assert_allclose((forth(left) * right).sum(), (left * back(right)).sum(), rtol=1e-10)


def test_block_size_has_no_effect(monkeypatch):
    logits, y = problem(300)
    before = [make().fit(logits, y).calibrate(logits) for make in (VectorScaling, MatrixScaling)]
    monkeypatch.setattr(_linear_fit, "_BLOCK_ENTRIES", 64)
    after = [make().fit(logits, y).calibrate(logits) for make in (VectorScaling, MatrixScaling)]
    assert_allclose(after, before, atol=1e-7)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 999), st.integers(2, 6), st.integers(100, 300))
def test_more_parameters_give_a_smaller_loss(seed, n_classes, n):
    logits, y = problem(n, n_classes, seed, truth=seed)
    y[:n_classes] = np.arange(n_classes)
    vector = log_loss(VectorScaling(0).fit(logits, y).calibrate(logits), y)
    matrix = log_loss(free_matrix().fit(logits, y).calibrate(logits), y)
    assert matrix - 1e-6 <= vector <= log_loss(smoothed_temperature(logits, y), y) + 1e-6
    held = [
        log_loss(VectorScaling(strength).fit(logits, y).calibrate(logits), y) for strength in (1e-2, 0.1, 1)
    ]
    assert vector - 1e-6 <= held[0] <= held[1] + 1e-9 <= held[2] + 2e-9


# --- penalties --------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [1e7, 1e300])
def test_infinite_penalty_is_smoothed_temperature_scaling(strength):
    logits, y = problem(100)
    matrix = MatrixScaling(
        diagonal_penalty=strength, off_diagonal_penalty=strength, intercept_penalty=strength
    )
    for calibrator in (VectorScaling(strength), matrix):
        prob = calibrator.fit(logits, y).calibrate(logits)
        assert_allclose(prob, smoothed_temperature(logits, y), atol=1e-6)


def test_values_of_auto_penalties():
    logits, y = problem(100, 4)
    vector, auto = VectorScaling(0.04).fit(logits, y), VectorScaling().fit(logits, y)
    assert_array_equal(vector.coef_, auto.coef_)
    spelled = MatrixScaling(diagonal_penalty=0.04, off_diagonal_penalty=0.12, intercept_penalty=0.04)
    assert_allclose(spelled.fit(logits, y).coef_, MatrixScaling().fit(logits, y).coef_, atol=1e-9)


@BOTH
@pytest.mark.parametrize(("per_class", "gain"), [(1, -0.03), (4, 0.0), (16, 0.04), (64, 0.06)])
def test_few_rows_are_harmless_and_many_improve_the_loss(make, per_class, gain):
    fresh, y_fresh = problem(4000, 10, seed=99)
    gains = []
    for seed in range(4):
        logits, y = problem(10 * per_class, 10, seed)
        prob = make().fit(logits, y, classes=np.arange(10)).calibrate(fresh)
        tempered = softmax(fresh * fit_temperature(logits, y), axis=1)
        gains.append(log_loss(tempered, y_fresh) - log_loss(prob, y_fresh))
    assert np.mean(gains) > gain


def test_biases_and_confusions_are_corrected():
    logits, y = problem(10_000)
    y_prob = MatrixScaling().fit(logits, y).calibrate(logits)
    world = np.random.default_rng(7)
    leak = np.eye(5) + 0.15 * world.normal(size=(5, 5))
    true_logits = np.linalg.solve(leak, (logits / 3 - 0.7 * world.normal(size=5)).T).T
    assert log_loss(y_prob, y) < log_loss(softmax(true_logits, axis=1), y) + 0.01
    assert log_loss(softmax(logits * fit_temperature(logits, y), axis=1), y) > log_loss(y_prob, y) + 0.1


# --- invariances ------------------------------------------------------------------------------------


@BOTH
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 999), n_classes=st.integers(2, 6))
def test_invariances(make, seed, n_classes):
    logits, y = problem(120, n_classes, seed, truth=seed)
    y[:n_classes] = np.arange(n_classes)
    rng = np.random.default_rng(seed)
    fitted = make().fit(logits, y)
    prob = fitted.calibrate(logits)
    assert (prob >= 0).all() and np.abs(prob.sum(axis=1) - 1).max() < 1e-9
    assert_allclose(fitted.calibrate(logits[5:6]), prob[5:6], atol=1e-12)
    assert_allclose(softmax(fitted.transform(logits), axis=1), prob, atol=1e-12)
    shift, stretch = 100 * rng.normal(size=(120, 1)), 10 ** rng.uniform(-3, 3)
    moved = stretch * (logits + shift)
    assert_allclose(make().fit(moved, y).calibrate(moved), prob, atol=1e-6)
    rows = rng.permutation(120)
    assert_allclose(make().fit(logits[rows], y[rows]).calibrate(logits), prob, atol=1e-6)
    columns = rng.permutation(n_classes)
    exchanged = make().fit(logits[:, columns], y, classes=columns)
    assert_allclose(exchanged.calibrate(logits[:, columns]), prob[:, columns], atol=1e-6)
    names = np.array(["ant", "bee", "cat", "dog", "elk", "fox"])[:n_classes]
    assert_array_equal(make().fit(logits, names[y]).calibrate(logits), prob)
    weight = rng.integers(0, 4, 120)
    weight[:n_classes] = 1
    weighted = make().fit(logits, y, weight).calibrate(logits)
    repeated = make().fit(logits.repeat(weight, axis=0), y.repeat(weight)).calibrate(logits)
    assert_allclose(weighted, repeated, atol=1e-6)
    single = logits.astype(np.float32)
    assert_allclose(make().fit(single, y).calibrate(single), prob, atol=1e-4)


@pytest.mark.parametrize(
    "calibrator",
    [
        VectorScaling(0.01),
        MatrixScaling(diagonal_penalty=0.01, off_diagonal_penalty=0.1, intercept_penalty=0.01),
    ],
)
def test_excluded_classes_have_no_effect(calibrator):
    logits, y = problem(200, 3)
    prob = calibrator.fit(logits, y).calibrate(logits)
    padded = np.column_stack([logits, np.full(200, -np.inf)])
    masked = calibrator.fit(padded, y, classes=range(4)).calibrate(padded)
    assert_allclose(masked, np.column_stack([prob, np.zeros(200)]), atol=1e-7)
    some = logits.copy()
    some[np.arange(100), (y[:100] + 1) % 3] = -np.inf
    masked = calibrator.fit(some, y).calibrate(some)
    assert_array_equal(masked == 0, np.isneginf(some))
    only = np.full((1, 3), -np.inf)
    only[0, 1] = 2
    assert_array_equal(calibrator.calibrate(only), [[0, 1, 0]])


@BOTH
def test_class_without_rows_has_the_identity(make):
    logits, y = problem(80, 5)
    seen = y != 2
    fitted = make().fit(logits[seen], y[seen], classes=range(5))
    assert fitted.intercept_[2] == 0 and (np.delete(fitted.intercept_, 2) != 0).all()
    assert_array_equal(fitted.coef_[2], 1 if make is VectorScaling else np.eye(5)[2])
    assert fitted.calibrate(logits)[:, 2].max() > 0.1


# --- degenerate rows --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("calibrator", [VectorScaling(), VectorScaling(0), MatrixScaling(), free_matrix()])
@pytest.mark.parametrize(
    ("logits", "y"),
    [
        ([[5.0, 1.0, 0.0]], [0]),  # one row
        ([[0.0, 0.0, 0.0]] * 3, [0, 1, 2]),  # ties
        (1e3 * np.eye(3), [0, 1, 2]),  # saturated and correct
        (1e3 * np.eye(3), [1, 2, 0]),  # saturated and wrong
        ([[1e3, -1e3, 0]] * 4, [0, 0, 1, 2]),  # saturated and both
        (2 * np.eye(3).repeat(4, axis=0), [1] * 12),  # one class
        ([[1.0, 0.0, -np.inf], [-np.inf, 0.0, 1.0]], [0, 2]),  # impossible classes
        (np.log(np.maximum(np.eye(3)[[0, 1, 1]], 1e-300)), [0, 1, 2]),  # probabilities of 0 and 1
    ],
)
def test_degenerate_rows(calibrator, logits, y):
    fitted = calibrator.fit(logits, y, classes=range(3))
    prob = fitted.calibrate(np.vstack([logits, [[1e3, 0, -1e3]]]))
    assert np.isfinite(fitted.coef_).all() and np.isfinite(prob).all()
    assert_allclose(prob.sum(axis=1), 1, atol=1e-9)


@BOTH
@pytest.mark.filterwarnings("error")
def test_one_column_and_extreme_weights(make):
    assert_array_equal(make().fit([[1.0], [2.0]], ["a", "a"]).calibrate([[3.0]]), [[1.0]])
    logits, y = problem(50, 3)
    for weight in (1e-300, 1e300):
        prob = make().fit(logits, y, np.full(50, weight)).calibrate(logits)
        assert_allclose(prob.sum(axis=1), 1, atol=1e-9)


def test_max_classes():
    logits = np.zeros((201, 201))
    with pytest.raises(ValueError, match=r"40,602 parameters for 201 classes.*VectorScaling\(\)"):
        MatrixScaling().fit(logits, np.arange(201))
    MatrixScaling(max_classes=201).fit(logits, np.arange(201))


def test_warns_if_not_converged(monkeypatch):
    monkeypatch.setattr(_linear_fit, "_MAX_ITERATIONS", 2)
    with pytest.warns(ConvergenceWarning, match="VectorScaling did not converge") as caught:
        VectorScaling(0).fit(*problem(200))
    assert caught[0].filename == __file__


def test_a_thousand_classes():
    logits, y = problem(1000, 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prob = VectorScaling().fit(logits, y, classes=range(1000)).calibrate(logits)
    assert log_loss(prob, y) < log_loss(smoothed_temperature(logits, y), y)


# --- other libraries --------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "name"), [(VectorScaling, "svs"), (MatrixScaling, "sms")])
@pytest.mark.parametrize(("n", "n_classes"), [(60, 4), (2000, 8)])
def test_agrees_with_probmetrics(make, name, n, n_classes):
    factory = pytest.importorskip("probmetrics.calibrators", reason="probmetrics is only used for comparison")
    logits, y = problem(n, n_classes)
    prob = softmax(logits, axis=1)
    theirs = factory.get_calibrator(name)
    theirs.fit(prob, y)
    ours = make().fit(np.log(prob), y).calibrate(np.log(prob))
    assert_allclose(ours, theirs.predict_proba(prob), atol=5e-3)


def test_agrees_with_netcal():
    scaling = pytest.importorskip("netcal.scaling", reason="netcal is only used for comparison")
    logits, y = problem(2000)
    log_prob = log_softmax(logits / 2, axis=1)
    theirs = scaling.LogisticCalibration()
    theirs.fit(np.exp(log_prob), y, random_state=0, tensorboard=False)
    fitted, _ = fit_linear_map(log_prob.copy(), y, np.ones(2000), Penalty(0, 0, 0), full=False)
    scores = fitted(log_prob)
    ours = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
    assert_allclose(ours, theirs.transform(np.exp(log_prob)), atol=1e-4)
