"""Prompt-tuned classifier, alone and with the tools of scikit-learn."""

import pickle

import joblib
import numpy as np
import open_clip
import pytest
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.model_selection import GridSearchCV, KFold, LeaveOneGroupOut, cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline
from tiny_clip import make_tiny_model
from toy_backbone import AnyWidthBackbone

from clipcal import (
    CalibratedCLIPClassifier,
    CLIPImageEncoder,
    CoOp,
    DynamicOutlierRegularizer,
    PromptTunedCLIPClassifier,
    ZeroShotCLIPClassifier,
    ece_scorer,
    make_shapes,
)
from clipcal.backbones import OpenClipBackbone, open_backbone
from clipcal.exceptions import ClassNameError
from clipcal.methods import zero_shot_features
from clipcal.regularizers import AnchorRegularizer

NOUNS = ["denim", "violin", "twilight", "granite", "lantern", "walnut", "harbor", "cactus", "orchid"]
LABELS = np.array(["cat", "dog", "red_panda"])
TOY = AnyWidthBackbone(16)


def make_data(n=30, dim=16, seed=0):
    """Draw embeddings around the zero-shot text features of the classes."""
    rng = np.random.default_rng(seed)
    centers = zero_shot_features(
        AnyWidthBackbone(dim), ["cat", "dog", "red panda"], "a photo of a {}."
    ).numpy()
    positions = np.arange(n) % 3
    return centers[positions] + 0.3 * rng.normal(size=(n, dim)), LABELS[positions]


X, Y = make_data()


