"""The reliability diagram."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from numpy.testing import assert_allclose
from scipy.stats import binom
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB

from clipcal.metrics import (
    calibration_bins,
    calibration_error_floor,
    calibration_interval,
    class_calibration_bins,
    consistency_band,
    expected_calibration_error,
)
from clipcal.plots import ReliabilityDisplay

# With four bins, the third is over-confident, and the fourth is under-confident and has one more row.
Y = np.array([1, 0, 0, 1, 0, 0, 1, 0, 1])
PROB = np.array([0.9, 0.3, 0.6, 0.8, 0.7, 0.1, 0.95, 0.55, 0.98])


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_bars_show_the_table(strategy):
    display = ReliabilityDisplay.from_predictions(Y, PROB, n_bins=4, strategy=strategy)
    bins = calibration_bins(Y, PROB, n_bins=4, strategy=strategy)
    filled = bins.count > 0
    assert_allclose([bar.get_height() for bar in display.bars_], bins.accuracy[filled])
    assert_allclose([bar.get_x() for bar in display.bars_], bins.edges[:-1][filled])
    assert_allclose([bar.get_width() for bar in display.bars_], np.diff(bins.edges)[filled])
    tops = [bar.get_y() + bar.get_height() for bar in display.gap_bars_]
    assert_allclose(tops, bins.confidence[filled])


def test_over_and_under_confidence_differ_in_colour_and_hatch():
    display = ReliabilityDisplay.from_predictions(Y, PROB, n_bins=4)
    over, under = (
        {
            (bar.get_facecolor(), bar.get_hatch())
            for bar, gap in zip(display.gap_bars_, gaps, strict=True)
            if gap
        }
        for gaps in (display.bins.gaps[2:] > 0, display.bins.gaps[2:] < 0)
    )
    assert len(over) == len(under) == 1
    assert over.isdisjoint(under)


def test_text_shows_the_metric():
    display = ReliabilityDisplay.from_predictions(Y, PROB)
    lines = [area.get_text() for area in display.text_.get_child().get_children()]
    assert lines[0] == f"ECE {expected_calibration_error(Y, PROB):.3f}"


def test_from_estimator():
    X, y = load_iris(return_X_y=True)
    names = np.array(["a", "b", "c"])[y]
    model = GaussianNB().fit(X, names)
    display = ReliabilityDisplay.from_estimator(model, X[:60], names[:60], n_bins=7)
    assert display.ax_.get_title() == "GaussianNB"
    assert len(display.bins) == 7 and display.bins.n_samples == 60


def test_parts_can_be_disabled():
    figure, ax = pyplot.subplots()
    display = ReliabilityDisplay.from_predictions(
        Y, PROB, ax=ax, ref_line=False, show_gap=False, show_histogram=False, show_text=False
    )
    assert display.ax_ is ax and display.figure_ is figure
    assert [display.line_, display.gap_bars_, display.hist_ax_, display.text_, display.errorbar_] == [
        None
    ] * 5
    assert ax.get_ylim() == (0, 1) and not ax.child_axes


def test_histogram_shows_fractions_inside_the_given_axes():
    display = ReliabilityDisplay.from_predictions(Y, PROB, n_bins=4, name="first")
    assert_allclose([bar.get_height() for bar in display.hist_ax_.patches], [0, 0, 4 / 9, 5 / 9])
    assert display.figure_.axes == [display.ax_]
    assert display.plot(name="second").ax_.get_title() == "second"


def test_error_bars_are_wilson_intervals():
    display = ReliabilityDisplay.from_predictions([1] * 9 + [0], [0.95] * 10, n_bins=2, ci=0.95)
    ((low, high),) = [segment[:, 1] for segment in display.errorbar_.lines[2][0].get_segments()]
    assert_allclose([low, high], [0.5958, 0.9821], atol=5e-4)
    with pytest.raises(ValueError, match=r"ci=0\.95"):
        display.plot(ci=95)


def test_keyword_arguments_reach_the_artists():
    display = ReliabilityDisplay.from_predictions(
        Y, PROB, bar_kwargs={"color": "k"}, gap_kwargs={"alpha": 0.5}, ref_kwargs={"linewidth": 3}
    )
    assert display.bars_[0].get_facecolor() == (0, 0, 0, 1)
    assert display.gap_bars_[0].get_alpha() == 0.5
    assert display.line_.get_linewidth() == 3


def test_small_panels_do_not_overlap_and_settings_are_unchanged():
    before = dict(matplotlib.rcParams)
    figure, axes = pyplot.subplots(2, 4, figsize=(8, 5.2), layout="constrained")
    displays = [ReliabilityDisplay.from_predictions(Y, PROB, name="panel", ax=ax) for ax in axes.flat]
    figure.canvas.draw()
    assert dict(matplotlib.rcParams) == before
    boxes = [display.ax_.get_tightbbox() for display in displays]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
    for display in displays:
        text, area = display.text_.get_window_extent(), display.ax_.get_window_extent()
        assert area.x0 <= text.x0 and text.x1 <= area.x1 and text.y0 > display.hist_ax_.get_window_extent().y1


def test_missing_matplotlib_raises_only_when_drawing(monkeypatch):
    display = ReliabilityDisplay(calibration_bins(Y, PROB))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'ReliabilityDisplay.plot requires.*pip install "clipcal\[plot\]"'):
        display.plot()


def test_diagram_of_a_class():
    labels, y_true = ["a", "b", "c"], np.array(["a", "c", "b", "a"])
    y_prob = [[0.7, 0.1, 0.2], [0.3, 0.1, 0.6], [0.2, 0.6, 0.2], [0.45, 0.5, 0.05]]
    display = ReliabilityDisplay.from_predictions(y_true, y_prob, class_label="a", labels=labels, n_bins=2)
    assert_allclose([bar.get_height() for bar in display.bars_], [1 / 3, 1])
    assert_allclose(display.bins.confidence, [0.95 / 3, 0.7])
    expected = class_calibration_bins(y_true, y_prob, "a", labels=labels, n_bins=2)
    assert_allclose(display.bins.residual, expected.residual)
    assert display.ax_.get_title() == "a"
    assert display.ax_.get_xlabel() == "Probability of a" and display.ax_.get_ylabel() == "Share of a"


def test_details_show_the_number_of_rows_and_the_floor():
    display = ReliabilityDisplay.from_predictions(Y, PROB, show_details=True)
    lines = [area.get_text() for area in display.text_.get_child().get_children()]
    assert lines[-2:] == ["n 9", f"floor {calibration_error_floor(PROB):.3f}"]
    bare = ReliabilityDisplay(display.bins).plot(show_details=True)
    assert bare.text_.get_child().get_children()[-1].get_text() == "n 9"


def test_interval_agrees_with_the_metric():
    display = ReliabilityDisplay.from_predictions(Y, PROB, n_bins=4, interval=0.8, random_state=0)
    expected = calibration_interval(Y, PROB, n_bins=4, confidence_level=0.8, random_state=0)
    assert display.interval == (expected.low, expected.high)
    with pytest.raises(ValueError, match="omit interval or class_label"):
        ReliabilityDisplay.from_predictions(Y, PROB, interval=0.8, class_label=1)


def test_interval_is_shown_below_the_error():
    display = ReliabilityDisplay(calibration_bins(Y, PROB), interval=(0.01234, 0.2)).plot()
    assert display.text_.get_child().get_children()[1].get_text() == "0.012 to 0.200"


def test_text_is_placed_in_a_corner_without_gaps():
    under = ReliabilityDisplay.from_predictions([1] * 10 + [0], [0.7] * 10 + [0.1]).text_
    over = ReliabilityDisplay.from_predictions([0] * 5 + [1], [0.9] * 6).text_
    assert under.loc == over.loc == 2  # upper left
    far_below = ReliabilityDisplay(class_calibration_bins([1] * 9 + [0], [0.3] * 9 + [0.2], 1)).plot()
    assert far_below.text_.loc == 4  # lower right


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_band_agrees_with_the_metric(strategy):
    display = ReliabilityDisplay.from_predictions(Y, PROB, n_bins=4, strategy=strategy, band=0.9)
    band = consistency_band(display.bins, PROB, confidence_level=0.9)
    filled = display.bins.count > 0
    assert_allclose([bar.get_y() for bar in display.band_], band.low[filled])
    assert_allclose([bar.get_y() + bar.get_height() for bar in display.band_], band.high[filled])
    assert_allclose([bar.get_x() for bar in display.band_], display.bins.edges[:-1][filled])
    assert ReliabilityDisplay.from_predictions(Y, PROB).band_ is None
    with pytest.raises(ValueError, match=r"band=0\.95"):
        ReliabilityDisplay.from_predictions(Y, PROB, band=1)


def test_band_of_a_class_agrees_with_binomial_quantiles():
    y_prob = [0.9] * 100 + [0.3] * 50
    display = ReliabilityDisplay.from_predictions(
        [1] * 150, y_prob, n_bins=5, labels=[0, 1], class_label=1, band=0.95
    )
    low = [bar.get_y() for bar in display.band_]
    high = [bar.get_y() + bar.get_height() for bar in display.band_]
    assert_allclose(low, [binom.ppf(0.025, 50, 0.3) / 50, 0.84])
    assert_allclose(high, [binom.ppf(0.975, 50, 0.3) / 50, 0.95])


def test_band_of_a_class_with_weights_uses_the_effective_sample_size():
    weight = np.repeat([1.0, 3.0], 50)
    display = ReliabilityDisplay.from_predictions(
        [1] * 100, [0.9] * 100, labels=[0, 1], class_label=1, sample_weight=weight, band=0.95
    )
    # Kish: 200 ** 2 / (50 * 1 + 50 * 9) = 80 rows.
    (bar,) = display.band_
    assert_allclose(bar.get_height(), 2 * 1.959964 * np.sqrt(0.09 / 80), rtol=1e-6)


def test_bands_of_certain_rows_have_zero_width():
    display = ReliabilityDisplay.from_predictions([1, 0, 1], [1.0, 0.0, 1.0], band=0.95, show_details=True)
    assert [bar.get_height() for bar in display.band_] == [0]
    assert display.text_.get_child().get_children()[-1].get_text() == "floor 0.000"
