"""scikit-learn's checks for all calibrators, and their common properties."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_param_validation, parametrize_with_checks

from clipcal.calibration import CALIBRATORS, TemperatureScaling

# These checks pass arrays whose number of columns differs from the number of labels, but columns of logits
# are classes.
COLUMNS = "one column of logits is needed for each label"
EXPECTED = {
    name: COLUMNS
    for name in (
        "check_dtype_object",
        "check_estimators_dtypes",
        "check_estimators_fit_returns_self",
        "check_estimators_nan_inf",
        "check_estimators_overwrite_params",
        "check_estimators_pickle",
        "check_fit2d_1feature",
        "check_n_features_in_after_fitting",
        "check_pipeline_consistency",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
        "check_sample_weight_equivalence_on_dense_data",
        "check_transformer_data_not_an_array",
        "check_transformer_general",
        "check_transformer_preserve_dtypes",
    )
}
WITHOUT_SIDE_INPUT = EXPECTED | {
    name: "fit needs proximity or text features, which the checks do not pass"
    for name in (
        "check_dict_unchanged",
        "check_dont_overwrite_parameters",
        "check_f_contiguous_array_estimator",
        "check_fit2d_predict1d",
        "check_fit_check_is_fitted",
        "check_fit_idempotent",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_n_features_in",
        "check_sample_weights_list",
        "check_sample_weights_not_an_array",
        "check_sample_weights_not_overwritten",
        "check_sample_weights_pandas_series",
        "check_sample_weights_shape",
    )
}
WITHOUT_ZERO_SHOT = EXPECTED | {
    name: "transform needs zero-shot logits, which the checks do not pass"
    for name in (
        "check_dict_unchanged",
        "check_f_contiguous_array_estimator",
        "check_fit_idempotent",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
    )
}
SIDE = {
    "proximity": lambda n, k, rng: {"proximity": rng.uniform(0.2, 1, n)},
    "text_features": lambda n, k, rng: {
        "text_features": rng.normal(size=(k, 8)),
        "zero_shot_features": rng.normal(size=(k, 8)),
    },
    "zero_shot_logits": lambda n, k, rng: {},  # not needed in fit
}
NAMES = sorted(CALIBRATORS)


def made(name):
    return clone(CALIBRATORS[name])


def rows(n=200, n_classes=4, seed=0, scale=2.0):
    """Logits that are over-confident by a factor of two, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * scale
    y = (0.5 * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return logits, y, rng


def side_for_fit(calibrator, n, k, rng):
    return {key: value for name in calibrator.side_inputs for key, value in SIDE[name](n, k, rng).items()}


def calibrate(calibrator, logits, side):
    if "proximity" in calibrator.side_inputs:
        return calibrator.calibrate(logits, proximity=side["proximity"][: len(logits)])
    if "zero_shot_logits" in calibrator.side_inputs:
        zero_shot = np.random.default_rng(7).normal(size=np.shape(logits))
        return calibrator.calibrate(logits, zero_shot_logits=zero_shot)
    return calibrator.calibrate(logits)


def expected_failures(calibrator):
    if "zero_shot_logits" in calibrator.side_inputs:
        return WITHOUT_ZERO_SHOT
    return WITHOUT_SIDE_INPUT if calibrator.side_inputs else EXPECTED


@parametrize_with_checks([made(name) for name in NAMES], expected_failed_checks=expected_failures)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_validated(name):
    check_param_validation(type(made(name)).__name__, made(name))


@pytest.mark.filterwarnings("ignore:The data do not determine")
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), n_classes=st.integers(2, 6), scale=st.sampled_from([0.1, 1.0, 2.0]))
def test_common_properties(name, seed, n_classes, scale):
    logits, y, rng = rows(120, n_classes, seed, scale)
    calibrator = made(name)
    side = side_for_fit(calibrator, len(y), n_classes, rng)
    before = logits.copy()
    calibrator.fit(logits, y, **side)
    prob = calibrate(calibrator, logits, side)
    assert_array_equal(logits, before)
    assert prob.dtype == np.float64 and (prob >= 0).all()
    assert_allclose(prob.sum(axis=1), 1, atol=1e-9)
    # Rows are independent, and constants added to a row have no effect.
    shifted = calibrate(calibrator, logits + rng.normal(size=(len(y), 1)), side)
    assert_allclose(shifted, prob, atol=1e-6)
    assert_allclose(calibrate(calibrator, logits[:1], side), prob[:1], atol=1e-12)
    if calibrator.preserves_argmax:
        top = prob[np.arange(len(y)), logits.argmax(axis=1)]
        assert (top >= prob.max(axis=1) - 1e-12).all()
    assert "classes_" in vars(calibrator) and calibrator.samples_needed


