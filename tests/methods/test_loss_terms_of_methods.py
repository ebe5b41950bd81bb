"""Each loss term changes what a method learns, or is refused by name."""

import re

import numpy as np
import pytest
import torch
from plain_towers import pixel_problem
from sklearn.base import clone
from tiny_clip import uneven_backbone
from toy_backbone import toy_backbone_for
from tuning_problem import problem_of

from clipcal import DynamicOutlierRegularizer, PromptTunedCLIPClassifier
from clipcal.classifiers._components import find_method, find_regularizer
from clipcal.methods import METHODS, DePT
from clipcal.regularizers import REGULARIZERS
from clipcal.training import EmbeddedData, seeded, torch_generator

NAMES = ["cat", "dog", "old hammer"]
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 16)), np.array(NAMES * 4)
IMAGES = RNG.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
NOUNS = ["denim", "violin", "twilight", "granite", "lantern", "walnut", "harbor", "cactus", "orchid"]

# Combinations without effect: these methods do not train the text features of classes or of other nouns.
REFUSED = {
    *((method, term) for method in ("taskres", "linear-probe", "lp++") for term in ("dor",)),
    *(
        (method, term)
        for method in ("clip-adapter", "tip-adapter-f", "vpt")
        for term in ("dor", "kg", "moment-matching", "tcpt")
    ),
    # Only this method, and those with prompts in the image tower, train image features.
    *(
        (name, "dor-visual")
        for name, method in METHODS.items()
        if name != "clip-adapter" and not method().needs_pixels
    ),
    # This method is not trained at all.
    *(("tip-adapter", term) for term in REGULARIZERS),
}
REFUSAL = "regularizer='{}' has no effect on method='{}'.*use "
METHOD_OF = {name: find_method(name) for name in METHODS} | {"dept of maple": DePT("maple")}
# Margins and ranges are inactive for some logits; these values make all of them active.
ACTIVE = {"mbls": {"margin": 0.0}}


def regularizer_of(name):
    if name == "dor":
        return DynamicOutlierRegularizer(lexicon=NOUNS, pool_size=6)
    return find_regularizer(name).set_params(**ACTIVE.get(name, {}))


def backbone_for(method):
    return uneven_backbone() if METHOD_OF[method].needs_pixels else toy_backbone_for(method, 16)


@pytest.mark.parametrize("method", METHOD_OF)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_has_a_gradient_or_is_refused(method, name):
    needs_pixels = METHOD_OF[method].needs_pixels
    inputs, regularizer = IMAGES if needs_pixels else X, regularizer_of(name)
    if needs_pixels and name == "dor-visual":
        regularizer.set_params(images=IMAGES[::2])
    fit = PromptTunedCLIPClassifier(
        backbone_for(method),
        method=clone(METHOD_OF[method]),
        regularizer=regularizer,
        max_epochs=1,
        random_state=0,
    ).fit
    if (method, name) in REFUSED:
        with pytest.raises(ValueError, match=REFUSAL.format(name, re.escape(method))):
            fit(inputs, Y)
        return
    assert name in fit(inputs, Y).history_[0]
    gradients = gradients_of(method, name)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-6


def gradients_of(method, name):
    """Return the gradients of a loss term at parameters near the initial ones, where some terms are zero."""
    targets = torch.arange(len(X)) % 3
    settings = {"method": method, "regularizers": [name]}
    regularizer = regularizer_of(name)
    if METHOD_OF[method].needs_pixels:
        problem = pixel_problem(uneven_backbone(), NAMES, **settings)
        if name == "dor-visual":
            regularizer.set_params(images=7)  # a seed
    else:
        data = EmbeddedData.from_raw(torch.from_numpy(X)[:, None], targets, torch.ones(len(X)))
        problem = problem_of(backbone_for(method), NAMES, data=data, **settings)
    with seeded(problem.generator):
        learner = METHOD_OF[method].learner(problem)
    term = regularizer.prepare(problem, learner)
    generator = torch_generator(1)
    with torch.no_grad():
        for value in learner.parameters():
            value += 0.05 * torch.randn(value.shape, generator=generator)
    learner.train()
    batch = next(problem.data.in_order())
    drawn = term.draw(generator)
    prompts = learner.prompts(NAMES)
    if drawn is None:
        out, _ = learner(batch, prompts, 3)
        loss = term(out, batch, None)
    elif hasattr(drawn, "tokens"):
        out, others = learner(batch, prompts.joined(drawn), 3)
        loss = term(out, batch, others)
    else:
        out, _ = learner(batch, prompts, 3)
        loss = term(out, batch, learner.encode_images(drawn))
    return [
        g for g in torch.autograd.grad(loss, list(learner.parameters()), allow_unused=True) if g is not None
    ]
