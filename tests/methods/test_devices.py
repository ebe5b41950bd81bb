"""Losses of every method on other devices and in bfloat16 equal those in float32 on the CPU."""

import open_clip
import pytest
import torch
from tiny_clip import make_tiny_model
from tuning_problem import problem_of

from clipcal import DynamicOutlierRegularizer
from clipcal.backbones import OpenClipBackbone
from clipcal.classifiers._components import find_method
from clipcal.methods import METHODS, DePT
from clipcal.training import EmbeddedData, ImageViews, PixelData, seeded, torch_generator

NAMES = ["dog", "golden retriever puppy", "crane (bird)", "Boeing 737-800", "x"]
NOUNS = ["denim", "violin", "twilight", "rhapsody in blue", "lantern", "fire engine", "salt"]
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="requires a CUDA device")


METHOD_OF = {name: find_method(name) for name in METHODS} | {"dept of maple": DePT("maple")}


def data_on(backbone, method):
    targets = (torch.arange(10) % 5).to(backbone.device)
    weights = torch.ones(10, device=backbone.device)
    if method.needs_pixels:
        pixels = torch.randn((10, 3, 32, 32), generator=torch_generator(1))
        views = ImageViews(lambda rows, numbers: pixels[rows], backbone)
        return PixelData(targets, weights, views=views, rows=torch.arange(10))
    raw = torch.randn((10, 1, backbone.embedding_dim), generator=torch_generator(1))
    return EmbeddedData.from_raw(raw, targets, weights)


def losses_on(device, precision, name):
    """Return the losses of the first training step, with DOR unless it has no effect on the method."""
    backbone = OpenClipBackbone(
        make_tiny_model(), open_clip.SimpleTokenizer(), device=device, precision=precision
    )
    data = data_on(backbone, METHOD_OF[name])
    problem = problem_of(backbone, NAMES, method=name, data=data)
    with seeded(problem.generator):
        learner = METHOD_OF[name].learner(problem).to(backbone.device)
    prompts, term, n_classes = learner.prompts(NAMES), None, len(NAMES)
    try:
        term = DynamicOutlierRegularizer(lexicon=NOUNS, batch_size=3, pool_size=6).prepare(problem, learner)
        prompts = prompts.joined(term.draw(torch_generator(2)))
    except ValueError as error:
        assert "no effect" in str(error)
    learner.train()
    batch = next(data.in_order())
    out, others = learner(batch, prompts, n_classes)
    losses = learner.losses(out, batch)
    if term is not None:
        losses["dor"] = term(out, batch, others)
    return {key: loss.item() for key, loss in losses.items()}


@pytest.mark.parametrize("name", METHOD_OF)
@pytest.mark.parametrize(
    ("device", "precision", "tolerance"),
    [
        ("cpu", "bf16", 1e-2),
        pytest.param("cuda", "fp32", 1e-4, marks=GPU),
        pytest.param("cuda", "bf16", 1e-2, marks=GPU),
    ],
)
def test_equals_float32_on_the_cpu(device, precision, tolerance, name):
    expected = losses_on("cpu", "fp32", name)
    found = losses_on(device, precision, name)
    assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)
