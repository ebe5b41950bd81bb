"""Common behavior of all displays: given axes are used, and texts do not overlap."""

import warnings

import numpy as np
import pytest
from framed import Framed
from matplotlib import pyplot
from sklearn.linear_model import LogisticRegression

from clipcal.metrics import calibration_bins
from clipcal.plots import (
    BaseToNewDisplay,
    ConfidenceHistogramDisplay,
    FeatureDivergenceDisplay,
    ReliabilityDisplay,
    ReliabilityGridDisplay,
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
def test_given_axes_are_used(make):
    figure, axes = pyplot.subplots(1, 2)
    display = make()
    assert not [name for name in vars(display) if name.endswith("_")]
    assert display.plot(axes[1]) is display
    assert display.ax_ is axes[1] and display.figure_ is figure
    assert not axes[0].has_data() and figure.axes == list(axes)
    assert figure.get_layout_engine() is None
    assert pyplot.get_fignums() == [figure.number]


@every_display
def test_axes_of_a_subfigure_are_accepted(make):
    figure = pyplot.figure(layout="constrained")
    left, _ = figure.subfigures(1, 2)
    assert make().plot(left.subplots()).figure_ is left
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


@every_display
@pytest.mark.parametrize("width", [3.3, 5, 8])
def test_texts_do_not_overlap(make, width):
    figure, ax = pyplot.subplots(figsize=(width, width), layout="constrained")
    make().plot(ax)
    figure.canvas.draw()
    legends = [ax.get_legend()] if ax.get_legend() else []
    texts = [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label, ax.title]
    texts += [text for legend in legends for text in legend.get_texts()]
    texts += [text for child in ax.child_axes for text in child.get_yticklabels()]
    # Locators also create labels for ticks outside the limits, which are not drawn.
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
def test_name_passed_to_plot_takes_precedence(make):
    display = make()
    if isinstance(display, RiskCoverageDisplay):
        assert display.plot(name="other").line_.get_label() == "other (AURC 0.150)"
    else:
        assert display.plot(name="other").ax_.get_title() == "other"
        assert display.plot().ax_.get_title() == "a name"


MODEL_ROWS = RNG.normal(size=(200, 4))
KINDS = np.array(["ant", "bee", "cow", "doe"])[(MODEL_ROWS + RNG.gumbel(size=(200, 4))).argmax(axis=1)]


def by_estimator(display, estimator, y=KINDS, X=MODEL_ROWS, **options):
    if display is ReliabilityGridDisplay:
        return display.from_estimators({"a": estimator}, X, y, **options).displays[0]
    return display.from_estimator(estimator, X, y, **options)


def shown(display):
    if isinstance(display, RiskCoverageDisplay):
        return np.concatenate([display.coverage, display.risk])
    return np.concatenate([display.bins.confidence, display.bins.accuracy, display.bins.weight])


FROM_ESTIMATOR = [
    ReliabilityDisplay,
    ConfidenceHistogramDisplay,
    RiskCoverageDisplay,
    ReliabilityGridDisplay,
]


@pytest.mark.parametrize("kind", ["pandas", "text", "table"])
@pytest.mark.parametrize("display", FROM_ESTIMATOR)
def test_columns_of_data_frames_are_selected_by_name(display, kind):
    plain = LogisticRegression().fit(MODEL_ROWS, KINDS)
    framed = Framed(kind).fit(MODEL_ROWS, KINDS)
    np.testing.assert_allclose(shown(by_estimator(display, framed)), shown(by_estimator(display, plain)))
    wrong = Framed(kind, names=["doe", "cow", "bee", "fly"]).fit(MODEL_ROWS, KINDS)
    with pytest.raises(ValueError, match=r"Framed.predict_proba returned columns named"):
        by_estimator(display, wrong)


@pytest.mark.parametrize("display", FROM_ESTIMATOR)
def test_rows_of_weight_zero_are_not_predicted(display):
    plain = LogisticRegression().fit(MODEL_ROWS, KINDS)
    weight = np.where(np.arange(200) % 4 == 1, 0.0, 2.0)
    left = weight > 0
    rows, labels = MODEL_ROWS.copy(), KINDS.astype(object)
    rows[~left], labels[~left] = np.nan, None
    expected = by_estimator(display, plain, KINDS[left], MODEL_ROWS[left], sample_weight=weight[left])
    for given in (weight, weight.tolist()):
        found = by_estimator(display, plain, labels, rows, sample_weight=given)
        np.testing.assert_allclose(shown(found), shown(expected))
    wide = KINDS.astype(np.dtypes.StringDType())
    np.testing.assert_allclose(shown(by_estimator(display, plain, wide)), shown(by_estimator(display, plain)))


def test_grid_shows_the_classes_of_rows_of_positive_weight():
    labels = np.array(["ant", "bee", None, "ant"], dtype=object)
    prob = [[0.9, 0.1], [0.2, 0.8], [np.nan, 7.0], [0.6, 0.4]]
    grid = ReliabilityGridDisplay.from_predictions(labels, prob, sample_weight=[1, 1, 0, 1], n_bins=2)
    assert [display.name for display in grid.displays] == ["ant", "bee"]
    # Labels of rows of weight zero define columns if there are as many labels as columns.
    grid = ReliabilityGridDisplay.from_predictions([0, 1, 2], np.eye(3), sample_weight=[1, 1, 0], n_bins=2)
    assert [display.name for display in grid.displays] == ["0", "1", "2"]
