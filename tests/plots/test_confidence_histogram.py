"""Histogram of the confidences of correct and wrong predictions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB

from clipcal.plots import ConfidenceHistogramDisplay

Y = [1, 0, 0, 1, 0]
PROB = [0.9, 0.3, 0.6, 0.8, 0.95]  # confidences .9 .7 .6 .8 .95; the third and the last are wrong


def heights(bars):
    return [bar.get_height() for bar in bars]


def test_stacked_bars_are_fractions_of_all_rows():
    display = ConfidenceHistogramDisplay.from_predictions(Y, PROB, n_bins=4)
    assert_allclose(heights(display.correct_bars_), [0, 0, 1 / 5, 2 / 5])
    assert_allclose(heights(display.wrong_bars_), [0, 0, 1 / 5, 1 / 5])
    assert_allclose([bar.get_y() for bar in display.wrong_bars_], heights(display.correct_bars_))
    assert display.ax_.get_ylabel() == "Share of rows"


def test_overlaid_bars_are_fractions_of_their_outcome():
    display = ConfidenceHistogramDisplay.from_predictions(Y, PROB, n_bins=4, stacked=False)
    assert_allclose(heights(display.correct_bars_), [0, 0, 1 / 3, 2 / 3])
    assert_allclose(heights(display.wrong_bars_), [0, 0, 1 / 2, 1 / 2])
    assert {bar.get_y() for bar in display.wrong_bars_} == {0}


@pytest.mark.parametrize("stacked", [True, False])
def test_bars_of_unequal_width_show_the_density(stacked):
    display = ConfidenceHistogramDisplay.from_predictions(
        Y, PROB, n_bins=3, strategy="quantile", stacked=stacked
    )
    areas = [
        sum(bar.get_height() * bar.get_width() for bar in bars)
        for bars in (display.correct_bars_, display.wrong_bars_)
    ]
    assert_allclose(areas, [3 / 5, 2 / 5] if stacked else [1, 1])
    assert display.ax_.get_ylabel() == "Density"


def test_lines_mark_the_means():
    weight = [1, 2, 0, 1, 1]
    display = ConfidenceHistogramDisplay.from_predictions(Y, PROB, sample_weight=weight)
    assert_allclose(display.confidence_line_.get_xdata(), (0.9 + 2 * 0.7 + 0.8 + 0.95) / 5)
    assert_allclose(display.accuracy_line_.get_xdata(), 4 / 5)
    assert display.confidence_line_.get_linestyle() != display.accuracy_line_.get_linestyle()
    labels = [text.get_text() for text in display.legend_.get_texts()]
    assert labels == ["correct", "wrong", "mean confidence 0.810", "accuracy 0.800"]


def test_model_without_errors():
    display = ConfidenceHistogramDisplay.from_predictions([1, 1, 0], [1.0, 1.0, 0.0], stacked=False)
    assert heights(display.wrong_bars_) == [0] * 20
    assert heights(display.correct_bars_) == [0] * 19 + [1]


def test_from_estimator():
    X, y = load_iris(return_X_y=True)
    names = np.array(["a", "b", "c"])[y]
    model = GaussianNB().fit(X, names)
    display = ConfidenceHistogramDisplay.from_estimator(
        model, X[:60], names[:60], wrong_kwargs={"hatch": "x"}
    )
    assert display.ax_.get_title() == "GaussianNB"
    assert display.wrong_bars_[0].get_hatch() == "x"
    assert_allclose(display.accuracy_line_.get_xdata()[0], model.score(X[:60], names[:60]))
