"""Tests of plots use the Agg backend, close their figures, and must not change rcParams."""

import matplotlib
import pytest

matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures_and_check_settings():
    pyplot.close("all")  # examples in docstrings leave figures open
    before = dict(matplotlib.rcParams)
    yield
    pyplot.close("all")
    assert dict(matplotlib.rcParams) == before
