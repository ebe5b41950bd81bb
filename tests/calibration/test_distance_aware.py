"""Distance-aware calibration: published numbers, symmetries, and composition."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from scipy.stats import special_ortho_group
from sklearn.base import clone

from clipcal.calibration import (
    BinMeanShift,
    DensityRatioCalibration,
    DistanceAwareCalibration,
    TemperatureScaling,
)


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def at_distance(distance):
    """Return a unit vector in the plane at this distance from (1, 0)."""
    angle = 2 * np.arcsin(distance / 2)
    return [np.cos(angle), np.sin(angle)]


def texts(n_base, n_new, seed, n_features=6):
    rng = np.random.default_rng(seed)
    before, after = rng.normal(size=(2, n_base + n_new, n_features))
    return before[:n_base], after[:n_base], before[n_base:], after[n_base:]


def fit(base_before, base_after, **parameters):
    k = len(base_before)
    return DistanceAwareCalibration(**parameters).fit(
        9 * np.eye(k), np.arange(k), text_features=base_after, zero_shot_features=base_before
    )


def scales(base_before, base_after, before, after, **parameters):
    fitted = fit(base_before, base_after, **parameters)
    classes = np.arange(len(before))
    return fitted.for_classes(classes, text_features=after, zero_shot_features=before).scales_


def test_published_example():
    base = [[1.0, 0.0]]
    found = scales(base, base, [at_distance(0.60)], [at_distance(0.85)])
    assert_allclose(found, [0.7788], atol=1e-4)
    assert_allclose(found, [np.exp(0.60 - 0.85)], rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), n_base=st.integers(2, 9), k=st.integers(1, 12))
def test_scales_agree_with_a_loop(seed, n_base, k):
    base_before, base_after, before, after = texts(n_base, 4, seed)
    after[0] = 3 * base_after[1]  # seen
    expected = []
    for j in range(4):
        d0 = np.sort(np.linalg.norm(unit(before)[j] - unit(base_before), axis=1))
        d1 = np.sort(np.linalg.norm(unit(after)[j] - unit(base_after), axis=1))
        gamma = np.exp(-d1[:k].mean()) / np.exp(-d0[:k].mean())
        expected.append(1.0 if d1[0] < 0.05 else gamma)
    found = scales(base_before, base_after, before, after, n_neighbors=k)
    assert_allclose(found, expected, rtol=1e-12)
    assert found[0] == 1 and (found > 0).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), length=st.floats(1e-3, 1e3))
def test_rotation_length_and_order_do_not_matter(seed, length):
    base_before, base_after, before, after = texts(5, 3, seed)
    found = scales(base_before, base_after, before, after, n_neighbors=3)
    first, second = special_ortho_group.rvs(6, size=2, random_state=seed)
    rotated = scales(
        base_before @ first, base_after @ second, length * before @ first, after @ second, n_neighbors=3
    )
    assert_allclose(rotated, found, rtol=1e-9)
    turned = scales(base_before[::-1], base_after[::-1], before[::-1], after[::-1], n_neighbors=3)
    assert_allclose(turned, found[::-1], rtol=1e-12)
    # Base classes, and classes whose features have not moved, have a scale of 1.
    assert_array_equal(scales(base_before, base_after, base_before, base_after, n_neighbors=3), np.ones(5))
    assert_allclose(scales(base_before, base_before, before, before, n_neighbors=3), np.ones(3), rtol=1e-12)


def test_seen_tolerance():
    base = [[1.0, 0.0]]
    before, after = [at_distance(1.0)] * 3, [at_distance(0.049), at_distance(0.051), at_distance(0.2)]
    assert_allclose(scales(base, base, before, after), [1, np.exp(1 - 0.051), np.exp(1 - 0.2)])
    assert_allclose(scales(base, base, before, after, seen_tolerance=0.1)[:2], [1, 1])
    exact = scales(base, base, [[0, 1.0], [0, 1.0]], [[2.0, 0.0], at_distance(0.01)], seen_tolerance=0.0)
    assert_allclose(exact, [1, np.exp(np.sqrt(2) - 0.01)])


def test_rows_are_scaled_by_their_predicted_class():
    base = np.array([[1.0, 0.0]])
    fitted = fit(base, base)
    new = fitted.for_classes(
        ["old", "new"],
        zero_shot_features=[[1.0, 0.0], at_distance(0.6)],
        text_features=[[1.0, 0.0], at_distance(0.85)],
    )
    logits = np.array([[2.0, 1.0], [1.0, 2.0], [-np.inf, 0.0], [1e3, -1e3], [0.0, 0.0]])
    gamma = np.exp(-0.25)
    scaled = logits * np.array([1, gamma, gamma, 1, 1])[:, None]
    assert_allclose(new.calibrate(logits), softmax(scaled, axis=1), rtol=1e-12)
    assert_allclose(new.transform(logits), scaled)
    assert new.scales_[0] == 1 and fitted.scales_.tolist() == [1]
    assert fitted.classes_.tolist() == [0] and new.classes_.tolist() == ["old", "new"]
    # The copy keeps the base classes.
    again = new.for_classes(["new"], zero_shot_features=[at_distance(0.6)], text_features=[at_distance(0.85)])
    assert_allclose(again.scales_, [gamma])


def test_calibrator_is_fitted_without_scales_and_applied_after_them():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 4)) * 3
    y = (0.4 * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    weight = rng.integers(0, 3, 200)
    names = np.array(["owl", "ant", "bee", "fly"])
    base_before, base_after, before, after = texts(4, 6, 0)
    aware = DistanceAwareCalibration(TemperatureScaling(), n_neighbors=2)
    features = {"text_features": base_after, "zero_shot_features": base_before}
    aware.fit(logits, names[y], weight, classes=names, **features)
    alone = TemperatureScaling().fit(logits, names[y], weight, classes=names)
    assert aware.calibrator_.temperature_ == alone.temperature_ > 1
    assert_allclose(aware.calibrate(logits), alone.calibrate(logits))
    new = aware.for_classes(list("abcdef"), text_features=after, zero_shot_features=before)
    more = rng.normal(size=(40, 6)) * 3
    by_class = new.scales_[more.argmax(axis=1), None]
    prob = new.calibrate(more)
    assert_allclose(prob, softmax(more * by_class / alone.temperature_, axis=1))
    assert_allclose(new.transform(more), more * by_class / alone.temperature_)
    assert_array_equal(prob.argmax(axis=1), more.argmax(axis=1))
    assert_allclose(new.calibrate(more[7:8]), prob[7:8], atol=1e-12)
    assert_allclose(new.calibrate(more + rng.normal(size=(40, 1))), prob, atol=1e-12)
    assert new.calibrator_.classes_.tolist() == list("abcdef")
    restored = pickle.loads(pickle.dumps(new))
    assert_array_equal(restored.calibrate(more), prob)
    refitted = clone(new).fit(logits, names[y], weight, classes=names, **features)
    assert refitted.scales_.tolist() == [1] * 4


def test_tags_follow_the_calibrator():
    class PerClass(TemperatureScaling):
        class_agnostic = False
        preserves_argmax = False

    free, bound = DistanceAwareCalibration(), DistanceAwareCalibration(PerClass())
    assert free.preserves_argmax and free.class_agnostic
    assert not bound.preserves_argmax and not bound.class_agnostic
    base = np.eye(2)
    logits, y = [[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 1.0]], [0, 0, 1, 1]
    bound.fit(logits, y, text_features=base, zero_shot_features=base)
    with pytest.raises(ValueError, match="cannot be used for other classes"):
        bound.for_classes(["a"], text_features=base[:1], zero_shot_features=base[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_features": None}, r"DistanceAwareCalibration\.fit needs text features"),
        ({"zero_shot_features": np.ones((3, 2))}, "3 rows of zero_shot_features for 2 classes"),
        ({"text_features": [[0.0, 0.0], [1.0, 0.0]]}, r"Rows \[0\] of text_features are all zeros"),
        ({"text_features": [[np.nan, 0.0], [1.0, 0.0]]}, "text_features contains NaN"),
    ],
)
def test_invalid_features_raise(change, message):
    given_ = {"text_features": np.eye(2), "zero_shot_features": np.eye(2), **change}
    with pytest.raises(ValueError, match=message):
        DistanceAwareCalibration().fit(9 * np.eye(2), [0, 1], **given_)


def test_invalid_input_for_other_classes_raises():
    fitted = fit(np.eye(2), np.eye(2))
    with pytest.raises(ValueError, match="3 columns but this DistanceAwareCalibration has 2 classes"):
        fitted.calibrate(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"for_classes needs text features"):
        fitted.for_classes(["a"])
    with pytest.raises(ValueError, match="zero_shot_features has 3 columns but had 2 in fit"):
        fitted.for_classes(["a"], text_features=[[1, 0]], zero_shot_features=[[1, 0, 0]])
    for with_side_input in (DensityRatioCalibration(), BinMeanShift()):
        with pytest.raises(ValueError, match=r"needs proximity"):
            fit(np.eye(2), np.eye(2), calibrator=with_side_input)


def test_features_of_any_size_and_single_precision():
    base_before, base_after, before, after = texts(4, 3, 1)
    found = scales(base_before, base_after, before, after, n_neighbors=2)
    for factor in (1e-200, 1e200):
        assert_allclose(
            scales(base_before, factor * base_after, before, factor * after, n_neighbors=2), found
        )
    single = [features.astype(np.float32) for features in (base_before, base_after, before, after)]
    assert_allclose(scales(*single, n_neighbors=2), found, atol=1e-6)
