"""IVLP, compared with both towers written out for one image and one prompt at a time."""

import pytest
import torch
from plain_towers import NAMES, outlier_term, pixel_problem, two_tower_reference
from tiny_clip import uneven_backbone
from training_steps import assert_steps_agree
from tuning_problem import encode as features_of

from clipcal.methods import IVLP, METHODS, zero_shot_features


def learner_of(**params):
    return IVLP(**params).learner(pixel_problem(uneven_backbone(), method="ivlp"))


CASES = {
    "default": ({}, ""),
    "as the authors of MaPLe, all blocks": (
        {"n_context": 2, "n_visual_prompts": 2, "depth": 3, "visual_depth": 4},
        "of a",
    ),
    "first block of the text tower only": ({"depth": 1, "n_visual_prompts": 1, "n_context": 3}, "a"),
    "random context, first block of the image tower only": (
        {"context_init": None, "n_context": 5, "visual_depth": 1},
        "",
    ),
    "checkpointing, in chunks": ({"activation_checkpointing": True, "text_chunk_size": 2}, ""),
}


@pytest.mark.parametrize("outliers", [None, "dor", "dor-visual"])
@pytest.mark.parametrize("case", CASES)
def test_three_steps_equal_those_of_single_images_and_prompts(case, outliers):
    params, frozen = CASES[case]
    problem = pixel_problem(uneven_backbone(), method="ivlp", regularizers=["dor"])
    learner = IVLP(**params).learner(problem)
    term = outlier_term(outliers, problem, learner)
    reference = two_tower_reference(uneven_backbone(), frozen=frozen)
    assert_steps_agree(learner, NAMES, problem.data, reference, term=term, learning_rate=0.005)


def test_default_depth_is_that_of_each_tower():
    learner = learner_of()
    shapes = {name: tuple(value.shape) for name, value in learner.named_parameters()}
    # Three quarters of 3 and 4 blocks.
    assert shapes == {"context": (4, 32), "deep_context": (1, 4, 32), "visual_prompts": (3, 4, 48)}
    assert list(learner.image_prompts()) == [0, 1, 2]


def test_start_is_zero_shot_text_and_random_prompts():
    learner = learner_of(depth=1, n_visual_prompts=50)
    texts = features_of(learner, learner.prompts(NAMES))
    expected = zero_shot_features(uneven_backbone(), NAMES, "a photo of a {}.")
    torch.testing.assert_close(texts, expected, atol=1e-5, rtol=0)
    for block in learner.visual_prompts:
        assert block.std().item() == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(learner.visual_prompts[0], learner.visual_prompts[1])


def test_text_prompts_do_not_change_images_and_the_reverse():
    problem = pixel_problem(uneven_backbone(), method="ivlp")
    learner = IVLP(depth=3).learner(problem)
    batch, prompts = next(problem.data.in_order()), learner.prompts(NAMES)
    images, texts = learner.encode_images(batch), features_of(learner, prompts)
    of_images = torch.autograd.grad(images.sum(), list(learner.parameters()), allow_unused=True)
    of_texts = torch.autograd.grad(texts.sum(), list(learner.parameters()), allow_unused=True)
    names = [name for name, _ in learner.named_parameters()]
    assert [name for name, value in zip(names, of_images, strict=True) if value is None] == names[:2]
    assert [name for name, value in zip(names, of_texts, strict=True) if value is None] == names[2:]


def test_published_recipe():
    recipe = METHODS["ivlp"].recipes["original"]
    assert (recipe.max_epochs, recipe.batch_size, recipe.learning_rate) == (20, 4, 0.0025)
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("sgd", 0.9, 5e-4)
    assert recipe.rates()[0] == 1e-5 and recipe.rates()[-1] == pytest.approx(6.1e-5, rel=0.01)
    method = IVLP()
    assert (method.context_init, method.n_context, method.n_visual_prompts) == ("a photo of a", 4, 4)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"depth": 4}, "^depth=4, but the text tower has only 3 blocks"),
        ({"visual_depth": 5}, "^visual_depth=5, but the image tower has only 4 blocks"),
        ({"visual_depth": 0}, "'visual_depth' parameter of IVLP.*Got 0"),
        ({"n_visual_prompts": 0}, "'n_visual_prompts' parameter of IVLP.*Got 0"),
        ({"n_context": 5}, "'a photo of a' has 4 tokens, but n_context=5"),
    ],
)
def test_invalid_values_raise(params, words):
    with pytest.raises(ValueError, match=words):
        learner_of(**params)
