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
    last = captured.err.replace("\n", "\r").rstrip("\r").split("\r")[-1]
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


def test_zero_epochs_with_verbose(capfd):
    PromptTunedCLIPClassifier(AnyWidthBackbone(16), max_epochs=0, verbose=1).fit(X, Y)
    assert "Tuning CoOp" in capfd.readouterr().err
