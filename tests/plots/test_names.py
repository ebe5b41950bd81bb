"""Names of models, classes, methods, metrics and loss terms are drawn literally."""

import io
import itertools
import os
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib import pyplot, rc_context
from numpy.testing import assert_allclose
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB

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

NAMES = [
    r"$\alpha$",
    "US$ 5 and $ 6",
    "a^$",
    r"\$1",
    r"$\undefined{$",
    "_hidden_",
    "_nolegend_",
    "_best order",
    "100% <b>&amp;</b>",
    r"C:\new\table",
    "two\nlines of $x$",
    " padded ",
    "чай, café, ñandú",
]
Y = np.array([1, 0, 1, 1, 0, 0])
PROB = np.array([0.9, 0.3, 0.6, 0.8, 0.7, 0.1])
BINS = calibration_bins(Y, PROB)
X_IRIS, Y_IRIS = load_iris(return_X_y=True)
HISTORY = [{"epoch": i, "learning_rate": 0.1, "loss": 2.0 / (i + 1)} for i in range(3)]


def legend_of(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def title_of(display):
    return display.ax_.get_title()


def labeled(name):
    """Return true labels, one of which is the name, and the label of each column."""
    labels = sorted([name, "another"])
    return np.array(labels)[Y], labels


def estimator(name, labels=("a", "b", "c")):
    """Return a fitted classifier of a class with this name."""
    return type(name, (GaussianNB,), {})().fit(X_IRIS, np.array(labels)[Y_IRIS])


def reliability(name):
    y, labels = labeled(name)
    display = ReliabilityDisplay.from_predictions(y, PROB, labels=labels, class_label=name)
    assert title_of(display) == name
    assert display.ax_.get_xlabel() == f"Probability of {name}"
    assert display.ax_.get_ylabel() == f"Share of {name}"
    assert title_of(ReliabilityDisplay(BINS, name=name).plot()) == name
    return display


def grid_of_classes(name):
    y, labels = labeled(name)
    grid = ReliabilityGridDisplay.from_predictions(y, PROB, labels=labels)
    assert [ax.get_title() for ax in grid.axes_.flat] == labels
    return grid


def grid_of_models(name):
    labels = sorted(["a", "b", name])
    model, y = estimator("A", labels), np.array(labels)[Y_IRIS]
    grid = ReliabilityGridDisplay.from_estimators({name: model, "b": model}, X_IRIS, y, class_label=name)
    assert [ax.get_title() for ax in grid.axes_.flat] == [name, "b"]
    assert grid.figure_.get_supxlabel() == f"Probability of {name}"
    assert grid.figure_.get_supylabel() == f"Share of {name}"
    return grid


def histogram(name):
    display = ConfidenceHistogramDisplay.from_predictions(Y, PROB, name=name)
    assert title_of(display) == name
    assert title_of(ConfidenceHistogramDisplay(BINS).plot(name=name)) == name
    return display


def risk(name):
    first = RiskCoverageDisplay([0.5, 1.0], [0.1, 0.3], name=name).plot()
    assert legend_of(first) == [name, "best order", "random order"]
    second = RiskCoverageDisplay.from_predictions(Y, PROB, name=name, ax=first.ax_, show_ideal=False)
    third = RiskCoverageDisplay([0.5, 1.0], [0.2, 0.4]).plot(first.ax_, name="_last")
    assert legend_of(third) == [name, second.line_.get_label(), "_last", "best order", "random order"]
    assert second.line_.get_label().startswith(f"{name} (AURC ")
    return third


def base_to_new(name):
    display = BaseToNewDisplay([name, "b", name], [0.1, 0.2, 0.3], [0.2, 0.3, 0.3], metric_name=name).plot(
        name=name
    )
    assert legend_of(display) == list(display.points_) == [name, "b"]
    assert display.ax_.get_xlabel() == f"{name}, base classes"
    assert display.ax_.get_ylabel() == f"{name}, new classes"
    assert title_of(display) == name
    return display


def history(name):
    records = [{**record, name: 0.5, "cross_entropy": 0.4} for record in HISTORY]
    display = TrainingHistoryDisplay(records, name=name).plot()
    assert legend_of(display) == ["loss", name, "cross-entropy", "learning rate"]
    assert title_of(display) == name
    return display


def divergence(name):
    groups = {name: 0.5, "new": 0.6}
    display = FeatureDivergenceDisplay(groups, {name: groups, "b": groups}, name=name).plot()
    assert legend_of(display) == [name, "new", "zero-shot", "tuned"]
    display.figure_.draw_without_rendering()
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == [name, "b"]
    assert title_of(display) == name
    return display


MAKERS = [reliability, grid_of_classes, grid_of_models, histogram, risk, base_to_new, history, divergence]
every_display = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


@every_display
@pytest.mark.parametrize("name", NAMES)
def test_names_are_drawn_literally(make, name):
    display, file = make(name), io.BytesIO()
    with rc_context({"svg.fonttype": "none"}):
        display.figure_.savefig(file, format="svg")
    file.seek(0)
    # A formula is split into several elements, and a multi-line text into stripped lines.
    drawn = [
        "".join(element.itertext()).strip() for element in ElementTree.parse(file).iter() if is_text(element)
    ]
    for line in name.split("\n"):
        assert any(line.strip() in text for text in drawn), drawn


def is_text(element):
    return element.tag.endswith("}text")


@every_display
@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_figures_with_special_names_can_be_saved(make, kind):
    for name in (r"$\undefined{$", "_a_b^c$ and $d"):
        file = io.BytesIO()
        make(name).figure_.savefig(file, format=kind)
        assert file.tell() > 1000


@pytest.mark.parametrize("name", ["$a$", "_Hidden", "_"])
def test_class_names_of_estimators_are_drawn_literally(name):
    model = estimator(name)
    y = np.array(["a", "b", "c"])[Y_IRIS]
    assert title_of(ConfidenceHistogramDisplay.from_estimator(model, X_IRIS, y)) == name
    assert title_of(ReliabilityDisplay.from_estimator(model, X_IRIS, y)) == name
    of_class = ReliabilityDisplay.from_estimator(model, X_IRIS, y, class_label="b")
    assert title_of(of_class) == f"{name}, b"
    assert legend_of(RiskCoverageDisplay.from_estimator(model, X_IRIS, y))[0].startswith(f"{name} (AURC 0.")
    model.history_ = HISTORY
    of_history = TrainingHistoryDisplay.from_estimator(model)
    assert title_of(of_history) == name
    for display in (of_class, of_history):
        display.figure_.draw_without_rendering()


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (b"caf\xc3\xa9", "café"),
        (b"\xff", r"\xff"),
        (np.bytes_(b"a"), "a"),
        (np.str_("$b$"), "$b$"),
        (3, "3"),
        (np.int64(3), "3"),
        (0.5, "0.5"),
        (True, "True"),
        (("a", 1), "('a', 1)"),
        ("", ""),
        # A folder name that is not valid UTF-8.
        (os.fsdecode(b"b\xff") if os.name == "posix" else "b\udcff", r"b\udcff"),
    ],
    ids=repr,
)
def test_labels_of_any_kind(label, text):
    divergences = {label: 0.5, "new": 0.6}
    display = FeatureDivergenceDisplay(divergences, {label: divergences, "b": divergences}).plot()
    assert legend_of(display)[0] == text
    assert display.ax_.get_yticklabels()[0].get_text() == text
    records = [{**record, label: 0.5} for record in HISTORY]
    term = TrainingHistoryDisplay(records).plot()
    assert legend_of(term)[1] == text
    titled = ReliabilityDisplay(BINS, name=label, class_label=label).plot()
    assert title_of(titled) == text and titled.ax_.get_xlabel() == f"Probability of {text}"
    risks = RiskCoverageDisplay([0.5, 1.0], [0.1, 0.3], name=label, area=0.2).plot()
    assert legend_of(risks)[0] == (f"{text} (AURC 0.200)" if text else "AURC 0.200")
    for drawn in (display, term, titled, risks):
        drawn.figure_.savefig(io.BytesIO())


