"""Venn-Abers calibration: the fast algorithm against an isotonic regression per row and label."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.isotonic import IsotonicRegression

from clipcal.calibration import VennAbersCalibration


def problem(n, n_classes=3, seed=0, decimals=9):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 2
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits.round(decimals), y


def binary(logits, y):
    prob = softmax(logits, axis=1)
    return prob.max(axis=1).round(12), (prob.argmax(axis=1) == y).astype(float)


def by_definition(score, hit, weight, query, label):
    """Fit an isotonic regression with the query added, and evaluate it at the query."""
    model = IsotonicRegression(y_min=0, y_max=1)
    model.fit(np.append(score, query), np.append(hit, label), np.append(weight, 1.0))
    return model.predict([query])[0]


def test_by_hand():
    confidence = np.array([0.6, 0.7, 0.8, 0.9])
    logits = np.log(np.column_stack([confidence, 1 - confidence]))
    fitted = VennAbersCalibration().fit(logits, [0, 1, 0, 0])
    lower, upper = fitted.intervals(np.log([[0.75, 0.25], [0.55, 0.45], [0.95, 0.05]]))
    # At 0.75, a miss is pooled with one hit and one miss: 1/3. A hit is not pooled: 1.
    # At 0.55, a miss is not pooled: 0. A hit is pooled with a hit and a miss: 2/3.
    # At 0.95, a miss is pooled with two hits: 2/3 (more than 1/2). A hit: 1.
    assert_allclose(lower, [1 / 3, 0, 2 / 3])
    assert_allclose(upper, [1, 2 / 3, 1])
    merged = fitted.calibrate(np.log([[0.75, 0.25]]))[0, 0]
    assert_allclose(merged, 1 / (1 - 1 / 3 + 1))


@pytest.mark.filterwarnings("ignore:Every row of logits")  # rounded logits may be 0 and 1
@given(st.integers(0, 2**31), st.integers(1, 25), st.sampled_from([0, 1, 9]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_agrees_with_the_definition(seed, n, decimals, weighted):
    logits, y = problem(n, seed=seed, decimals=decimals)
    weight = np.random.default_rng(seed).uniform(1, 3, size=n) if weighted else np.ones(n)
    queries, _ = problem(10, seed=seed + 1, decimals=decimals)
    queries = np.vstack([queries, logits, np.zeros((1, 3)), [[50, 0, 0]]])
    fitted = VennAbersCalibration().fit(logits, y, weight, classes=range(3))
    lower, upper = fitted.intervals(queries)
    score, hit = binary(logits, y)
    for query, low, high in zip(binary(queries, 0)[0], lower, upper, strict=True):
        assert low == pytest.approx(by_definition(score, hit, weight, query, 0.0), abs=1e-9)
        assert high == pytest.approx(by_definition(score, hit, weight, query, 1.0), abs=1e-9)


@given(st.integers(0, 2**31), st.integers(1, 60))
@settings(deadline=None, max_examples=25)
def test_intervals_are_ordered_and_non_decreasing(seed, n):
    rng = np.random.default_rng(seed)
    logits, y = rng.normal(size=(n, 3)) * 4, rng.integers(3, size=n)
    score_map = VennAbersCalibration().fit(logits, y, classes=range(3)).maps_[0]
    grid = np.r_[np.linspace(0, 1, 300), score_map.scores]
    grid.sort()
    lower, upper = score_map.interval(grid)
    merged = score_map(grid)
    assert (lower >= 0).all() and (lower < upper).all() and (upper <= 1).all()
    assert (lower <= merged).all() and (merged <= upper).all()
    assert (merged > 0).all() and (merged < 1).all()
    for values in (lower, upper, merged):
        assert (np.diff(values) >= -1e-12).all()


def test_one_vs_rest_intervals():
    logits, y = problem(200, 4)
    kept = y != 1
    fitted = VennAbersCalibration("one-vs-rest").fit(logits[kept], y[kept], classes=range(4))
    lower, upper = fitted.intervals(logits)
    prob = softmax(logits, axis=1)
    assert lower.shape == upper.shape == (200, 4)
    # The second class has no rows.
    assert_array_equal(lower[:, 1], prob[:, 1])
    assert_array_equal(upper[:, 1], prob[:, 1])
    assert_allclose(np.array(fitted.maps_[2].interval(prob[:, 2])), [lower[:, 2], upper[:, 2]])
    logits[:, 3] = -np.inf
    assert (fitted.intervals(logits)[1][:, 3] == 0).all()


def test_the_only_possible_class_is_certain():
    fitted = VennAbersCalibration().fit(*problem(50))
    lower, upper = fitted.intervals([[0.0, -np.inf, -np.inf]])
    assert lower.tolist() == upper.tolist() == [1.0]


def test_more_rows_give_shorter_intervals():
    queries, _ = problem(200, seed=9)
    widths = []
    for n in (30, 300, 3000):
        lower, upper = VennAbersCalibration().fit(*problem(n)).intervals(queries)
        widths.append((upper - lower).mean())
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_constants_added_to_rows_have_no_effect():
    logits, y = problem(300)
    fitted = VennAbersCalibration().fit(logits, y)
    shift = np.random.default_rng(0).normal(size=(300, 1)) * 10
    assert_allclose(fitted.intervals(logits + shift), fitted.intervals(logits))


def test_fifty_thousand_rows_are_fast():
    logits, y = problem(50_000, 10)
    start = time.perf_counter()
    fitted = VennAbersCalibration().fit(logits, y)
    fitted.intervals(logits)
    assert time.perf_counter() - start < 5


def test_agrees_with_venn_abers_package():
    # The package disables NumPy's warnings globally.
    with np.errstate():
        venn_abers = pytest.importorskip("venn_abers")
        logits, y = problem(700, seed=3)
        score, hit = binary(logits, y)
        queries, _ = problem(400, seed=4)
        query, _ = binary(queries, 0)
        two = np.column_stack([1 - score, score]), np.column_stack([1 - query, query])
        merged, pair = venn_abers.VennAbersCalibrator().predict_proba(
            p_cal=two[0], y_cal=hit, p_test=two[1], p0_p1_output=True
        )
    fitted = VennAbersCalibration().fit(logits, y)
    lower, upper = fitted.intervals(queries)
    assert_allclose(np.column_stack([lower, upper]), np.asarray(pair).reshape(-1, 2), atol=1e-9)
    assert_allclose(fitted.maps_[0](query), merged[:, 1], atol=1e-9)
