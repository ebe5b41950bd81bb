"""Bins of confidence: edges, ties, weights, and invalid input."""

import numpy as np
import pandas as pd
import pytest
from framed import TextTable
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcal.metrics import calibration_bins, mean_confidence_gap, negative_log_likelihood

# Two-class rows with the given confidence in the first column; correct rows belong to the first class.
LABELS = ["a", "b"]


def two_class(confidence, correct):
    confidence = np.asarray(confidence, dtype=float)
    return np.where(np.asarray(correct) == 1, "a", "b"), np.column_stack([confidence, 1 - confidence])


def test_bins_are_closed_on_the_right_and_include_both_ends():
    y, prob = two_class([0.5, 0.75, 0.750001, 1.0], [1, 1, 0, 0])
    bins = calibration_bins(y, prob, n_bins=4)
    assert bins.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert bins.count.tolist() == [0, 1, 1, 2]
    assert calibration_bins(y, prob, n_bins=4, closed="left").count.tolist() == [0, 0, 1, 3]


def test_confidence_zero_falls_into_the_first_bin():
    with pytest.warns(UserWarning, match="sum to 1"):
        bins = calibration_bins(["a", "b"], np.zeros((2, 2)), n_bins=3)
    assert bins.count.tolist() == [2, 0, 0]


def test_table_by_hand():
    y, prob = two_class([0.6, 0.7, 0.9], [1, 0, 1])
    bins = calibration_bins(y, prob, n_bins=4, sample_weight=[1, 3, 2])
    assert bins.weight.tolist() == [0, 0, 4, 2]
    np.testing.assert_allclose(bins.confidence[2:], [(0.6 + 3 * 0.7) / 4, 0.9])
    np.testing.assert_allclose(bins.accuracy[2:], [0.25, 1.0])
    np.testing.assert_allclose(bins.residual, [0, 0, -0.4 + 2.1, -0.2])
    np.testing.assert_allclose(bins.effective_count, [0, 0, 16 / 10, 1])
    assert np.isnan(bins.confidence[:2]).all()
    assert bins.n_samples == 3 and len(bins) == 4


def test_quantile_edges_lie_half_way_and_never_split_ties():
    y, prob = two_class([0.6, 0.7, 0.8, 0.9], [1, 0, 1, 1])
    bins = calibration_bins(y, prob, n_bins=2, strategy="quantile")
    np.testing.assert_allclose(bins.edges, [0, 0.75, 1])
    y, prob = two_class([0.6, 0.6, 0.9, 0.9, 0.9], [1, 0, 1, 1, 1])
    assert calibration_bins(y, prob, n_bins=4, strategy="quantile").count.tolist() == [2, 3]
    y, prob = two_class([0.8] * 6, [1, 0, 1, 1, 1, 1])
    assert calibration_bins(y, prob, n_bins=4, strategy="quantile").count.tolist() == [6]


def test_quantile_bins_have_about_equal_counts_and_weights():
    confidence = np.linspace(0.5, 1, 11)[:10]
    y, prob = two_class(confidence, [0] + [1] * 9)
    bins = calibration_bins(y, prob, n_bins=4, strategy="quantile")
    assert bins.count.tolist() == [3, 3, 2, 2]
    weighted = calibration_bins(y, prob, n_bins=2, strategy="quantile", sample_weight=[9] + [1] * 9)
    assert weighted.count.tolist() == [1, 9]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=60),
    st.integers(1, 12),
    st.integers(0, 2**16),
    st.booleans(),
)
def test_quantile_bins_are_never_empty_and_ignore_row_order(ticks, n_bins, seed, weighted):
    rng = np.random.default_rng(seed)
    y, prob = two_class(0.5 + np.array(ticks) / 40, rng.integers(0, 2, len(ticks)))
    weight = rng.integers(1, 4, len(ticks)) if weighted else None
    order = rng.permutation(len(ticks))
    options = {"labels": LABELS, "n_bins": n_bins, "strategy": "quantile"}
    bins = calibration_bins(y, prob, sample_weight=weight, **options)
    shuffled = calibration_bins(
        y[order], prob[order], sample_weight=None if weight is None else weight[order], **options
    )
    assert (bins.count > 0).all() and len(bins) <= n_bins
    np.testing.assert_array_equal(bins.count, shuffled.count)
    np.testing.assert_allclose(bins.residual, shuffled.residual, atol=1e-12)


def test_one_dimensional_probabilities_are_those_of_the_second_class():
    p = np.array([0.1, 0.4, 0.8])
    one, two = (calibration_bins([0, 1, 1], prob, n_bins=5) for prob in (p, np.column_stack([1 - p, p])))
    np.testing.assert_array_equal(one.residual, two.residual)


