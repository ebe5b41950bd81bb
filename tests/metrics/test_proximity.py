"""Proximity, the proximity-informed error, and its excess over the baseline."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import KBinsDiscretizer

from clipcal.metrics import (
    expected_calibration_error,
    proximity,
    proximity_bias,
    proximity_informed_calibration_error,
)

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def random_case(seed, n, n_classes=4):
    rng = np.random.default_rng(seed)
    prob = rng.dirichlet([0.4] * n_classes, n)
    y = np.where(rng.random(n) < 0.6, prob.argmax(axis=1), rng.integers(0, n_classes, n))
    return y, prob, rng.random(n)


# Proximity


def test_proximity_by_hand():
    found = proximity([[1, 0], [0, 5]], [[2, 0], [3, 0], [0, -1]], n_neighbors=2)
    # The two nearest neighbors of (0, 1) are orthogonal to it.
    assert_allclose(found, [1.0, np.exp(-np.sqrt(2))])
    all_three = np.exp(-np.array([np.sqrt(2) / 3, (2 * np.sqrt(2) + 2) / 3]))
    for n_neighbors in (3, 5):
        found = proximity([[1, 0], [0, 5]], [[2, 0], [3, 0], [0, -1]], n_neighbors=n_neighbors)
        assert_allclose(found, all_three)


def test_exclude_self():
    features = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    alone = proximity(features, features, n_neighbors=1, exclude_self=True)
    # The first and last rows are equal, and remain neighbors of each other.
    assert_allclose(alone, np.exp([0, -np.sqrt(2), -np.sqrt(2), 0]))
    assert_allclose(proximity(features, features, n_neighbors=1), 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_proximity_against_the_definition(dtype, monkeypatch):
    # Small enough that rows are split into several blocks.
    monkeypatch.setattr("clipcal.metrics._proximity._BLOCK_ENTRIES", 500)
    rng = np.random.default_rng(0)
    features, reference = rng.normal(size=(40, 8)).astype(dtype), rng.normal(size=(60, 8)).astype(dtype)
    for others, exclude in ((reference, False), (features, True)):
        unit, unit_others = (
            rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
            for rows in (features, others)
        )
        distance = np.linalg.norm(unit[:, None] - unit_others[None], axis=2)
        if exclude:
            np.fill_diagonal(distance, np.inf)
        expected = np.exp(-np.sort(distance, axis=1)[:, :5].mean(axis=1))
        assert_allclose(proximity(features, others, exclude_self=exclude), expected, atol=1e-6)


def test_small_distances_are_exact():
    near = proximity([[1.0, 0.0]], [[1.0, 1e-9]], n_neighbors=1)
    assert_allclose(-np.log(near), 1e-9, rtol=1e-6)


def test_rotation_and_length_do_not_matter():
    rng = np.random.default_rng(2)
    features, reference = rng.normal(size=(20, 6)), rng.normal(size=(30, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    turned = proximity(features @ turn * 7, reference @ turn * rng.uniform(1, 9, (30, 1)))
    assert_allclose(turned, proximity(features, reference), atol=1e-12)


@pytest.mark.parametrize(
    ("features", "reference", "options", "message"),
    [
        ([[1.0, 0.0]], [[1.0, 0.0, 0.0]], {}, "2 columns"),
        ([[1.0, 0.0]], [[0.0, 0.0]], {}, "Row 0 of reference is all zeros"),
        ([[1.0, np.nan]], [[1.0, 0.0]], {}, "NaN"),
        ([[1.0, 0.0]], [[1.0, 0.0]], {"exclude_self": True}, "no other neighbor"),
        ([[1.0, 0.0]], [[1.0, 0.0]] * 2, {"exclude_self": True}, "same rows twice"),
        ([[1.0, 0.0]], [[1.0, 0.0]], {"n_neighbors": 0}, "n_neighbors"),
    ],
)
def test_invalid_features_raise(features, reference, options, message):
    with pytest.raises(ValueError, match=message):
        proximity(features, reference, **options)


# The error over bins of proximity


def test_error_by_hand():
    y, p = [1, 1, 0, 0, 1, 1], [0.75, 0.75, 0.75, 0.75, 0.75, 0.9]
    near = [0.9, 0.8, 0.4, 0.3, 0.7, 0.6]
    options = {"proximity": near, "n_bins": 10, "n_proximity_bins": 2}
    # Proximity above 0.65: three correct rows at 0.75. Below: two wrong rows at 0.75, one correct row at 0.9.
    assert_allclose(proximity_informed_calibration_error(y, p, **options), (0.75 + 1.5 + 0.1) / 6)
    weighted = proximity_informed_calibration_error(y, p, sample_weight=[1, 0, 1, 0, 1, 0], **options)
    # Positive weights: a correct row above 0.8, a correct and a wrong row below.
    assert_allclose(weighted, (0.25 + 0.5) / 3)


def test_closed_side_matters_for_values_on_edges():
    y, p, near = [1, 0, 1, 0], [0.75, 0.75, 0.8, 0.8], [1, 2, 1, 2]
    options = {"proximity": near, "n_bins": 4, "n_proximity_bins": 1}
    assert_allclose(proximity_informed_calibration_error(y, p, **options), (0.5 + 0.6) / 4)
    y = [1, 1, 0, 0]
    assert_allclose(proximity_informed_calibration_error(y, p, **options), (0.5 + 1.6) / 4)
    left = proximity_informed_calibration_error(y, p, closed="left", **options)
    assert_allclose(left, (1.6 - 0.5) / 4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 150), st.integers(1, 20), st.integers(1, 12), st.booleans())
def test_never_below_the_expected_error(seed, n, n_bins, n_proximity_bins, weighted):
    y, prob, near = random_case(seed, n)
    weight = np.random.default_rng(seed).integers(1, 4, n) if weighted else None
    options = {"labels": range(4), "n_bins": n_bins, "sample_weight": weight}
    ece = expected_calibration_error(y, prob, **options)
    binned = {**options, "n_proximity_bins": n_proximity_bins}
    error = proximity_informed_calibration_error(y, prob, proximity=near, **binned)
    assert ece - 1e-12 <= error <= 1
    constant = proximity_informed_calibration_error(y, prob, proximity=np.full(n, 0.3), **binned)
    assert_allclose(constant, ece, atol=1e-12)
    # The result depends on the order of proximities, not on the order of rows.
    order = np.random.default_rng(seed).permutation(n)
    again = proximity_informed_calibration_error(
        y[order],
        prob[order],
        proximity=np.argsort(np.argsort(near))[order],
        **{**binned, "sample_weight": None if weight is None else weight[order]},
    )
    assert_allclose(again, error, atol=1e-12)


def test_names_precision_and_equal_weights_do_not_matter():
    y, prob, near = random_case(5, 300)
    names = np.array(["d", "a", "c", "b"])
    error = proximity_informed_calibration_error(y, prob, proximity=near)
    for p, tolerance in ((prob, 1e-12), (prob.astype(np.float32), 1e-6)):
        named = proximity_informed_calibration_error(
            names[y], p[:, ::-1], proximity=near, labels=names[::-1], sample_weight=np.full(300, 0.2)
        )
        assert_allclose(named, error, atol=tolerance)


@pytest.mark.parametrize("n", range(1, 31))
def test_few_saturated_and_tied_rows(n):
    rng = np.random.default_rng(n)
    prob = np.eye(3, dtype=np.float16)[rng.integers(0, 3, n)]
    for y in (rng.integers(0, 3, n), np.zeros(n)):
        near = rng.integers(0, 3, n)
        bias = proximity_bias(y, prob, proximity=near, labels=[0, 1, 2], n_permutations=99, random_state=0)
        assert 0 <= bias.error <= 1 and 0 <= bias.baseline <= 1


@pytest.mark.parametrize(
    ("near", "message"),
    [([0.1, np.nan], "proximity contains NaN"), ([0.1], "inconsistent"), ([[0.1, 0.2]], "1d array|shape")],
)
def test_invalid_proximity_raises(near, message):
    with pytest.raises(ValueError, match=message):
        proximity_informed_calibration_error([0, 1], [0.2, 0.8], proximity=near)


def test_warning_about_row_sums_points_to_the_caller():
    for metric in (proximity_informed_calibration_error, proximity_bias):
        with pytest.warns(UserWarning, match="sum to 1") as caught:
            metric([0, 1], [[0.5, 0.4], [0.1, 0.9]], proximity=[0.1, 0.2])
        assert caught[0].filename == __file__


def test_against_netcal_group_by_group():
    other = pytest.importorskip("netcal.metrics")
    y, prob, near = random_case(7, 1200)
    group = np.argsort(np.argsort(near)) * 10 // 1200
    confidence, correct = prob.max(axis=1), (prob.argmax(axis=1) == y).astype(int)
    shares = [
        (group == g).mean() * other.ECE(15).measure(confidence[group == g], correct[group == g])
        for g in range(10)
    ]
    assert_allclose(proximity_informed_calibration_error(y, prob, proximity=near), sum(shares), atol=1e-12)


def test_quantile_edges_give_the_same_error_if_bins_have_equal_counts():
    for n, is_multiple in ((1200, True), (1203, False)):
        y, prob, near = random_case(n, n)
        cuts = KBinsDiscretizer(10, encode="ordinal", quantile_method="linear", subsample=None)
        group = cuts.fit_transform(near[:, None])[:, 0]
        ece = [
            expected_calibration_error(y[group == g], prob[group == g], labels=range(4), closed="left")
            for g in range(10)
        ]
        theirs = np.average(ece, weights=np.bincount(group.astype(int)))
        ours = proximity_informed_calibration_error(y, prob, proximity=near, labels=range(4), closed="left")
        assert bool(abs(ours - theirs) < 1e-12) is is_multiple


# The baseline and the excess


def test_random_proximity_is_not_significant():
    y, prob, near = random_case(11, 1200)
    bias = proximity_bias(y, prob, proximity=near, random_state=0)
    assert bias.error == proximity_informed_calibration_error(y, prob, proximity=near)
    assert_allclose(bias.error - bias.baseline, bias.excess)
    assert bias.baseline > expected_calibration_error(y, prob)
    assert bias.pvalue > 0.05
    # The smallest p-value with 100 permutations.
    y = np.where(near > 0.5, prob.argmax(axis=1), -1)
    bias = proximity_bias(y, prob, proximity=near, labels=range(4), random_state=0)
    assert bias.pvalue == 1 / 101 and bias.excess > 0.1


def test_p_values_of_random_proximity_are_uniform():
    p_values = [
        proximity_bias(y, prob, proximity=near, n_permutations=99, random_state=seed).pvalue
        for seed, (y, prob, near) in enumerate(random_case(seed, 200) for seed in range(150))
    ]
    # The mean of a uniform draw from 0.01, 0.02, ..., 1 is 0.505.
    assert abs(np.mean(p_values) - 0.505) < 4 * 0.289 / np.sqrt(150)


def test_constant_proximity_has_no_excess():
    y, prob, _ = random_case(3, 60)
    bias = proximity_bias(y, prob, proximity=np.ones(60), n_permutations=99, random_state=0)
    assert_allclose([bias.excess, bias.pvalue], [0, 1], atol=1e-12)


def test_the_same_seed_gives_the_same_baseline():
    y, prob, near = random_case(13, 100)
    before = np.random.get_state()[1].copy()
    first, again = (
        proximity_bias(y, prob, proximity=near, n_permutations=99, random_state=4) for _ in range(2)
    )
    assert first == again
    assert_array_equal(np.random.get_state()[1], before)


def test_minimum_number_of_permutations():
    with pytest.raises(ValueError, match=r"n_permutations.*\[99, inf\)"):
        proximity_bias([0, 1], [0.2, 0.8], proximity=[0.1, 0.2], n_permutations=98)


def test_rows_of_weight_zero_need_no_proximity():
    options = {"labels": [0, 1], "n_proximity_bins": 2}
    y, p, near = [0, 1, 1, 0], [0.2, 0.8, 0.6, 0.3], [0.1, 0.2, 0.3, np.nan]
    found = proximity_informed_calibration_error(y, p, proximity=near, sample_weight=[1, 2, 1, 0], **options)
    assert found == proximity_informed_calibration_error(
        y[:3], p[:3], proximity=near[:3], sample_weight=[1, 2, 1], **options
    )


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_features_whose_squares_overflow_or_underflow(scale):
    rows = np.random.default_rng(0).normal(size=(20, 3))
    with np.errstate(all="raise"):
        assert_allclose(proximity(rows * scale, rows), proximity(rows, rows), rtol=1e-12)
