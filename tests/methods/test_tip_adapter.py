"""Tip-Adapter and Tip-Adapter-F, compared with their equations, computed image by image."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from reference_steps import compare_steps, open_clip_features
from sklearn.base import clone
from toy_backbone import AnyWidthBackbone
from tuning_problem import batch_of, problem_of

from clipcal import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.methods import TipAdapter, TipAdapterF
from clipcal.methods._tip_adapter import _parts
from clipcal.training import EmbeddedData, torch_generator

NAMES = ["dog", "golden retriever puppy", "crane (bird)", "Boeing 737-800"]
TEMPLATES = ["a photo of a {}.", "{} texture."]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 64))
Y = np.array(NAMES * 6)
NEW = RNG.normal(size=(5, 64))
TARGETS = torch.arange(24) % 4
WEIGHTS = torch.linspace(0.5, 1.5, 24)


def unit(values):
    return values / values.norm(dim=-1, keepdim=True)


def data(embeddings=X, targets=TARGETS, weights=WEIGHTS):
    """Return training data with embeddings (n_samples, [n_views,] width)."""
    embeddings = torch.as_tensor(embeddings)
    views = embeddings if embeddings.ndim == 3 else embeddings[:, None]
    return EmbeddedData.from_raw(views, torch.as_tensor(targets), weights)


def fitted(method="tip-adapter", backbone=None, X=X, y=Y, **params):
    backbone = backbone or AnyWidthBackbone(64)
    clf = PromptTunedCLIPClassifier(backbone, method=method, **{"random_state": 0, **params})
    return clf.fit(X, y)


def sums_of(features, keys, targets, weights, beta, n_classes=4):
    """Return the similarities to the images of each class, one pair of images at a time."""
    rows = []
    for feature in features:
        sums = [0.0] * n_classes
        for key, target, weight in zip(keys, targets, weights, strict=True):
            sums[target] = sums[target] + weight * torch.exp(-beta * (1 - (feature * key).sum()))
        rows.append(torch.stack([torch.as_tensor(value) for value in sums]))
    return torch.stack(rows)


class TestEquations:
    @pytest.mark.parametrize(("alpha", "beta"), [(1.0, 5.5), (3.0, 0.7)])
    @pytest.mark.parametrize("template", [TEMPLATES[0], TEMPLATES])
    def test_three_steps(self, tiny_backbone, alpha, beta, template):
        method = TipAdapterF(alpha, beta, template=template)
        learner = method.learner(problem_of(tiny_backbone, NAMES, data=data()))
        assert [name for name, _ in learner.named_parameters()] == ["keys"]
        torch.testing.assert_close(learner.keys.detach(), unit(torch.from_numpy(X)).float())
        templates = [template] if isinstance(template, str) else template
        each = [unit(open_clip_features(tiny_backbone, t, NAMES)) for t in templates]
        texts = unit(torch.stack(each).mean(dim=0))

        def reference(parameters, raw, targets, weights):
            zero_shot = tiny_backbone.logit_scale * unit(raw) @ texts.T
            sums = sums_of(unit(raw), parameters["keys"], TARGETS.tolist(), WEIGHTS, beta)
            logits = zero_shot + alpha * sums
            of_target = logits.softmax(dim=1)[torch.arange(len(targets)), targets]
            return logits, {"cross_entropy": (-weights * of_target.log()).sum() / weights.sum()}

        compare_steps(learner, NAMES, reference)

    def test_by_hand(self):
        """Cosines 1 and 0 with the two cached images of the first class, and 0.6 with that of the other."""
        learner = TipAdapter(2.0, 3.0).learner(
            problem_of(
                AnyWidthBackbone(2),
                ["a", "b"],
                data=data([[5.0, 0], [0, 2], [3, 4]], [0, 0, 1], torch.tensor([1.0, 0.5, 1.5])),
            )
        )
        learner.logit_scale = 10.0
        texts = torch.tensor([[0.8, 0.6], [0, 1]])
        logits = learner.logits(torch.tensor([[1.0, 0]]), texts)
        expected = [8 + 2 * (1 + 0.5 * math.exp(-3)), 0 + 2 * 1.5 * math.exp(-3 * 0.4)]
        torch.testing.assert_close(logits, torch.tensor([expected]))

    def test_predictions(self, tiny_backbone):
        weights = np.linspace(0.2, 3, 24)
        clf = PromptTunedCLIPClassifier(tiny_backbone, method=TipAdapter(1.5, 2.0))
        clf.fit(X, Y, sample_weight=7 * weights)
        features, keys = (unit(torch.from_numpy(values)) for values in (NEW, X))
        targets = np.searchsorted(clf.classes_, Y)
        sums = sums_of(features, keys, targets, torch.from_numpy(weights / weights.mean()), 2.0)
        zero_shot = ZeroShotCLIPClassifier(tiny_backbone).fit(X, Y)
        expected = zero_shot.decision_function(NEW) + 1.5 * sums.numpy()
        np.testing.assert_allclose(clf.decision_function(NEW), expected, atol=1e-4)
        assert_array_equal(clf.text_features_, zero_shot.text_features_)

    def test_keys_are_means_of_unnormalized_views(self):
        views = RNG.normal(size=(24, 3, 64)) * RNG.uniform(0.5, 3, (24, 3, 1))
        learner = TipAdapter().learner(problem_of(AnyWidthBackbone(64), NAMES, data=data(views)))
        torch.testing.assert_close(learner.keys, unit(torch.from_numpy(views.mean(axis=1))).float())

    def test_cache_is_used_in_blocks(self, monkeypatch):
        whole = fitted().decision_function(NEW)
        monkeypatch.setattr("clipcal.methods._tip_adapter._BLOCK", 7)
        np.testing.assert_allclose(fitted().decision_function(NEW), whole, rtol=1e-12)

    def test_alpha_zero_is_zero_shot(self, tiny_backbone):
        clf = fitted(TipAdapter(0), tiny_backbone)
        expected = ZeroShotCLIPClassifier(tiny_backbone).fit(X, Y).predict_proba(NEW)
        np.testing.assert_allclose(clf.predict_proba(NEW), expected, atol=1e-6)

    def test_zero_epochs_of_the_trained_method_are_the_untrained_one(self):
        first, second = fitted("tip-adapter-f", max_epochs=0), fitted()
        assert_array_equal(first.predict_proba(NEW), second.predict_proba(NEW))
        trained = fitted("tip-adapter-f")
        assert np.abs(trained.predict_proba(NEW) - second.predict_proba(NEW)).max() > 1e-4
        assert np.abs(np.linalg.norm(trained.learned_["keys"], axis=1) - 1).max() > 1e-4


class TestImages:
    IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    LABELS = np.array(NAMES * 3)

    @pytest.mark.parametrize("method", ["tip-adapter", "tip-adapter-f"])
    def test_views(self, method):
        found = {
            n_views: fitted(method, X=self.IMAGES, y=self.LABELS, n_views=n_views)
            for n_views in (1, 10, "fresh")
        }
        keys = [clf.learned_["keys"] for clf in found.values()]
        assert all(np.abs(one - other).max() > 1e-3 for one, other in [keys[:2], keys[1:]])
        assert found["fresh"].predict_proba(self.IMAGES).shape == (12, 4)
        again = clone(found["fresh"]).fit(self.IMAGES, self.LABELS)
        assert_array_equal(again.learned_["keys"], keys[2])
        other = clone(found["fresh"]).set_params(random_state=1).fit(self.IMAGES, self.LABELS)
        assert np.abs(other.learned_["keys"] - keys[2]).max() > 1e-4

    def test_keys_of_fresh_crops_are_means_of_ten_crops(self):
        one, many = (fitted(X=self.IMAGES, y=self.LABELS, n_views=n) for n in ("fresh", 500))
        cosines = (one.learned_["keys"] * many.learned_["keys"]).sum(axis=1)
        single = fitted(X=self.IMAGES, y=self.LABELS, n_views=1)
        assert (1 - cosines).mean() < 0.05
        assert (1 - (single.learned_["keys"] * many.learned_["keys"]).sum(axis=1)).mean() > 0.1


class TestSearch:
    ALPHAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    BETAS = (0.5, 1.0, 2.0, 3.5, 5.5, 8.0, 12.0)
    # Images near random centers, which zero-shot CLIP does not know.
    CENTERS = np.random.default_rng(1).normal(size=(4, 64))
    NEAR = CENTERS[TARGETS] + 0.8 * np.random.default_rng(2).normal(size=(24, 64))

    def learner(self, method, X, seed=0, targets=TARGETS):
        weights = torch.linspace(0.5, 1.5, len(targets))
        problem = problem_of(AnyWidthBackbone(64), NAMES, data=data(X, targets, weights), seed=seed)
        return method.learner(problem)

    def log_losses(self, learner, parts):
        """Return the log loss of each pair of values, by a cache made for each held-out image."""
        scale = learner.logit_scale
        texts = learner.encode_texts(learner.prompts(NAMES), None).double()
        keys, weights, targets = learner.keys.double(), learner.weights.double(), learner.targets.tolist()
        losses, weight = {}, sum(weights[i] for i in range(len(keys)) if parts[i] >= 0)
        for alpha in self.ALPHAS:
            for beta in self.BETAS:
                total = 0.0
                for i, key in enumerate(keys):
                    if parts[i] < 0:
                        continue
                    kept = [j for j in range(len(keys)) if parts[j] != parts[i]]
                    values = weights[kept].clone()
                    for c in range(4):
                        of_class = torch.tensor([targets[j] == c for j in kept])
                        everything = sum(weights[j] for j in range(len(keys)) if targets[j] == c)
                        values[of_class] *= everything / values[of_class].sum()
                    sums = torch.zeros(4, dtype=torch.double)
                    for value, j in zip(values, kept, strict=True):
                        sums[targets[j]] += value * math.exp(-beta * (1 - float(key @ keys[j])))
                    logits = scale * texts @ key + alpha * sums
                    total -= weights[i] * logits.log_softmax(dim=0)[targets[i]]
                losses[alpha, beta] = float(total / weight)
        return losses

    @pytest.mark.parametrize("targets", [TARGETS, torch.tensor([0, 1, 2, 3, 3, 3, 3, 3, 0, 0] + [2] * 6)])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_lowest_log_loss_is_found(self, targets, seed):
        X = self.NEAR[: len(targets)] + self.CENTERS[targets]
        learner = self.learner(TipAdapter("search", "search"), X, seed, targets)
        parts = _parts(targets, torch_generator(seed))
        losses = self.log_losses(learner, parts.tolist())
        found = learner.held_out_losses(parts, self.ALPHAS, self.BETAS)
        np.testing.assert_allclose(found.flatten(), list(losses.values()), rtol=1e-4, atol=1e-6)
        best = min(losses, key=losses.get)
        assert (float(learner.alpha), float(learner.beta)) == pytest.approx(best)
        assert losses[best] < losses[1.0, 5.5]

    def test_one_value_is_searched_for_the_given_other(self):
        parts = _parts(TARGETS, torch_generator(0)).tolist()
        losses = self.log_losses(self.learner(TipAdapter(), self.NEAR), parts)
        alpha = self.learner(TipAdapter("search", 2.0), self.NEAR)
        beta = self.learner(TipAdapter(0.2, "search"), self.NEAR)
        assert float(alpha.beta) == 2 and float(beta.alpha) == pytest.approx(0.2)
        assert float(alpha.alpha) == pytest.approx(min(self.ALPHAS, key=lambda value: losses[value, 2.0]))
        assert float(beta.beta) == pytest.approx(min(self.BETAS, key=lambda value: losses[0.2, value]))

    def test_parts_are_stratified(self):
        targets = torch.tensor([0] * 9 + [1] * 2 + [2] + [3] * 4)
        parts = _parts(targets, torch_generator(0))
        assert sorted(parts[:9].tolist()) == [0, 0, 0, 1, 1, 2, 2, 3, 3]
        assert sorted(parts[9:11].tolist()) == [0, 1] and parts[11] == -1
        assert sorted(parts[12:].tolist()) == [0, 1, 2, 3]
        assert parts.tolist() != _parts(targets, torch_generator(1)).tolist()

    def test_one_image_per_class_gives_the_defaults(self):
        learner = self.learner(TipAdapter("search", "search"), self.NEAR[:4], targets=torch.arange(4))
        assert (float(learner.alpha), float(learner.beta)) == (1.0, 5.5)
        clf = fitted(TipAdapterF("search", 0.5), X=X[:4], y=Y[:4], max_epochs=1)
        assert (clf.learned_["alpha"], clf.learned_["beta"]) == (1.0, 0.5)

    @pytest.mark.parametrize("method", [TipAdapter("search", "search"), TipAdapterF("search", "search")])
    def test_values_are_kept_and_depend_on_random_state_only(self, method):
        clf, again = fitted(method, X=self.NEAR), fitted(method, X=self.NEAR)
        assert_array_equal(clf.predict_proba(NEW), again.predict_proba(NEW))
        given = clone(method).set_params(**{name: float(clf.learned_[name]) for name in ("alpha", "beta")})
        np.testing.assert_allclose(
            fitted(given, X=self.NEAR, max_epochs=0).predict_proba(NEW),
            fitted(method, X=self.NEAR, max_epochs=0).predict_proba(NEW),
        )


class TestOtherClasses:
    @pytest.mark.parametrize("method", ["tip-adapter", TipAdapterF(2.0, 1.0)])
    def test_new_classes_have_zero_shot_logits_and_known_ones_keep_theirs(self, tiny_backbone, method):
        clf = fitted(method, tiny_backbone)
        other = clf.with_classes(["owl", "dog", "cow", "Crane_(Bird)"])
        assert other.classes_.tolist() == ["Crane_(Bird)", "cow", "dog", "owl"]
        known, found = clf.decision_function(NEW), other.decision_function(NEW)
        zero_shot = clf.zero_shot().with_classes(other.classes_.tolist()).decision_function(NEW)
        np.testing.assert_allclose(found[:, [1, 3]], zero_shot[:, [1, 3]], atol=1e-4)
        columns = [clf.classes_.tolist().index(name) for name in ("crane (bird)", "dog")]
        np.testing.assert_allclose(found[:, [0, 2]], known[:, columns], atol=1e-4)
        assert (found[:, [0, 2]] > zero_shot[:, [0, 2]] + 1e-3).all()

    def test_only_new_classes_are_zero_shot(self, tiny_backbone):
        clf = fitted("tip-adapter-f", tiny_backbone)
        other = clf.with_classes(["owl", "cow"])
        expected = clf.zero_shot().with_classes(["owl", "cow"]).predict_proba(NEW)
        np.testing.assert_allclose(other.predict_proba(NEW), expected, atol=1e-6)
        back = other.with_classes(NAMES).predict_proba(NEW)
        np.testing.assert_allclose(back, clf.predict_proba(NEW), atol=1e-6)

    def test_learner_for_other_names_leaves_the_learner_as_it_is(self):
        learner = TipAdapter().learner(problem_of(AnyWidthBackbone(64), NAMES, data=data()))
        images, texts = batch_of(torch.from_numpy(NEW).float()).embeddings, torch.zeros(4, 64)
        before = learner.logits(images, texts)
        other = learner.for_names(NAMES[::-1])
        torch.testing.assert_close(other.logits(images, texts), before.flip(1))
        torch.testing.assert_close(learner.logits(images, texts), before)

    def test_classes_of_one_name_have_images_of_their_own(self):
        names = {"a": "dog", "b": "river", "c": "dog"}
        clf = fitted(y=np.array(list("abc") * 8), class_names=names, allow_duplicate_names=True)
        logits = clf.decision_function(NEW)
        assert np.abs(logits[:, 0] - logits[:, 2]).max() > 1e-3
        with pytest.raises(ValueError, match=r"Several training classes have the name 'dog'"):
            clf.with_classes(["owl", "cow"])


class TestProtocol:
    def test_training_settings_are_ignored_without_training(self):
        plain, given = fitted(), fitted(max_epochs=50, learning_rate=3.0, optimizer="adam")
        assert plain.history_ == given.history_ == []
        assert plain.recipe_["max_epochs"] == given.recipe_["max_epochs"] == 0
        assert_array_equal(plain.predict_proba(NEW), given.predict_proba(NEW))

    @pytest.mark.parametrize("regularizer", ["label-smoothing", ["entropy", "dor"], "kg"])
    def test_regularizers_are_refused_without_training(self, regularizer):
        first = regularizer if isinstance(regularizer, str) else regularizer[0]
        words = f"'{first}' has no effect on method='tip-adapter', which is not trained.*'tip-adapter-f'"
        with pytest.raises(ValueError, match=words):
            fitted(regularizer=regularizer)

    @pytest.mark.parametrize("regularizer", ["dor", "kg", "moment-matching", "tcpt"])
    def test_regularizers_of_text_features_are_refused(self, regularizer):
        words = f"'{regularizer}' has no effect on method='tip-adapter-f', which does not train the text feat"
        with pytest.raises(ValueError, match=words):
            fitted("tip-adapter-f", regularizer=regularizer)

    def test_regularizers_of_logits_train_the_keys(self):
        clf = fitted("tip-adapter-f", regularizer=["label-smoothing", "entropy"])
        assert clf.history_[0].keys() >= {"label-smoothing", "entropy"}
        assert np.abs(clf.learned_["keys"] - fitted("tip-adapter-f").learned_["keys"]).max() > 1e-5

    @pytest.mark.parametrize(("free", "words"), [(True, "has parameters"), (False, "has no parameters")])
    def test_methods_that_contradict_the_flag_are_refused(self, free, words):
        class Wrong(TipAdapterF if free else TipAdapter):
            training_free = free

            def learner(self, problem):
                return (TipAdapterF if free else TipAdapter)().learner(problem)

        with pytest.raises(TypeError, match=rf"CacheLearner {words}.*training_free = {not free} on"):
            fitted(Wrong())

    def test_damaged_caches_are_refused(self):
        clf = fitted()
        wrong = {"keys": np.zeros((3, 64)), "targets": np.int64(1), "alpha": np.ones(2, dtype=np.float32)}
        for name, values in wrong.items():
            other = clone(clf).fit(X, Y)
            other.learned_[name] = values
            with pytest.raises(ValueError, match="learned tensors do not fit CacheLearner"):
                other.predict(NEW)

    def test_original_recipe(self):
        clf = fitted("tip-adapter-f")
        expected = {
            "max_epochs": 20, "learning_rate": 0.001, "batch_size": 256, "weight_decay": 0.01,
            "optimizer": "adamw", "optimizer_options": {"eps": 1e-4}, "warmup_epochs": 0,
            "schedule": "cosine", "drop_last": False,
        }  # fmt: skip
        assert {name: clf.recipe_[name] for name in expected} == expected
        rates = [record["learning_rate"] for record in clf.history_]
        np.testing.assert_allclose(rates, 0.0005 * (1 + np.cos(np.pi * np.arange(20) / 20)))

    def test_first_step_is_that_of_adamw_with_a_large_eps(self):
        clf, start = fitted("tip-adapter-f", max_epochs=1), fitted()
        step = clf.learned_["keys"] - 0.99999 * start.learned_["keys"]  # after the weight decay
        problem = problem_of(AnyWidthBackbone(64), sorted(NAMES))
        learner = TipAdapterF().learner(problem)
        learner.load_arrays(start.learned_)
        batch = batch_of(torch.from_numpy(X).float(), np.searchsorted(sorted(NAMES), Y))
        out, _ = learner(batch, learner.prompts(sorted(NAMES)), 4)
        learner.backward(learner.losses(out, batch))
        gradient = learner.keys.grad.numpy()
        np.testing.assert_allclose(step, -0.001 * gradient / (np.abs(gradient) + 1e-4), atol=1e-6)

    @pytest.mark.parametrize("method", [TipAdapter, TipAdapterF])
    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"alpha": -1}, "'alpha'.*Got -1"),
            ({"beta": "find"}, "'beta'.*Got 'find'"),
            ({"template": "no place"}, "template"),
        ],
    )
    def test_invalid_parameters_raise(self, method, params, words):
        with pytest.raises(ValueError, match=words):
            method(**params).learner(problem_of(AnyWidthBackbone(), NAMES))
