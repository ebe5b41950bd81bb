"""The smooth calibration error: numerical integrals, another library, and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import trapezoid

from clipcal.metrics import mean_confidence_gap, smooth_calibration_curve, smooth_calibration_error
from clipcal.metrics._smooth import smooth_top_label
from clipcal.metrics._top_label import TopLabel

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def smooth(confidence, correct, bandwidth=None, weight=None):
    """Error and bandwidth for any confidences; those of two-class rows would be at least one half."""
    confidence = np.asarray(confidence, dtype=float)
    weight = np.ones(len(confidence)) if weight is None else weight
    return smooth_top_label(TopLabel(confidence, np.asarray(correct, dtype=float), weight), bandwidth)


def kernel(t, center, bandwidth):
    """A Gaussian reflected at 0 and 1, as a sum of mirrored Gaussians."""
    images = np.arange(-2 - int(4 * bandwidth), 3 + int(4 * bandwidth)) * 2
    distance = np.concatenate([t[:, None] - center + images, t[:, None] + center + images], axis=1)
    scale = bandwidth * np.sqrt(2 * np.pi)
    with np.errstate(under="ignore"):
        return np.exp(-0.5 * (distance / bandwidth) ** 2).sum(axis=1) / scale


def integral(confidence, correct, bandwidth, weight):
    """The error by its definition."""
    t = np.linspace(0, 1, 10_001 if bandwidth > 0.01 else 100_001)
    height = sum(
        w * (c - a) * kernel(t, c, bandwidth) for c, a, w in zip(confidence, correct, weight, strict=True)
    )
    return trapezoid(np.abs(height), t) / np.sum(weight)


def random_case(seed, n, kind):
    rng = np.random.default_rng(seed)
    confidence = {
        "spread": lambda: rng.uniform(size=n),
        "high": lambda: np.minimum(rng.uniform(0.9, 1.05, n), 1),
        "ends": lambda: rng.choice([0.0, 1.0, 0.5, 1e-4, 1 - 1e-4], n),
        "close": lambda: 0.5 + rng.uniform(-2e-3, 2e-3, n),
    }[kind]()
    return confidence, (rng.random(n) < 0.6).astype(float)


KINDS = ["spread", "high", "ends", "close"]
cases = st.tuples(st.integers(0, 2**16), st.integers(1, 30), st.sampled_from(KINDS)).map(
    lambda case: random_case(*case)
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bandwidth", [1e-3, 0.017, 0.3, 2.0])
def test_against_numerical_integration(kind, bandwidth):
    confidence, correct = random_case(3, 8, kind)
    weight = np.random.default_rng(4).uniform(0.1, 2, 8)
    error, _ = smooth(confidence, correct, bandwidth, weight)
    assert_allclose(error, integral(confidence, correct, bandwidth, weight), atol=2e-5)


def test_opposite_rows_half_a_node_apart():
    # The hardest case for a grid: opposite gaps that cancel if rows are moved to the same node.
    confidence = 0.5 + np.arange(12) * 0.4e-3
    correct = np.arange(12) % 2
    for bandwidth in (2e-4, 1e-3):
        error, _ = smooth(confidence, correct, bandwidth)
        assert_allclose(error, integral(confidence, correct, bandwidth, np.ones(12)), atol=1e-4)


def test_rows_at_0_and_1_have_full_weight():
    # Half of the rows are certain and wrong, half are calibrated: the error is one half.
    confidence = np.repeat([1.0, 0.5], 20)
    correct = np.concatenate([np.zeros(20), np.arange(20) % 2])
    for bandwidth in (None, 1e-3, 0.05):
        assert_allclose(smooth(confidence, correct, bandwidth)[0], 0.5, atol=1e-9)
        assert_allclose(smooth(1 - confidence, 1 - correct, bandwidth)[0], 0.5, atol=1e-9)


def test_bandwidth_is_a_fixed_point():
    confidence, correct = random_case(0, 400, "spread")
    error, bandwidth = smooth(confidence, correct)
    assert_allclose(error, bandwidth, atol=1e-5)
    assert smooth(confidence, correct, bandwidth) == (error, bandwidth)
    assert smooth(confidence, correct, bandwidth - 2e-6)[0] > bandwidth - 2e-6


def test_perfect_and_all_wrong_predictions():
    y = np.arange(30) % 3
    options = {"return_bandwidth": True}
    assert smooth_calibration_error(y, np.eye(3)[y], **options) == (0.0, 0.001)
    assert_allclose(smooth_calibration_error(y, np.eye(3)[(y + 1) % 3], **options), 1.0, atol=2e-6)


def test_from_probabilities():
    rng = np.random.default_rng(0)
    prob = rng.dirichlet(np.ones(4), 300)
    truth = np.where(rng.random(300) < 0.7, prob.argmax(axis=1), rng.integers(0, 4, 300))
    expected = smooth(prob.max(axis=1), prob.argmax(axis=1) == truth)
    assert smooth_calibration_error(truth, prob, return_bandwidth=True) == expected
    names = np.array(["d", "b", "a", "c"])
    assert smooth_calibration_error(names[truth], prob, labels=names) == pytest.approx(expected[0], abs=1e-12)
    for dtype, tolerance in ((np.float32, 1e-6), (np.float16, 2e-3)):
        assert smooth_calibration_error(truth, prob.astype(dtype)) == pytest.approx(
            expected[0], abs=tolerance
        )
    unknown = smooth_calibration_error(["owl"], [[0.25, 0.75]], labels=["ant", "bee"])
    assert unknown == pytest.approx(0.75, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(cases)
def test_error_decreases_with_bandwidth_to_the_mean_gap(case):
    confidence, correct = case
    errors = [smooth(confidence, correct, width)[0] for width in (1e-3, 0.01, 0.1, 0.5, 1.0, 5.0)]
    gap = abs(np.mean(confidence - correct))
    assert (np.diff(errors) <= 1e-5).all()
    assert min(*errors, smooth(confidence, correct)[0]) >= gap - 1e-9
    assert_allclose(errors[-1], gap, atol=1e-9)
    assert errors[0] <= np.mean(np.abs(confidence - correct)) + 1e-9


@settings(max_examples=30, deadline=None)
@given(cases)
def test_mirror_image(case):
    confidence, correct = case
    assert_allclose(smooth(1 - confidence, 1 - correct), smooth(confidence, correct), atol=1e-6)
    assert_allclose(smooth(1 - confidence, 1 - correct, 0.02), smooth(confidence, correct, 0.02), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(cases, st.integers(0, 2**16))
def test_order_and_scale_of_weights(case, seed):
    confidence, correct = case
    rng = np.random.default_rng(seed)
    weight = rng.integers(1, 4, len(correct)).astype(float)
    repeated = np.repeat(np.arange(len(correct)), weight.astype(int))
    order = rng.permutation(len(repeated))
    expected = smooth(confidence[repeated][order], correct[repeated][order])
    assert_allclose(smooth(confidence, correct, weight=weight), expected, atol=1e-6)
    assert_allclose(smooth(confidence, correct, weight=0.1 * weight), expected, atol=1e-6)


def test_curve():
    rng = np.random.default_rng(2)
    prob = rng.uniform(size=500)
    truth = (rng.random(500) < prob).astype(int)
    options = {"sample_weight": rng.uniform(0.5, 2, 500)}
    curve = smooth_calibration_curve(truth, prob, **options)
    error, bandwidth = smooth_calibration_error(truth, prob, return_bandwidth=True, **options)
    assert curve.bandwidth == bandwidth
    assert_allclose(trapezoid(np.abs(curve.residual), curve.confidence), error, atol=1e-12)
    assert_allclose(
        trapezoid(curve.residual, curve.confidence), mean_confidence_gap(truth, prob, **options), atol=1e-12
    )
    assert_allclose(trapezoid(curve.density, curve.confidence), 1, atol=1e-9)
    assert curve.density.min() >= 0
    # The density of a single row is the kernel.
    curve = smooth_calibration_curve([1], [0.98], labels=[0, 1], bandwidth=0.05)
    assert_allclose(curve.density, kernel(curve.confidence, 0.98, 0.05), atol=1e-6)
    assert_allclose(curve.residual, -0.02 * curve.density, atol=1e-9)


def test_input_is_not_modified_and_invalid_input_raises():
    prob = np.array([0.2, 0.9, 0.7])
    before = prob.copy()
    smooth_calibration_error([0, 1, 1], prob)
    smooth_calibration_curve([0, 1, 1], prob)
    assert_array_equal(prob, before)
    for bandwidth in (0, -1.0, "wide"):
        with pytest.raises(ValueError, match="bandwidth"):
            smooth_calibration_error([0, 1, 1], prob, bandwidth=bandwidth)
    with pytest.raises(ValueError, match="NaN"):
        smooth_calibration_error([0, 1], [np.nan, 0.5])
    with pytest.warns(UserWarning, match="sum to 1") as caught:
        smooth_calibration_error(["a"], [[0.5, 0.4]], labels=["a", "b"])
    assert caught[0].filename == __file__


@pytest.mark.parametrize("seed", range(4))
def test_against_relplot(seed):
    relplot = pytest.importorskip("relplot")
    rng = np.random.default_rng(seed)
    # relplot halves the weight of rows within 0.001 of 0 or 1.
    confidence = rng.uniform(0.05, 0.95, 1000)
    correct = (rng.random(1000) < confidence ** rng.uniform(0.6, 1.6)).astype(float)
    assert_allclose(smooth(confidence, correct)[0], relplot.smECE(confidence, correct), atol=1e-3)
    for bandwidth in (0.02, 0.05, 0.1):
        theirs = relplot.smECE_sigma(confidence, correct, bandwidth)
        assert_allclose(smooth(confidence, correct, bandwidth)[0], theirs, atol=5e-3)
