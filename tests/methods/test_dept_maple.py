"""DePT with MaPLe as base method, compared with both towers written out."""

import numpy as np
import pytest
import torch
from PIL import Image
from plain_prompts import plain_raw_features
from plain_towers import (
    NAMES,
    image_prompts,
    outlier_losses,
    outlier_term,
    pixel_problem,
    plain_image,
    tuned_text,
    unit,
)
from tiny_clip import uneven_backbone
from training_steps import assert_steps_agree, cross_entropy_of

from clipcal import PromptTunedCLIPClassifier
from clipcal.methods import IVLP, VPT, DePT, MaPLe, PromptSRC
from clipcal.training import seeded

NEW = ("image_scale", "image_shift", "text_scale", "text_shift", "head.weight", "head.bias")


def learner_for(problem, base="maple", **params):
    with seeded(problem.generator):
        return DePT(base, **params).learner(problem)


def raw_text(parameters, name, frozen="of a"):
    backbone = uneven_backbone()
    return plain_raw_features(
        backbone, *tuned_text(backbone, parameters, name, frozen=frozen, prefix="base.")
    )


def raw_image(parameters, pixels):
    return plain_image(uneven_backbone(), pixels, image_prompts(parameters, "base."))


def head_of(parameters, features, kind):
    moved = parameters[f"{kind}_scale"] * features + parameters[f"{kind}_shift"]
    return parameters["head.weight"] @ moved + parameters["head.bias"]


@pytest.mark.parametrize("outliers", [None, "dor", "dor-visual"])
@pytest.mark.parametrize(("base", "frozen"), [("maple", "of a"), (MaPLe(None, n_context=3, depth=3), "")])
def test_three_steps_equal_those_of_single_images_and_prompts(base, frozen, outliers):
    backbone = uneven_backbone()
    problem = pixel_problem(backbone, method="dept", regularizers=["dor"])
    learner = learner_for(problem, base)
    term = outlier_term(outliers, problem, learner)

    def reference(parameters, batch, drawn):
        images = [raw_image(parameters, pixels) for pixels in batch.pixels]
        texts = [raw_text(parameters, name, frozen) for name in NAMES]
        logits = backbone.logit_scale * torch.stack(
            [torch.stack([unit(f) @ unit(g) for g in texts]) for f in images]
        )
        of_images = torch.stack([head_of(parameters, f, "image") for f in images])
        of_texts = torch.stack([head_of(parameters, texts[target], "text") for target in batch.targets])
        of_head = (cross_entropy_of(batch, of_images) + cross_entropy_of(batch, of_texts)) / 2
        losses = {"cross_entropy": 0.3 * cross_entropy_of(batch, logits), "head": 0.7 * of_head}
        losses |= outlier_losses(
            backbone,
            drawn,
            lambda noun: raw_text(parameters, noun, frozen),
            lambda pixels: raw_image(parameters, pixels),
        )
        return logits, losses, None

    factors = dict.fromkeys(NEW, 6.5)
    assert_steps_agree(
        learner, NAMES, problem.data, reference, term=term, rate_factors=factors, learning_rate=0.002
    )


def test_parameters_are_those_of_maple_and_of_the_head():
    learner = learner_for(pixel_problem(uneven_backbone(), method="dept"))
    names = {name.removeprefix("base.") for name, _ in learner.named_parameters()}
    maple = MaPLe().learner(pixel_problem(uneven_backbone(), method="maple"))
    assert names == {*NEW, *(name for name, _ in maple.named_parameters())}
    of_base, new = learner.parameter_groups()
    assert sum(value.numel() for value in new["params"]) == 4 * 24 + 25 * len(NAMES)
    assert sum(value.numel() for value in of_base["params"]) == sum(p.numel() for p in maple.parameters())
    assert new["rate_factor"] == 6.5
    # Pixels have no scale that could differ from that of the training.
    assert "norm_range" not in learner.arrays()


def test_recipe_is_that_of_the_authors():
    recipe = DePT("maple").recipes["original"]
    assert (recipe.max_epochs, recipe.batch_size, recipe.learning_rate) == (10, 4, 0.0035)
    assert DePT("maple").needs_pixels and DePT(MaPLe()).needs_pixels and not DePT("coop").needs_pixels


def test_predictions_equal_the_formula():
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    backbone = uneven_backbone()
    settings = {"max_epochs": 2, "batch_size": 3, "learning_rate": 0.01, "random_state": 0}
    clf = PromptTunedCLIPClassifier(backbone, method=DePT("maple"), **settings).fit(images, NAMES * 2)
    learned = {name: torch.from_numpy(values) for name, values in clf.learned_.items()}
    pixels = [backbone.preprocess(Image.fromarray(image)) for image in images]

    def logits_of(names, with_head):
        rows = []
        for each in pixels:
            image = raw_image(learned, each)
            row = torch.stack([unit(image) @ unit(raw_text(learned, name)) for name in names])
            row = backbone.logit_scale * row
            if with_head:
                order = [clf.tuned_names_.index(name) for name in names]
                row = 0.3 * row + 0.7 * head_of(learned, image, "image")[order]
            rows.append(row)
        return torch.stack(rows).numpy()

    with torch.no_grad():
        fused = logits_of(sorted(NAMES), with_head=True)
        np.testing.assert_allclose(clf.decision_function(images), fused, atol=1e-4)
        assert np.abs(fused - 0.3 * logits_of(sorted(NAMES), with_head=False)).max() > 1e-3
        for names in (["bee", "violin", "zebra"], ["bee", "crane (bird)", "dog"]):
            found = clf.with_classes(names).decision_function(images)
            np.testing.assert_allclose(found, logits_of(names, with_head=False), atol=1e-4)
        pair = clf.with_classes(["crane (bird)", "dog"])
        # These are the first and the second of the sorted names.
        np.testing.assert_allclose(pair.decision_function(images), fused[:, 1] - fused[:, 0], atol=1e-4)


@pytest.mark.parametrize("base", [VPT(), PromptSRC()])
def test_bases_without_context_or_with_other_losses_are_refused(base):
    words = f"DePT needs a base method .*'maple'.*; got {type(base).__name__}"
    with pytest.raises(ValueError, match=words):
        learner_for(pixel_problem(uneven_backbone(), method="dept"), base)


def test_ivlp_is_a_base_too():
    learner = learner_for(pixel_problem(uneven_backbone(), method="dept"), IVLP())
    assert learner.base.visual_prompts.shape == (3, 4, 48)
