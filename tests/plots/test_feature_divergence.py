"""Plot of the feature divergence before and after tuning."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from clipcal.metrics import feature_divergence
from clipcal.plots import FeatureDivergenceDisplay

BEFORE = {"base": 0.5, "new": 0.6}
AFTER = {"CoOp": {"new": 0.9, "base": 0.8}, "KgCoOp": {"base": 0.4, "new": 0.55}}


def test_lines_connect_before_and_after():
    display = FeatureDivergenceDisplay(BEFORE, AFTER).plot()
    assert set(display.lines_) == {(method, group) for method in AFTER for group in BEFORE}
    for (method, group), line in display.lines_.items():
        assert_allclose(line.get_xdata(), [BEFORE[group], AFTER[method][group]])
    display.figure_.canvas.draw()
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["CoOp", "KgCoOp"]
    labels = [text.get_text() for text in display.legend_.get_texts()]
    assert labels == ["base", "new", "zero-shot", "tuned"]


def test_order_of_methods_and_groups():
    display = FeatureDivergenceDisplay(BEFORE, AFTER).plot()
    height = {
        key: display.ax_.transData.transform((0, line.get_ydata()[0]))[1]
        for key, line in display.lines_.items()
    }
    order = sorted(height, key=height.get, reverse=True)
    assert order == [("CoOp", "base"), ("CoOp", "new"), ("KgCoOp", "base"), ("KgCoOp", "new")]


def test_hollow_markers_are_before_and_filled_ones_after():
    display = FeatureDivergenceDisplay({"base": 0.5}, {"CoOp": {"base": 0.8}}).plot()
    line, hollow = display.ax_.lines
    assert line is display.lines_["CoOp", "base"] and line.get_markevery() == [1]
    assert_allclose(hollow.get_xydata(), [[0.5, 0.0]])
    assert hollow.get_markerfacecolor() == "white" != line.get_markerfacecolor()


def test_values_agree_with_the_metric():
    rng = np.random.default_rng(0)
    features = {name: rng.normal(size=(6, 8)) for name in "abcd"}
    display = FeatureDivergenceDisplay.from_text_features(
        {"base": features["a"], "new": features["b"]},
        {"CoOp": {"base": features["c"], "new": features["d"]}},
        n_neighbors=2,
        metric="cosine",
    )
    assert display.before["new"] == feature_divergence(features["b"], n_neighbors=2, metric="cosine")
    assert_allclose(display.lines_["CoOp", "new"].get_xdata()[1], display.after["CoOp"]["new"])


def test_invalid_input_raises():
    with pytest.raises(ValueError, match=r"after\['CoOp'\].*\['base'\].*\['base', 'new'\]"):
        FeatureDivergenceDisplay(BEFORE, {"CoOp": {"base": 0.8}}).plot()
    with pytest.raises(ValueError, match="before or after is empty"):
        FeatureDivergenceDisplay(BEFORE, {}).plot()
