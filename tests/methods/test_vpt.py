"""VPT, compared with the image tower written out for one image at a time."""

import pytest
import torch
from plain_towers import NAMES, outlier_term, pixel_problem, plain_image, two_tower_reference, zero_shot_of
from tiny_clip import uneven_backbone
from training_steps import assert_steps_agree
from tuning_problem import encode as features_of

from clipcal.exceptions import ClassNameError
from clipcal.methods import METHODS, VPT, zero_shot_features


def learner_of(**params):
    return VPT(**params).learner(pixel_problem(uneven_backbone(), method="vpt"))


CASES = {
    "default": ({}, "a photo of a"),
    "shallow": ({"visual_depth": 1}, "a photo of a"),
    "other template": ({"n_visual_prompts": 1, "visual_depth": 2, "template": "an old {}."}, "an old"),
    "checkpointing": ({"activation_checkpointing": True, "visual_depth": 3}, "a photo of a"),
}


@pytest.mark.parametrize("outliers", [None, "dor-visual"])
@pytest.mark.parametrize("case", CASES)
def test_three_steps_equal_those_of_single_images(case, outliers):
    params, words = CASES[case]
    backbone = uneven_backbone()
    problem = pixel_problem(backbone, method="vpt", regularizers=["dor-visual"])
    learner = VPT(**params).learner(problem)
    term = outlier_term(outliers, problem, learner)
    reference = two_tower_reference(backbone, text_of=lambda _, name: zero_shot_of(backbone, name, words))
    assert_steps_agree(learner, NAMES, problem.data, reference, term=term, learning_rate=0.02)


class TestStart:
    def test_prompts_are_random_in_all_blocks(self):
        learner = learner_of(n_visual_prompts=50)
        assert learner.visual_prompts.shape == (4, 50, 48)
        for block in learner.visual_prompts:
            assert block.std().item() == pytest.approx(0.02, rel=0.1)
        assert list(learner.image_prompts()) == [0, 1, 2, 3]

    def test_text_features_are_zero_shot_and_not_learned(self):
        for template in ("a photo of a {}.", ["an old {}.", "imagenet-7"]):
            learner = learner_of(template=template)
            texts = features_of(learner, learner.prompts(["bee", *NAMES]))
            expected = zero_shot_features(uneven_backbone(), ["bee", *NAMES], template)
            torch.testing.assert_close(texts, expected, atol=1e-6, rtol=0)
            assert [name for name, _ in learner.named_parameters()] == ["visual_prompts"]


@torch.no_grad()
def test_prompts_equal_to_the_outputs_of_the_previous_block_change_nothing():
    """With the tokens that the previous block returns, prompts of a further block have no effect."""
    backbone = uneven_backbone()
    shallow = learner_of(visual_depth=1)
    deep = learner_of(visual_depth=3)
    batch = next(pixel_problem(backbone).data.in_order(1))
    outputs = []
    handles = [
        block.register_forward_hook(lambda *call: outputs.append(call[-1][0, 5:]))
        for block in backbone.model.visual.transformer.resblocks[:2]
    ]
    expected = shallow.raw_images(batch)
    for handle in handles:
        handle.remove()
    deep.visual_prompts.copy_(torch.stack([shallow.visual_prompts[0], *outputs]))
    torch.testing.assert_close(deep.raw_images(batch), expected, atol=1e-6, rtol=1e-5)
    # Other prompts change the features, also prompts of zeros: other tokens attend to them.
    deep.visual_prompts[1:] = 0
    assert (deep.raw_images(batch) - expected).abs().max() > 1e-3
    shallow.visual_prompts.zero_()
    zeros = plain_image(backbone, batch.pixels[0], {0: torch.zeros(8, 48)})
    torch.testing.assert_close(shallow.raw_images(batch)[0], zeros, atol=1e-5, rtol=1e-5)
    assert (zeros - plain_image(backbone, batch.pixels[0])).abs().max() > 1e-3


def test_published_recipe():
    recipe = METHODS["vpt"].recipes["original"]
    assert (recipe.max_epochs, recipe.batch_size, recipe.learning_rate) == (5, 4, 0.0025)
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (VPT().n_visual_prompts, VPT().template) == (8, "a photo of a {}.")


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"visual_depth": 5}, ValueError, "^visual_depth=5, but the image tower has only 4 blocks"),
        ({"visual_depth": 0}, ValueError, "'visual_depth' parameter of VPT.*Got 0"),
        ({"n_visual_prompts": 0}, ValueError, "'n_visual_prompts' parameter of VPT.*Got 0"),
        ({"template": "a pet"}, ClassNameError, "exactly one"),
    ],
)
def test_invalid_values_raise(params, error, words):
    with pytest.raises(error, match=words):
        learner_of(**params)
