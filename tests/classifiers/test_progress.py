"""Progress bars of fit."""

import numpy as np
import pytest
from toy_backbone import AnyWidthBackbone

from clipcal import DynamicOutlierRegularizer, KgCoOp, PromptTunedCLIPClassifier

X = np.random.default_rng(0).standard_normal((8, 16))
Y = ["ant", "bee"] * 4
NOUNS = [f"noun {i}" for i in range(1200)]


def fit(**params):
    return PromptTunedCLIPClassifier(AnyWidthBackbone(16), max_epochs=3, random_state=0, **params).fit(X, Y)


def test_fit_prints_nothing_by_default(capfd):
    fit(regularizer=DynamicOutlierRegularizer(lexicon=NOUNS))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("verbose", [1, 2, True])
def test_verbose_shows_epochs_and_loss_of_training(capfd, verbose):
    clf = fit(verbose=verbose, method=KgCoOp())
    captured = capfd.readouterr()
    last = last_line(captured.err)
    assert captured.out == ""
    assert last.startswith("Tuning KgCoOp: 100%")
    assert "3/3" in last
    record = clf.history_[-1]
    assert f"loss={record['loss']:.3g}, accuracy={record['accuracy']:.3g}" in last


def test_verbose_shows_the_encoding_of_nouns_before_training(capfd):
    # Nouns that are not yet cached in the process.
    fit(verbose=1, regularizer=DynamicOutlierRegularizer(lexicon=[f"other {noun}" for noun in NOUNS]))
    shown = capfd.readouterr().err
    assert shown.index("Encoding nouns: 100%") < shown.index("Tuning CoOp: 100%")


def test_bar_is_closed_if_training_fails(capfd):
    from tqdm.std import tqdm

    before = len(tqdm._instances)
    # The traceback holds a reference to the bar, which garbage collection would close as well.
    with pytest.raises(FloatingPointError) as raised:
        fit(verbose=1, learning_rate=1e30)
    assert len(tqdm._instances) == before
    assert raised.tb is not None


class AfterTwoEpochs:
    """Callback that ends training after two epochs, by a request or by an error."""

    def __init__(self, error=None):
        self.error = error

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context, **data):
        pass

    def on_fit_task_end(self, estimator, context, **data):
        two = context.task_name == "epoch" and context.task_id == 1
        if two and self.error:
            raise self.error
        return two


def last_line(text):
    return text.replace("\n", "\r").rstrip("\r").split("\r")[-1]


def test_bar_is_complete_if_a_callback_ends_training(capfd):
    clf = PromptTunedCLIPClassifier(AnyWidthBackbone(16), max_epochs=9, verbose=1)
    assert len(clf.set_callbacks(AfterTwoEpochs()).fit(X, Y).history_) == 2
    last = last_line(capfd.readouterr().err)
    assert last.startswith("Tuning CoOp: 100%")
    assert " 2/2 " in last


def test_bar_is_incomplete_if_training_is_interrupted(capfd):
    clf = PromptTunedCLIPClassifier(AnyWidthBackbone(16), max_epochs=9, verbose=1)
    with pytest.raises(KeyboardInterrupt):
        clf.set_callbacks(AfterTwoEpochs(KeyboardInterrupt())).fit(X, Y)
    assert " 2/9 " in last_line(capfd.readouterr().err)


def test_zero_epochs_with_verbose(capfd):
    PromptTunedCLIPClassifier(AnyWidthBackbone(16), max_epochs=0, verbose=1).fit(X, Y)
    assert "Tuning CoOp" in capfd.readouterr().err
