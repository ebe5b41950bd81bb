"""Number of epochs chosen on held-out training data."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import log_loss
from toy_backbone import AnyWidthBackbone

import clipcal
import clipcal.training
from clipcal import CoOp, LeaveClassesOut, PromptTunedCLIPClassifier
from clipcal.classifiers import _epoch_choice, _prompt_tuned
from clipcal.training import ImageViews, PixelData

NAMES = ["ant", "bee", "cat", "dog", "elk"]
FULL_BATCHES = {
    "batch_size": "all",
    "optimizer": "adam",
    "learning_rate": 0.05,
    "schedule": "constant",
    "warmup_epochs": 0,
}


def samples(n_per_class=8, names=NAMES, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat(names, n_per_class)
    centers = rng.normal(size=(len(names), 16))
    return np.repeat(centers, n_per_class, axis=0) + rng.normal(size=(len(y), 16)), y


def classifier(**params):
    params = {**FULL_BATCHES, "max_epochs": 12, "early_stopping": True, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(AnyWidthBackbone(), **params)


class FixedSplits(LeaveClassesOut):
    def __init__(self, n_splits, *, seen_size, random_state):
        super().__init__(n_splits, seen_size=seen_size, random_state=3)


def reference(clf, X, y):
    """Log losses after each number of epochs, from fits through the public interface."""
    rows = []
    for n_epochs in range(clf.max_epochs + 1):
        parts = []
        for train, test in FixedSplits(4, seen_size=0.25, random_state=None).split(X, y):
            fold = clone(clf).set_params(max_epochs=n_epochs, early_stopping=False).fit(X[train], y[train])
            seen = np.isin(y[test], y[train])
            new = fold.with_classes(np.unique(y[test][~seen]))
            parts.append(
                [
                    log_loss(y[test][seen], fold.predict_proba(X[test][seen]), labels=fold.classes_),
                    log_loss(y[test][~seen], new.predict_proba(X[test][~seen]), labels=new.classes_),
                ]
            )
        rows.append(np.mean(parts, axis=0))
    return np.array(rows)


def test_losses_and_choice_equal_those_of_separate_fits(monkeypatch):
    monkeypatch.setattr(_epoch_choice, "LeaveClassesOut", FixedSplits)
    X, y = samples()
    clf = classifier().fit(X, y)
    expected = reference(clf, X, y)
    history = clf.validation_history_
    assert [record["n_epochs"] for record in history] == list(range(len(history)))
    found = np.array([[record["log_loss"], record["new_log_loss"]] for record in history])
    np.testing.assert_allclose(found, expected[: len(history)], rtol=1e-4)
    means = [record["mean_log_loss"] for record in history]
    np.testing.assert_allclose(means, found.mean(axis=1))
    assert len(clf.history_) == np.argmin(means)
    # Five epochs without a lower loss, or the limit.
    assert len(history) == min(np.argmin(means) + 5, 12) + 1


def test_trains_anew_on_all_data():
    X, y = samples()
    clf = classifier().fit(X, y)
    again = clone(clf).set_params(max_epochs=len(clf.history_), early_stopping=False).fit(X, y)
    # The order of summation differs.
    np.testing.assert_allclose(again.learned_["context"], clf.learned_["context"], atol=1e-5)
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), atol=1e-4)


def test_a_schedule_is_that_of_the_limit(monkeypatch):
    chosen = _epoch_choice.EpochChoice(3, [])
    monkeypatch.setattr(_prompt_tuned, "choose_n_epochs", lambda *args, **kwargs: chosen)
    clf = classifier(schedule="cosine").fit(*samples())
    rates = [record["learning_rate"] for record in clf.history_]
    np.testing.assert_allclose(rates, 0.05 * (1 + np.cos(np.pi * np.arange(3) / 12)) / 2)


def test_weights_count_in_the_held_out_losses(monkeypatch):
    monkeypatch.setattr(_epoch_choice, "LeaveClassesOut", FixedSplits)
    X, y = samples()
    plain = classifier(max_epochs=0).fit(X, y).validation_history_[0]
    weights = np.where(y == "ant", 100.0, 1.0)
    weighted = classifier(max_epochs=0).fit(X, y, sample_weight=weights).validation_history_[0]
    by_class = classifier(max_epochs=0, class_weight={"ant": 100.0}).fit(X, y).validation_history_[0]
    assert weighted == by_class
    assert abs(weighted["mean_log_loss"] - plain["mean_log_loss"]) > 0.01


def test_class_specific_parameters_hold_out_images_only():
    X, y = samples()
    clf = classifier(method=CoOp(class_specific=True)).fit(X, y)
    assert set(clf.validation_history_[0]) == {"n_epochs", "log_loss", "mean_log_loss"}


def test_holds_out_a_quarter_of_the_images_of_each_class():
    targets = np.repeat([0, 1, 2], [8, 2, 1])
    random_state = np.random.RandomState(0)
    splits = list(_epoch_choice._splits(targets, False, random_state))
    for train, test in splits:
        assert np.bincount(targets[test], minlength=3).tolist() == [2, 1, 0]
        assert sorted([*train, *test]) == list(range(11))
    assert not np.array_equal(splits[0][1], splits[1][1])


def test_small_data_have_more_splits():
    for n, expected in ((249, 4), (250, 2)):
        for new_classes in (False, True):
            targets = np.repeat(np.arange(4), n)
            splits = list(_epoch_choice._splits(targets, new_classes, np.random.RandomState(0)))
            assert len(splits) == expected


def test_few_classes_hold_out_images_only():
    X, y = samples(names=NAMES[:3])
    assert "new_log_loss" not in classifier().fit(X, y).validation_history_[0]


def test_one_image_per_class_holds_out_classes_only():
    X, y = samples(n_per_class=1)
    assert set(classifier().fit(X, y).validation_history_[0]) == {"n_epochs", "new_log_loss", "mean_log_loss"}


def test_classes_without_a_sample_to_spare():
    X, y = samples(n_per_class=1, names=[*NAMES, "fox"])
    clf = classifier().fit(np.concatenate([X, X[:2] + 0.1]), [*y, *y[:2]])
    assert "log_loss" not in clf.validation_history_[0]
    clf = classifier().fit(np.concatenate([X, X[:4] + 0.1]), [*y, *y[:4]])
    assert "log_loss" in clf.validation_history_[0]


def test_divergence_ends_the_search(monkeypatch):
    X, y = samples()
    plain = classifier().fit(X, y).validation_history_
    epochs = clipcal.training.train_epochs

    def diverging(*args, **kwargs):
        for record in epochs(*args, **kwargs):
            if record["epoch"] == 2:
                raise FloatingPointError("The loss is nan.")
            yield record

    monkeypatch.setattr(clipcal.training, "train_epochs", diverging)
    with pytest.warns(UserWarning, match="diverged while the number of epochs was chosen. The loss is nan"):
        clf = classifier().fit(X, y)
    assert clf.validation_history_ == plain[:3]


def test_as_many_steps_as_in_the_splits():
    X, y = samples(names=[*NAMES, "fox"])
    clf = classifier(batch_size=4, learning_rate=0.002, max_epochs=30).fit(X, y)
    best = np.argmin([record["mean_log_loss"] for record in clf.validation_history_])
    # Splits have 3 of 6 classes and 6 of 8 images, so 4 steps per epoch instead of 12.
    assert best > 3
    assert len(clf.history_) == np.ceil(best * 4 / 12)


def test_classes_of_weight_zero_do_not_count():
    X, y = samples(names=[*NAMES, "fox"])
    weights = {"ant": 0.0, "bee": 0.0}
    clf = classifier(class_weight=weights).fit(X, y)
    others = ~np.isin(y, list(weights))
    alone = classifier().fit(X[others], y[others])
    assert clf.validation_history_[0] == pytest.approx(alone.validation_history_[0])


def test_shows_progress(capsys):
    classifier(verbose=1, max_epochs=2).fit(*samples())
    assert "Choosing the number of epochs" in capsys.readouterr().err


def test_progress_of_a_search_that_ends_early_is_complete(capsys):
    clf = classifier(verbose=1, max_epochs=60, learning_rate=1.0).fit(*samples())
    tried = len(clf.validation_history_) - 1
    shown = capsys.readouterr().err.replace("\n", "\r").split("\r")
    last = [text for text in shown if text.startswith("Choosing the number of epochs")][-1]
    assert tried < 60
    assert "100%" in last
    assert f" {tried}/{tried} " in last


def test_patience_starts_after_the_warm_up():
    clf = classifier(max_epochs=30, warmup_epochs=8, warmup_rate=0.0).fit(*samples())
    assert len(clf.validation_history_) >= 8 + 5 + 1


def test_methods_without_training_have_no_search():
    clf = classifier(method="tip-adapter").fit(*samples())
    assert not clf.recipe_["early_stopping"]
    assert not hasattr(clf, "validation_history_")


def test_five_epochs_if_nothing_can_be_held_out():
    X, y = samples(n_per_class=1, names=NAMES[:3])
    clf = classifier().fit(X, y)
    assert clf.validation_history_ == []
    assert len(clf.history_) == 5
    assert len(classifier(max_epochs=2).fit(X, y).history_) == 2


def test_zero_epochs_if_training_does_not_help():
    X, y = samples(n_per_class=40)
    untrained = classifier(max_epochs=0).fit(X, y)
    y = untrained.predict(X)
    with pytest.warns(UserWarning, match="nothing was trained; set max_epochs"):
        clf = classifier(learning_rate=5.0).fit(X, y)
    assert len(clf.history_) == 0
    np.testing.assert_allclose(clf.predict_proba(X), untrained.predict_proba(X))


def test_regularizers_are_prepared_for_the_classes_of_a_split():
    X, y = samples()
    outliers = clipcal.DynamicOutlierRegularizer(lexicon=["ant", "fly", "river", "hammer"])
    clf = classifier(regularizer=outliers, max_epochs=3).fit(X, y)
    assert all("dor" in record for record in clf.history_)


def test_reproducible():
    X, y = samples()
    params = {"method": CoOp(context_init=None, n_context=4), "regularizer": "label-smoothing"}
    first, second = (classifier(**params).fit(X, y) for _ in range(2))
    assert first.validation_history_ == second.validation_history_
    assert first.validation_history_ != classifier(**params, random_state=1).fit(X, y).validation_history_


def test_a_fit_without_early_stopping_drops_the_losses_of_the_previous_one():
    X, y = samples()
    clf = classifier().fit(X, y)
    assert not hasattr(clf.set_params(early_stopping=False).fit(X, y), "validation_history_")


def test_warm_starts_are_refused():
    X, y = samples()
    with pytest.raises(ValueError, match="warm_start=True cannot be used with early stopping"):
        classifier(warm_start=True).fit(X, y)


def test_saved_models_keep_the_losses(tmp_path):
    X, y = clipcal.make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    clf = PromptTunedCLIPClassifier("mini", recipe="fast", random_state=0).fit(X, y)
    clipcal.save(clf, tmp_path / "model.clipcal")
    assert clipcal.load(tmp_path / "model.clipcal").validation_history_ == clf.validation_history_


def test_part_of_images_that_are_read_in_each_step():
    data = PixelData(
        targets=torch.tensor([0, 1, 2, 3]),
        weights=torch.tensor([1.0, 2.0, 3.0, 2.0]),
        views=ImageViews(
            lambda rows, numbers: torch.tensor(rows).reshape(-1, 1, 1, 1).expand(-1, 3, 8, 8).float(),
            AnyWidthBackbone(),
        ),
        rows=torch.arange(4),
    )
    part = data.take(torch.tensor([3, 1]), torch.tensor([1, 0]))
    (batch,) = part.in_order()
    assert batch.pixels[:, 0, 0, 0].tolist() == [3.0, 1.0]
    assert batch.targets.tolist() == [1, 0]
    assert batch.weights.tolist() == [1.0, 1.0]