@pytest.mark.filterwarnings("ignore:The data do not determine")
@pytest.mark.parametrize("name", NAMES)
def test_clone_pickle_refit_and_labels(name):
    logits, y, rng = rows(150, 3)
    calibrator = made(name)
    side = side_for_fit(calibrator, 150, 3, rng)
    prob = calibrate(calibrator.fit(logits, y, **side), logits, side)
    restored = pickle.loads(pickle.dumps(calibrator))
    assert_array_equal(calibrate(restored, logits, side), prob)
    again = clone(calibrator).fit(logits, y, **side)
    assert_array_equal(calibrate(again, logits, side), prob)
    # Renamed classes, with columns in another order.
    order = np.array([2, 0, 1])
    names = np.array(["owl", "ant", "bee"])
    text_side = {key: value[order] if key.endswith("features") else value for key, value in side.items()}
    renamed = made(name).fit(logits[:, order], names[y], classes=names[order], **text_side)
    assert_allclose(calibrate(renamed, logits[:, order], side), prob[:, order], atol=1e-6)
    # A refit does not depend on the previous fit.
    other = calibrator.fit(logits[::-1] * 3, y, **side)
    if name not in ("dac", "sals"):  # these fit no parameters to rows
        assert not np.array_equal(calibrate(other, logits, side), prob)


@pytest.mark.filterwarnings("ignore:The data do not determine", "ignore:.*rows")
@pytest.mark.parametrize("name", NAMES)
def test_other_classes_are_supported_or_raise(name):
    logits, y, rng = rows(200, 4)
    calibrator = made(name)
    calibrator.fit(logits, y, **side_for_fit(calibrator, 200, 4, rng))
    if not calibrator.class_agnostic:
        with pytest.raises(
            ValueError, match=f"{type(calibrator).__name__} .* cannot be used for other classes"
        ):
            calibrator.for_classes(list("abcdef"))
        with pytest.raises(ValueError, match="6 features"):
            calibrator.calibrate(np.zeros((2, 6)))
        return
    text = SIDE["text_features"](6, 6, rng) if "text_features" in calibrator.side_inputs else {}
    other = calibrator.for_classes(list("abcdef"), **text)
    more = rng.normal(size=(50, 6))
    prob = calibrate(other, more, {"proximity": np.full(50, 0.5)})
    assert prob.shape == (50, 6) and other.classes_.tolist() == list("abcdef")
    assert len(calibrator.classes_) == 4


