"""Density ratios: the formula, its symmetry, rows far from all others, and invalid input."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from scipy.stats import norm
from sklearn.base import clone

from clipcal.calibration import DensityRatioCalibration, _density_ratio


def sample(n=120, n_classes=4, seed=0, scale=2.0):
    """Rows whose accuracy increases with proximity."""
    rng = np.random.default_rng(seed)
    proximity = rng.uniform(0.2, 0.9, n)
    logits = rng.normal(size=(n, n_classes)) * scale
    y = np.where(rng.uniform(size=n) < proximity, logits.argmax(axis=1), logits.argmin(axis=1))
    y[:4] = [*logits[:2].argmax(axis=1), *logits[2:4].argmin(axis=1)]
    return logits, y, proximity


def fit(logits, y, proximity, weight=None, **parameters):
    classes = np.arange(np.shape(logits)[1])
    parameters = {"smoothing": 0, **parameters}
    return DensityRatioCalibration(**parameters).fit(logits, y, weight, classes=classes, proximity=proximity)


def top_probability(calibrator, logits, proximity):
    prob = calibrator.calibrate(logits, proximity=proximity)
    return prob[np.arange(len(prob)), np.argmax(logits, axis=1)]


def test_bayes_rule_by_hand():
    confidence = np.array([0.6, 0.8, 0.9, 0.7, 0.5001])
    proximity = np.array([0.3, 0.5, 0.7, 0.2, 0.4])
    y = np.array([0, 0, 0, 1, 1])
    logits = np.column_stack([np.log(confidence / (1 - confidence)), np.zeros(5)])
    fitted = fit(logits, y, proximity, keep_argmax=False)

    def density(rows):
        points = np.column_stack([confidence, proximity])[rows]
        bandwidth = 1.06 * points.std(axis=0) * len(points) ** (-1 / 6)
        return np.mean(norm.pdf([0.75, 0.45], points, bandwidth).prod(axis=1))

    right, wrong = 3 * density(y == 0), 2 * density(y == 1)
    prob = fitted.calibrate([[np.log(3), 0.0]], proximity=[0.45])
    assert_allclose(prob, [[right / (right + wrong), wrong / (right + wrong)]], rtol=1e-12)


def test_densities_agree_with_statsmodels():
    density = pytest.importorskip("statsmodels.nonparametric.kernel_density")
    logits, y, proximity = sample(300)
    fitted = fit(logits, y, proximity)
    query = np.column_stack([np.linspace(0.2, 1, 50), np.linspace(1, 0, 50)])
    for kind in ("right", "wrong"):
        points, weight, bandwidth = (
            getattr(fitted, f"{kind}_{part}_") for part in ("rows", "weight", "bandwidth")
        )
        theirs = density.KDEMultivariate(points, "cc", bw="normal_reference")
        assert_allclose(bandwidth, theirs.bw, rtol=1e-10)
        ours = np.exp(_density_ratio._log_density(query, points, weight, bandwidth))
        assert_allclose(ours, theirs.pdf(query), rtol=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), scale=st.sampled_from([0.3, 2.0, 8.0]), keep=st.booleans())
def test_exchanging_correct_and_wrong_exchanges_the_probabilities(seed, scale, keep):
    logits, y, proximity = sample(60, 2, seed, scale)
    q = top_probability(fit(logits, y, proximity, keep_argmax=False), logits, proximity)
    opposite = top_probability(fit(logits, 1 - y, proximity, keep_argmax=False), logits, proximity)
    assert ((q >= 0) & (q <= 1)).all()
    assert_allclose(q + opposite, 1, atol=1e-12)
    if keep:
        kept = fit(logits, y, proximity).calibrate(logits, proximity=proximity)
        assert_array_equal(kept.argmax(axis=1), logits.argmax(axis=1))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), n_classes=st.integers(2, 8))
def test_rows_are_independent_and_other_classes_keep_their_proportions(seed, n_classes):
    logits, y, proximity = sample(50, n_classes, seed)
    logits[::7, -1] = -np.inf
    y = np.where(np.isneginf(logits[np.arange(50), y]), 0, y)
    fitted = fit(logits, y, proximity)
    prob = fitted.calibrate(logits, proximity=proximity)
    assert_allclose(prob.sum(axis=1), 1, atol=1e-12)
    assert (prob >= 0).all() and (prob[::7, -1] == 0).all()
    assert_array_equal(prob.argmax(axis=1), logits.argmax(axis=1))
    assert_allclose(fitted.calibrate(logits[3:4], proximity=proximity[3:4]), prob[3:4], atol=1e-12)
    # All other probabilities of a row have the same factor.
    raw = softmax(logits, axis=1)
    others = np.arange(n_classes) != logits.argmax(axis=1)[:, None]
    shares, raw_shares = prob * others, raw * others
    assert_allclose(
        shares * raw_shares.sum(axis=1)[:, None], raw_shares * shares.sum(axis=1)[:, None], atol=1e-12
    )


def test_rows_far_from_all_others_keep_their_probabilities():
    logits, y, proximity = sample()
    fitted = fit(logits, y, proximity)
    near = fitted.calibrate(logits[:3], proximity=[0.5] * 3)
    assert not np.allclose(near, softmax(logits[:3], axis=1), atol=1e-3)
    for far in ([-9.0, 9.0, 30.0], [1e300, -1e300, 1.7e308]):
        assert_allclose(fitted.calibrate(logits[:3], proximity=far), softmax(logits[:3], axis=1), rtol=1e-12)
    # If only one density vanishes, the probability is 0 or 1.
    apart = np.where(y == logits.argmax(axis=1), 0.8, 0.2) + np.linspace(0, 1e-3, len(y))
    separated = fit(logits, y, apart, keep_argmax=False)
    assert_allclose(top_probability(separated, logits[:2], [0.8, 0.2]), [1, 0], atol=1e-9)


def test_integer_weights_repeat_rows_and_small_weights_are_scaled_up():
    logits, y, proximity = sample()
    weight = np.random.default_rng(1).integers(0, 4, len(y))
    weight[:4] = 1
    weighted = top_probability(fit(logits, y, proximity, weight), logits, proximity)
    rows = np.repeat(np.arange(len(y)), weight)
    repeated = fit(logits[rows], y[rows], proximity[rows])
    assert_allclose(weighted, top_probability(repeated, logits, proximity), atol=1e-10)
    normalized = fit(logits, y, proximity, np.full(len(y), 1 / len(y)))
    assert_allclose(normalized.right_bandwidth_, fit(logits, y, proximity).right_bandwidth_)


def test_block_size_has_no_effect(monkeypatch):
    logits, y, proximity = sample()
    fitted = fit(logits, y, proximity)
    whole = fitted.calibrate(logits, proximity=proximity)
    monkeypatch.setattr(_density_ratio, "_BLOCK_PAIRS", 7)
    assert_allclose(fitted.calibrate(logits, proximity=proximity), whole, atol=1e-12)


def test_confidence_agrees_with_accuracy_for_near_and_far_rows():
    logits, y, proximity = sample(4000)
    fitted = fit(logits[:2000], y[:2000], proximity[:2000], keep_argmax=False)
    q = top_probability(fitted, logits[2000:], proximity[2000:])
    right = y[2000:] == logits[2000:].argmax(axis=1)
    far, near = proximity[2000:] < 0.4, proximity[2000:] > 0.7
    # Groups of about 500 rows have a standard error of about 0.02.
    assert_allclose([q[far].mean(), q[near].mean()], [right[far].mean(), right[near].mean()], atol=0.06)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": "right"}, "no row was predicted wrong"),
        ({"y": "wrong"}, "no row was predicted right"),
        ({"y": "one wrong"}, "only one row was predicted wrong"),
        ({"proximity": np.full(120, 0.3)}, "rows predicted right have the same proximity"),
        ({"logits": np.tile([1e3, 0, 0, 0], (120, 1))}, "rows predicted right have the same confidence"),
        ({"proximity": None}, r"DensityRatioCalibration\.fit needs the proximity .*clipcal\.metrics"),
        ({"proximity": np.ones(119)}, "120 rows of logits but 119 entries"),
        ({"proximity": np.full(120, np.nan)}, "proximity contains NaN"),
    ],
)
def test_invalid_input_raises(change, message):
    logits, y, proximity = sample()
    right, wrong = logits.argmax(axis=1), logits.argmin(axis=1)
    labels = {"right": right, "wrong": wrong, "one wrong": np.where(np.arange(120) == 7, wrong, right)}
    given_ = {"logits": logits, "y": y, "proximity": proximity, **change}
    if isinstance(given_["y"], str):
        given_["y"] = labels[given_["y"]]
    with pytest.raises(ValueError, match=message):
        fit(**given_)


def test_calibrate_needs_proximity():
    logits, y, proximity = sample()
    fitted = fit(logits, y, proximity)
    with pytest.raises(ValueError, match=r"\.calibrate needs the proximity"):
        fitted.calibrate(logits)
    with pytest.raises(ValueError, match="2 rows of logits but 1 entries"):
        fitted.transform(logits[:2], proximity=[0.5])


def test_other_classes_extreme_logits_and_single_precision():
    logits, y, proximity = sample()
    fitted = pickle.loads(pickle.dumps(clone(DensityRatioCalibration()).fit(logits, y, proximity=proximity)))
    prob = fitted.calibrate(logits, proximity=proximity)
    other = fitted.for_classes(list("abcdef"))
    extreme = np.array([[1e3, -1e3, 0, 0, 0, 0], [0.0] * 6, [-np.inf] * 5 + [0.0]])
    new = other.calibrate(extreme, proximity=[0.5, 0.5, 0.5])
    assert_allclose(new.sum(axis=1), 1)
    assert_array_equal(new.argmax(axis=1), [0, 0, 5])
    assert new[2, 5] == 1
    assert_allclose(np.exp(fitted.transform(logits, proximity=proximity)), prob)
    single = fit(logits.astype(np.float32), y, proximity.astype(np.float32), smoothing="auto")
    assert_allclose(single.calibrate(logits, proximity=proximity), prob, atol=1e-4)
    assert DensityRatioCalibration().preserves_argmax
    assert not DensityRatioCalibration(keep_argmax=False).preserves_argmax


def test_smoothing_keeps_estimates_away_from_0_and_1():
    logits, y, proximity = sample()
    sharp = fit(logits, y, proximity)
    smooth = fit(logits, y, proximity, smoothing="auto")
    assert smooth.smoothing_ == 1 / (len(y) + 2)
    before, after = (top_probability(c, logits, proximity) for c in (sharp, smooth))
    uniform = 1 / logits.shape[1]
    changed = before != after
    assert changed.any() and (after <= 1 - smooth.smoothing_ * (1 - uniform) + 1e-12).all()