def make(**params):
    params = {"backbone": TOY, "max_epochs": 3, "batch_size": 8, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(**params)


def dor(**params):
    return DynamicOutlierRegularizer(lexicon=NOUNS, **params)


@pytest.fixture(scope="module")
def shapes():
    images, y = make_shapes("shapes", n_per_class=4, random_state=0, return_X_y=True)
    few = np.isin(y, ["circle", "star", "cross"])
    return images[few], y[few]


class TestFit:
    def test_fitted_attributes(self):
        clf = make(regularizer=dor()).fit(X, Y)
        assert clf.classes_.tolist() == ["cat", "dog", "red_panda"]
        assert clf.class_names_ == {"cat": "cat", "dog": "dog", "red_panda": "red panda"}
        assert clf.text_features_.shape == (3, 16)
        assert clf.text_features_.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(clf.text_features_, axis=1), 1, atol=1e-6)
        assert list(clf.learned_) == ["context"]
        assert clf.learned_["context"].shape == (4, TOY.token_dim)
        assert clf.logit_scale_ == 100.0
        assert clf.device_ == "cpu"
        assert clf.n_features_in_ == 16
        assert [list(r) for r in clf.history_] == [
            ["epoch", "learning_rate", "loss", "cross_entropy", "accuracy", "dor"]
        ] * 3

    def test_logits_are_scaled_cosines(self):
        clf = make().fit(X, Y)
        text = clf.text_features_.astype(float)
        expected = 100 * X @ text.T / np.linalg.norm(X, axis=1, keepdims=True)
        np.testing.assert_allclose(clf.decision_function(X), expected, atol=1e-9)
        powers = np.exp(expected - expected.max(axis=1, keepdims=True))
        np.testing.assert_allclose(
            clf.predict_proba(X), powers / powers.sum(axis=1, keepdims=True), atol=1e-12
        )
        np.testing.assert_array_equal(clf.predict(X), LABELS[expected.argmax(axis=1)])
        two = make().fit(X[Y != "dog"], Y[Y != "dog"])
        margin = two.predict_log_proba(X) @ [-1, 1]
        np.testing.assert_allclose(two.decision_function(X), margin, atol=1e-9)

    def test_training_reduces_the_log_loss(self):
        hard, y = make_data(60, seed=1)
        before = make(max_epochs=0).fit(hard, y)
        after = make(max_epochs=60, learning_rate=0.02).fit(hard, y)

        def log_loss(clf):
            return -np.log(clf.predict_proba(hard)[np.arange(60), np.searchsorted(LABELS, y)]).mean()

        assert log_loss(after) < 0.8 * log_loss(before)

    @pytest.mark.parametrize("backbone", ["tiny", "mini"])
    def test_zero_epochs_give_zero_shot_predictions(self, backbone, tiny_backbone, shapes):
        backbone = tiny_backbone if backbone == "tiny" else "mini"
        images, y = shapes
        tuned = make(backbone=backbone, max_epochs=0, regularizer=["kg", dor()]).fit(images, y)
        untuned = ZeroShotCLIPClassifier(backbone).fit(images, y)
        np.testing.assert_allclose(tuned.text_features_, untuned.text_features_, atol=1e-5)
        np.testing.assert_allclose(tuned.predict_proba(images), untuned.predict_proba(images), atol=1e-4)
        assert tuned.history_ == []

    def test_training_with_mini_reduces_the_loss(self, shapes):
        images, y = shapes
        clf = make(backbone="mini", max_epochs=40, method=CoOp(context_init=None, n_context=4))
        clf.fit(images, y)
        assert clf.history_[-1]["loss"] < clf.history_[0]["loss"]
        assert clf.score(images, y) > 1 / 3

    def test_kgcoop_equals_coop_with_kg(self):
        first = make(method="kgcoop").fit(X, Y)
        second = make(method="coop", regularizer="kg").fit(X, Y)
        np.testing.assert_array_equal(first.text_features_, second.text_features_)
        assert first.history_ == second.history_
        assert (make().fit(X, Y).text_features_ != first.text_features_).any()

    def test_given_anchor_replaces_that_of_the_method(self):
        template = "{} texture."
        given = make(method="kgcoop", regularizer=AnchorRegularizer(0.5, template=template)).fit(X, Y)
        same = make(regularizer=[AnchorRegularizer(0.5, template=template)]).fit(X, Y)
        np.testing.assert_array_equal(given.text_features_, same.text_features_)
        assert given.history_[0]["kg"] > 0

    def test_dor_reduces_the_drift_of_outlier_features(self):
        def drift(regularizer):
            clf = make(regularizer=regularizer, max_epochs=30, learning_rate=0.02).fit(X, Y)
            other = clf.with_classes(NOUNS)
            start = ZeroShotCLIPClassifier(TOY).fit(X, Y).with_classes(NOUNS)
            return 1 - (other.text_features_ * start.text_features_).sum(axis=1).mean()

        assert drift(dor(weight=50.0)) < 0.5 * drift(None)

    def test_class_specific_contexts_do_not_support_with_classes(self):
        clf = make(method=CoOp(class_specific=True), regularizer="kg").fit(X, Y)
        assert clf.learned_["context"].shape == (3, 4, TOY.token_dim)
        assert np.ptp(clf.learned_["context"], axis=0).max() > 0
        with pytest.raises(
            ValueError, match=r"learned for each class \(class_specific=True\).*class_specific=False"
        ):
            clf.with_classes(["owl", "cow"])

    def test_n_views_changes_the_result(self, shapes, tiny_backbone):
        images, y = shapes
        one, many, again = (make(backbone=tiny_backbone, n_views=n).fit(images, y) for n in (1, 4, 4))
        assert np.abs(many.text_features_ - one.text_features_).max() > 1e-6
        np.testing.assert_array_equal(many.text_features_, again.text_features_)


class TestSampleWeight:
    def test_embeddings_of_weight_zero_are_dropped(self):
        kept = np.arange(len(X)) % 4 != 0
        weighted = make(batch_size=64).fit(X, Y, sample_weight=kept.astype(float))
        np.testing.assert_array_equal(
            weighted.text_features_, make(batch_size=64).fit(X[kept], Y[kept]).text_features_
        )
        only = Y != "dog"
        assert make().fit(X, Y, sample_weight=only).classes_.tolist() == ["cat", "red_panda"]

    def test_images_of_weight_zero_are_dropped(self, shapes):
        images, y = shapes
        kept = np.arange(len(y)) % 2 == 0
        weighted = make(batch_size=64).fit(list(images), y, sample_weight=kept)
        plain = make(batch_size=64).fit(images[kept], y[kept])
        np.testing.assert_array_equal(weighted.text_features_, plain.text_features_)

    def test_integer_weights_equal_repeated_samples(self):
        counts = np.arange(len(X)) % 3 + 1
        weighted = make(batch_size=500).fit(X, Y, sample_weight=counts)
        repeated = make(batch_size=500).fit(np.repeat(X, counts, axis=0), np.repeat(Y, counts))
        np.testing.assert_allclose(weighted.text_features_, repeated.text_features_, atol=1e-6)
        plain = make(batch_size=500).fit(X, Y)
        assert np.abs(weighted.text_features_ - plain.text_features_).max() > 1e-6