def test_labels_may_be_unsorted():
    prob = np.array([[0.2, 0.7, 0.1], [0.5, 0.2, 0.3]])
    bins = calibration_bins(["ant", "cow"], prob, labels=["cow", "ant", "bee"], n_bins=2)
    assert bins.accuracy[1] == 1.0


def test_rows_of_weight_zero_are_ignored():
    y, prob = two_class([0.6, 0.7, 0.9], [1, 0, 1])
    bins = calibration_bins(y, prob, labels=LABELS, sample_weight=[1, 0, 2], n_bins=4)
    assert bins.n_samples == 2 and bins.count.tolist() == [0, 0, 1, 1]


def test_data_frames_are_accepted_and_input_is_not_modified():
    y, prob = two_class([0.6, 1.0 + 5e-7], [1, 0])
    before = prob.copy()
    frame = pd.DataFrame(prob, columns=LABELS, index=[7, 3])
    assert calibration_bins(pd.Series(y, index=[7, 3]), frame).n_samples == 2
    np.testing.assert_array_equal(prob, before)


@pytest.mark.parametrize(
    ("y", "prob", "options", "message"),
    [
        ([0, 1], [[0.5, 0.5], [np.nan, 1.0]], {}, "NaN"),
        ([0, 1], [[0.5, 0.5], [np.inf, 0.0]], {}, "infinity"),
        ([0, np.nan], [[0.5, 0.5], [0.1, 0.9]], {}, "y_true contains NaN"),
        ([0, 1], [[2.0, -1.0], [0.5, 0.5]], {}, "softmax"),
        ([], np.empty((0, 2)), {}, "0 sample"),
        ([0, 1, 0], [[0.5, 0.5], [0.1, 0.9]], {}, "inconsistent"),
        ([0, 0], [[0.5, 0.5], [0.1, 0.9]], {}, "Pass labels="),
        ([0, 1], [[0.5, 0.5], [0.1, 0.9]], {"labels": [0, 1, 2]}, "labels has 3 entries"),
        ([0, 1], [[0.5, 0.5], [0.1, 0.9]], {"labels": [1, 1]}, "distinct"),
        ([0, 1], [[0.5, 0.5], [0.1, 0.9]], {"labels": ["0", "1"]}, "different kinds"),
        ([0, 1], [[0.5, 0.5], [0.1, 0.9]], {"sample_weight": [0, 0]}, "zero"),
        ([0, 1], [[0.5, 0.5], [0.1, 0.9]], {"sample_weight": [1, -1]}, "egative"),
        ([0, 1], [[0.5, 0.5], [0.1, 0.9]], {"n_bins": 0}, "n_bins"),
        ([0, 1], [[0.5, 0.5], [0.1, 0.9]], {"strategy": "mass"}, "strategy"),
    ],
)
def test_invalid_input_raises(y, prob, options, message):
    with pytest.raises(ValueError, match=message):
        calibration_bins(y, prob, **options)


TWO = [[0.5, 0.5], [0.1, 0.9]]


@pytest.mark.parametrize(
    "missing",
    [
        np.array(["a", None], dtype=object),
        np.array(["a", np.nan], dtype=object),
        pd.Series(["a", None]),
        pd.Series(["a", pd.NA], dtype="string"),
        pd.Series([1, pd.NA], dtype="Int64"),
        pd.Series([1, pd.NA], dtype=object),
        pd.Series([1, pd.NaT], dtype=object),
        pd.Series(pd.Categorical(["a", None])),
        pd.to_datetime(pd.Series(["2020-01-01", None])),
    ],
    ids=lambda values: str(values.dtype),
)
@pytest.mark.parametrize("metric", [calibration_bins, negative_log_likelihood])
def test_missing_labels_raise(missing, metric):
    for labels in (None, [missing[0], missing[0]]):
        with pytest.raises(ValueError, match=r"y_true contains NaN or .* Drop these rows"):
            metric(missing, TWO, labels=labels)


@pytest.mark.parametrize(
    ("y", "labels", "message"),
    [
        (["a", "b"], [b"a", b"b"], "of different kinds: text such as .* and bytes .*decode"),
        (np.array([b"a", b"b"], dtype=object), ["a", "b"], "different kinds: bytes"),
        (np.array(["1", 2], dtype=object), None, "y_true mixes numbers and text, such as 2 and '1'"),
        (np.array(["1", 2], dtype=object), ["1", "2"], "y_true mixes numbers and text"),
        (["1", "2"], np.array(["1", 2], dtype=object), "labels mixes numbers and text"),
        (
            ["1", "2"],
            np.array(["1", None], dtype=object),
            "labels contains NaN or .* Pass a label for each column",
        ),
        (np.array(["2020", "2021"], dtype="M8[Y]"), [0, 1], "dates such as"),
    ],
)
def test_labels_of_different_kinds_raise(y, labels, message):
    with pytest.raises(ValueError, match=message):
        calibration_bins(y, TWO, labels=labels)


