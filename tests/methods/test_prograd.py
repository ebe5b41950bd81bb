"""ProGrad, compared with two gradients of prompts encoded one at a time."""

import numpy as np
import pytest
import torch
from plain_prompts import plain_features, plain_rows
from toy_backbone import AnyWidthBackbone
from training_steps import assert_steps_agree, cross_entropy_of, weighted_data, weighted_mean
from tuning_problem import batch_of, problem_of
from tuning_problem import encode as features_of

from clipcal import CoOp, PromptTunedCLIPClassifier
from clipcal.classifiers._components import find_method
from clipcal.exceptions import ClassNameError
from clipcal.methods import METHODS, ProGrad, zero_shot_features
from clipcal.regularizers import DynamicOutlierRegularizer
from clipcal.training import EmbeddedData, Forward, torch_generator

NAMES = ["dog", "golden retriever puppy", "crane (bird)"]
NOUNS = ["denim", "violin", "old lantern", "granite"]


def data_of(n_samples=12, seed=3):
    return weighted_data(len(NAMES), 64, n_samples=n_samples, seed=seed)


def learner_of(backbone, **params):
    return ProGrad(**params).learner(problem_of(backbone, NAMES, method="prograd", data=data_of()))


def plain_texts(backbone, context, names):
    return torch.stack(
        [plain_features(backbone, plain_rows(backbone, context, name, "end")) for name in names]
    )


def logits_of(backbone, batch, texts):
    return torch.stack(
        [torch.stack([backbone.logit_scale * (image @ text) for text in texts]) for image in batch.embeddings]
    )


def divergence_of(batch, zero_shot, tuned):
    each = []
    for first, second in zip(zero_shot.softmax(dim=1), tuned.softmax(dim=1), strict=True):
        each.append(sum(p * (p / q).log() for p, q in zip(first, second, strict=True)))
    return weighted_mean(batch, each)


@pytest.mark.parametrize("with_dor", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        {"n_context": 6},
        {"n_context": 6, "projection_weight": 0.4, "text_chunk_size": 2},
        {"context_init": None, "n_context": 3, "zero_shot_template": "a photo of a {}, a type of pet."},
    ],
)
def test_three_steps_equal_those_of_single_prompts(tiny_backbone, with_dor, params):
    backbone, data = tiny_backbone, data_of()
    problem = problem_of(backbone, NAMES, method="prograd", regularizers=("dor",), data=data)
    learner = ProGrad(**params).learner(problem)
    dor = DynamicOutlierRegularizer(lexicon=NOUNS, batch_size=2)
    term = dor.prepare(problem, learner) if with_dor else None
    words = backbone.embed_tokens(backbone.tokenize(["a photo of a"]))[0, 1:5]
    after = ", a type of pet" if "zero_shot_template" in params else ""
    zero_shot = plain_texts(backbone, words, [name + after for name in NAMES])
    weight, removed = params.get("projection_weight", 1.0), []

    def reference(parameters, batch, nouns):
        texts = plain_texts(backbone, parameters["context"], [*NAMES, *nouns])
        logits = logits_of(backbone, batch, texts[: len(NAMES)])
        losses = {"cross_entropy": cross_entropy_of(batch, logits)}
        if nouns:
            targets = plain_texts(backbone, words, nouns)
            cosines = [w @ w0 for w, w0 in zip(texts[len(NAMES) :], targets, strict=True)]
            losses["dor"] = 2.0 * (1 - sum(cosines) / 2)
        (a,) = torch.autograd.grad(sum(losses.values()), parameters["context"], retain_graph=True)
        losses["zero_shot_kl"] = divergence_of(batch, logits_of(backbone, batch, zero_shot), logits)
        (b,) = torch.autograd.grad(losses["zero_shot_kl"], parameters["context"])
        if (a * b).sum() < 0:
            removed.append(((a * b).sum() / a.norm() / b.norm()).item())
            a = a - weight * (a * b).sum() / b.norm() ** 2 * b
        return logits, losses, {"context": a}

    assert_steps_agree(learner, NAMES, data, reference, term=term, learning_rate=0.002)
    assert min(removed) < -0.05


def gradients_of(learner, losses):
    learner.context.grad = None
    learner.backward({name: (weights * learner.context).sum() for name, weights in losses.items()})
    return learner.context.grad