class TestReproducibility:
    def test_result_depends_on_random_state(self):
        method = CoOp(context_init=None, n_context=3)
        first, again, other = (
            make(method=method, regularizer=dor(pool="random", pool_size=4), random_state=seed).fit(X, Y)
            for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(first.text_features_, again.text_features_)
        assert first.history_ == again.history_
        assert np.abs(first.text_features_ - other.text_features_).max() > 1e-3

    def test_second_fit_gives_the_same_result(self):
        clf = make(regularizer=dor())
        features = clf.fit(X, Y).text_features_
        np.testing.assert_array_equal(clf.fit(X, Y).text_features_, features)

    def test_embeddings_and_images_give_the_same_result(self, shapes):
        images, y = shapes
        embeddings = CLIPImageEncoder(TOY).transform(images)
        clf = make(backbone=TOY, regularizer=dor()).fit(images, y)
        other = make(backbone=TOY, regularizer=dor()).fit(embeddings, y)
        np.testing.assert_allclose(clf.text_features_, other.text_features_, atol=1e-5)

    @pytest.mark.parametrize("n_views", [1, 3])
    def test_memory_does_not_change_the_result(self, tmp_path, shapes, n_views):
        images, y = shapes

        class Counting(AnyWidthBackbone):
            n_encoded = 0

            def encode_images(self, pixels):
                Counting.n_encoded += len(pixels)
                return super().encode_images(pixels)

        params = {"backbone": Counting(), "n_views": n_views}
        plain = make(**params).fit(images, y)
        Counting.n_encoded = 0
        results = [
            make(memory=memory, **params).fit(images, y)
            for memory in (str(tmp_path), str(tmp_path), joblib.Memory(str(tmp_path), verbose=0))
        ]
        assert Counting.n_encoded == n_views * len(images)
        for clf in results:
            np.testing.assert_array_equal(clf.text_features_, plain.text_features_)


class TestWithClasses:
    def test_original_classes_give_the_original_features(self):
        clf = make(regularizer=dor()).fit(X, Y)
        same = clf.with_classes(list(LABELS[::-1]))
        np.testing.assert_allclose(same.text_features_, clf.text_features_, atol=1e-6)
        assert same.classes_.tolist() == clf.classes_.tolist()
        np.testing.assert_allclose(same.predict_proba(X), clf.predict_proba(X), atol=1e-5)

    def test_does_not_change_the_original(self):
        clf = make().fit(X, Y)
        state = joblib.hash(vars(clf))
        proba = clf.predict_proba(X)
        other = clf.with_classes(["owl", "cow", "fox", "emu"])
        other.set_params(max_epochs=1).fit(X, Y[::-1])
        assert joblib.hash(vars(clf)) == state
        np.testing.assert_array_equal(clf.predict_proba(X), proba)

    def test_uses_the_learned_context(self):
        clf = make(learning_rate=0.05).fit(X, Y)
        other = clf.with_classes(["owl", "cow"])
        untuned = ZeroShotCLIPClassifier(TOY).fit(X, Y).with_classes(["owl", "cow"])
        assert np.abs(other.text_features_ - untuned.text_features_).max() > 1e-3
        np.testing.assert_array_equal(other.learned_["context"], clf.learned_["context"])
        back = other.with_classes(LABELS)
        np.testing.assert_allclose(back.text_features_, clf.text_features_, atol=1e-6)

    def test_accepts_a_mapping_of_labels_to_names(self):
        clf = make().fit(X, Y)
        named = clf.with_classes({7: "owl", -1: "hot_dog"})
        assert named.classes_.tolist() == [-1, 7]
        assert named.class_names_ == {-1: "hot dog", 7: "owl"}
        plain = clf.with_classes(["owl", "hot dog"])
        np.testing.assert_allclose(named.text_features_, plain.text_features_, atol=1e-6)
        assert set(named.predict(X)) <= {-1, 7}

    def test_names_are_taken_from_class_names(self):
        names = {"cat": "tabby", "dog": "hound", "red_panda": "firefox", "n9": "owl"}
        clf = make(class_names=names).fit(X, Y)
        assert clf.with_classes(["n9", "cat"]).class_names_ == {"cat": "tabby", "n9": "owl"}
        assert clf.with_classes(["n9", "cow"]).class_names_ == {"cow": "cow", "n9": "owl"}
        assert clf.with_classes(["emu", "cow"]).class_names_ == {"cow": "cow", "emu": "emu"}
        assert clf.with_classes({"n9": "eagle", "cow": "cow"}).class_names_ == {"cow": "cow", "n9": "eagle"}

    def test_integer_label_without_name_raises(self):
        clf = make(class_names={0: "cat", 1: "dog", 2: "red panda", 3: "owl"})
        clf.fit(X, np.searchsorted(LABELS, Y))
        with pytest.raises(ClassNameError, match="has no name for the labels 9; add"):
            clf.with_classes([3, 9])

    @pytest.mark.parametrize(
        ("labels", "error", "words"),
        [
            (["owl"], ValueError, r"at least two different labels; got \['owl'\]"),
            ([], ValueError, r"at least two different labels; got \[\]"),
            (["owl", "cow", "owl"], ValueError, "the label 'owl' 2 times; pass each label once"),
            (["hot_dog", "hot dog"], ClassNameError, "share the name 'hot dog'"),
            ({1: "owl", 2: ""}, ClassNameError, "label 2 is empty"),
            ({1: "owl", 2: None}, ClassNameError, "label 2 must be a string"),
            ("owl", ClassNameError, "Expected a list of labels.*the string 'owl'"),
            (["owl", "very " * 80 + "long"], ClassNameError, "very very"),
        ],
    )
    def test_invalid_labels_raise(self, labels, error, words):
        clf = make().fit(X, Y)
        with pytest.raises(error, match=words):
            clf.with_classes(labels)
        assert clf.classes_.tolist() == LABELS.tolist()


class TestCopies:
    def test_pickle_is_small_and_complete(self, shapes):
        images, y = shapes
        clf = make(backbone="mini", max_epochs=2, regularizer=dor()).fit(images, y)
        data = pickle.dumps(clf)
        assert len(data) < 50_000
        again = pickle.loads(data)
        np.testing.assert_array_equal(again.predict_proba(images), clf.predict_proba(images))
        classes = ["square", "ring"]
        np.testing.assert_array_equal(
            again.with_classes(classes).text_features_, clf.with_classes(classes).text_features_
        )

    def test_backbone_opened_by_name_is_pickled_as_its_name(self, shapes):
        images, y = shapes
        clf = make(backbone=open_backbone("mini", device="cpu"), max_epochs=1).fit(images, y)
        data = pickle.dumps(clf)
        assert len(data) < 50_000
        np.testing.assert_array_equal(pickle.loads(data).predict_proba(images), clf.predict_proba(images))

    def test_clone_is_unfitted_and_shares_the_backbone(self, tiny_backbone):
        clf = make(backbone=tiny_backbone, regularizer=dor(weight=3.0), class_names={"cat": "x"})
        copy = clone(
            clf.set_params(class_names=None).fit(np.random.default_rng(0).normal(size=(6, 64)), Y[:6])
        )
        assert not hasattr(copy, "classes_")
        assert copy.backbone is tiny_backbone
        assert copy.regularizer is not clf.regularizer
        assert copy.get_params()["regularizer__weight"] == 3.0

    def test_fit_does_not_change_parameters(self):
        clf = make(method="kgcoop", regularizer=["kg", dor()], class_names={label: label for label in LABELS})
        before = joblib.hash(clf.get_params())
        clf.fit(X, Y).with_classes(["owl", "cow"])
        assert joblib.hash(clf.get_params()) == before

    def test_prediction_does_not_change_the_classifier(self, shapes):
        images, y = shapes
        clf = make().fit(images, y)
        before = joblib.hash(vars(clf))
        clf.predict(images)
        clf.feature_divergence()
        assert joblib.hash(vars(clf)) == before


class TestInsideScikitLearn:
    def test_grid_search_over_regularizers(self):
        grid = [
            {"regularizer": [None, "kg"]},
            {"regularizer": [dor()], "regularizer__weight": [0.5, 8.0], "method__n_context": [2]},
        ]
        method = CoOp(context_init=None, n_context=1)
        search = GridSearchCV(make(method=method), grid, cv=3, scoring=ece_scorer, error_score="raise")
        search.fit(X, Y)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert len(set(search.cv_results_["mean_test_score"])) == 4
        assert set(search.predict(X)).issubset(LABELS)

    def test_cross_validation_with_string_labels(self):
        scores = cross_val_score(make(), X, Y, scoring=ece_scorer, cv=3, error_score="raise")
        assert ((scores >= -1) & (scores <= 0)).all()
        accuracy = cross_val_score(make(), X, Y, cv=3, error_score="raise")
        assert accuracy.mean() > 0.5

    @pytest.mark.parametrize("scoring", [ece_scorer, None], ids=["ece", "accuracy"])
    def test_test_fold_without_a_class(self, scoring):
        folds = np.where(Y == "dog", 0, np.arange(len(Y)) % 2)
        splits = [(np.arange(len(Y)), np.flatnonzero((folds == 1) & (Y != "dog")))]
        scores = cross_val_score(make(), X, Y, scoring=scoring, cv=splits, error_score="raise")
        assert np.isfinite(scores).all()

    def test_training_fold_without_a_class(self):
        """All samples of the missing class are misclassified, so the ECE is the mean confidence."""
        splits = list(LeaveOneGroupOut().split(X, Y, groups=Y == "dog"))
        train, test = next((a, b) for a, b in splits if "dog" not in Y[a])
        clf = make().fit(X[train], Y[train])
        assert clf.score(X[test], Y[test]) == 0
        assert ece_scorer(clf, X[test], Y[test]) == pytest.approx(
            -clf.predict_proba(X[test]).max(axis=1).mean()
        )

    def test_lists_of_images_are_split_like_arrays(self, shapes):
        images, y = shapes
        cv = KFold(2, shuffle=True, random_state=0)
        listed = cross_val_score(make(), list(images), y, cv=cv, scoring="neg_log_loss", error_score="raise")
        stacked = cross_val_score(make(), images, y, cv=cv, scoring="neg_log_loss", error_score="raise")
        np.testing.assert_allclose(listed, stacked)

    def test_pipeline_with_image_encoder(self, shapes, tiny_backbone):
        images, y = shapes
        clf = make(backbone=tiny_backbone)
        pipeline = Pipeline([("embed", CLIPImageEncoder(tiny_backbone)), ("clf", clone(clf))])
        pipeline.set_params(clf__max_epochs=2).fit(images, y)
        clf.set_params(max_epochs=2).fit(images, y)
        np.testing.assert_allclose(pipeline.predict_proba(images), clf.predict_proba(images), atol=1e-5)

    @pytest.mark.parametrize("cv", [2, "prefit"])
    def test_temperature_scaling(self, cv):
        inner = make().fit(X, Y)
        scaled = CalibratedCLIPClassifier(inner, cv=cv).fit(X, Y)
        logits = scaled.estimator_.decision_function(X)
        np.testing.assert_allclose(scaled.decision_function(X), logits / scaled.calibrator_.temperature_)
        other = scaled.with_classes({1: "owl", 2: "cow", 3: "emu"})
        assert other.classes_.tolist() == [1, 2, 3]
        plain = scaled.estimator_.with_classes({1: "owl", 2: "cow", 3: "emu"})
        np.testing.assert_allclose(
            other.decision_function(X), plain.decision_function(X) / scaled.calibrator_.temperature_
        )
        assert scaled.classes_.tolist() == LABELS.tolist()

    def test_calibration_passes_sample_weight_to_fit(self):
        weights = (np.arange(len(X)) % 5 + 1).astype(float)
        weighted = CalibratedCLIPClassifier(make(), cv=2).fit(X, Y, sample_weight=weights)
        assert np.abs(
            weighted.estimator_.text_features_ - make().fit(X, Y, weights).text_features_
        ).max() == pytest.approx(0)


class TestCallbacks:
    def scores(self, monitor):
        return [row["score"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]

    @pytest.mark.parametrize("weights", [None, np.arange(30) % 4])
    def test_scoring_monitor_has_one_score_per_epoch(self, weights):
        monitor = ScoringMonitor(scoring=ece_scorer)
        clf = make(max_epochs=4).set_callbacks(monitor).fit(X, Y, sample_weight=weights)
        scores = self.scores(monitor)
        assert len(scores) == 4
        assert len(set(scores)) == 4
        assert scores[-1] == pytest.approx(ece_scorer(clf, X, Y, sample_weight=weights))

    def test_scoring_monitor_with_images(self, shapes):
        images, y = shapes
        monitor = ScoringMonitor(scoring="accuracy")
        clf = make(max_epochs=2).set_callbacks(monitor).fit(images, y)
        rows = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
        assert len(rows) == 2
        assert rows[-1] == clf.score(images, y)

    def test_callbacks_do_not_change_the_result(self):
        watched = make().set_callbacks(ScoringMonitor(scoring=ece_scorer)).fit(X, Y)
        np.testing.assert_array_equal(watched.text_features_, make().fit(X, Y).text_features_)
        assert watched.history_ == make().fit(X, Y).history_

    def test_zero_epochs_give_no_scores(self):
        monitor = ScoringMonitor(scoring=ece_scorer)
        make(max_epochs=0).set_callbacks(monitor).fit(X, Y)
        assert self.scores(monitor) == []

    def test_callback_can_stop_training(self):
        class StopAfterTwo:
            """Minimal callback of scikit-learn."""

            n_epochs = 0
            torn_down = 0

            def setup(self, estimator, context):
                pass

            def on_fit_task_begin(self, estimator, context, **kwargs):
                pass

            def on_fit_task_end(self, estimator, context, **kwargs):
                self.n_epochs += context.task_name == "epoch"
                return self.n_epochs == 2

            def teardown(self, estimator, context):
                self.torn_down += 1

        callback = StopAfterTwo()
        clf = make(max_epochs=9).set_callbacks(callback).fit(X, Y)
        assert len(clf.history_) == 2
        with pytest.raises(ValueError, match="class"):
            clf.fit(X, ["cat"] * len(X))
        with pytest.raises(FloatingPointError):
            clf.set_params(learning_rate=3e38, optimizer="sgd", max_epochs=1).fit(X, Y)
        assert callback.torn_down == 2

    def test_progress_bar(self, capsys):
        pytest.importorskip("rich")
        from sklearn.callback import ProgressBar

        make(max_epochs=2).set_callbacks(ProgressBar()).fit(X, Y)
        assert "PromptTunedCLIPClassifier" in capsys.readouterr().out

    def test_fit_prints_nothing_by_default(self, capsys, shapes):
        make(regularizer=dor()).fit(*shapes)
        assert capsys.readouterr() == ("", "")


class TestFeatureDivergence:
    @pytest.mark.parametrize("metric", ["euclidean", "cosine"])
    @pytest.mark.parametrize("n_neighbors", [1, 3, 50])
    def test_equals_the_distances_of_scikit_learn(self, metric, n_neighbors):
        clf = make().fit(X, Y).with_classes(NOUNS)
        neighbors = NearestNeighbors(n_neighbors=min(n_neighbors, len(NOUNS) - 1), metric=metric)
        distances, _ = neighbors.fit(clf.text_features_.astype(float)).kneighbors()
        value = clf.feature_divergence(n_neighbors=n_neighbors, metric=metric)
        assert value == pytest.approx(distances.mean(), abs=1e-6)

    def test_hand_computed_value(self):
        clf = make().fit(X, Y)
        clf.text_features_ = np.array([[1, 0], [0, 1], [0.6, 0.8]])
        # Nearest neighbors: 2 of 0 (cosine 0.6), 2 of 1 and 1 of 2 (cosine 0.8).
        assert clf.feature_divergence(n_neighbors=1, metric="cosine") == pytest.approx((0.4 + 0.2 + 0.2) / 3)

    @pytest.mark.parametrize("params", [{"n_neighbors": 0}, {"n_neighbors": 1.5}, {"metric": "manhattan"}])
    def test_invalid_parameters_raise(self, params):
        name, value = next(iter(params.items()))
        with pytest.raises(ValueError, match=rf"{name} must be .*; got {value!r}"):
            make().fit(X, Y).feature_divergence(**params)


@pytest.mark.parametrize("regularizer", [None, "kg", DynamicOutlierRegularizer(lexicon=NOUNS)])
def test_shared_prefix_and_whole_prompts_give_the_same_context(regularizer):
    learned = []
    for shares_prefix in (True, False):
        backbone = OpenClipBackbone(make_tiny_model(), open_clip.SimpleTokenizer(), device="cpu")
        backbone.text_tower.shares_prefix = shares_prefix
        X = np.random.default_rng(0).normal(size=(12, 64))
        clf = PromptTunedCLIPClassifier(
            backbone, regularizer=regularizer, max_epochs=4, batch_size=4, random_state=0
        ).fit(X, ["dog", "fire engine", "crane (bird)"] * 4)
        start = backbone.embed_tokens(backbone.tokenize(["a photo of a"]))[0, 1:5].numpy()
        learned.append(clf.learned_["context"] - start)
    assert np.linalg.norm(learned[0] - learned[1]) < 1e-4 * np.linalg.norm(learned[1])
