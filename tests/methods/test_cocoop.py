"""CoCoOp, compared with prompts encoded one image and one class at a time."""

import numpy as np
import pytest
import torch
from plain_prompts import plain_features, plain_rows
from torch.nn.functional import normalize
from toy_backbone import AnyWidthBackbone
from training_steps import assert_steps_agree, cross_entropy_of, weighted_data, weighted_mean
from tuning_problem import batch_of, problem_of

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier
from clipcal.exceptions import ClassNameError
from clipcal.methods import METHODS, CoCoOp, zero_shot_features
from clipcal.regularizers import AnchorRegularizer, DynamicOutlierRegularizer
from clipcal.training import seeded, torch_generator

NAMES = ["dog", "golden retriever puppy", "crane (bird)"]
NOUNS = ["denim", "violin", "old lantern", "granite"]


def learner_for(problem, **params):
    # The meta-net draws its initial weights from torch's global generator.
    with seeded(problem.generator):
        return CoCoOp(**params).learner(problem)


def learner_of(backbone, *, data=None, **params):
    return learner_for(problem_of(backbone, NAMES, method="cocoop", data=data), **params)


def images_of(n, width=64, seed=5):
    return normalize(torch.randn((n, width), generator=torch_generator(seed)), dim=1)


def shift_of(parameters, image):
    hidden = parameters["meta_net.0.weight"] @ image + parameters["meta_net.0.bias"]
    return parameters["meta_net.2.weight"] @ hidden.clamp(min=0) + parameters["meta_net.2.bias"]


def texts_of(backbone, parameters, image, names):
    """Encode each name on its own, with the context shifted for one image."""
    context = parameters["context"] + shift_of(parameters, image)
    return torch.stack(
        [plain_features(backbone, plain_rows(backbone, context, name, "end")) for name in names]
    )


@pytest.mark.parametrize("with_dor", [False, True])
@pytest.mark.parametrize("params", [{}, {"context_init": None, "n_context": 3, "text_chunk_size": 2}])
def test_three_steps_equal_those_of_single_prompts(tiny_backbone, with_dor, params):
    backbone = tiny_backbone
    data = weighted_data(len(NAMES), 64, n_samples=4)
    problem = problem_of(backbone, NAMES, method="cocoop", regularizers=("dor",), data=data)
    learner = learner_for(problem, **params)
    dor = DynamicOutlierRegularizer(lexicon=NOUNS, batch_size=2)
    term = dor.prepare(problem, learner) if with_dor else None

    def reference(parameters, batch, nouns):
        texts = [texts_of(backbone, parameters, image, [*NAMES, *nouns]) for image in batch.embeddings]
        logits = backbone.logit_scale * torch.stack(
            [own[: len(NAMES)] @ image for own, image in zip(texts, batch.embeddings, strict=True)]
        )
        losses = {"cross_entropy": cross_entropy_of(batch, logits)}
        if nouns:
            assert len(nouns) == 2
            words = backbone.embed_tokens(backbone.tokenize(["a photo of a"]))[0, 1:5]
            targets = [plain_features(backbone, plain_rows(backbone, words, noun, "end")) for noun in nouns]
            cosines = [
                sum(w @ w0 for w, w0 in zip(own[len(NAMES) :], targets, strict=True)) / 2 for own in texts
            ]
            losses["dor"] = 2.0 * (1 - weighted_mean(batch, cosines))
        return logits, losses, None

    assert_steps_agree(learner, NAMES, data, reference, term=term)


def test_shift_is_the_same_for_all_context_vectors(tiny_backbone):
    learner = learner_of(tiny_backbone)
    seen = []
    learner.encoder = lambda prompts, context: seen.append(context) or torch.zeros(len(context), 3, 64)
    images = images_of(2)
    learner.encode_texts(None, images)
    shifts = seen[0] - learner.context
    assert seen[0].shape == (2, 1, 4, 64)
    torch.testing.assert_close(shifts, shifts[:, :, :1].expand_as(shifts), atol=1e-6, rtol=0)
    expected = torch.stack([shift_of(dict(learner.named_parameters()), image) for image in images])
    torch.testing.assert_close(shifts[:, 0, 0], expected, atol=1e-6, rtol=0)
    assert (shifts[0] - shifts[1]).abs().max() > 1e-3


