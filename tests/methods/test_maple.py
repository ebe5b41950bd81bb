"""MaPLe, compared with both towers written out for one image and one prompt at a time."""

import pytest
import torch
from plain_towers import (
    NAMES,
    image_prompts,
    outlier_term,
    pixel_data,
    pixel_problem,
    plain_image,
    two_tower_reference,
)
from tiny_clip import uneven_backbone
from training_steps import assert_steps_agree
from tuning_problem import encode as features_of

from clipcal.methods import IVLP, METHODS, VPT, MaPLe, PromptSRC, zero_shot_features
from clipcal.training import seeded, torch_generator


def learner_for(problem, **params):
    # The couplings get their initial weights from torch's global generator.
    with seeded(problem.generator):
        return MaPLe(**params).learner(problem)


def learner_of(**params):
    return learner_for(pixel_problem(uneven_backbone(), method="maple"), **params)


CASES = {
    "default": ({}, "of a"),
    "random context, all blocks of the text tower": ({"context_init": None, "depth": 3, "n_context": 3}, ""),
    "first block only": ({"depth": 1, "context_init": "one of the"}, "the"),
    "checkpointing, in chunks": (
        {"activation_checkpointing": True, "text_chunk_size": 2, "depth": 3},
        "of a",
    ),
}


@pytest.mark.parametrize("outliers", [None, "dor", "dor-visual"])
@pytest.mark.parametrize("case", CASES)
def test_three_steps_equal_those_of_single_images_and_prompts(case, outliers):
    params, frozen = CASES[case]
    backbone = uneven_backbone()
    problem = pixel_problem(backbone, method="maple", regularizers=["dor"])
    learner = learner_for(problem, **params)
    term = outlier_term(outliers, problem, learner)
    reference = two_tower_reference(backbone, frozen=frozen)
    assert_steps_agree(learner, NAMES, problem.data, reference, term=term, learning_rate=0.005)


def test_outliers_give_the_couplings_no_gradient():
    problem = pixel_problem(uneven_backbone(), method="maple", regularizers=["dor"])
    learner = learner_for(problem, depth=3)
    term = outlier_term("dor", problem, learner)
    prompts = learner.prompts(NAMES).joined(term.draw(torch_generator(0)))
    batch = next(problem.data.in_order())
    out, others = learner(batch, prompts, len(NAMES))
    loss = term(out, batch, others)
    names, values = zip(*learner.named_parameters(), strict=True)
    found = dict(zip(names, torch.autograd.grad(loss, values, allow_unused=True), strict=True))
    for name, gradient in found.items():
        assert (gradient is None) == name.startswith("couplings"), name
    assert found["context"].norm() > 1e-4
    assert all(gradient.norm() > 1e-4 for gradient in found["deep_context"])


class TestStart:
    def test_deep_couplings_are_equal_and_separate(self):
        learner = learner_of(depth=3)
        first, *deep = learner.couplings
        assert len(deep) == 2
        assert torch.equal(deep[0].weight, deep[1].weight) and torch.equal(deep[0].bias, deep[1].bias)
        assert not torch.equal(first.weight, deep[0].weight)
        with torch.no_grad():
            deep[0].weight.zero_()
        assert deep[1].weight.any()
        # Uniform on +-1 / sqrt(32), as torch.nn.Linear.
        for module in (first, deep[1]):
            assert module.weight.abs().max() <= 32**-0.5
            assert module.weight.std().item() == pytest.approx(32**-0.5 / 3**0.5, rel=0.1)

    def test_words_only_in_the_first_block_give_zero_shot_text_features(self):
        for name, params in (("a photo of a {}.", {}), ("one of the {}.", {"context_init": "one of the"})):
            learner = learner_of(depth=1, **params)
            expected = zero_shot_features(uneven_backbone(), NAMES, name)
            texts = features_of(learner, learner.prompts(NAMES))
            torch.testing.assert_close(texts, expected, atol=1e-5, rtol=0)
        deep = learner_of(depth=2)
        assert (features_of(deep, deep.prompts(NAMES)) - expected).abs().max() > 1e-3

    def test_distance_of_outliers_from_their_zero_shot_features_is_zero_for_words(self):
        for params, is_zero in (({"depth": 1}, True), ({"depth": 2}, False), ({"context_init": None}, False)):
            problem = pixel_problem(uneven_backbone(), method="maple", regularizers=["dor"])
            learner = learner_for(problem, **params)
            term = outlier_term("dor", problem, learner)
            prompts = learner.prompts(NAMES).joined(term.draw(torch_generator(0)))
            batch = next(problem.data.in_order())
            out, others = learner(batch, prompts, len(NAMES))
            assert (abs(term(out, batch, others).item()) < 1e-5) == is_zero

    def test_random_vectors_have_standard_deviation_002(self):
        learner = learner_of(context_init=None, n_context=40, depth=3)
        for vectors in (learner.context, *learner.deep_context):
            assert vectors.std().item() == pytest.approx(0.02, rel=0.1)
        assert not torch.equal(learner.deep_context[0], learner.deep_context[1])

    @pytest.mark.parametrize(
        ("params", "n_shared"),
        [({}, 5), ({"context_init": None}, 3), ({"n_context": 4}, 5)],
    )
    def test_shared_prefix_holds_the_context_and_the_words_before_the_name(self, params, n_shared):
        assert learner_of(**params).prompts(NAMES).n_shared == n_shared


