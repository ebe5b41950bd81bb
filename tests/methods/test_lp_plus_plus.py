"""LP++, compared with its equations in NumPy."""

import numpy as np
import pytest
import torch
from reference_steps import open_clip_features
from scipy.special import softmax
from sklearn.base import clone
from toy_backbone import AnyWidthBackbone
from tuning_problem import batch_of, problem_of

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, ZeroShotCLIPClassifier, make_shapes
from clipcal.methods import LPPlusPlus, zero_shot_features
from clipcal.training import EmbeddedData

NAMES = ["Boeing 737-800", "crane (bird)", "dog", "golden retriever puppy"]
TEMPLATES = ["a photo of a {}.", "{} texture."]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 64)) + 1
# Numbers of samples per class: 6, 9, 4 and 5.
COUNTS = [6, 9, 4, 5]
TARGETS = np.random.default_rng(1).permutation(np.repeat(np.arange(4), COUNTS))
Y = np.array(NAMES)[TARGETS]
WEIGHTS = np.linspace(0.5, 2, 24)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def fitted(backbone=None, template=TEMPLATES[0], weight=None, **params):
    params = {"method": LPPlusPlus(template=template), "max_epochs": 5, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(backbone or AnyWidthBackbone(64), **params).fit(X, Y, weight)


def texts_of(backbone, template):
    """Return zero-shot features from open_clip itself, one template at a time."""
    templates = [template] if isinstance(template, str) else template
    each = [unit(open_clip_features(backbone, t, NAMES).double().numpy()) for t in templates]
    return unit(sum(each) / len(each))


def largest_eigenvalue(matrix):
    vector = np.ones(len(matrix))
    for _ in range(1000):
        vector = unit(matrix @ vector)
    return vector @ matrix @ vector


def start_of(images, weights, texts):
    """Return prototypes, the blend and both step sizes, computed sample by sample."""
    sums, totals, moment, products = np.zeros_like(texts), np.zeros(4), 0, np.zeros(4)
    for f, target, weight in zip(images, TARGETS, weights, strict=True):
        sums[target] += weight * f
        totals[target] += weight
        moment = moment + weight * np.outer(f, f) / weights.sum()
        products += weight * (texts @ f) ** 2 / weights.sum()
    means = sums / totals[:, None]
    blend = 250 * np.mean([mean @ t for mean, t in zip(means, texts, strict=True)])
    steps = 4 / largest_eigenvalue(moment), 1 / (4 * products.max())
    return 24 / 4 * means, np.full(4, blend), steps


def descent(texts, weights, n_steps):
    """Return the losses, the prototypes and the blends of gradient descent with analytic gradients."""
    images = unit(X)
    prototypes, blends, (step, blend_step) = start_of(images, weights, texts)
    velocity, losses = np.zeros_like(prototypes), []
    for number in range(1, n_steps + 1):
        proba = softmax(images @ (prototypes + blends[:, None] * texts).T, axis=1)
        losses.append(np.average(-np.log(proba[np.arange(24), TARGETS]), weights=weights))
        residuals = weights[:, None] * (proba - np.eye(4)[TARGETS]) / weights.sum()
        velocity = 0.9 * velocity + residuals.T @ images
        prototypes = prototypes - step * velocity
        if number % 10 == 0:
            blends = blends - blend_step * (residuals * (images @ texts.T)).sum(axis=0)
    return losses, prototypes, blends


def close(found, expected, tolerance=1e-4):
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("template", [TEMPLATES[0], TEMPLATES])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("n_steps", [0, 1, 3, 25])
def test_training_equals_the_equations(tiny_backbone, template, weights, n_steps):
    clf = fitted(tiny_backbone, template, max_epochs=n_steps, weight=weights)
    texts = texts_of(tiny_backbone, template)
    losses, prototypes, blends = descent(texts, np.ones(24) if weights is None else weights, n_steps)
    np.testing.assert_allclose([record["cross_entropy"] for record in clf.history_], losses, rtol=1e-4)
    assert list(clf.learned_) == ["prototype", "blend"]
    close(clf.learned_["prototype"], prototypes)
    close(clf.learned_["blend"], blends)
    close(clf.decision_function(X), unit(X) @ (prototypes + blends[:, None] * texts).T)
    if n_steps == 25:
        start = descent(texts, np.ones(24), 0)
        assert np.abs(prototypes - start[1]).max() > 0.1 * np.abs(start[1]).max()
        # Different from zero by much more than the tolerance above.
        assert np.abs(blends - blends[0]).max() > 1e-3 * np.abs(blends).max()


def test_start_by_hand():
    learner = LPPlusPlus().learner(problem_of(AnyWidthBackbone(3), ["a", "b"]))
    learner.texts = torch.tensor([[0.6, 0.8, 0], [0, 0.6, 0.8]])
    samples = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 3]])
    weights = torch.tensor([3.0, 1, 1])
    learner._start(EmbeddedData.from_raw(samples[:, None], torch.tensor([0, 0, 1]), weights))
    # The mean features are (3/4, 1/4, 0) and (0, 0, 1), and there are 3/2 samples per class.
    torch.testing.assert_close(learner.prototype.detach(), torch.tensor([[1.125, 0.375, 0], [0, 0, 1.5]]))
    # The products of means and texts are 0.65 and 0.8.
    torch.testing.assert_close(learner.blend.detach(), torch.full((2,), 250 * (0.65 + 0.8) / 2))
    # The mean of f f^T is the diagonal matrix of 3/5, 1/5, 1/5; the means of <f, t>^2 are 0.344 and 0.2.
    groups = learner.parameter_groups()
    assert [group["rate_factor"] for group in groups] == pytest.approx([4 / 0.6, 1 / (4 * 0.344)])