def test_words_without_a_shift_give_zero_shot_features(tiny_backbone):
    learner = learner_of(tiny_backbone)
    images = images_of(2)
    prompts = learner.prompts(NAMES)
    expected = zero_shot_features(tiny_backbone, NAMES, "a photo of a {}.")
    assert (learner.encode_texts(prompts, images) - expected).abs().max() > 1e-2
    for parameter in learner.meta_net[2].parameters():
        torch.nn.init.zeros_(parameter)
    texts = learner.encode_texts(prompts, images)
    torch.testing.assert_close(texts, expected.expand(2, -1, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(learner.encode_texts(prompts, None), expected, atol=1e-5, rtol=0)


def test_template_words_follow_the_name(tiny_backbone):
    learner = learner_of(tiny_backbone, template="{}, a type of pet.")
    for parameter in learner.meta_net[2].parameters():
        torch.nn.init.zeros_(parameter)
    expected = zero_shot_features(tiny_backbone, NAMES, "a photo of a {}, a type of pet.")
    texts = learner.encode_texts(learner.prompts(NAMES), images_of(1))[0]
    torch.testing.assert_close(texts, expected, atol=1e-5, rtol=0)


def test_number_of_parameters_for_vit_b_16():
    class Wide(AnyWidthBackbone):
        token_dim = 512

        def embed_tokens(self, tokens):
            return torch.zeros((*tokens.shape, 512))

    learner = learner_of(Wide(512))
    shapes = {name: tuple(value.shape) for name, value in learner.named_parameters()}
    assert shapes == {
        "context": (4, 512),
        "meta_net.0.weight": (32, 512),
        "meta_net.0.bias": (32,),
        "meta_net.2.weight": (512, 32),
        "meta_net.2.bias": (512,),
    }
    assert sum(value.numel() for value in learner.parameters()) == 35_360
    # Uniform on +-1 / sqrt(32).
    bias = learner.meta_net[2].bias
    assert bias.abs().max() <= 32**-0.5
    assert bias.std().item() == pytest.approx(32**-0.5 / 3**0.5, rel=0.1)


def test_hidden_layer_has_at_least_one_unit():
    assert learner_of(AnyWidthBackbone(3)).meta_net[0].out_features == 1


class TestMeanImage:
    def test_is_the_weighted_mean_of_unit_features(self, tiny_backbone):
        data = weighted_data(3, 64, n_samples=150)
        learner = learner_of(tiny_backbone, data=data)
        mean = sum(weight * row[0] for weight, row in zip(data.weights, data.embeddings, strict=True))
        torch.testing.assert_close(learner.mean_image, mean / mean.norm(), atol=1e-6, rtol=0)

    def test_text_features_without_images_are_those_for_the_mean(self, tiny_backbone):
        learner = learner_of(tiny_backbone, data=weighted_data(3, 64))
        prompts = learner.prompts(NAMES)
        texts = learner.encode_texts(prompts, None)
        torch.testing.assert_close(texts, learner.encode_texts(prompts, learner.mean_image[None])[0])
        torch.testing.assert_close(
            texts,
            texts_of(tiny_backbone, dict(learner.named_parameters()), learner.mean_image, NAMES),
            atol=1e-5,
            rtol=0,
        )

    def test_is_kept_with_the_learned_parameters(self):
        X = np.random.default_rng(0).normal(size=(12, 16))
        y = np.array(NAMES * 4)
        clf = PromptTunedCLIPClassifier(AnyWidthBackbone(), method="cocoop", random_state=0, max_epochs=1)
        clf.fit(X, y, sample_weight=np.arange(1, 13))
        mean = np.arange(1, 13) @ (X / np.linalg.norm(X, axis=1, keepdims=True))
        np.testing.assert_allclose(clf.learned_["mean_image"], mean / np.linalg.norm(mean), atol=1e-6)
        np.testing.assert_array_equal(clf.with_classes(NAMES).text_features_, clf.text_features_)
        np.testing.assert_allclose(np.linalg.norm(clf.text_features_, axis=1), 1, atol=1e-5)


def test_images_and_fresh_crops():
    images = np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    params = {"method": "cocoop", "max_epochs": 1, "batch_size": 4, "random_state": 0}
    center, fresh = (
        PromptTunedCLIPClassifier(AnyWidthBackbone(), n_views=n_views, **params).fit(images, NAMES * 4)
        for n_views in (1, "fresh")
    )
    rows = CLIPImageEncoder(AnyWidthBackbone()).transform(images)
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).sum(axis=0)
    np.testing.assert_allclose(center.learned_["mean_image"], mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(center.predict_proba(images), center.predict_proba(rows), atol=1e-6)
    assert np.linalg.norm(fresh.learned_["mean_image"]) == pytest.approx(1, abs=1e-5)
    assert np.abs(fresh.learned_["mean_image"] - center.learned_["mean_image"]).max() > 1e-4


def test_predictions_equal_the_formula(tiny_backbone):
    X = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    params = {"max_epochs": 2, "learning_rate": 0.02, "random_state": 0}
    clf = PromptTunedCLIPClassifier(tiny_backbone, method="cocoop", **params).fit(X, NAMES * 2)
    learned = {name: torch.from_numpy(values) for name, values in clf.learned_.items()}
    for names, fitted in ((sorted(NAMES), clf), (["bee", "violin"], clf.with_classes(["violin", "bee"]))):
        with torch.no_grad():
            logits = torch.stack(
                [
                    clf.logit_scale_ * texts_of(tiny_backbone, learned, image, names) @ image
                    for image in normalize(torch.from_numpy(X), dim=1)
                ]
            )
        expected = logits.softmax(dim=1).numpy()
        np.testing.assert_allclose(fitted.predict_proba(X), expected, atol=1e-5)


def test_seed_determines_context_and_meta_net():
    X = np.random.default_rng(0).normal(size=(6, 16))

    def learned(seed):
        method = CoCoOp(context_init=None)
        clf = PromptTunedCLIPClassifier(AnyWidthBackbone(), method=method, random_state=seed, max_epochs=1)
        return clf.fit(X, NAMES * 2).learned_

    first, again, other = learned(0), learned(0), learned(1)
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        if name != "mean_image":
            assert np.abs(values - other[name]).max() > 1e-3


@pytest.mark.parametrize(
    "regularizer", [AnchorRegularizer(3.0), DynamicOutlierRegularizer(3.0, lexicon=NOUNS)]
)
def test_regularizers_weight_images_as_the_cross_entropy_does(tiny_backbone, regularizer):
    """A sample of weight 2 counts as two samples."""
    problem = problem_of(tiny_backbone, NAMES, method="cocoop")
    learner = learner_for(problem)
    term = regularizer.prepare(problem, learner)
    drawn = term.draw(torch_generator(0))
    prompts = learner.prompts(NAMES)
    prompts = prompts if drawn is None else prompts.joined(drawn)
    images = images_of(2)

    def value(rows, weights):
        batch = batch_of(images[rows], weights=weights)
        out, others = learner(batch, prompts, len(NAMES))
        return term(out, batch, others)

    weighted, repeated = value([0, 1], [1.0, 2.0]), value([0, 1, 1], [1.0, 1.0, 1.0])
    torch.testing.assert_close(weighted, repeated, atol=1e-5, rtol=0)
    assert abs(weighted - value([0, 1], [1.0, 1.0])) > 1e-4


def test_work_is_proportional_to_the_batch_size(tiny_backbone):
    learner = learner_of(tiny_backbone)
    prompts = learner.prompts(NAMES)
    assert learner.work(prompts, 6) == 6 * learner.work(prompts, 1)


def test_original_recipe_and_flags():
    recipe = METHODS["cocoop"].recipes["original"]
    assert (recipe.max_epochs, recipe.batch_size, recipe.learning_rate) == (10, 1, 0.002)
    assert CoCoOp.text_depends_on_image and not CoCoOp.linear and not CoCoOp.needs_pixels


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"n_context": 0}, ValueError, "'n_context' parameter of CoCoOp.*Got 0"),
        ({"n_context": 16}, ValueError, "'a photo of a' has 4 tokens, but n_context=16"),
        ({"context_init": None, "n_context": 74}, ClassNameError, "74 tokens leaves"),
        ({"template": "a pet"}, ClassNameError, "exactly one"),
    ],
)
def test_invalid_parameters_raise(params, error, words):
    with pytest.raises(error, match=words):
        learner_of(AnyWidthBackbone(), **params).prompts(NAMES)