def test_column_labels_may_be_bytes():
    labels = [b"ant", b"bee"]
    grid = ReliabilityGridDisplay.from_predictions(np.array(labels)[Y], PROB, labels=labels)
    assert [ax.get_title() for ax in grid.axes_.flat] == ["ant", "bee"]
    runs = BaseToNewDisplay(np.array(labels), [0.1, 0.2], [0.2, 0.3]).plot()
    assert legend_of(runs) == ["ant", "bee"]


def test_loss_term_may_be_called_learning_rate():
    records = [{**record, "learning rate": 0.3} for record in HISTORY]
    display = TrainingHistoryDisplay(records).plot()
    assert legend_of(display) == ["loss", "learning rate", "learning rate"]
    assert legend_of(display.plot(terms=["loss", "loss"])) == ["loss", "learning rate"]


def test_label_keyword_follows_the_rules_of_matplotlib():
    options = {"show_ideal": False, "show_random": False}
    first = RiskCoverageDisplay([0.5, 1.0], [0.1, 0.3], name="$a$").plot(**options)
    formula = RiskCoverageDisplay([0.5, 1.0], [0.1, 0.2], name="b").plot(
        first.ax_, curve_kwargs={"label": r"$\beta$"}, **options
    )
    hidden = RiskCoverageDisplay([0.5, 1.0], [0.1, 0.4], name="c").plot(
        first.ax_, curve_kwargs={"label": "_nolegend_"}, **options
    )
    first.ax_.plot([0, 1], [0, 0.1], label="$u$")
    first.ax_.plot([0, 1], [0, 0.1])
    first.line_.set_label("renamed")
    last = RiskCoverageDisplay([0.5, 1.0], [0.1, 0.4], name="_d").plot(first.ax_, **options)
    texts = last.legend_.get_texts()
    assert [text.get_text() for text in texts] == ["renamed", r"$\beta$", "$u$", "_d"]
    assert [text.get_parse_math() for text in texts[1:3]] == [True, True]
    assert formula.line_.get_label() == r"$\beta$" and hidden.line_.get_label() == "_nolegend_"


