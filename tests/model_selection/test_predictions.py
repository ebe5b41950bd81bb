"""Pooled predictions on held-out classes, also with the embedded CLIP."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from nearest_text import NAMES, TEXTS, NearestText
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clipcal import (
    CLIPImageEncoder,
    DynamicOutlierRegularizer,
    LeaveClassesOut,
    PromptTunedCLIPClassifier,
    ece_scorer,
    expected_calibration_error,
    make_shapes,
    open_vocabulary,
)
from clipcal.model_selection import open_vocabulary_predictions

rng = np.random.RandomState(0)
Y = rng.permutation(np.repeat(NAMES, 12))
X = np.array([TEXTS[name] for name in Y]) + 3 + 0.7 * rng.standard_normal((len(Y), 2))
CV = LeaveClassesOut(3, random_state=0)


@pytest.mark.parametrize("classes", ["unseen", "fold", "seen"])
def test_against_a_loop(classes):
    cv = LeaveClassesOut(3, seen_size=0.25, random_state=0)
    pooled = open_vocabulary_predictions(NearestText(), X, Y, cv=cv, classes=classes)
    position = 0
    for number, (train, test) in enumerate(cv.split(X, Y)):
        known = np.isin(Y[test], Y[train])
        rows = {"unseen": test[~known], "fold": test, "seen": test[known]}[classes]
        clf = NearestText().fit(X[train], Y[train]).with_classes(np.unique(Y[rows]).tolist())
        prob = clf.predict_proba(X[rows])
        here = slice(position, position + len(rows))
        assert_array_equal(pooled.row[here], rows)
        assert_array_equal(pooled.fold[here], number)
        assert_array_equal(pooled.y_true[here], Y[rows])
        assert_array_equal(pooled.y_prob[here][:, np.isin(NAMES, clf.classes_)], prob)
        assert_array_equal(pooled.y_pred[here], clf.predict(X[rows]))
        assert_array_equal(pooled.confidence[here], prob.max(axis=1))
        assert_array_equal(pooled.correct[here], clf.predict(X[rows]) == Y[rows])
        position += len(rows)
    assert len(pooled.row) == position
    assert pooled.labels.tolist() == NAMES
    assert_allclose(pooled.y_prob.sum(axis=1), 1)


def test_metrics_of_pooled_predictions():
    # Confidences below one half, which are impossible with two classes.
    pooled = open_vocabulary_predictions(NearestText(sharpness=0.05), X, Y, cv=CV)
    assert (pooled.confidence < 0.5).all()
    # All confidences are in two bins.
    edge = 6 / 15
    parts = [pooled.confidence <= edge, pooled.confidence > edge]
    by_hand = sum(abs((pooled.confidence - pooled.correct)[part].sum()) for part in parts) / len(pooled.row)
    assert pooled.confidence.min() > 5 / 15 and pooled.confidence.max() <= 7 / 15
    error = expected_calibration_error(pooled.y_true, pooled.y_prob, labels=pooled.labels)
    assert_allclose(error, by_hand)
    # Classes that are not candidates have no effect on the log loss.
    folds = []
    for train, test in CV.split(X, Y):
        clf = NearestText(sharpness=0.05).fit(X[train], Y[train])
        clf = clf.with_classes(np.unique(Y[test]).tolist())
        folds.append(log_loss(Y[test], clf.predict_proba(X[test]), labels=clf.classes_))
    assert_allclose(log_loss(pooled.y_true, pooled.y_prob, labels=pooled.labels), np.mean(folds))


def test_n_jobs_pipelines_masks_and_numeric_labels():
    pooled = open_vocabulary_predictions(NearestText(), X, Y, cv=CV, n_jobs=2)
    masks = []
    for _, test in CV.split(X, Y):
        mask = np.zeros(len(Y), bool)
        mask[test] = True
        masks.append((~mask, mask))
    numbers = np.array([NAMES.index(name) - 2 for name in Y])
    names = {number - 2: name for number, name in enumerate(NAMES)}
    pipeline = make_pipeline(StandardScaler(with_std=False), NearestText())
    for clf, data, y, cv in [
        (NearestText(), X, Y, masks),
        (NearestText(class_names=names), list(X), numbers.tolist(), CV),
        (pipeline, X, Y, CV),
    ]:
        other = open_vocabulary_predictions(clf, data, y, cv=cv)
        assert_allclose(other.y_prob, pooled.y_prob, rtol=1e-12)
        assert_array_equal(other.row, pooled.row)
        assert not hasattr(clf, "classes_")
    assert other.labels.tolist() == NAMES


def test_default_splits_hold_out_half_of_the_classes():
    pooled = open_vocabulary_predictions(NearestText(), X, Y)
    assert np.unique(pooled.fold).tolist() == [0, 1, 2, 3, 4]
    assert (np.bincount(pooled.fold) == 36).all()


def test_result_is_read_only():
    pooled = open_vocabulary_predictions(NearestText(), X, Y, cv=CV)
    with pytest.raises(dataclasses.FrozenInstanceError):
        pooled.labels = pooled.labels[:2]


def test_invalid_input_raises():
    with pytest.raises(ValueError, match=r"classes='unseen' .* 0 of the 24 rows .* LeaveClassesOut"):
        open_vocabulary_predictions(NearestText(), X, Y, cv=3)
    with pytest.raises(TypeError, match="GaussianNB has no with_classes"):
        open_vocabulary_predictions(GaussianNB(), X, Y, cv=CV)
    with pytest.raises(ValueError, match="'classes' parameter"):
        open_vocabulary_predictions(NearestText(), X, Y, classes="new")
    with pytest.raises(ValueError, match="'n_jobs' parameter"):
        open_vocabulary_predictions(NearestText(), X, Y, n_jobs=1.5)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        open_vocabulary_predictions(NearestText(), X[:5], Y)


def test_grid_search_with_the_embedded_clip():
    images, names = make_shapes("textures", n_per_class=3, random_state=0, return_X_y=True)
    chosen = np.unique(names)[:6]
    rows = np.isin(names, chosen)
    y = np.searchsorted(chosen, names[rows])
    embeddings = CLIPImageEncoder("mini", device="cpu").transform(images[rows])
    dor = DynamicOutlierRegularizer(lexicon=["denim", "river", "violin", "hammer", "brick"], batch_size=4)
    clf = PromptTunedCLIPClassifier(
        "mini",
        regularizer=dor,
        class_names=dict(enumerate(chosen.tolist())),
        max_epochs=2,
        random_state=0,
        device="cpu",
    )
    cv = LeaveClassesOut(2, random_state=0)
    scorer = open_vocabulary(ece_scorer)
    search = GridSearchCV(
        clf, {"regularizer__weight": [0.0, 8.0]}, cv=cv, scoring=scorer, error_score="raise"
    )
    search.fit(embeddings, y)
    for number, (train, test) in enumerate(cv.split(embeddings, y)):
        fitted = clone(search.best_estimator_).fit(embeddings[train], y[train])
        fitted = fitted.with_classes(np.unique(y[test]))
        by_hand = expected_calibration_error(y[test], fitted.predict_proba(embeddings[test]))
        assert_allclose(
            search.cv_results_[f"split{number}_test_score"][search.best_index_], -by_hand, rtol=1e-9
        )
    # The prompts of the classes of the fold have names, not numbers.
    assert set(fitted.class_names_.values()) <= set(chosen)
    assert scorer(search, embeddings, y) == ece_scorer(search, embeddings, y)
    pooled = open_vocabulary_predictions(search.best_estimator_, embeddings, y, cv=cv)
    assert len(pooled.row) == len(y)


class InFrames(NearestText):
    def predict_proba(self, X):
        prob = super().predict_proba(X)
        return pd.DataFrame(prob[:, ::-1], columns=self.classes_[::-1])


def test_columns_of_data_frames_are_selected_by_name():
    plain = open_vocabulary_predictions(NearestText(), X, Y, cv=CV)
    for target in (Y, Y.astype(np.dtypes.StringDType())):
        framed = open_vocabulary_predictions(InFrames(), X, target, cv=CV)
        assert_array_equal(framed.y_prob, plain.y_prob)
        assert_array_equal(framed.labels, plain.labels)
    scorer = open_vocabulary(ece_scorer)
    assert scorer(InFrames().fit(X, Y), X, Y) == scorer(NearestText().fit(X, Y), X, Y)


def test_groups_reach_the_splitter():
    groups = np.arange(len(Y)) % 4
    splits = list(GroupKFold(2).split(X, Y, groups))
    by_hand = open_vocabulary_predictions(NearestText(), X, Y, cv=splits, classes="fold")
    for given in (groups, list(groups)):
        found = open_vocabulary_predictions(
            NearestText(), X, Y, cv=GroupKFold(2), groups=given, classes="fold"
        )
        assert_array_equal(found.row, by_hand.row)
        assert_array_equal(found.y_prob, by_hand.y_prob)
