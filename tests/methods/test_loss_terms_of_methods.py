"""Each loss term changes what a method learns, or is refused by name."""

import re

import numpy as np
import pytest
import torch
from toy_backbone import toy_backbone_for
from tuning_problem import problem_of

from clipcal import DynamicOutlierRegularizer, PromptTunedCLIPClassifier
from clipcal.classifiers._components import find_method, find_regularizer
from clipcal.methods import METHODS
from clipcal.regularizers import REGULARIZERS
from clipcal.training import EmbeddedData, seeded, torch_generator

NAMES = ["cat", "dog", "old hammer"]
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 16)), np.array(NAMES * 4)
NOUNS = ["denim", "violin", "twilight", "granite", "lantern", "walnut", "harbor", "cactus", "orchid"]

# Combinations without effect: these methods do not train the text features of classes or of other nouns.
REFUSED = {
    *((method, term) for method in ("taskres", "linear-probe", "lp++") for term in ("dor",)),
    *(
        (method, term)
        for method in ("clip-adapter", "tip-adapter-f")
        for term in ("dor", "kg", "moment-matching", "tcpt")
    ),
    # Only this method trains image features.
    *((method, "dor-visual") for method in METHODS if method != "clip-adapter"),
    # This method is not trained at all.
    *(("tip-adapter", term) for term in REGULARIZERS),
}
REFUSAL = "regularizer='{}' has no effect on method='{}'.*use "
METHOD_NAMES = [name for name, method in METHODS.items() if not method.needs_pixels]
# Margins and ranges are inactive for some logits; these values make all of them active.
ACTIVE = {"mbls": {"margin": 0.0}}


def regularizer_of(name):
    if name == "dor":
        return DynamicOutlierRegularizer(lexicon=NOUNS, pool_size=6)
    return find_regularizer(name).set_params(**ACTIVE.get(name, {}))


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_has_a_gradient_or_is_refused(method, name):
    fit = PromptTunedCLIPClassifier(
        toy_backbone_for(method, 16),
        method=method,
        regularizer=regularizer_of(name),
        max_epochs=1,
        random_state=0,
    ).fit
    if (method, name) in REFUSED:
        with pytest.raises(ValueError, match=REFUSAL.format(name, re.escape(method))):
            fit(X, Y)
        return
    assert name in fit(X, Y).history_[0]
    gradients = gradients_of(method, name)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-6


def gradients_of(method, name):
    """Return the gradients of a loss term at parameters near the initial ones, where some terms are zero."""
    targets = torch.arange(len(X)) % 3
    data = EmbeddedData.from_raw(torch.from_numpy(X)[:, None], targets, torch.ones(len(X)))
    problem = problem_of(toy_backbone_for(method, 16), NAMES, method=method, regularizers=[name], data=data)
    with seeded(problem.generator):
        learner = find_method(method).learner(problem)
    term = regularizer_of(name).prepare(problem, learner)
    generator = torch_generator(1)
    with torch.no_grad():
        for value in learner.parameters():
            value += 0.05 * torch.randn(value.shape, generator=generator)
    learner.train()
    batch = next(data.in_order())
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
