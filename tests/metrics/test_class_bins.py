"""Bins of the predicted probability of one class."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.calibration import calibration_curve

from clipcal.metrics import calibration_bins, class_calibration_bins, classwise_calibration_error

LABELS = np.array(["cat", "cow", "dog"])
RNG = np.random.default_rng(0)
PROB = RNG.dirichlet([0.5] * 3, size=120)
Y = np.array([RNG.choice(LABELS, p=p) for p in PROB])
TABLE = ("edges", "count", "effective_count", "weight", "confidence", "accuracy", "residual")


def same(first, second):
    for column in TABLE:
        assert_allclose(getattr(first, column), getattr(second, column), rtol=1e-6, atol=1e-7, err_msg=column)


@pytest.mark.parametrize("label", LABELS)
def test_agrees_with_scikit_learn(label):
    column = PROB[:, LABELS.tolist().index(label)]
    bins = class_calibration_bins(Y, PROB, label, labels=LABELS, n_bins=8)
    share, mean = calibration_curve(label == Y, column, n_bins=8)
    filled = bins.count > 0
    assert_allclose(bins.accuracy[filled], share)
    assert_allclose(bins.confidence[filled], mean)
    assert bins.n_samples == 120


def test_quantile_bins_have_equal_counts():
    bins = class_calibration_bins(Y, PROB, "cow", labels=LABELS, n_bins=6, strategy="quantile")
    assert_array_equal(bins.count, 20)
    assert_allclose(bins.residual.sum(), (PROB[:, 1] - (Y == "cow")).sum())


def test_order_of_columns_and_kind_of_label_do_not_matter():
    expected = class_calibration_bins(Y, PROB, "dog", labels=LABELS)
    same(class_calibration_bins(Y, PROB[:, ::-1], "dog", labels=LABELS[::-1]), expected)
    same(class_calibration_bins(np.searchsorted(LABELS, Y), PROB, np.int64(2)), expected)
    same(class_calibration_bins(Y, PROB.astype(np.float32), np.str_("dog"), labels=LABELS), expected)


def test_weights_repeat_rows():
    weight = RNG.integers(0, 3, size=120)
    weighted = class_calibration_bins(Y, PROB, "cat", labels=LABELS, sample_weight=weight, n_bins=5)
    repeated = class_calibration_bins(
        Y.repeat(weight), PROB.repeat(weight, axis=0), "cat", labels=LABELS, n_bins=5
    )
    for column in ("weight", "confidence", "accuracy", "residual"):
        assert_allclose(getattr(weighted, column), getattr(repeated, column))
    assert weighted.n_samples == (weight > 0).sum()


def test_two_classes_are_symmetric_and_may_be_one_column():
    p, y = PROB[:, 0], Y == "cat"
    second = class_calibration_bins(y, p, True)
    same(class_calibration_bins(y, np.column_stack([1 - p, p]), True), second)
    first = class_calibration_bins(y, p, False)
    assert_allclose(first.residual.sum(), -second.residual.sum(), atol=1e-12)
    # For confidences above one half, both tables bin the same values.
    sure = class_calibration_bins(y[p > 0.5], p[p > 0.5], True, labels=[False, True])
    same(sure, calibration_bins(y[p > 0.5], p[p > 0.5], labels=[False, True]))


def test_a_label_without_a_column_counts_as_another_class():
    bins = class_calibration_bins(
        ["cat", "emu"], [[1.0, 0.0], [1.0, 0.0]], "cat", labels=["cat", "cow"], n_bins=1
    )
    assert bins.accuracy == [0.5]


def test_invalid_input_raises():
    with pytest.raises(
        ValueError, match=r"class_label must be one of the labels \['cat', 'cow', 'dog'\]; got 'emu'"
    ):
        class_calibration_bins(Y, PROB, "emu", labels=LABELS)
    with pytest.raises(ValueError, match="softmax"):
        class_calibration_bins(Y, PROB * 30, "cat", labels=LABELS)
    with pytest.raises(ValueError, match="n_bins"):
        class_calibration_bins(Y, PROB, "cat", labels=LABELS, n_bins=0)
    with pytest.raises(ValueError, match="must sum to 1"):
        class_calibration_bins(Y, PROB * 0.9, "cat", labels=LABELS)
    for missing in (None, np.nan, pd.NA):
        with pytest.raises(ValueError, match="must be one of the labels"):
            class_calibration_bins(Y, PROB, missing, labels=LABELS)
    with pytest.raises(ValueError, match=r"class_label must be a single label, such as 'cat'; got \['cat'"):
        class_calibration_bins(Y, PROB, ["cat", "dog"], labels=LABELS)
    with pytest.warns(UserWarning, match="sum to 1") as caught:
        class_calibration_bins(Y, PROB * 0.995, "cat", labels=LABELS)
    assert len(caught) == 1 and caught[0].filename == __file__


def test_weight_may_be_a_scalar():
    weighted = class_calibration_bins(Y, PROB, "cat", labels=LABELS, sample_weight=2.0)
    assert_allclose(weighted.residual, 2 * class_calibration_bins(Y, PROB, "cat", labels=LABELS).residual)


def test_closed_side():
    counts = [
        class_calibration_bins([0, 1], [0.5, 0.75], 1, n_bins=4, closed=side).count.tolist()
        for side in ("right", "left")
    ]
    assert counts == [[0, 1, 1, 0], [0, 0, 1, 1]]


def test_only_one_column_is_copied():
    y, prob = np.zeros(2000, dtype=int), np.zeros((2000, 1000), dtype=np.float32)
    prob[:, 0] = 1
    tracemalloc.start()
    class_calibration_bins(y, prob, 3, labels=np.arange(1000)[::-1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < prob.nbytes / 2


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_errors_of_all_classes_agree_with_the_classwise_error(strategy):
    options = {"labels": LABELS, "n_bins": 7, "strategy": strategy}
    errors = [class_calibration_bins(Y, PROB, label, **options).error for label in LABELS]
    assert_allclose(classwise_calibration_error(Y, PROB, average=None, **options), errors)