def test_blends_have_a_gradient_in_every_tenth_step():
    data = EmbeddedData.from_raw(torch.from_numpy(X)[:, None], torch.from_numpy(TARGETS), torch.ones(24))
    learner = LPPlusPlus().learner(problem_of(AnyWidthBackbone(64), NAMES, data=data))
    batch = batch_of(torch.from_numpy(X).float(), TARGETS)
    for number in range(1, 31):
        learner.zero_grad()
        out, _ = learner(batch, learner.prompts(NAMES), 4)
        learner.backward(learner.losses(out, batch))
        assert learner.prototype.grad is not None
        assert (learner.blend.grad is None) == (number % 10 > 0)


def test_original_recipe():
    clf = fitted(method="lp++", max_epochs=None)
    settings = ("max_epochs", "learning_rate", "optimizer", "momentum", "weight_decay", "schedule")
    assert [clf.recipe_[name] for name in settings] == [300, 1.0, "sgd", 0.9, 0.0, "constant"]
    assert {record["learning_rate"] for record in clf.history_} == {1.0}
    assert clf.history_[-1]["accuracy"] == 1


def test_all_samples_form_one_batch():
    first, other = (fitted(random_state=seed) for seed in (0, 1))
    np.testing.assert_allclose(first.predict_proba(X), other.predict_proba(X), atol=1e-4)


def test_copies_of_samples_and_weights_are_equivalent():
    weighted = fitted(weight=1 + TARGETS)
    rows = np.repeat(np.arange(24), 1 + TARGETS)
    copied = clone(weighted).fit(X[rows], Y[rows])
    np.testing.assert_allclose(copied.decision_function(X), weighted.decision_function(X), atol=1e-3)
    plain = fitted()
    assert np.abs(plain.decision_function(X) - weighted.decision_function(X)).max() > 0.1


def test_learning_rate_multiplies_the_step_sizes():
    start, once, half = (fitted(max_epochs=n, learning_rate=r) for n, r in ((0, 1.0), (1, 1.0), (1, 0.5)))
    moved = [clf.learned_["prototype"] - start.learned_["prototype"] for clf in (once, half)]
    np.testing.assert_allclose(moved[1], moved[0] / 2, atol=1e-4)


class OtherScale(AnyWidthBackbone):
    logit_scale = 10.0


