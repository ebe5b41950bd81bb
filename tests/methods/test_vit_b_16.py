"""Methods that prompt the image tower, with a model of the size of ViT-B/16 and random weights."""

import open_clip
import pytest
import torch
from plain_prompts import plain_features
from plain_towers import image_prompts, pixel_problem, plain_image, tuned_text, unit
from tuning_problem import encode as features_of

from clipcal.backbones import OpenClipBackbone
from clipcal.methods import IVLP, VPT, DePT, MaPLe, PromptSRC
from clipcal.training import seeded

pytestmark = pytest.mark.slow
NAMES = ["dog", "crane (bird)"]


@pytest.fixture(scope="module")
def backbone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None)
    return OpenClipBackbone(model, open_clip.get_tokenizer("ViT-B-16-quickgelu"), device="cpu")


def learner_of(backbone, method):
    problem = pixel_problem(backbone, NAMES, method=method.name)
    with seeded(problem.generator):
        return method.learner(problem), problem.data


SHAPES = {
    "maple": {
        "context": (2, 512),
        "deep_context": (8, 2, 512),
        **{f"couplings.{block}.weight": (768, 512) for block in range(9)},
        **{f"couplings.{block}.bias": (768,) for block in range(9)},
    },
    "ivlp": {"context": (4, 512), "deep_context": (8, 4, 512), "visual_prompts": (9, 4, 768)},
    "vpt": {"visual_prompts": (12, 8, 768)},
}
SHAPES["promptsrc"] = SHAPES["ivlp"]
METHOD_OF = {
    "maple": (MaPLe(), 3_555_072),
    "ivlp": (IVLP(), 46_080),
    "promptsrc": (PromptSRC(teacher_template="dtd"), 46_080),
    "vpt": (VPT(), 73_728),
}


@pytest.mark.parametrize("name", METHOD_OF)
def test_number_of_parameters(backbone, name):
    method, n_parameters = METHOD_OF[name]
    learner, _ = learner_of(backbone, method)
    assert {key: tuple(value.shape) for key, value in learner.named_parameters()} == SHAPES[name]
    assert sum(value.numel() for value in learner.parameters()) == n_parameters
    if name == "maple":
        _, *deep = learner.couplings
        assert len(deep) == len({coupling.weight.data_ptr() for coupling in deep}) == 8
        assert all(torch.equal(deep[0].weight, coupling.weight) for coupling in deep)


def test_number_of_parameters_of_dept(backbone):
    learner, _ = learner_of(backbone, DePT("maple"))
    assert sum(value.numel() for value in learner.parameters()) == 3_555_072 + 2_048 + 513 * len(NAMES)


def test_former_settings_of_ivlp(backbone):
    method = IVLP(n_context=2, n_visual_prompts=2, depth=12, visual_depth=12)
    learner, _ = learner_of(backbone, method)
    assert sum(value.numel() for value in learner.parameters()) == 12 * 2 * (512 + 768)


@torch.no_grad()
@pytest.mark.parametrize("name", ["maple", "ivlp", "vpt"])
def test_features_equal_those_with_prompts_in_these_blocks(backbone, name):
    """Large prompts, so that one in the wrong block would have an effect."""
    learner, data = learner_of(backbone, METHOD_OF[name][0])
    for value in learner.parameters():
        value += 0.5 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
    parameters = dict(learner.named_parameters())
    batch = data.batch(torch.arange(1), torch.zeros(1, dtype=torch.long))
    prompts = image_prompts(parameters)
    assert list(prompts) == list(range(12 if name == "vpt" else 9))
    expected = unit(plain_image(backbone, batch.pixels[0], prompts))
    torch.testing.assert_close(learner.encode_images(batch)[0], expected, atol=1e-5, rtol=1e-4)
    if name == "vpt":
        return
    rows, deep = tuned_text(backbone, parameters, "dog", frozen="of a" if name == "maple" else "")
    assert list(deep) == list(range(1, 9))
    texts = features_of(learner, learner.prompts(NAMES))
    torch.testing.assert_close(texts[0], plain_features(backbone, rows, deep), atol=1e-5, rtol=1e-4)
