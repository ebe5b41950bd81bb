"""Input of calibrators: logits, labels and weights, and errors and warnings about invalid input."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from framed import FRAMES
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit, softmax
from sklearn.base import clone

from clipcal.calibration import (
    CALIBRATORS,
    BinMeanShift,
    DistanceAwareCalibration,
    IsotonicCalibration,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
    fit_temperature,
)
from clipcal.metrics import negative_log_likelihood, negative_log_likelihood_from_logits

NAMES = sorted(CALIBRATORS)
pytestmark = pytest.mark.filterwarnings("ignore:The data do not determine")


def problem(n=120, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, n_classes))
    y = (0.5 * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    near = rng.uniform(0.2, 1, n)
    texts = {name: rng.normal(size=(n_classes, 8)) for name in ("text_features", "zero_shot_features")}
    # Zero-shot logits are not needed in fit.
    return logits, y, {"proximity": {"proximity": near}, "text_features": texts, "zero_shot_logits": {}}


def fitted(calibrator, logits, y, side, sample_weight=None, **options):
    for name in calibrator.side_inputs:
        options = options | side[name]
    return calibrator.fit(logits, y, sample_weight, **options)


def applied(calibrator, form, logits, side):
    of_rows = side["proximity"] if "proximity" in calibrator.side_inputs else {}
    if "zero_shot_logits" in calibrator.side_inputs:
        shape = len(logits), len(calibrator.classes_)
        of_rows = {"zero_shot_logits": np.random.default_rng(7).normal(size=shape)}
    return getattr(calibrator, form)(logits, **of_rows)


# --- column names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(FRAMES))
@pytest.mark.parametrize("name", NAMES)
def test_columns_in_another_order_raise(name, kind):
    logits, y, side = problem()
    frame = FRAMES[kind]
    with pytest.raises(ValueError, match=r"columns of logits are named .* but the sorted labels in y are"):
        fitted(clone(CALIBRATORS[name]), frame(logits, [2, 0, 1]), y, side)
    with pytest.raises(ValueError, match=r"columns of logits are named .* but classes says"):
        fitted(clone(CALIBRATORS[name]), frame(logits, [2, 0, 1]), y, side, classes=[0, 1, 2])
    right = frame(logits, [0, 1, 2])
    calibrator = fitted(clone(CALIBRATORS[name]), right, y, side)
    plain = fitted(clone(CALIBRATORS[name]), logits, y, side)
    for form in ("calibrate", "transform"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            expected = applied(plain, form, logits, side)
            assert_array_equal(applied(calibrator, form, right, side), expected)
            assert_array_equal(applied(calibrator, form, logits, side), expected)
            with pytest.raises(ValueError, match=r"of logits are named .* in the order .*Pass logits\["):
                applied(calibrator, form, frame(logits[:, [2, 0, 1]], [2, 0, 1]), side)
            # The order is also checked after fitting on an array.
            with pytest.raises(ValueError, match="columns of logits are named"):
                applied(plain, form, frame(logits[:, [2, 0, 1]], [2, 0, 1]), side)


def test_column_names_that_are_not_classes():
    logits, y, _ = problem()
    names = ["logit_a", "logit_b", "logit_c"]
    frame = pd.DataFrame(logits, columns=names)
    scaling = TemperatureScaling().fit(frame, y)
    assert_array_equal(scaling.calibrate(frame), TemperatureScaling().fit(logits, y).calibrate(logits))
    with pytest.raises(ValueError, match=r"Pass logits\[\['logit_a', 'logit_b', 'logit_c'\]\] if"):
        scaling.calibrate(frame[["logit_c", "logit_a", "logit_b"]])
    with pytest.raises(ValueError, match=r"named .*'dog'.* but the sorted labels in y are"):
        TemperatureScaling().fit(
            pd.DataFrame(logits, columns=["ant", "bee", "dog"]), np.array(["ant", "bee", "cat"])[y]
        )
    # A temperature can be used for other classes, which may have some names in common.
    other = pd.DataFrame(logits, columns=[1, 2, 3])
    assert_array_equal(scaling.calibrate(other), scaling.calibrate(logits))
    wider = np.tile(logits, 2)
    assert_array_equal(scaling.calibrate(pd.DataFrame(wider)), scaling.calibrate(wider))
    with pytest.raises(ValueError, match="columns of logits are named"):
        scaling.for_classes([1, 2, 3]).calibrate(other[[3, 1, 2]])
    with pytest.raises(ValueError, match="y_index refers to their positions"):
        fit_temperature(pd.DataFrame(logits, columns=[2, 0, 1]), y)
    assert fit_temperature(frame, y) == fit_temperature(logits, y)


# --- probabilities ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_warnings_about_probabilities_point_to_the_caller(name):
    logits, y, side = problem()
    prob = softmax(logits, axis=1)
    for given in (prob, prob.astype(np.float16), torch.tensor(prob).bfloat16(), pd.DataFrame(prob)):
        with pytest.warns(UserWarning, match=r"lies in \[0, 1\] and sums to 1.*np.log\(p\)") as caught:
            fitted(clone(CALIBRATORS[name]), given, y, side)
        assert [w.filename for w in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrator = fitted(clone(CALIBRATORS[name]), np.log(prob), y, side)
        applied(calibrator, "calibrate", np.log(prob), side)
        applied(calibrator, "transform", np.log(prob), side)
    for form in ("calibrate", "transform"):
        with pytest.warns(UserWarning, match="sums to 1") as caught:
            applied(calibrator, form, prob, side)
        assert [w.filename for w in caught] == [__file__]


def test_nested_calibrators_do_not_repeat_the_warning():
    logits, y, side = problem()
    prob = softmax(logits, axis=1)
    for calibrator in (DistanceAwareCalibration(TemperatureScaling()), BinMeanShift(min_samples=60)):
        with pytest.warns(UserWarning, match=f"but {type(calibrator).__name__} takes it") as caught:
            fitted(calibrator, prob, y, side)
        assert len(caught) == 1
        with pytest.warns(UserWarning, match="sums to 1") as caught:
            applied(calibrator, "calibrate", prob, side)
        assert len(caught) == 1


def test_functions_warn_of_probabilities():
    logits, y, _ = problem()
    prob = softmax(logits, axis=1)
    with pytest.warns(UserWarning, match=r"fit_temperature takes it for logits. Pass np.log\(p\)") as caught:
        fit_temperature(prob, y)
    with pytest.warns(UserWarning, match=r"Call negative_log_likelihood\(y_true, p\)") as more:
        negative_log_likelihood_from_logits(y, prob)
    assert {w.filename for w in [*caught, *more]} == {__file__}
    with pytest.warns(UserWarning, match=r"log-odds of the second class. Pass scipy.special.logit\(p\)"):
        fit_temperature(expit(logits[:, 0]), (y > 0).astype(int))
    assert_allclose(
        negative_log_likelihood_from_logits(y, np.log(prob)), negative_log_likelihood(y, prob), rtol=1e-12
    )


def test_no_warning_for_other_values():
    logits, y, _ = problem()
    prob = softmax(logits, axis=1)
    odd = prob.copy()
    odd[7] += 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in (logits, np.log(prob), odd, prob / 3, prob - 1, 100 * prob):
            fit_temperature(given, y)
            TemperatureScaling().fit(given, y).calibrate(given)
        VectorScaling().fit([[1.0], [1.0]], ["a", "a"])
        # Rows of weight zero are ignored.
        weight = np.where(np.arange(120) == 7, 0.0, 1.0)
    with pytest.warns(UserWarning, match="sums to 1"):
        TemperatureScaling().fit(odd, y, weight)


def test_warnings_of_fit_point_to_the_caller():
    easy = 9 * np.eye(3)
    for fit in (lambda: fit_temperature(easy, range(3)), lambda: TemperatureScaling().fit(easy, range(3))):
        with pytest.warns(UserWarning, match="do not determine a temperature") as caught:
            fit()
        assert [w.filename for w in caught] == [__file__]


# --- log-odds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_log_odds_are_equivalent_to_two_columns(name):
    logits, y, side = problem(n_classes=2)
    odds = logits[:, 1] - logits[:, 0]
    two = np.column_stack([np.zeros(120), odds])
    by_two = fitted(clone(CALIBRATORS[name]), two, y, side)
    for given in (odds, odds.tolist(), pd.Series(odds), torch.tensor(odds, requires_grad=True)):
        by_odds = fitted(clone(CALIBRATORS[name]), given, y, side)
        assert by_odds.n_features_in_ == 2
        prob = applied(by_odds, "calibrate", given, side)
        assert_array_equal(prob, applied(by_two, "calibrate", two, side))
        calibrated = applied(by_odds, "transform", given, side)
        assert calibrated.shape == (120,)  # like decision_function
        assert_allclose(expit(calibrated), prob[:, 1], atol=1e-12)
        columns = applied(by_odds, "transform", two, side)
        assert_array_equal(columns[:, 1] - columns[:, 0], calibrated)
    with pytest.warns(UserWarning, match=r"scipy.special.logit\(p\)"):
        fitted(clone(CALIBRATORS[name]), expit(odds), y, side)


def test_log_odds_in_functions_and_intervals():
    logits, y, _ = problem(n_classes=2)
    odds = logits[:, 1] - logits[:, 0]
    two = np.column_stack([np.zeros(120), odds])
    assert fit_temperature(odds, y) == fit_temperature(two, y)
    assert fit_temperature(odds.astype(np.float32), y) == pytest.approx(fit_temperature(odds, y), rel=1e-6)
    assert_allclose(negative_log_likelihood_from_logits(y, odds), negative_log_likelihood(y, expit(odds)))
    venn = VennAbersCalibration().fit(odds, y)
    assert_array_equal(venn.intervals(odds), venn.intervals(two))
    labels = np.array(["ant", "bee"])[y]
    one = TemperatureScaling().fit(odds[y == 1], labels[y == 1], classes=["ant", "bee"])
    assert one.classes_.tolist() == ["ant", "bee"]
    # Calibrated probabilities of 0 and 1 have infinite log-odds.
    exact = IsotonicCalibration(smoothing=0, keep_argmax=False).fit(logit([0.1, 0.2, 0.8, 0.9]), [0, 0, 1, 1])
    assert_array_equal(exact.transform(logit([0.1, 0.9])), [-np.inf, np.inf])


def test_invalid_log_odds_raise():
    logits, y, _ = problem()
    odds = logits[:, 0]
    with pytest.raises(ValueError, match="log-odds of the second of two classes, but y has 3"):
        TemperatureScaling().fit(odds, y)
    with pytest.raises(ValueError, match=r"but y has one class. Pass classes=\[first, second\]"):
        TemperatureScaling().fit(odds, np.zeros(120))
    with pytest.raises(ValueError, match="but classes has 3 classes"):
        TemperatureScaling().fit(odds, y > 0, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"pass logits\[:, 0\]"):
        TemperatureScaling().fit(odds[:, None], y > 0)
    with pytest.raises(ValueError, match=r"pass logits\[:, 0\]"):
        fit_temperature(odds[:, None], (y > 0).astype(int))
    with pytest.raises(ValueError, match="from 0 to 1"):
        fit_temperature(odds, y)
    for calibrator in (TemperatureScaling(), VectorScaling()):
        with pytest.raises(
            ValueError, match=r"has 3 classes. Reshape your data: pass logits.reshape\(1, -1\)"
        ):
            calibrator.fit(logits, y).calibrate(logits[0])
    with pytest.raises(ValueError, match="NaN or infinity"):
        TemperatureScaling().fit([np.nan, 1.0], [0, 1])


# --- tensors and string dtypes ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_accepted(name):
    logits, y, side = problem()
    weight = np.arange(1.0, 121.0)
    as_tensors = {
        key: {inner: torch.tensor(values, requires_grad=True) for inner, values in group.items()}
        for key, group in side.items()
    }
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        given = torch.tensor(logits, dtype=dtype)
        expected = fitted(clone(CALIBRATORS[name]), given.double().numpy(), y, side, weight)
        found = fitted(
            clone(CALIBRATORS[name]),
            given.requires_grad_(True),
            torch.tensor(y),
            as_tensors,
            torch.tensor(weight),
            classes=torch.arange(3),
        )
        values = given.detach().double().numpy()
        for form in ("calibrate", "transform"):
            assert_array_equal(applied(found, form, given, as_tensors), applied(expected, form, values, side))
    beta = fit_temperature(given, torch.tensor(y), torch.tensor(weight))
    assert_allclose(beta, fit_temperature(values, y, weight), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_labels_of_string_dtype(name):
    logits, y, side = problem()
    plain = np.array(["ant", "bumblebee", "cat"])
    wide = plain.astype(np.dtypes.StringDType())
    expected = fitted(clone(CALIBRATORS[name]), logits, plain[y], side)
    for options in ({}, {"classes": wide}):
        found = fitted(clone(CALIBRATORS[name]), logits, wide[y], side, **options)
        assert_array_equal(found.classes_, plain)
        assert found.classes_.dtype == plain.dtype
        assert_array_equal(
            applied(found, "calibrate", logits, side), applied(expected, "calibrate", logits, side)
        )
    if "text_features" not in found.side_inputs and found.class_agnostic:
        assert found.for_classes(wide[:2]).classes_.tolist() == ["ant", "bumblebee"]


# --- rows of weight zero ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("missing", [None, np.nan, "dog"])
def test_rows_of_weight_zero_are_ignored(name, missing):
    logits, y, side = problem()
    labels = np.array(["ant", "bee", "cat"])[y].astype(object)
    weight = np.where(np.arange(120) % 5 == 4, 0.0, 1.0 + np.arange(120) % 3)
    left = weight > 0
    logits[~left], labels[~left] = np.nan, missing
    side["proximity"]["proximity"][~left] = np.nan
    kept = side | {"proximity": {"proximity": side["proximity"]["proximity"][left]}}
    expected = fitted(clone(CALIBRATORS[name]), logits[left], labels[left], kept, weight[left])
    for given in (weight, weight.tolist()):
        found = fitted(clone(CALIBRATORS[name]), logits, labels, side, given)
        assert found.classes_.tolist() == ["ant", "bee", "cat"]
        prob = applied(expected, "calibrate", logits[left], kept)
        assert_array_equal(applied(found, "calibrate", logits[left], kept), prob)


def test_rows_of_weight_zero_in_fit_temperature():
    logits, y, _ = problem()
    weight = (np.arange(120) % 5 < 4).astype(float)
    left = weight > 0
    columns = np.where(left, y, -7)
    expected = fit_temperature(logits[left], y[left])
    broken = np.where(left[:, None], logits, np.nan)
    for given in (columns, np.where(left, y, np.nan)):
        assert fit_temperature(broken, given, weight) == expected
    with pytest.raises(ValueError, match="must hold integers from 0 to 2"):
        fit_temperature(logits, y + 0.5)


def test_labels_of_rows_of_weight_zero_define_columns():
    logits, y, _ = problem()
    weight = (y < 2).astype(float)
    assert TemperatureScaling().fit(logits, y, weight).classes_.tolist() == [0, 1, 2]
    assert TemperatureScaling().fit(logits[:, :2], y, weight).classes_.tolist() == [0, 1]


def test_a_single_row_that_sums_to_one_does_not_warn():
    logits = np.random.default_rng(0).normal(size=(40, 2)) * 3
    calibrator = TemperatureScaling().fit(logits, logits.argmax(axis=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrator.calibrate([[0.5, 0.5]])
    with pytest.warns(UserWarning, match="sums to 1"):
        calibrator.calibrate([[0.5, 0.5], [0.25, 0.75]])