def test_the_words_after_the_context_stay_and_are_not_learned():
    learner = learner_of()
    backbone = uneven_backbone()
    tokens = learner.prompts(["dog"]).tokens[0]
    assert tokens.tolist()[:6] == backbone.tokenize(["a photo of a dog."])[0].tolist()[:6]
    assert learner.context.shape == (2, 32)
    words = backbone.embed_tokens(backbone.tokenize(["a photo of a dog."]))[0]
    torch.testing.assert_close(learner.context.data, words[1:3])


def test_prompts_of_the_image_tower_are_maps_of_those_of_the_text_tower():
    learner = learner_of(depth=3)
    expected = image_prompts(dict(learner.named_parameters()))
    found = learner.image_prompts()
    assert list(found) == list(expected) == [0, 1, 2]
    torch.testing.assert_close(found, expected)


def test_image_features_do_not_depend_on_the_classes():
    learner = learner_of(depth=3)
    batch = next(pixel_data(uneven_backbone()).in_order())
    prompts = image_prompts(dict(learner.named_parameters()))
    expected = torch.stack([plain_image(uneven_backbone(), pixels, prompts) for pixels in batch.pixels])
    torch.testing.assert_close(learner.raw_images(batch), expected, atol=1e-5, rtol=1e-5)
    out, _ = learner(batch, learner.prompts(["bee"]), 1)
    torch.testing.assert_close(
        out.images, expected / expected.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-5
    )


class TestParameters:
    @pytest.mark.parametrize("given", [False, True])
    @pytest.mark.parametrize("method", [MaPLe, IVLP, PromptSRC, VPT])
    def test_checkpointing_reaches_the_image_tower(self, method, given):
        params = {} if method is not PromptSRC else {"teacher_template": "dtd"}
        method = method(activation_checkpointing=given, **params)
        learner = method.learner(pixel_problem(uneven_backbone(), method=method.name))
        assert learner.image_encoder.activation_checkpointing is given

    def test_published_recipes(self):
        original, of_dor = (METHODS["maple"].recipes[name] for name in ("original", "dor"))
        for recipe in (original, of_dor):
            assert (recipe.max_epochs, recipe.batch_size, recipe.learning_rate) == (5, 4, 0.0035)
            assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("sgd", 0.9, 5e-4)
            rates = [1e-5, 0.0035, 0.003166, 0.002291, 0.001209]
            assert recipe.rates() == pytest.approx(rates, abs=5e-7)
        assert not original.method_params and of_dor.method_params == {"context_init": None}
        method = MaPLe()
        assert (method.context_init, method.n_context) == ("a photo of a", 2)

    @pytest.mark.parametrize(("depth", "expected"), [(None, 2), (1, 1), (3, 3)])
    def test_depth_is_that_of_the_smaller_tower(self, depth, expected):
        learner = learner_of(depth=depth)
        assert len(learner.couplings) == 1 + len(learner.deep_context) == expected

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"depth": 4}, "depth=4, but the smaller tower has only 3 blocks; use a smaller number, or None"),
            ({"depth": 0}, "'depth' parameter of MaPLe.*Got 0"),
            ({"n_context": 0}, "'n_context' parameter of MaPLe.*Got 0"),
            ({"n_context": 5}, "'a photo of a' has 4 tokens, but n_context=5; use a smaller"),
            ({"context_init": " "}, "contains no words; use None"),
            ({"context_init": None, "n_context": 74}, "74 tokens leaves no room"),
            ({"context_init": "word " * 74, "n_context": 2}, "74 tokens leaves no room"),
            ({"activation_checkpointing": "yes"}, "'activation_checkpointing' parameter of MaPLe.*Got 'yes'"),
        ],
    )
    def test_invalid_values_raise(self, params, words):
        with pytest.raises(ValueError, match=words):
            learner_of(**params)
