"""Grids of reliability diagrams of models or classes."""

import itertools

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from clipcal.metrics import calibration_bins, class_calibration_bins
from clipcal.plots import ReliabilityDisplay, ReliabilityGridDisplay

LABELS = ["cat", "cow", "dog"]
RNG = np.random.default_rng(0)
PROB = RNG.dirichlet([0.5] * 3, size=60)
Y = np.array([RNG.choice(LABELS, p=p) for p in PROB])
BINS = calibration_bins(Y, PROB, labels=LABELS)


def titles(grid):
    return [ax.get_title() for ax in grid.axes_.flat if ax.get_visible()]


def test_one_panel_per_class():
    grid = ReliabilityGridDisplay.from_predictions(Y, PROB, labels=LABELS, n_bins=4, strategy="quantile")
    assert titles(grid) == LABELS and grid.axes_.shape == (1, 3)
    for display, label in zip(grid.displays, LABELS, strict=True):
        bins = class_calibration_bins(Y, PROB, label, labels=LABELS, n_bins=4, strategy="quantile")
        assert_allclose([bar.get_height() for bar in display.bars_], bins.accuracy)
    assert grid.figure_.get_supylabel() == "Share of the class"
    some = ReliabilityGridDisplay.from_predictions(Y, PROB, labels=LABELS, class_labels=["dog"])
    assert titles(some) == ["dog"]


def test_one_panel_per_model():
    X, y = load_iris(return_X_y=True)
    models = {"bayes": GaussianNB().fit(X, y), "logistic": LogisticRegression(max_iter=500).fit(X, y)}
    grid = ReliabilityGridDisplay.from_estimators(models, X, y, n_columns=1, show_text=False)
    assert titles(grid) == ["bayes", "logistic"] and grid.axes_.shape == (2, 1)
    expected = calibration_bins(y, models["logistic"].predict_proba(X))
    assert_allclose(grid.displays[1].bins.residual, expected.residual)
    assert grid.figure_.get_supxlabel() == "Confidence"
    assert all(display.text_ is None for display in grid.displays)
    of_class = ReliabilityGridDisplay.from_estimators(models, X, y, class_label=2)
    assert of_class.figure_.get_supxlabel() == "Probability of 2"


@pytest.mark.parametrize(
    ("n_panels", "n_columns", "shape"), [(5, None, (2, 3)), (4, None, (1, 4)), (5, 2, (3, 2))]
)
def test_panels_fill_rows(n_panels, n_columns, shape):
    displays = [ReliabilityDisplay(BINS, name=f"{i}") for i in range(n_panels)]
    grid = ReliabilityGridDisplay(displays, n_columns=n_columns).plot()
    assert grid.axes_.shape == shape
    assert titles(grid) == [f"{i}" for i in range(n_panels)]
    assert all(ax.get_xlabel() == ax.get_ylabel() == "" for ax in grid.axes_.flat)


def test_given_figure_is_used_and_new_figures_are_created_by_pyplot():
    figure = pyplot.figure(layout="constrained")
    top, _ = figure.subfigures(2, 1)
    assert ReliabilityGridDisplay([ReliabilityDisplay(BINS)] * 2).plot(top).figure_ is top
    assert pyplot.get_fignums() == [figure.number]
    own = ReliabilityGridDisplay([ReliabilityDisplay(BINS)]).plot().figure_
    assert pyplot.gcf() is own


def test_estimators_must_be_a_mapping():
    with pytest.raises(TypeError, match="must map names to classifiers"):
        ReliabilityGridDisplay.from_estimators([None], [[0]], [0])


@pytest.mark.parametrize("width", [3.3, 8])
def test_panels_and_tick_labels_do_not_overlap(width):
    figure = Figure(figsize=(width, width), layout="constrained")
    displays = [ReliabilityDisplay(BINS, name="a class") for _ in range(5)]
    grid = ReliabilityGridDisplay(displays, n_columns=3).plot(figure, show_text=False)
    figure.draw_without_rendering()
    panels = [ax.get_tightbbox() for ax in grid.axes_.flat if ax.get_visible()]
    for i, box in enumerate(panels):
        assert not any(box.overlaps(other) for other in panels[i + 1 :])
    labels = [label.get_window_extent() for label in grid.axes_[1, 0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(labels))


def test_invalid_input_raises():
    with pytest.raises(ValueError, match="displays is empty"):
        ReliabilityGridDisplay([]).plot()
    with pytest.raises(ValueError, match="n_columns must be at least 1; got 0"):
        ReliabilityGridDisplay([ReliabilityDisplay(BINS)], n_columns=0).plot()
