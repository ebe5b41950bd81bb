"""The risk-coverage curve of one or several models."""

import numpy as np
from numpy.testing import assert_allclose
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB

from clipcal.metrics import area_under_risk_coverage, risk_coverage_curve
from clipcal.plots import RiskCoverageDisplay

Y = [1, 0, 1, 1, 0]
PROB = [0.95, 0.4, 0.3, 0.8, 0.9]


def test_curve_agrees_with_the_metric():
    display = RiskCoverageDisplay.from_predictions(Y, PROB)
    curve = risk_coverage_curve(Y, PROB)
    assert_allclose(display.line_.get_xdata(), curve.coverage)
    assert_allclose(display.line_.get_ydata(), curve.risk)
    assert display.line_.get_label() == f"AURC {area_under_risk_coverage(Y, PROB):.3f}"


def test_reference_curves_end_at_the_error_rate():
    display = RiskCoverageDisplay.from_predictions(Y, PROB)  # two of five are wrong
    assert_allclose(display.random_line_.get_ydata(), 0.4)
    coverage, risk = display.ideal_line_.get_data()
    assert_allclose(np.interp([0.0, 0.6, 0.8, 1.0], coverage, risk), [0, 0, 0.2 / 0.8, 0.4], atol=1e-4)


def test_single_point_and_perfect_model():
    display = RiskCoverageDisplay.from_predictions([1, 0], [0.7, 0.3])
    assert display.line_.get_marker() == "o"
    assert display.ax_.get_ylim()[1] > 0
    assert_allclose(display.ideal_line_.get_ydata(), 0)
    all_wrong = RiskCoverageDisplay.from_predictions([0, 1], [0.7, 0.3])
    assert_allclose(all_wrong.ideal_line_.get_ydata(), 1)


def test_models_on_the_same_axes_have_different_styles():
    first = RiskCoverageDisplay.from_predictions(Y, PROB, name="A", show_ideal=False)
    second = RiskCoverageDisplay.from_predictions([0, *Y[1:]], PROB, name="B", ax=first.ax_, show_ideal=False)
    styles = {(line.get_color(), str(line._dash_pattern)) for line in (first.line_, second.line_)}
    assert len({color for color, _ in styles}) == len({dashes for _, dashes in styles}) == 2
    labels = [text.get_text() for text in second.legend_.get_texts()]
    assert labels == [first.line_.get_label(), second.line_.get_label(), "random order"]
    assert second.ax_.get_ylim()[1] > second.line_.get_ydata()[-1] > first.line_.get_ydata()[-1]


def test_few_confident_rows_do_not_set_the_y_limits():
    y_prob = np.linspace(0.99, 0.51, 50)
    y_true = np.array([0] + [1] * 48 + [0])
    display = RiskCoverageDisplay.from_predictions(y_true, y_prob)
    assert display.line_.get_ydata()[0] == 1
    assert display.ax_.get_ylim()[1] < 0.25


def test_from_estimator():
    X, y = load_iris(return_X_y=True)
    names = np.array(["a", "b", "c"])[y]
    model = GaussianNB().fit(X, names)
    display = RiskCoverageDisplay.from_estimator(model, X[:60], names[:60], curve_kwargs={"linewidth": 3})
    assert display.line_.get_label().startswith("GaussianNB (AURC 0.")
    assert display.line_.get_linewidth() == 3
