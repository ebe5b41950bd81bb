"""Plot of the training history."""

import pytest
from numpy.testing import assert_allclose

from clipcal import PromptTunedCLIPClassifier, make_shapes
from clipcal.plots import TrainingHistoryDisplay

HISTORY = [
    {"epoch": 0, "learning_rate": 1e-5, "loss": 1.9, "cross_entropy": 1.5, "accuracy": 0.5, "dor": 0.4},
    {"epoch": 1, "learning_rate": 2e-3, "loss": 1.1, "cross_entropy": 0.9, "accuracy": 0.7, "dor": 0.2},
    {"epoch": 2, "learning_rate": 1e-3, "loss": 0.8, "cross_entropy": 0.7, "accuracy": 0.8, "dor": 0.1},
]


def test_curves_agree_with_the_records():
    display = TrainingHistoryDisplay(HISTORY).plot()
    assert set(display.lines_) == {"loss", "cross_entropy", "dor"}
    for term, line in display.lines_.items():
        assert_allclose(line.get_xydata(), [[record["epoch"], record[term]] for record in HISTORY])
    assert_allclose(display.rate_line_.get_ydata(), [1e-5, 2e-3, 1e-3])
    labels = [text.get_text() for text in display.legend_.get_texts()]
    assert labels == ["loss", "cross-entropy", "dor", "learning rate"]
    styles = {
        (line.get_color(), str(line._dash_pattern), line.get_linewidth()) for line in display.lines_.values()
    }
    assert len(styles) == 3


def test_inset_of_the_learning_rate_is_above_the_curves():
    display = TrainingHistoryDisplay(HISTORY).plot()
    display.figure_.canvas.draw()
    top_of_curves = display.ax_.transData.transform((0, 1.9))[1]
    assert top_of_curves < display.rate_ax_.get_window_extent().y0
    assert max(display.ax_.get_yticks()) < 2.0


def test_parts_can_be_chosen():
    display = TrainingHistoryDisplay(HISTORY).plot(terms=["dor"], show_learning_rate=False)
    assert set(display.lines_) == {"dor"}
    assert display.rate_ax_ is display.rate_line_ is None and not display.ax_.child_axes


def test_single_epoch_is_drawn_with_markers():
    display = TrainingHistoryDisplay(HISTORY[:1]).plot()
    markers = {line.get_marker() for line in [*display.lines_.values(), display.rate_line_]}
    assert markers == {"o"}


def test_invalid_input_raises():
    with pytest.raises(ValueError, match="at least one epoch"):
        TrainingHistoryDisplay([]).plot()
    with pytest.raises(ValueError, match=r"terms=\['kg'\].*'cross_entropy', 'dor'"):
        TrainingHistoryDisplay(HISTORY).plot(terms=["kg"])
    with pytest.raises(ValueError, match="PromptTunedCLIPClassifier has no history_"):
        TrainingHistoryDisplay.from_estimator(PromptTunedCLIPClassifier("mini"))


def test_from_estimator():
    X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    model = PromptTunedCLIPClassifier("mini", max_epochs=2, regularizer="kg", random_state=0).fit(X, y)
    display = TrainingHistoryDisplay.from_estimator(model)
    assert display.ax_.get_title() == "PromptTunedCLIPClassifier"
    assert_allclose(display.lines_["kg"].get_ydata(), [record["kg"] for record in model.history_])
