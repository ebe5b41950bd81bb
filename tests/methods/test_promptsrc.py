"""PromptSRC, compared with both towers written out, and its average of prompts over epochs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from plain_prompts import encode, plain_raw_features
from plain_towers import NAMES, outlier_term, pixel_problem, plain_image, two_tower_reference
from tiny_clip import uneven_backbone
from training_steps import assert_steps_agree, weighted_mean

from clipcal.exceptions import ClassNameError
from clipcal.methods import METHODS, PromptSRC
from clipcal.text import find_templates
from clipcal.training import Forward, Recipe, torch_generator, tune

END = 49407


def learner_of(**params):
    return PromptSRC(**params).learner(pixel_problem(uneven_backbone(), method="promptsrc"))


def teacher_of(backbone, name, templates):
    """Return the normalized mean of unnormalized features, with each text encoded alone."""
    table, total = backbone.model.token_embedding.weight, 0
    for template in templates:
        ids = [49406, *encode(backbone, template.replace("{}", name)), END]
        total = total + plain_raw_features(backbone, table[ids])
    return total / total.norm()


CASES = {
    "default": {},
    "all blocks": {"n_context": 2, "n_visual_prompts": 3, "depth": 3, "visual_depth": 4},
    "other weights and templates": {
        "context_init": None,
        "text_weight": 3.0,
        "image_weight": 40.0,
        "teacher_template": ["oxford_pets", "an old {}."],
    },
    "no weights": {"text_weight": 0.0, "image_weight": 0.0, "teacher_template": "dtd"},
}


@pytest.mark.parametrize("outliers", [None, "dor", "dor-visual"])
@pytest.mark.parametrize("case", CASES)
def test_three_steps_equal_those_of_single_images_and_prompts(case, outliers):
    params, backbone = CASES[case], uneven_backbone()
    problem = pixel_problem(backbone, method="promptsrc", regularizers=["dor"])
    learner = PromptSRC(**params).learner(problem)
    term = outlier_term(outliers, problem, learner)
    templates = find_templates(params.get("teacher_template", "promptsrc-60"))
    teachers = torch.stack([teacher_of(backbone, name, templates) for name in NAMES])

    def more_losses(batch, images, texts, logits):
        frozen = torch.stack([plain_image(backbone, pixels) for pixels in batch.pixels])
        frozen = frozen / frozen.norm(dim=1, keepdim=True)
        of_images, divergences = [], []
        for image, own, row in zip(images, frozen, logits, strict=True):
            of_images.append((image - own).abs().sum() / 24)
            p0 = (backbone.logit_scale * teachers @ own).softmax(dim=0)
            divergences.append((p0 * (p0 / row.softmax(dim=0)).log()).sum() / len(NAMES))
        return {
            "text_consistency": params.get("text_weight", 25.0) * (texts - teachers).abs().sum() / (3 * 24),
            "image_consistency": params.get("image_weight", 10.0) * weighted_mean(batch, of_images),
            "logit_consistency": weighted_mean(batch, divergences),
        }

    frozen = "of a" if params.get("n_context") == 2 else ""
    reference = two_tower_reference(backbone, frozen=frozen, more_losses=more_losses)
    assert_steps_agree(learner, NAMES, problem.data, reference, term=term, learning_rate=0.002)


class TestLosses:
    def test_features_of_the_frozen_clip_leave_the_cross_entropy_alone(self):
        problem = pixel_problem(uneven_backbone(), method="promptsrc")
        learner = PromptSRC().learner(problem)
        batch = next(problem.data.in_order())
        texts = learner.teacher.clone()
        logits = learner.logit_scale * batch.embeddings @ texts.T
        losses = learner.losses(Forward(batch.embeddings, texts, logits), batch)
        assert losses.pop("cross_entropy") > 0.1
        assert list(losses) == ["text_consistency", "image_consistency", "logit_consistency"]
        assert all(abs(loss.item()) < 1e-6 for loss in losses.values())

    def test_hand_computed_values(self):
        problem = pixel_problem(uneven_backbone(), names=["a", "b"], method="promptsrc")
        learner = PromptSRC().learner(problem)
        batch = next(problem.data.in_order())
        n, texts = len(batch.targets), learner.teacher + torch.tensor([[0.5], [-1.5]])
        images = batch.embeddings + torch.arange(n)[:, None]
        learner.logit_scale = 0.0  # so that the frozen probabilities are 1/2
        logits = torch.log(torch.tensor([[0.25, 0.75]])).expand(n, 2)
        losses = learner.losses(Forward(images, texts, logits), batch)
        assert losses["text_consistency"].item() == pytest.approx(1.0, rel=1e-5)
        # The weights of the images are 5, 7, 9, 11 and 13 ninths.
        expected = sum(row * weight for row, weight in enumerate([5, 7, 9, 11, 13])) / 9 / 5
        assert losses["image_consistency"].item() == pytest.approx(expected, rel=1e-5)
        # Half of 0.5 log 2 + 0.5 log(2/3), for two classes.
        assert losses["logit_consistency"].item() == pytest.approx(0.25 * math.log(4 / 3), rel=1e-5)

    def test_teacher_is_not_learned_or_kept_and_not_needed_to_predict(self):
        learner = learner_of()
        assert "teacher" not in learner.arrays()
        assert learner.double().teacher.dtype == torch.float64
        names = {"context", "deep_context", "visual_prompts"}
        assert {name for name, _ in learner.named_parameters()} == set(learner.arrays()) == names
        rebuilt = PromptSRC().learner(replace(pixel_problem(uneven_backbone()), data=None))
        assert rebuilt.teacher is None
        rebuilt.load_arrays(learner.arrays())


def average_of(states, *, mean, std, n_epochs):
    """Return the result for given states after each epoch, of which a row sets the first learned numbers."""
    learner = learner_of(average_mean=mean, average_std=std, teacher_template="dtd")
    states = torch.as_tensor(states, dtype=torch.float32)
    for epoch, state in enumerate(states):
        with torch.no_grad():
            learner.context.view(-1)[: len(state)] = state
        learner.end_epoch(epoch, n_epochs)
    learner.finish()
    return learner.context.detach().view(-1)[: states.shape[1]].numpy()


def weights_of(n_seen, *, mean, std, n_epochs):
    """Return the weight of each epoch: number k is 1 after epoch k, and 0 after the others."""
    return average_of(np.eye(n_seen), mean=mean, std=std, n_epochs=n_epochs)


class TestAverage:
    @pytest.mark.parametrize("given", [(15, 1), (None, None)])
    def test_published_weights(self, given):
        found = weights_of(20, mean=given[0], std=given[1], n_epochs=20)
        assert sum(found) == pytest.approx(1, rel=1e-5)
        assert found[12:17] == pytest.approx([0.054, 0.242, 0.399, 0.242, 0.054], abs=5e-4)
        assert max(*found[:11], *found[18:]) < 0.001

    def test_weights_of_the_recipe_of_dor_are_nearly_equal(self):
        found = weights_of(50, mean=30, std=30, n_epochs=50)
        assert (found.min(), found.max()) == pytest.approx((0.014, 0.022), abs=6e-4)
        assert np.argmax(found) == 29

    @pytest.mark.parametrize("n_seen", [1, 2, 3, 7])
    def test_weights_of_the_epochs_seen_sum_to_one(self, n_seen):
        found = weights_of(n_seen, mean=5, std=2, n_epochs=10)
        wanted = np.exp(-((np.arange(1, n_seen + 1) - 5) ** 2) / (2 * 2**2))
        np.testing.assert_allclose(found, wanted / wanted.sum(), rtol=1e-5)

    @pytest.mark.parametrize(("n_seen", "expected"), [(3, 3), (45, 45), (100, 45)])
    def test_tiny_deviations_give_the_state_nearest_to_the_mean(self, n_seen, expected):
        states = np.arange(1, n_seen + 1)[:, None]
        assert average_of(states, mean=45, std=0.1, n_epochs=100) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(("mean", "std"), [(-1e6, 1e-3), (1e6, 1e-3), (0.5, 1e6), (1e9, 1e9)])
    def test_extreme_values_are_finite(self, mean, std):
        found = average_of(np.arange(1, 31)[:, None], mean=mean, std=std, n_epochs=30)
        assert found == pytest.approx(15.5 if std > 1 else 1 if mean < 0 else 30, rel=1e-4)

    def test_without_epochs_the_prompts_stay(self):
        learner = learner_of()
        before = {name: value.clone() for name, value in learner.named_parameters()}
        learner.finish()
        for name, value in learner.named_parameters():
            assert torch.equal(value, before[name])

    @pytest.mark.parametrize("stop_after", [3, 6])
    def test_result_is_the_weighted_sum_of_the_states_of_training(self, stop_after):
        problem = pixel_problem(uneven_backbone(), method="promptsrc")
        learner = PromptSRC(average_mean=4, average_std=1.5).learner(problem)
        states = []

        def end_of_epoch(record):
            states.append({name: value.detach().clone() for name, value in learner.named_parameters()})
            return len(states) == stop_after

        tune(
            learner,
            learner.prompts(NAMES),
            problem.data,
            [],
            recipe=Recipe(max_epochs=6, batch_size=2, learning_rate=0.01, warmup_epochs=0),
            data_generator=torch_generator(0),
            term_generator=torch_generator(1),
            on_epoch_end=end_of_epoch,
        )
        weights = [math.exp(-((epoch - 4) ** 2) / (2 * 1.5**2)) for epoch in range(1, stop_after + 1)]
        for name, value in learner.named_parameters():
            pairs = zip(weights, states, strict=True)
            expected = sum(weight * state[name] for weight, state in pairs) / sum(weights)
            torch.testing.assert_close(value.data, expected, atol=1e-6, rtol=1e-4)
            assert (value - states[-1][name]).abs().max() > 1e-4
        result = {name: value.detach().clone() for name, value in learner.named_parameters()}
        learner.finish()
        assert all(torch.equal(value, result[name]) for name, value in learner.named_parameters())


def test_published_recipes():
    original, of_dor = (METHODS["promptsrc"].recipes[name] for name in ("original", "dor"))
    assert (original.max_epochs, of_dor.max_epochs) == (20, 50)
    for recipe in (original, of_dor):
        assert (recipe.batch_size, recipe.learning_rate) == (4, 0.0025)
        assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("sgd", 0.9, 5e-4)
    assert original.rates()[-1] == pytest.approx(6.1e-5, rel=0.01)
    assert not original.method_params
    assert of_dor.method_params == {
        "average_mean": 30,
        "average_std": 30,
        "teacher_template": "imagenet-80",
    }
    method = PromptSRC()
    assert (method.context_init, method.n_context, method.n_visual_prompts) == ("a photo of a", 4, 4)
    assert (method.text_weight, method.image_weight) == (25, 10)


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"average_std": 0}, ValueError, "'average_std' parameter of PromptSRC.*Got 0"),
        ({"average_mean": math.nan}, ValueError, "'average_mean' parameter of PromptSRC.*Got nan"),
        ({"text_weight": -1}, ValueError, "'text_weight' parameter of PromptSRC.*Got -1"),
        ({"visual_depth": 5}, ValueError, "^visual_depth=5, but the image tower has only 4 blocks"),
        ({"teacher_template": "a pet"}, ClassNameError, "exactly one"),
    ],
)
def test_invalid_values_raise(params, error, words):
    with pytest.raises(error, match=words):
        learner_of(**params)