class TestProjection:
    A = torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    B = torch.tensor([[-2.0, 0.0], [0.0, 0.0]])

    @pytest.fixture
    def learner(self):
        learner = ProGrad().learner(problem_of(AnyWidthBackbone(), NAMES))
        learner.context = torch.nn.Parameter(torch.ones(2, 2))
        return learner

    def test_removes_the_conflicting_part(self, learner):
        gradient = gradients_of(learner, {"cross_entropy": self.A, "zero_shot_kl": self.B})
        torch.testing.assert_close(gradient, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
        learner.projection_weight = 0.5
        gradient = gradients_of(learner, {"cross_entropy": self.A, "zero_shot_kl": self.B})
        torch.testing.assert_close(gradient, torch.tensor([[1.5, 1.0], [0.0, 0.0]]))

    def test_uses_the_inner_product_of_all_vectors(self, learner):
        """The first vectors conflict and the second agree; in total, the gradients agree."""
        other = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
        gradient = gradients_of(learner, {"cross_entropy": self.A + other, "zero_shot_kl": self.B + other})
        torch.testing.assert_close(gradient, self.A + other)

    def test_keeps_a_gradient_that_agrees_or_has_no_direction_to_follow(self, learner):
        for general in (-self.B, torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [5.0, 5.0]])):
            gradient = gradients_of(learner, {"cross_entropy": self.A, "zero_shot_kl": general})
            torch.testing.assert_close(gradient, self.A)

    def test_loss_terms_are_added_before_the_projection(self, learner):
        losses = {"cross_entropy": 2 * self.A, "zero_shot_kl": self.B, "dor": -self.A}
        torch.testing.assert_close(gradients_of(learner, losses), torch.tensor([[0.0, 1.0], [0.0, 0.0]]))

    @pytest.mark.parametrize("seed", range(5))
    def test_is_orthogonal_to_the_general_gradient_in_a_conflict(self, learner, seed):
        a, b = torch.randn(2, 2, 2, generator=torch_generator(seed))
        b = -b if (a * b).sum() > 0 else b
        gradient = gradients_of(learner, {"cross_entropy": a, "zero_shot_kl": b})
        assert (a * b).sum() < -1e-2
        assert abs((gradient * b).sum()) < 1e-5