@pytest.mark.filterwarnings("ignore:The data do not determine", "ignore:.*rows")
@pytest.mark.parametrize("per_class", [1, 2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_few_rows(name, per_class):
    n_classes = 5
    y = np.tile(np.arange(n_classes), per_class)
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(len(y), n_classes)) * 2 + 2 * np.eye(n_classes)[y]
    logits[0], logits[1] = np.roll(logits[0], 1), np.roll(logits[1], 1)
    calibrator = made(name)
    side = side_for_fit(calibrator, len(y), n_classes, rng)
    prob = calibrate(calibrator.fit(logits, y, **side), logits, side)
    assert_allclose(prob.sum(axis=1), 1, atol=1e-9)


@pytest.mark.parametrize(
    ("logits", "y", "options", "message"),
    [
        ([[np.nan, 0]], [0], {"classes": [0, 1]}, "NaN"),
        ([[np.inf, 0]], [0], {"classes": [0, 1]}, "infinity"),
        ([[-np.inf, -np.inf]], [0], {"classes": [0, 1]}, "all -inf"),
        ([[-np.inf, 0]], [0], {"classes": [0, 1]}, "-inf in 1 rows"),
        ([[2, 0]], [2], {"classes": [0, 1]}, "not in classes"),
        ([[1, 0]], [0], {}, "classes=estimator.classes_"),
        ([[1, 0]], [0], {"classes": [0, 0]}, "distinct"),
        ([[1, 0]], [0], {"classes": [0, 1], "sample_weight": [0]}, "zero"),
        (np.empty((0, 2)), [], {"classes": [0, 1]}, "0 sample"),
        ([[1, 0]], None, {}, "requires y"),
    ],
)
def test_invalid_input_raises(logits, y, options, message):
    with pytest.raises(ValueError, match=message):
        TemperatureScaling().fit(logits, y, **options)


def test_rows_of_weight_zero_are_ignored():
    logits, y, _ = rows(100, 3)
    weight = np.arange(100) % 2
    weighted = TemperatureScaling().fit(logits, y, weight)
    assert weighted.temperature_ == TemperatureScaling().fit(logits[1::2], y[1::2]).temperature_


def test_softmax_of_transform_equals_calibrate():
    logits, y, _ = rows(200, 4)
    for name in NAMES:
        if not made(name).side_inputs:
            calibrator = made(name).fit(logits, y)
            assert_allclose(
                softmax(calibrator.transform(logits), axis=1), calibrator.calibrate(logits), atol=1e-12
            )


def test_shrinkage_determines_the_temperature_of_separable_data():
    logits = np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 4.0]])
    scaling = TemperatureScaling(shrinkage=1.0).fit(logits, [0, 1, 1])
    assert scaling.identified_ and 0.3 < scaling.temperature_ < 1
    beta = 1 / scaling.temperature_
    prob = softmax(logits * beta, axis=1)
    slope = ((prob * logits).sum(axis=1) - logits.max(axis=1)).sum()
    assert_allclose(beta * slope + 2 * np.log(beta), 0, atol=1e-9)
    many, y, _ = rows(2000)
    free = TemperatureScaling().fit(many, y).temperature_
    assert_allclose(TemperatureScaling(shrinkage=1.0).fit(many, y).temperature_, free, rtol=0.01)


@pytest.mark.filterwarnings("ignore:The data do not determine")
@pytest.mark.parametrize("name", NAMES)
def test_weights_that_sum_to_one_are_scaled(name):
    logits, y, rng = rows(150, 3)
    side = side_for_fit(made(name), 150, 3, rng)
    plain = made(name).fit(logits, y, **side)
    shares = made(name).fit(logits, y, np.full(150, 1 / 150), **side)
    assert_allclose(calibrate(shares, logits, side), calibrate(plain, logits, side), atol=1e-8)
    strength = TemperatureScaling(shrinkage=5.0)
    expected = strength.fit(logits, y).temperature_
    assert_allclose(strength.fit(logits, y, np.full(150, 1 / 150)).temperature_, expected)


@pytest.mark.filterwarnings("ignore:The data do not determine")
@pytest.mark.parametrize("name", NAMES)
def test_failed_refit_does_not_change_the_calibrator(name):
    logits, y, rng = rows(150, 3)
    calibrator = made(name)
    side = side_for_fit(calibrator, 150, 3, rng)
    before = calibrate(calibrator.fit(logits, y, **side), logits, side)
    other, _, _ = rows(50, 4)
    with pytest.raises(ValueError, match=r"not in classes"):
        calibrator.fit(other, np.full(50, 9), classes=range(4), **side_for_fit(calibrator, 50, 4, rng))
    assert len(calibrator.classes_) == calibrator.n_features_in_ == 3
    assert_array_equal(calibrate(calibrator, logits, side), before)