class TestConfidence:
    def test_logits_of_training_classes_do_not_depend_on_the_scale_of_clip(self):
        first, other = (fitted(kind(64)) for kind in (AnyWidthBackbone, OtherScale))
        assert first.logit_scale_ == other.logit_scale_ == 1
        np.testing.assert_allclose(first.decision_function(X), other.decision_function(X), atol=1e-5)
        np.testing.assert_allclose(
            first.decision_function(X), unit(X) @ first.text_features_.astype(float).T, atol=1e-12
        )

    @pytest.mark.parametrize("kind", [AnyWidthBackbone, OtherScale])
    @pytest.mark.parametrize("max_epochs", [0, 30])
    def test_confidence_in_new_classes_is_that_of_zero_shot(self, kind, max_epochs):
        new = ["owl", "cow", "fox"]
        clf = fitted(kind(64), max_epochs=max_epochs)
        expected = ZeroShotCLIPClassifier(kind(64)).fit(X, Y).with_classes(new).predict_proba(X)
        np.testing.assert_allclose(clf.with_classes(new).predict_proba(X), expected, atol=1e-4)

    def test_confidence_rises_with_the_steps_until_it_exceeds_the_accuracy(self):
        """On unseen images of the embedded CLIP model, training with the published settings overfits."""
        encode = CLIPImageEncoder("mini").transform
        sets = [
            make_shapes("colors", domain="street", subset=subset, n_per_class=8, random_state=0)
            for subset in ("train", "test")
        ]
        train, test = (encode(data.images) for data in sets)
        confidence, accuracy = [], []
        for max_epochs in (0, 50, 300):
            clf = PromptTunedCLIPClassifier("mini", method="lp++", max_epochs=max_epochs, random_state=0)
            clf.fit(train, sets[0].target)
            proba = clf.predict_proba(test)
            confidence.append(proba.max(axis=1).mean())
            accuracy.append((clf.predict(test) == sets[1].target).mean())
        assert confidence[0] + 0.03 < confidence[1] < confidence[2] - 0.05
        assert confidence[0] < accuracy[0] + 0.05
        assert confidence[2] > accuracy[2] + 0.1


class TestNewClasses:
    MIXED = ("cow", "dog", "owl")

    def test_vectors(self, tiny_backbone):
        """A new class has the mean vector, moved by the difference of its text feature from the mean."""
        clf = fitted(tiny_backbone)
        other = clf.with_classes(self.MIXED)
        np.testing.assert_array_equal(other.text_features_[1], clf.text_features_[2])
        texts, new = (
            zero_shot_features(tiny_backbone, names, TEMPLATES[0]).numpy() for names in (NAMES, self.MIXED)
        )
        expected = clf.text_features_.mean(axis=0) + tiny_backbone.logit_scale * (new - texts.mean(axis=0))
        np.testing.assert_allclose(other.text_features_[[0, 2]], expected[[0, 2]], atol=1e-3)

    @pytest.mark.parametrize(("n_per_class", "plain_share"), [(4, 0.87), (16, 0.0)])
    def test_logits_are_comparable_with_those_of_training_classes(self, n_per_class, plain_share):
        """The number of images shifts the logits of training classes, but not those of zero-shot CLIP."""
        images, labels = make_shapes("colors", n_per_class=n_per_class, random_state=0, return_X_y=True)
        embeddings, names = CLIPImageEncoder("mini").transform(images), sorted(set(labels))
        base = np.isin(labels, names[::2])
        clf = PromptTunedCLIPClassifier("mini", method="lp++", max_epochs=50, random_state=0)
        every = clf.fit(embeddings[base], labels[base]).with_classes(names)
        logits = every.decision_function(embeddings)
        assert 0.4 < (logits.argmax(axis=1) % 2).mean() < 0.6
        right = every.predict(embeddings) == labels
        assert right[base].mean() > 0.7 and right[~base].mean() > 0.7
        logits[:, 1::2] = clf.zero_shot().with_classes(names).decision_function(embeddings)[:, 1::2]
        assert (logits.argmax(axis=1) % 2).mean() == pytest.approx(plain_share, abs=0.05)


def test_images_and_embeddings_give_the_same_result():
    images, labels = make_shapes("shapes", n_per_class=2, random_state=0, return_X_y=True)
    clf = PromptTunedCLIPClassifier("mini", method="lp++", max_epochs=3, random_state=0)
    embeddings = CLIPImageEncoder("mini").transform(images)
    expected = clf.fit(embeddings, labels).predict_proba(embeddings)
    np.testing.assert_allclose(clf.fit(images, labels).predict_proba(images), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["kg", "moment-matching", "tcpt"])
def test_loss_terms_of_text_features_get_the_directions_of_the_vectors(tiny_backbone, name):
    clf = fitted(tiny_backbone, regularizer=[name], max_epochs=1)
    assert clf.history_[0][name] > 0
    if name == "kg":
        vectors = unit(fitted(tiny_backbone, max_epochs=0).text_features_.astype(float))
        cosines = (vectors * texts_of(tiny_backbone, TEMPLATES[0])).sum(axis=1)
        assert clf.history_[0]["kg"] == pytest.approx(8 * (1 - cosines.mean()), rel=1e-4)


def test_invalid_template_raises():
    with pytest.raises(ValueError, match="template"):
        LPPlusPlus(template="none").learner(problem_of(AnyWidthBackbone(), NAMES))
