"""The record of one model: each entry agrees with the metric of the same name."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

from clipcal import metrics
from clipcal.metrics import _top_label, summary
from clipcal.metrics._input import scan_rows

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(600, 4)) * 2
PROB = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
Y = (0.5 * LOGITS + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)
NAMES = np.array(["ant", "bee", "cow", "doe"])


@pytest.mark.parametrize("weight", [None, np.arange(600) % 3])
def test_entries_agree_with_the_metrics(weight):
    data = {"labels": NAMES, "sample_weight": weight}
    record = summary(NAMES[Y], PROB, **data, random_state=0, name="a model")
    functions = {
        "gap": metrics.mean_confidence_gap,
        "ece": metrics.expected_calibration_error,
        "mce": metrics.maximum_calibration_error,
        "ace": metrics.adaptive_calibration_error,
        "smooth_ece": metrics.smooth_calibration_error,
        "aurc": metrics.area_under_risk_coverage,
        "classwise_ece": metrics.classwise_calibration_error,
        "brier": metrics.brier_score,
        "nll": metrics.negative_log_likelihood,
    }
    for name, function in functions.items():
        assert_allclose(record[name], function(NAMES[Y], PROB, **data), err_msg=name)
    over, under = metrics.over_under_confidence(NAMES[Y], PROB, **data)
    assert_allclose([record["over"], record["under"]], [over, under])
    assert_allclose(record["confidence"] - record["accuracy"], record["gap"])
    assert record["gap_low"] < record["gap"] < record["gap_high"]
    assert record["ece_low"] <= record["ece"] <= record["ece_high"]
    assert record["ece_pvalue"] < 0.02 and record["ece_floor"] < record["ece"]
    assert next(iter(record)) == "name" and all(isinstance(v, str | int | float) for v in record.values())


def test_the_same_seed_gives_the_same_record():
    assert summary(Y, PROB, random_state=3) == summary(Y, PROB, random_state=3)


def test_labels_without_a_column():
    record = summary(np.append(NAMES[Y[:-1]], "elk"), PROB, labels=NAMES, random_state=0)
    assert record["nll"] is None and record["brier"] is None and record["classwise_ece"] is None
    assert 0 < record["ece"] < 1


def test_input_is_validated_once(monkeypatch):
    scans = []
    monkeypatch.setattr(_top_label, "scan_rows", lambda *args: scans.append(1) or scan_rows(*args))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record = summary(Y, PROB * 0.995, random_state=0, n_resamples=99)
    assert len(scans) == 1
    assert [w.filename for w in caught] == [__file__]
    with pytest.warns(UserWarning, match="sum to 1"):
        assert record["brier"] == metrics.brier_score(Y, PROB * 0.995)


def test_rows_of_weight_zero_may_have_any_label():
    weight = np.append(np.ones(599), 0)
    labels = np.append(NAMES[Y[:-1]], "elk")
    record = summary(labels, PROB, labels=NAMES, sample_weight=weight, random_state=0)
    assert record == summary(NAMES[Y[:-1]], PROB[:-1], labels=NAMES, random_state=0)


@pytest.mark.parametrize(
    ("y", "prob", "labels"),
    [([1], [[0.2, 0.8]], [0, 1]), ([0, 0], [[1.0], [1.0]], [0]), ([0, 1, 1], [0.0, 1.0, 0.0], [0, 1])],
)
def test_few_or_saturated_rows(y, prob, labels):
    with np.errstate(all="raise"):
        record = summary(y, prob, labels=labels, random_state=0)
    assert np.isfinite(list(record.values())).all()
