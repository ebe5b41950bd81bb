"""Scatter plot of runs and their means on base and new classes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from clipcal.plots import BaseToNewDisplay

RECORDS = [
    {"method": "CoOp", "base": 0.8, "new": 0.5, "seed": 1},
    {"method": "zero-shot", "base": 0.7, "new": 0.7},
    {"method": "CoOp", "base": 0.9, "new": 0.7, "seed": 2},
]


def test_large_markers_are_means_and_small_ones_are_runs():
    display = BaseToNewDisplay.from_records(RECORDS, metric_name="Accuracy")
    assert list(display.points_) == ["CoOp", "zero-shot"]
    assert_allclose(display.points_["CoOp"].get_xydata(), [[0.85, 0.6]])
    assert_allclose(display.run_points_["CoOp"].get_xydata(), [[0.8, 0.5], [0.9, 0.7]])
    assert list(display.run_points_) == ["CoOp"]
    assert [text.get_text() for text in display.legend_.get_texts()] == ["CoOp", "zero-shot"]
    assert display.ax_.get_xlabel() == "Accuracy, base classes"
    markers = {line.get_marker() for line in display.points_.values()}
    assert len(markers) == 2


def test_the_diagonal_runs_from_corner_to_corner():
    display = BaseToNewDisplay.from_records(RECORDS)
    assert display.ax_.get_xlim() == display.ax_.get_ylim() == tuple(display.line_.get_xdata())
    free = display.plot(equal_scale=False, ref_line=False, show_runs=False)
    assert free.line_ is None and not free.run_points_
    assert np.diff(free.ax_.get_xlim()) < np.diff(free.ax_.get_ylim()) * 1.01
    assert free.ax_.get_xlim() != free.ax_.get_ylim()


def test_arrays_are_accepted_and_limits_are_non_negative():
    display = BaseToNewDisplay(np.array(["a", "b"]), [0.0, 0.1], np.array([0.01, 0.2])).plot()
    assert display.ax_.get_xlim()[0] == 0
    assert BaseToNewDisplay(["a"], [0.3], [0.3]).plot().ax_.get_xlim() == pytest.approx((0.27, 0.33))


@pytest.mark.parametrize(
    ("kind", "mean"),
    [("harmonic", lambda a, b: 2 * a * b / (a + b)), ("arithmetic", lambda a, b: (a + b) / 2)],
)
def test_mean_lines_connect_equal_means(kind, mean):
    display = BaseToNewDisplay.from_records(RECORDS, mean_lines=kind)
    for level, path in zip(display.mean_lines_.levels, display.mean_lines_.get_paths(), strict=True):
        assert_allclose(mean(*path.vertices.T), level, rtol=1e-4)
    assert len(display.mean_lines_.labelTexts) == len(display.mean_lines_.levels) > 2


def test_invalid_input_raises():
    with pytest.raises(ValueError, match=r"Record 1 lacks \['new'\].*'base' and 'new'"):
        BaseToNewDisplay.from_records([RECORDS[0], {"method": "a", "base": 1.0}])
    with pytest.raises(ValueError, match="same length"):
        BaseToNewDisplay(["a"], [0.1], [0.1, 0.2]).plot()
    with pytest.raises(ValueError, match="at least 1"):
        BaseToNewDisplay.from_records([])
    with pytest.raises(ValueError, match=r"run 1 \(b\) is not"):
        BaseToNewDisplay(["a", "b"], [0.1, 0.2], [0.1, np.nan]).plot()
    with pytest.raises(ValueError, match="mean_lines='arithmetic'"):
        BaseToNewDisplay(["a"], [0.0], [0.1]).plot(mean_lines="harmonic")
    with pytest.raises(ValueError, match="'geometric'"):
        BaseToNewDisplay(["a"], [0.1], [0.1]).plot(mean_lines="geometric")
