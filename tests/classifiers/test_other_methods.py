"""Custom methods: text that depends on the image, adapted image features, a second set of logits."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from torch import nn
from toy_backbone import AnyWidthBackbone
from tuning_problem import problem_of

from clipcal import PromptTunedCLIPClassifier
from clipcal.methods import CoCoOp, CoOp, DePT, ProDA, ProGrad, TuningMethod
from clipcal.regularizers import (
    AnchorRegularizer,
    DynamicOutlierRegularizer,
    EntropyRegularizer,
    LogitRangeRegularizer,
    MarginMomentRegularizer,
    MarginRegularizer,
    MomentMatchingRegularizer,
    VisualOutlierRegularizer,
)
from clipcal.training import Forward, Learner, PromptEncoder, tokenize_prompts

WIDTH = 64
NAMES = ["dog", "river", "old hammer"]
NOUNS = ["denim", "violin", "twilight", "granite", "lantern"]
X = np.random.default_rng(0).normal(size=(24, WIDTH))
Y = np.array(NAMES * 8)


class ImageConditionedText(TuningMethod):
    """Method whose context is shifted by a linear map of the image features."""

    name = "conditioned"
    linear = False
    text_depends_on_image = True

    def learner(self, problem):
        return ConditionedLearner(problem)


class ConditionedLearner(Learner):
    def __init__(self, problem):
        super().__init__(problem.backbone.logit_scale)
        self.backbone = problem.backbone
        self.encoder = PromptEncoder(problem.backbone)
        width = problem.backbone.token_dim
        self.context = nn.Parameter(0.02 * torch.randn(4, width, generator=problem.generator))
        shift = 0.02 * torch.randn(width, problem.backbone.embedding_dim, generator=problem.generator)
        self.shift = nn.Parameter(shift)

    def prompts(self, names):
        return tokenize_prompts(self.backbone, [f"X X X X {name}." for name in names], n_context=4)

    def encode_texts(self, prompts, images):
        shift = 0 if images is None else (images @ self.shift.T)[:, None, None, :]
        return F.normalize(self.encoder(prompts, self.context + shift), dim=-1)


class AdaptedImages(TuningMethod):
    """Method with a residual layer on image features and zero-shot text features."""

    name = "adapted"
    linear = False

    def learner(self, problem):
        return AdaptedLearner(problem)


class AdaptedLearner(Learner):
    def __init__(self, problem):
        super().__init__(problem.backbone.logit_scale)
        self.backbone = problem.backbone
        self.layer = nn.Linear(problem.backbone.embedding_dim, problem.backbone.embedding_dim)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def prompts(self, names):
        return tokenize_prompts(self.backbone, [f"a photo of a {name}." for name in names], n_context=4)

    def encode_texts(self, prompts, images):
        with torch.no_grad():
            fixed = self.backbone.encode_text(self.backbone.embed_tokens(prompts.tokens), prompts.tokens)
        return F.normalize(fixed, dim=-1)

    def encode_images(self, batch):
        return F.normalize(batch.embeddings + self.layer(batch.embeddings), dim=-1)


class SecondLogits(TuningMethod):
    """CoOp with a linear head for the training classes, which is not used for other classes."""

    name = "second"
    linear = False

    def __init__(self, weight=0.7):
        self.weight = weight

    def learner(self, problem):
        return SecondLearner(problem, self.weight)


class SecondLearner(Learner):
    def __init__(self, problem, weight):
        super().__init__(problem.backbone.logit_scale)
        self.weight = weight
        self.base = CoOp(context_init=None, n_context=2).learner(problem)
        self.head = nn.Linear(problem.backbone.embedding_dim, len(problem.names))

    def prompts(self, names):
        return self.base.prompts(names)

    def encode_texts(self, prompts, images):
        return self.base.encode_texts(prompts, images)

    def parameter_groups(self):
        return [
            {"params": list(self.base.parameters())},
            {"params": list(self.head.parameters()), "rate_factor": 6.5},
        ]

    def logits(self, images, texts):
        return (1 - self.weight) * super().logits(images, texts) + self.weight * self.head(images)

    def forward(self, batch, prompts, n_classes):
        out, others = super().forward(batch, prompts, n_classes)
        return Forward(out.images, out.texts, out.logits, {"head": self.head(out.images)}), others

    def losses(self, out, batch):
        of_head = batch.mean(F.cross_entropy(out.extra["head"], batch.targets, reduction="none"))
        return {**super().losses(out, batch), "head": of_head}

    def for_names(self, names):
        return self.base


METHODS = [
    ImageConditionedText(),
    AdaptedImages(),
    SecondLogits(),
    CoCoOp(),
    ProGrad(),
    ProDA(8, n_context=4),
    DePT(),
]


def fitted(method, backbone=None, **params):
    params = {"max_epochs": 3, "batch_size": 8, "random_state": 0, "learning_rate": 0.02, **params}
    return PromptTunedCLIPClassifier(backbone or AnyWidthBackbone(), method=method, **params).fit(X, Y)


def texts_one_by_one(backbone, learner, image):
    """Encode each prompt for one image separately, with padding and without chunks."""
    context = learner.context + learner.shift @ image
    rows = []
    for name in NAMES:
        tokens = backbone.tokenize([f"X X X X {name}."])
        embeddings = backbone.embed_tokens(tokens)
        embeddings = torch.cat([embeddings[:, :1], context[None], embeddings[:, 5:]], dim=1)
        rows.append(F.normalize(backbone.encode_text(embeddings, tokens), dim=-1)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
class TestEachMethod:
    def test_training_reduces_the_loss_and_predictions_are_consistent(self, method):
        clf = fitted(method, max_epochs=20)
        assert clf.history_[-1]["cross_entropy"] < clf.history_[0]["cross_entropy"]
        proba = clf.predict_proba(X)
        np.testing.assert_allclose(proba.sum(axis=1), 1)
        np.testing.assert_array_equal(clf.predict(X), clf.classes_[proba.argmax(axis=1)])
        np.testing.assert_allclose(np.exp(clf.predict_log_proba(X)), proba, atol=1e-12)

    def test_prediction_does_not_depend_on_other_samples(self, method, tiny_backbone):
        clf = fitted(method, tiny_backbone)
        whole = clf.decision_function(X)
        np.testing.assert_allclose(clf.decision_function(X[::-1])[::-1], whole, atol=1e-7, rtol=1e-7)
        for i in (0, 7):
            np.testing.assert_allclose(clf.decision_function(X[[i]])[0], whole[i], atol=1e-7, rtol=1e-7)

    def test_with_classes_and_clone(self, method):
        clf = fitted(method)
        np.testing.assert_array_equal(clf.with_classes(NAMES).decision_function(X), clf.decision_function(X))
        other = clf.with_classes(["violin", "bee", "cloud", "dog"])
        assert other.predict_proba(X).shape == (len(X), 4)
        assert clone(clf).fit(X, Y).predict_proba(X) == pytest.approx(clf.predict_proba(X))

    def test_cross_validation_and_pickle(self, method):
        clf = fitted(method)
        scores = cross_val_score(clf, X, Y, cv=2, scoring="neg_log_loss")
        assert np.isfinite(scores).all()
        again = pickle.loads(pickle.dumps(clf))
        np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))

    def test_regularizers_are_added_to_the_loss(self, method):
        regularizers = [EntropyRegularizer(), MarginRegularizer(), LogitRangeRegularizer()]
        if not isinstance(method, AdaptedImages):
            regularizers += [
                AnchorRegularizer(),
                MomentMatchingRegularizer(),
                DynamicOutlierRegularizer(lexicon=NOUNS, batch_size=2),
            ]
        names = {"cross_entropy", *(regularizer.name for regularizer in regularizers)}
        clf = fitted(method, regularizer=regularizers)
        for record in clf.history_:
            assert record.keys() >= names
            parts = sum(
                record.get(name, 0)
                for name in {*names, "head", "zero_shot_kl", "covariance", "orthogonality"}
            )
            assert record["loss"] == pytest.approx(parts, abs=1e-5)


@pytest.mark.parametrize("shares_prefix", [True, False])
@pytest.mark.parametrize("chunk_size", ["auto", 2, 1])
def test_text_features_per_image_equal_those_of_single_prompts(
    tiny_backbone, monkeypatch, shares_prefix, chunk_size
):
    learner = ImageConditionedText().learner(problem_of(tiny_backbone, NAMES))
    learner.encoder.shares_prefix = shares_prefix
    learner.encoder.chunk_size = chunk_size
    with torch.no_grad():
        learner.context.mul_(20)
    images = F.normalize(torch.from_numpy(X[:3]).float(), dim=-1)
    texts = learner.encode_texts(learner.prompts(NAMES), images)
    assert texts.shape == (3, 3, 64)
    assert (texts[0] - texts[1]).abs().max() > 1e-3
    expected = torch.stack([texts_one_by_one(tiny_backbone, learner, image) for image in images])
    torch.testing.assert_close(texts, expected, atol=1e-5, rtol=0)
    target = torch.linspace(-1, 1, texts.numel()).reshape(texts.shape)
    ours = torch.autograd.grad((texts * target).sum(), [learner.context, learner.shift])
    theirs = torch.autograd.grad((expected * target).sum(), [learner.context, learner.shift])
    for gradient, reference in zip(ours, theirs, strict=True):
        assert reference.norm() > 1e-3
        assert (gradient - reference).norm() < 1e-4 * reference.norm()


@pytest.mark.parametrize(
    ("regularizer", "name"),
    [
        (AnchorRegularizer(), "kg"),
        (DynamicOutlierRegularizer(lexicon=NOUNS), "dor"),
        (MomentMatchingRegularizer(), "moment-matching"),
        (MarginMomentRegularizer(), "tcpt"),
    ],
)
def test_regularizers_of_text_features_that_are_not_trained_are_refused(regularizer, name):
    words = f"regularizer='{name}' has no effect on method='adapted'.*such as 'label-smoothing'"
    with pytest.raises(ValueError, match=words):
        fitted(AdaptedImages(), regularizer=regularizer)


def test_initial_adapter_gives_zero_shot_predictions():
    clf = fitted(AdaptedImages(), max_epochs=0)
    np.testing.assert_allclose(clf.predict_proba(X), clf.zero_shot().predict_proba(X), atol=1e-5)
    moved = fitted(AdaptedImages(), max_epochs=30)
    np.testing.assert_allclose(moved.text_features_, clf.text_features_, atol=1e-6)
    assert np.abs(moved.predict_proba(X) - clf.predict_proba(X)).max() > 1e-3


def test_predictions_with_adapted_images_equal_the_formula():
    clf = fitted(AdaptedImages())
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    weight, bias = (clf.learned_[f"layer.{name}"].astype(np.float64) for name in ("weight", "bias"))
    moved = unit + unit @ weight.T + bias
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    expected = clf.logit_scale_ * moved @ clf.text_features_.T.astype(np.float64)
    np.testing.assert_allclose(clf.decision_function(X), expected, atol=1e-9)


def test_predictions_with_two_logits_equal_the_formula():
    clf = fitted(SecondLogits(weight=0.6))
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    weight, bias = (clf.learned_[f"head.{name}"].astype(np.float64) for name in ("weight", "bias"))
    similarity = clf.logit_scale_ * unit @ clf.text_features_.T.astype(np.float64)
    expected = 0.4 * similarity + 0.6 * (unit @ weight.T + bias)
    np.testing.assert_allclose(clf.decision_function(X), expected, atol=1e-9)
    other = clf.with_classes(["dog", "bee"])
    similarity = clf.logit_scale_ * unit @ other.text_features_.T.astype(np.float64)
    np.testing.assert_allclose(
        other.decision_function(X), similarity[:, 0] * -1 + similarity[:, 1], atol=1e-9
    )
    assert set(clf.learned_) == {"base.context", "head.weight", "head.bias"}


def test_rate_factor_multiplies_the_learning_rate_of_a_group():
    """The step of SGD without momentum is proportional to the learning rate of a group."""
    settings = {"max_epochs": 1, "batch_size": 24, "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0}
    start = fitted(SecondLogits(), max_epochs=0).learned_
    moved = fitted(SecondLogits(), learning_rate=1e-4, **settings).learned_
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SecondLearner, "parameter_groups", Learner.parameter_groups)
        common = fitted(SecondLogits(), learning_rate=1e-4, **settings).learned_
    for name, factor in {"head.weight": 6.5, "head.bias": 6.5, "base.context": 1.0}.items():
        step, expected = moved[name] - start[name], factor * (common[name] - start[name])
        assert np.linalg.norm(expected) > 0
        assert np.linalg.norm(step - expected) < 1e-3 * np.linalg.norm(expected)


def test_initial_values_of_modules_depend_on_random_state_only():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = fitted(SecondLogits(), max_epochs=0).learned_["head.weight"]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(fitted(SecondLogits(), max_epochs=0).learned_["head.weight"], first)
    other = fitted(SecondLogits(), max_epochs=0, random_state=1).learned_["head.weight"]
    assert np.abs(other - first).max() > 1e-3


class NoisyLearner(AdaptedLearner):
    """Dropout and batch statistics, which are active in the steps of training only."""

    modes: ClassVar[list[bool]] = []

    def __init__(self, problem):
        super().__init__(problem)
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(problem.backbone.embedding_dim)

    def encode_images(self, batch):
        self.modes.append(self.training)
        moved = self.dropout(self.norm(batch.embeddings + self.layer(batch.embeddings)))
        return F.normalize(batch.embeddings + moved, dim=-1)


class LearnedScale(Learner):
    def __init__(self, problem):
        super().__init__(problem.backbone.logit_scale)
        self.base = CoOp().learner(problem)
        self.logit_scale = nn.Parameter(torch.tensor(10.0))

    def prompts(self, names):
        return self.base.prompts(names)

    def encode_texts(self, prompts, images):
        return self.base.encode_texts(prompts, images)


def method_of(make, **flags):
    """Return a method whose learner is made by a function."""

    def learner(self, problem):
        return make(problem)

    return type("Mine", (TuningMethod,), {"name": "mine", "learner": learner, **flags})()


def test_modules_are_in_training_mode_in_the_steps_only():
    NoisyLearner.modes = []
    clf = fitted(method_of(NoisyLearner, linear=False), max_epochs=2)
    whole = clf.predict_proba(X)
    # One check, two epochs of three steps, and one prediction.
    assert NoisyLearner.modes == [False, *[True] * 6, False]
    np.testing.assert_array_equal(clf.predict_proba(X), whole)
    np.testing.assert_allclose(clf.predict_proba(X[:1]), whole[:1], atol=1e-12)


def test_a_learned_temperature_is_used_in_predictions():
    clf = fitted(method_of(LearnedScale))
    assert clf.logit_scale_ == pytest.approx(float(clf.learned_["logit_scale"]))
    assert 1 < clf.logit_scale_ < 11
    assert clf.zero_shot().logit_scale_ == 100.0


def test_start_values_do_not_depend_on_other_threads():
    alone = fitted(SecondLogits(), max_epochs=0).learned_["head.weight"]
    before = torch.random.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: fitted(SecondLogits(), max_epochs=0).learned_, range(12)))
    assert all(np.array_equal(learned["head.weight"], alone) for learned in together)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_modules_do_not_repeat_the_numbers_of_the_problems_generator():
    class Both(AdaptedLearner):
        def __init__(self, problem):
            super().__init__(problem)
            torch.random.default_generator.manual_seed(torch.initial_seed())  # as before the base class
            self.register_buffer("of_torch", torch.randn(4))
            self.register_buffer("own", torch.randn(4, generator=problem.generator))
            self.register_buffer("count", torch.tensor(2**24 + 1))

    learned = fitted(method_of(Both, linear=False), max_epochs=0).learned_
    assert np.abs(learned["own"] - learned["of_torch"]).min() > 1e-3
    assert learned["count"] == 2**24 + 1


class Uneven(AdaptedLearner):
    """Text features that depend on the row, as they may by rounding."""

    def encode_texts(self, prompts, images):
        texts = super().encode_texts(prompts, images)
        return texts + 1e-3 * torch.arange(len(texts))[:, None]


@pytest.mark.parametrize(
    "method",
    [METHODS[0], METHODS[1], METHODS[3], method_of(Uneven, linear=False)],
    ids=lambda method: method.name,
)
def test_classes_of_one_name_get_equal_probabilities(method):
    names = {"a": "dog", "b": "river", "c": "dog"}
    params = {"class_names": names, "allow_duplicate_names": True, "random_state": 0, "max_epochs": 2}
    clf = PromptTunedCLIPClassifier(AnyWidthBackbone(), method=method, **params)
    proba = clf.fit(X, np.array(["a", "b", "c"] * 8)).predict_proba(X)
    np.testing.assert_array_equal(proba[:, 0], proba[:, 2])


class Unknown(AdaptedLearner):
    loss_factors: ClassVar[dict[str, float]] = {"head": 0.7}


class Flat(AdaptedLearner):
    def logits(self, images, texts):
        return (images @ texts.T).flatten()


@pytest.mark.parametrize(
    ("method", "error", "words"),
    [
        (method_of(AdaptedLearner), TypeError, "AdaptedLearner overrides encode_images.*set linear = False"),
        (method_of(lambda problem: SecondLearner(problem, 0.5)), TypeError, "overrides logits"),
        (
            method_of(ConditionedLearner, text_depends_on_image=True),
            TypeError,
            "text_depends_on_image is True",
        ),
        (
            method_of(ConditionedLearner, linear=False),
            ValueError,
            r"text features of shape \(2, 3, 64\) for 2 images and 3 classes; expected \(3,\)",
        ),
        (
            method_of(Unknown, linear=False),
            ValueError,
            "factor for the loss 'head', which does not exist; its losses are 'cross_entropy'",
        ),
        (method_of(Flat, linear=False), ValueError, r"logits of shape \(6,\).*expected \(2, 3\)"),
        (
            method_of(lambda problem: None),
            TypeError,
            r"Mine\.learner must return a clipcal\.training\.Learner",
        ),
        (
            method_of(lambda problem: Learner(1.0)),
            NotImplementedError,
            r"does not implement prompts\(names\)",
        ),
        (method_of(AdaptedLearner, name=None), TypeError, "Mine has no attribute name"),
        (method_of(AdaptedLearner, linear=False, needs_pixels=True), ValueError, "needs images"),
    ],
)
def test_contradictions_are_refused_before_training(method, error, words):
    with pytest.raises(error, match=words):
        fitted(method)


class PromptedImages(TuningMethod):
    """Learned tokens in the image tower; the text stays zero-shot."""

    name = "prompted"
    linear = False
    needs_pixels = True

    def learner(self, problem):
        return PromptedLearner(problem)


class PromptedLearner(AdaptedLearner):
    def __init__(self, problem):
        super().__init__(problem)
        del self.layer
        width = problem.backbone.image_tower.width
        self.tokens = nn.Parameter(0.02 * torch.randn(2, width, generator=problem.generator))

    def encode_images(self, batch):
        return F.normalize(self.backbone.encode_pixels(batch.pixels, {0: self.tokens}), dim=-1)


class TestPromptedImages:
    IMAGES = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    LABELS = np.array(NAMES * 4)

    def fitted(self, backbone, **params):
        params = {"max_epochs": 4, "batch_size": 4, "random_state": 0, "learning_rate": 0.05, **params}
        clf = PromptTunedCLIPClassifier(backbone, method=PromptedImages(), **params)
        return clf.fit(self.IMAGES, self.LABELS)

    def test_tokens_are_learned_and_used_in_predictions(self, tiny_backbone):
        start, clf = self.fitted(tiny_backbone, max_epochs=0), self.fitted(tiny_backbone)
        assert np.abs(clf.learned_["tokens"] - start.learned_["tokens"]).max() > 1e-4
        pixels = torch.stack([tiny_backbone.preprocess(Image.fromarray(image)) for image in self.IMAGES])
        tokens = torch.from_numpy(clf.learned_["tokens"])
        with torch.no_grad():
            features = F.normalize(tiny_backbone.encode_pixels(pixels, {0: tokens}), dim=-1).numpy()
        expected = clf.logit_scale_ * features @ clf.text_features_.T
        np.testing.assert_allclose(clf.decision_function(self.IMAGES), expected, atol=1e-4)
        assert clf.with_classes(["dog", "bee"]).predict(self.IMAGES[:3]).shape == (3,)

    def test_visual_outliers_are_encoded_with_the_tokens(self, tiny_backbone):
        others = np.random.default_rng(1).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
        dor = VisualOutlierRegularizer(3.0, images=others, n_outliers=100)
        start = self.fitted(tiny_backbone, max_epochs=0)
        clf = self.fitted(tiny_backbone, regularizer=dor, max_epochs=1, batch_size=12)
        pixels = torch.stack([tiny_backbone.preprocess(Image.fromarray(image)) for image in others])
        tokens = torch.from_numpy(start.learned_["tokens"])
        with torch.no_grad():
            tuned = tiny_backbone.encode_pixels(pixels, {0: tokens})
            cosines = F.cosine_similarity(tuned, tiny_backbone.encode_images(pixels), dim=1)
        assert clf.history_[0]["dor-visual"] == pytest.approx(3 * (1 - float(cosines.mean())), rel=1e-4)
        with pytest.raises(ValueError, match="needs images, but images contains embeddings"):
            self.fitted(tiny_backbone, regularizer=VisualOutlierRegularizer(images=X))

    def test_random_crops(self, tiny_backbone):
        found = [self.fitted(tiny_backbone, n_views=n_views).learned_ for n_views in (1, 3, "fresh", 3)]
        center, three, fresh, again = (learned["tokens"] for learned in found)
        for one, other in [(center, three), (center, fresh), (three, fresh)]:
            assert np.abs(one - other).max() > 1e-5
        np.testing.assert_array_equal(three, again)

    # Fresh crops are new in each epoch, besides those of two images in the check before training.
    @pytest.mark.parametrize(("n_views", "n_different"), [(1, 0), (2, 2 * 12), ("fresh", 20 * 12 + 2)])
    def test_number_of_different_crops(self, tiny_backbone, n_views, n_different, monkeypatch):
        drawn = []
        augment = type(tiny_backbone).augment
        monkeypatch.setattr(
            type(tiny_backbone),
            "augment",
            lambda self, image, generator: drawn.append(augment(self, image, generator)) or drawn[-1],
        )
        self.fitted(tiny_backbone, n_views=n_views, max_epochs=20, batch_size=12, learning_rate=1e-4)
        assert len({view.numpy().tobytes() for view in drawn}) == n_different

    def test_embeddings_are_refused(self, tiny_backbone):
        with pytest.raises(ValueError, match="needs images, but X contains embeddings"):
            self.fitted(tiny_backbone, max_epochs=0).predict(X)
