"""The linear probe, compared with its equations in plain torch."""

import numpy as np
import pytest
import torch
from reference_steps import compare_steps, open_clip_features
from toy_backbone import AnyWidthBackbone
from tuning_problem import problem_of

from clipcal import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.methods import LinearProbe, zero_shot_features
from clipcal.training import EmbeddedData

NAMES = ["dog", "golden retriever puppy", "crane (bird)", "Boeing 737-800"]
TEMPLATES = ["a photo of a {}.", "{} texture."]
X = np.random.default_rng(0).normal(size=(24, 64))
Y = np.array(NAMES * 6)
TARGETS = torch.arange(24) % 4
WEIGHTS = torch.linspace(0.5, 2, 24)


def unit(values):
    return values / values.norm(dim=-1, keepdim=True)


def data():
    return EmbeddedData.from_raw(torch.from_numpy(X)[:, None], TARGETS, WEIGHTS)


def fitted(backbone=None, method="linear-probe", **params):
    params = {"max_epochs": 5, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(backbone or AnyWidthBackbone(64), method=method, **params).fit(X, Y)


def mean_probabilities(logit_scale, texts):
    """Return the mean zero-shot probability of each class over its samples, one sample at a time."""
    sums, totals = [0.0] * 4, [0.0] * 4
    for x, target, weight in zip(X, TARGETS.tolist(), WEIGHTS.tolist(), strict=True):
        exponents = np.exp(logit_scale * texts @ x / np.linalg.norm(x))
        sums[target] += weight * exponents[target] / exponents.sum()
        totals[target] += weight
    return np.array(sums) / np.array(totals)


@pytest.mark.parametrize("constraint", [None, "clap"])
@pytest.mark.parametrize("template", [TEMPLATES[0], TEMPLATES])
def test_three_steps_equal_the_equations(tiny_backbone, constraint, template):
    method = LinearProbe(constraint, template=template)
    learner = method.learner(problem_of(tiny_backbone, NAMES, data=data()))
    assert [name for name, _ in learner.named_parameters()] == ["weight"]
    templates = [template] if isinstance(template, str) else template
    start = torch.stack([open_clip_features(tiny_backbone, t, NAMES) for t in templates]).mean(dim=0)
    torch.testing.assert_close(learner.weight.detach(), start, atol=1e-5, rtol=1e-5)
    factors = mean_probabilities(tiny_backbone.logit_scale, unit(start.double()).numpy())

    def reference(parameters, raw, targets, weights):
        logits = tiny_backbone.logit_scale * unit(raw) @ unit(parameters["weight"]).T
        of_target = logits.softmax(dim=1)[torch.arange(len(targets)), targets]
        losses = {"cross_entropy": (-weights * of_target.log()).sum() / weights.sum()}
        if constraint == "clap":
            moved = parameters["weight"] - start
            losses["clap"] = sum(factors[c] * (moved[c] ** 2).sum() for c in range(4)) / 4
        return logits, losses

    compare_steps(learner, NAMES, reference)


def test_factors_of_clap_by_hand():
    """Two classes, whose zero-shot features are made orthogonal: the logits are 2 or 0."""
    problem = problem_of(AnyWidthBackbone(2), ["a", "b"])
    samples = torch.tensor([[1.0, 0], [0, 1], [0, 1]])
    data = EmbeddedData.from_raw(samples[:, None], torch.tensor([0, 0, 1]), torch.tensor([3.0, 1, 1]))
    learner = LinearProbe("clap").learner(problem)
    learner.logit_scale = 2.0
    factors = learner._multipliers(torch.tensor([[5.0, 0], [0, 0.5]]), data)
    high = np.exp(2) / (np.exp(2) + 1)
    np.testing.assert_allclose(factors, [(3 * high + (1 - high)) / 4, high], rtol=1e-6)


@pytest.mark.parametrize("constraint", [None, "clap"])
def test_zero_epochs_are_zero_shot(tiny_backbone, constraint):
    clf = fitted(tiny_backbone, LinearProbe(constraint, template="dtd"), max_epochs=0)
    expected = ZeroShotCLIPClassifier(tiny_backbone, template="dtd").fit(X, Y)
    np.testing.assert_allclose(clf.text_features_, expected.text_features_, atol=1e-6)
    np.testing.assert_allclose(clf.predict_proba(X), expected.predict_proba(X), atol=1e-5)


def test_text_features_are_the_normalized_weights():
    clf = fitted()
    weights = clf.learned_["weight"].astype(float)
    expected = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    np.testing.assert_allclose(clf.text_features_, expected, atol=1e-6)
    logits = 100 * X @ expected.T / np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(clf.decision_function(X), logits, atol=1e-4)
    assert list(clf.learned_) == ["weight"]


def test_clap_keeps_weights_near_the_start():
    start = zero_shot_features(AnyWidthBackbone(64), sorted(NAMES), TEMPLATES[0], normalize=False).numpy()
    free, kept = (fitted(method=LinearProbe(c), max_epochs=40) for c in (None, "clap"))
    moved = [np.square(clf.learned_["weight"] - start).sum() for clf in (free, kept)]
    assert 0 < moved[1] < 0.9 * moved[0]
    assert kept.history_[0]["clap"] == 0 < kept.history_[-1]["clap"]
    assert "clap" not in free.history_[0]
    assert ((kept.learned_["multipliers"] > 0) & (kept.learned_["multipliers"] < 1)).all()


@pytest.mark.parametrize("constraint", [None, "clap"])
def test_new_classes_are_zero_shot_and_training_classes_keep_their_vector(tiny_backbone, constraint):
    clf = fitted(tiny_backbone, LinearProbe(constraint))
    other = clf.with_classes(["owl", "dog", "cow"])
    zero_shot = clf.zero_shot().with_classes(["owl", "dog", "cow"]).text_features_
    np.testing.assert_allclose(other.text_features_[[0, 2]], zero_shot[[0, 2]], atol=1e-6)
    assert other.classes_[1] == "dog" and clf.classes_[2] == "dog"
    np.testing.assert_allclose(other.text_features_[1], clf.text_features_[2], atol=1e-6)
    assert np.abs(other.text_features_[1] - zero_shot[1]).max() > 1e-3


def test_original_recipe():
    clf = fitted(max_epochs=None)
    settings = ("max_epochs", "learning_rate", "batch_size", "optimizer", "momentum", "weight_decay")
    assert [clf.recipe_[name] for name in settings] == [300, 0.1, 256, "sgd", 0.9, 0.0]
    assert clf.history_[-1]["accuracy"] == 1


@pytest.mark.parametrize(
    ("params", "words"),
    [({"constraint": "l2"}, "'constraint'.*Got 'l2'"), ({"template": "none"}, "template")],
)
def test_invalid_parameters_raise(params, words):
    with pytest.raises(ValueError, match=words):
        LinearProbe(**params).learner(problem_of(AnyWidthBackbone(), NAMES))