def test_formula_can_replace_a_name():
    display = ReliabilityDisplay(BINS, name="a model").plot()
    assert display.ax_.set_title(r"$\alpha$").get_parse_math()


def test_names_are_passed_to_latex():
    # LaTeX is not installed, so it must not be used before the figure is drawn.
    with rc_context({"text.usetex": True}):
        display = BaseToNewDisplay([r"$\alpha$ " * 30, "b"], [0.1, 0.2], [0.2, 0.3], name="long " * 50)
        display.plot(pyplot.figure().add_subplot())
    assert legend_of(display) == [r"$\alpha$ " * 30, "b"] and title_of(display) == "long " * 50


LONG = [
    "a model with a temperature that was fitted on validation images of the base classes, and its seed is 1",
    "a_name_without_any_space_in_it_that_goes_on_and_on_until_it_is_wider_than_any_figure_of_usual_size",
    "W" * 70,
    "$ " * 60 + "$",
    "é" * 30 + "e\u0301" * 60,
]
new_figure = [lambda: None, lambda: pyplot.subplots(figsize=(6, 6), layout="constrained")[1]]
AXES = pytest.mark.parametrize("axes", new_figure, ids=["a new figure", "the user's"])


@pytest.mark.parametrize("name", LONG, ids=range(len(LONG)))
@AXES
def test_long_names_are_wrapped_to_fit_the_figure(name, axes):
    area = {"base": 0.5, "new": 0.6}
    displays = [
        ReliabilityDisplay(BINS, name=name, class_label=name).plot(axes()),
        ConfidenceHistogramDisplay(BINS, name=name).plot(axes()),
        RiskCoverageDisplay([0.5, 1.0], [0.1, 0.3], area=0.2, name=name).plot(axes()),
        TrainingHistoryDisplay([{**record, name: 0.5} for record in HISTORY], name=name).plot(axes()),
        FeatureDivergenceDisplay(area, {name: area, "b": area}, name=name).plot(axes()),
        BaseToNewDisplay([name, "b"], [0.1, 0.2], [0.2, 0.3], metric_name=name).plot(axes()),
    ]
    for display in displays:
        figure, ax = display.figure_, display.ax_
        figure.draw_without_rendering()
        # The layout of axes with equal scales converges in the second pass.
        figure.draw_without_rendering()
        texts = [ax.title, ax.xaxis.label, ax.yaxis.label]
        texts += ax.get_legend().get_texts() if ax.get_legend() else []
        texts += ax.get_yticklabels() if isinstance(display, FeatureDivergenceDisplay) else []
        whole = figure.bbox.padded(2)
        for text in filter(without_breaks, texts):
            box = text.get_window_extent()
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1, (type(display), text)
            assert whole.y0 <= box.y0 and box.y1 <= whole.y1, (type(display), text)
        spelled = [without_breaks(text) for text in texts]
        assert any(name.replace(" ", "") in text for text in spelled)
        assert ax.get_window_extent().width > 0.3 * figure.bbox.width


def without_breaks(text):
    return text.get_text().replace("\n", "").replace(" ", "")


@pytest.mark.parametrize("name", LONG, ids=range(len(LONG)))
def test_long_titles_of_neighboring_panels_do_not_overlap(name):
    grid = ReliabilityGridDisplay([ReliabilityDisplay(BINS, name=name) for _ in range(6)]).plot()
    grid.figure_.draw_without_rendering()
    titles = [ax.title.get_window_extent() for ax in grid.axes_.flat]
    assert not any(left.overlaps(right) for left, right in itertools.pairwise(titles))
    panels = [ax.get_window_extent() for ax in grid.axes_.flat]
    assert not any(title.overlaps(panel) for title in titles for panel in panels)
    assert_allclose([panel.width for panel in panels], panels[0].width)


def test_short_names_do_not_change_the_figure_size():
    sizes = [
        ReliabilityDisplay(BINS, name="$a$").plot().figure_.get_size_inches(),
        FeatureDivergenceDisplay({"base": 0.5}, {"CoOp + DOR": {"base": 0.6}})
        .plot()
        .figure_.get_size_inches(),
    ]
    assert_allclose(sizes, [[4.2, 5.0], [4.5, 1.84]])


def test_title_location_of_rcparams_is_used():
    with rc_context({"axes.titlelocation": "left"}):
        grid = ReliabilityGridDisplay([ReliabilityDisplay(BINS, name=name) for name in "ab"]).plot()
    assert [ax.get_title("left") for ax in grid.axes_.flat] == ["a", "b"]
