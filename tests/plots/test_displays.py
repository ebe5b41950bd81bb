"""What all displays have in common: the axes are the user's, and text does not collide."""

import warnings

import numpy as np
import pytest
from matplotlib import pyplot

from clipcal.metrics import calibration_bins
from clipcal.plots import (
    BaseToNewDisplay,
    ConfidenceHistogramDisplay,
    FeatureDivergenceDisplay,
    ReliabilityDisplay,
    RiskCoverageDisplay,
    TrainingHistoryDisplay,
)

RNG = np.random.default_rng(0)
PROB = RNG.dirichlet([0.3] * 4, size=200)
Y = np.array([RNG.choice(4, p=p) for p in PROB])
METHODS = ["zero-shot", "CoOp", "CoOp + DOR", "KgCoOp", "KgCoOp + DOR"]
HISTORY = [
    {
        "epoch": i,
        "learning_rate": 2e-3 / (i + 1),
        "loss": 2 / (i + 1),
        "cross_entropy": 1.5 / (i + 1),
        "dor": 0.1,
    }
    for i in range(9)
]
BINS = calibration_bins(Y, PROB, labels=range(4))
DISPLAYS = {
    "reliability": lambda: ReliabilityDisplay(BINS, name="a name"),
    "histogram": lambda: ConfidenceHistogramDisplay(BINS, name="a name"),
    "risk": lambda: RiskCoverageDisplay([0.5, 1.0], [0.1, 0.3], area=0.15, name="a name"),
    "base-to-new": lambda: BaseToNewDisplay(METHODS * 2, RNG.random(10), RNG.random(10), name="a name"),
    "history": lambda: TrainingHistoryDisplay(HISTORY, name="a name"),
    "divergence": lambda: FeatureDivergenceDisplay(
        {"base": 0.5, "new": 0.6}, {method: {"base": 0.7, "new": 0.8} for method in METHODS}, name="a name"
    ),
}
every_display = pytest.mark.parametrize("make", DISPLAYS.values(), ids=DISPLAYS)


@every_display
def test_the_axes_are_the_users(make):
    figure, axes = pyplot.subplots(1, 2)
    display = make()
    assert not [name for name in vars(display) if name.endswith("_")]
    assert display.plot(axes[1]) is display
    assert display.ax_ is axes[1] and display.figure_ is figure
    assert not axes[0].has_data() and figure.axes == list(axes)
    assert figure.get_layout_engine() is None
    assert pyplot.get_fignums() == [figure.number]


@every_display
def test_a_subfigure_will_do(make):
    figure = pyplot.figure(layout="constrained")
    left, _ = figure.subfigures(1, 2)
    assert make().plot(left.subplots()).figure_ is left
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


@every_display
@pytest.mark.parametrize("width", [3.3, 5, 8])
def test_no_text_meets_another(make, width):
    figure, ax = pyplot.subplots(figsize=(width, width), layout="constrained")
    make().plot(ax)
    figure.canvas.draw()
    legends = [ax.get_legend()] if ax.get_legend() else []
    texts = [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label, ax.title]
    texts += [text for legend in legends for text in legend.get_texts()]
    texts += [text for child in ax.child_axes for text in child.get_yticklabels()]
    # Locators also make labels for ticks outside of the limits, which are not drawn.
    whole = figure.bbox.padded(1)
    shown = [text for text in texts if text.get_text() and text.get_visible() and in_limits(text, ax)]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    for i, (text, box) in enumerate(boxes):
        assert whole.contains(box.x0, box.y0) and whole.contains(box.x1, box.y1), text
        for other, other_box in boxes[i + 1 :]:
            assert not box.overlaps(other_box), (text, other)
    for legend in legends:
        assert not legend.get_window_extent().overlaps(ax.get_window_extent())


def in_limits(text, ax):
    if text in ax.get_xticklabels():
        return min(ax.get_xlim()) <= text.get_position()[0] <= max(ax.get_xlim())
    if text in ax.get_yticklabels():
        return min(ax.get_ylim()) <= text.get_position()[1] <= max(ax.get_ylim())
    return True


@every_display
def test_a_name_at_plot_time_wins(make):
    display = make()
    if isinstance(display, RiskCoverageDisplay):
        assert display.plot(name="other").line_.get_label() == "other (AURC 0.150)"
    else:
        assert display.plot(name="other").ax_.get_title() == "other"
        assert display.plot().ax_.get_title() == "a name"