def test_compatible_kinds_of_labels():
    expected = calibration_bins(["a", "b"], TWO).residual
    for y, labels in (
        ([b"a", b"b"], np.array([b"a", b"b"], dtype=object)),
        (np.array([np.str_("a"), "b"], dtype=object), ["a", "b"]),
        (np.array([1, True], dtype=object) == 1, [False, True]),
        (np.array(["2020", "2021"], dtype="M8[Y]"), np.array(["2020", "2021"], dtype="M8[Y]")),
        (np.array([np.int8(0), 1.0], dtype=object), [0, 1]),
    ):
        found = calibration_bins(y, TWO, labels=labels)
        assert found.n_samples == 2
        if np.asarray(y).dtype != bool:
            np.testing.assert_array_equal(found.residual, expected)


@pytest.mark.parametrize(
    ("y", "prob", "message"),
    [
        ([0, 0], [0.2, 0.3], r"1-D y_prob .* probability .* but y_true has only .*0.* Pass labels="),
        ([0, 1, 2], [0.2, 0.3, 0.4], "y_true has 3 distinct labels"),
        ([[0, 1]], TWO, r"y_true must be a 1d array with one label for each row.*\(1, 2\)"),
        ([0, 1], 0.5, "y_prob must have one row per sample; got 0.5"),
        ([0, 1], np.zeros((2, 2, 2)), r"y_prob must have .*; got an array of shape \(2, 2, 2\)"),
        ([0, 1, 1], TWO, "y_true and y_prob have inconsistent .*: 3 labels and 2 rows"),
        ([0, 1], None, "y_prob must have one row per sample; got None"),
    ],
)
def test_error_messages(y, prob, message):
    with pytest.raises(ValueError, match=message):
        calibration_bins(y, prob)


def test_column_names_must_agree_with_labels():
    y = ["cat", "ant"]
    frame = pd.DataFrame(TWO, columns=["cat", "ant"])
    with pytest.raises(
        ValueError, match=r"named \['cat', 'ant'\].*sorted labels \['ant', 'cat'\].*y_prob.columns"
    ):
        calibration_bins(y, frame)
    with pytest.raises(ValueError, match=r"named .* but labels says"):
        calibration_bins(y, frame, labels=["ant", "cat"])
    expected = calibration_bins(y, frame.to_numpy()[:, ::-1]).residual
    for passed, options in (
        (frame, {"labels": list(frame.columns)}),
        (frame[["ant", "cat"]], {}),
        (frame[["ant", "cat"]].set_axis(["p1", "p2"], axis=1), {}),
    ):
        np.testing.assert_array_equal(calibration_bins(y, passed, **options).residual, expected)


def test_labels_of_rows_of_weight_zero_define_columns():
    bins = calibration_bins([0, 1, 2], np.eye(3), sample_weight=[1, 1, 0])
    assert bins.n_samples == 2 and bins.error == 0
    assert calibration_bins([0, 1, 2], [0.0, 1.0, 1.0], sample_weight=[1, 1, 0]).error == 0


def test_warning_about_row_sums_points_to_the_caller():
    with pytest.warns(UserWarning, match="sum to 1") as caught:
        calibration_bins([0, 1], [[0.5, 0.4], [0.1, 0.9]])
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="sum to 1") as caught:
        mean_confidence_gap([0, 1], [[0.5, 0.4], [0.1, 0.9]])
    assert caught[0].filename == __file__


def test_text_column_names_match_numeric_labels():
    y = [1, 0]
    for frame in (pd.DataFrame(TWO, columns=["1", "0"]), TextTable(TWO, [1, 0])):
        with pytest.raises(ValueError, match=r"named \['1', '0'\].*y_prob\[\['0', '1'\]\] if the names"):
            calibration_bins(y, frame)
    expected = calibration_bins(y, np.asarray(TWO)[:, ::-1]).residual
    ordered = pd.DataFrame(TWO, columns=["1", "0"])[["0", "1"]]
    np.testing.assert_array_equal(calibration_bins(y, ordered).residual, expected)
    with pytest.raises(ValueError, match=r"named \['ant', 'cow'\], but labels says \['ant', 'cat'\]"):
        calibration_bins(["ant", "cat"], pd.DataFrame(TWO, columns=["ant", "cow"]), labels=["ant", "cat"])