def test_divergence_has_the_hand_computed_value(tiny_backbone):
    learner = learner_of(tiny_backbone)
    learner.logit_scale = 1.0
    learner.zero_shot = torch.log(torch.tensor([[0.5], [0.5]]))
    images = torch.ones(2, 1)
    logits = torch.log(torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    batch = batch_of(images, targets=[0, 1], weights=[1.0, 3.0])
    losses = learner.losses(Forward(images, torch.zeros(2, 1), logits), batch)
    # 0.5 log 2 + 0.5 log (2/3) for the first image and 0 for the second, with weights 1 and 3.
    assert losses["zero_shot_kl"].item() == pytest.approx(0.5 * np.log(4 / 3) / 4)
    assert losses["cross_entropy"].item() == pytest.approx((np.log(4) + 3 * np.log(2)) / 4)


class TestInitialContext:
    def test_words_fill_the_last_vectors_and_the_others_are_zero(self, tiny_backbone):
        context = learner_of(tiny_backbone).context
        assert context.shape == (16, 64)
        words = CoOp().learner(problem_of(tiny_backbone, NAMES)).context
        torch.testing.assert_close(context[12:], words)
        assert (context[:12] == 0).all()

    def test_all_tokens_of_a_template_with_a_comma_are_learned(self, tiny_backbone):
        learner = learner_of(tiny_backbone, context_init="a type of pet, a photo of a", n_context=12)
        assert [bool(vector.any()) for vector in learner.context] == [False] * 3 + [True] * 9
        prompts = learner.prompts(["dog"])
        assert int(prompts.lengths[0]) == 1 + 12 + 2 + 1
        assert prompts.n_shared == 13

    def test_words_only_give_zero_shot_predictions_and_no_divergence(self, tiny_backbone):
        learner = learner_of(tiny_backbone, n_context=4)
        prompts = learner.prompts(NAMES)
        expected = zero_shot_features(tiny_backbone, NAMES, "a photo of a {}.")
        torch.testing.assert_close(features_of(learner, prompts), expected, atol=1e-5, rtol=0)
        batch = next(data_of().in_order(12))
        out, _ = learner(batch, prompts, len(NAMES))
        assert abs(learner.losses(out, batch)["zero_shot_kl"].item()) < 1e-5

    def test_random_vectors_are_those_of_coop(self, tiny_backbone):
        learner = learner_of(tiny_backbone, context_init=None)
        same = CoOp(context_init=None).learner(problem_of(tiny_backbone, NAMES))
        torch.testing.assert_close(learner.context, same.context)

    def test_number_of_parameters_for_vit_b_16(self):
        class Wide(AnyWidthBackbone):
            token_dim = 512

            def embed_tokens(self, tokens):
                return torch.zeros((*tokens.shape, 512))

        learner = ProGrad().learner(problem_of(Wide(512), NAMES))
        assert sum(value.numel() for value in learner.parameters()) == 8_192
        assert list(learner.arrays()) == ["context"]


def test_without_projection_it_is_coop():
    X = np.random.default_rng(0).normal(size=(24, 16))
    y = np.array(NAMES * 8)
    params = {"max_epochs": 4, "batch_size": 8, "random_state": 0, "learning_rate": 0.02}

    def context(method):
        clf = PromptTunedCLIPClassifier(AnyWidthBackbone(), method=method, **params).fit(X, y)
        return clf.learned_["context"]

    coop = context(CoOp())
    np.testing.assert_allclose(context(ProGrad(n_context=4, projection_weight=0.0)), coop, atol=1e-6)
    assert np.abs(context(ProGrad(n_context=4)) - coop).max() > 1e-3


def test_projection_reduces_the_divergence_from_zero_shot_predictions():
    X = np.random.default_rng(0).normal(size=(24, 16))
    y = np.array(NAMES * 8)
    found = []
    for weight in (0.0, 1.0):
        method = ProGrad(n_context=4, projection_weight=weight)
        clf = PromptTunedCLIPClassifier(
            AnyWidthBackbone(), method=method, max_epochs=30, random_state=0, learning_rate=0.01
        ).fit(X, y)
        found.append(clf.history_[-1])
        parts = clf.history_[-1]["cross_entropy"] + clf.history_[-1]["zero_shot_kl"]
        assert clf.history_[-1]["loss"] == pytest.approx(parts, abs=1e-5)
        assert clf.history_[-1]["cross_entropy"] < clf.history_[0]["cross_entropy"]
    assert found[1]["zero_shot_kl"] < 0.5 * found[0]["zero_shot_kl"]


def test_zero_shot_features_follow_the_learner_but_are_not_kept(tiny_backbone):
    learner = learner_of(tiny_backbone)
    assert learner.double().zero_shot.dtype == torch.float64
    assert "zero_shot" not in learner.arrays()
    rebuilt = ProGrad().learner(problem_of(tiny_backbone, NAMES))
    assert rebuilt.zero_shot is None
    rebuilt.load_arrays(learner.arrays())


def test_original_recipe():
    recipe = METHODS["prograd"].recipes["original"]
    assert (recipe.max_epochs, recipe.batch_size, recipe.learning_rate) == (100, 32, 0.002)


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"n_context": 3}, ValueError, "'a photo of a' has 4 tokens, but n_context=3; use n_context=4 or"),
        ({"n_context": None}, ValueError, "'n_context' parameter of ProGrad.*Got None"),
        ({"projection_weight": -1}, ValueError, "'projection_weight' parameter.*Got -1"),
        ({"context_init": " "}, ValueError, "contains no words; use None"),
        ({"n_context": 74}, ClassNameError, "74 tokens leaves"),
        ({"zero_shot_template": "a pet"}, ClassNameError, "exactly one"),
    ],
)
def test_invalid_parameters_raise(params, error, words):
    data = EmbeddedData.from_raw(torch.randn(3, 1, 32), torch.arange(3), torch.ones(3))
    with pytest.raises(error, match=words):
        ProGrad(**params).learner(problem_of(AnyWidthBackbone(), NAMES, data=data))


def test_template_is_checked_before_images_are_encoded():
    assert isinstance(find_method(ProGrad(zero_shot_template=["oxford_pets", "an old {}."])), ProGrad)
    with pytest.raises(ClassNameError, match="exactly one"):
        find_method(ProGrad(zero_shot_template=["oxford_pets", "a pet"]))
