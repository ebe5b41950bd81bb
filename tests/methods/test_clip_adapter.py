"""CLIP-Adapter, compared with its equations in plain torch."""

import numpy as np
import pytest
import torch
from reference_steps import compare_steps, open_clip_features
from toy_backbone import AnyWidthBackbone
from tuning_problem import batch_of, problem_of

from clipcal import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.methods import CLIPAdapter

NAMES = ["dog", "golden retriever puppy", "crane (bird)", "Boeing 737-800"]
TEMPLATES = ["a photo of a {}.", "{} texture."]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 64))
Y = np.array(NAMES * 6)


def unit(values):
    return values / values.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize(("ratio", "reduction"), [(0.2, 4), (0.7, 3)])
@pytest.mark.parametrize("template", [TEMPLATES[0], TEMPLATES])
def test_three_steps_equal_the_equations(tiny_backbone, ratio, reduction, template):
    method = CLIPAdapter(ratio, reduction=reduction, template=template)
    learner = method.learner(problem_of(tiny_backbone, NAMES))
    templates = [template] if isinstance(template, str) else template
    each = [unit(open_clip_features(tiny_backbone, t, NAMES)) for t in templates]
    texts = unit(torch.stack(each).mean(dim=0))

    def reference(parameters, raw, targets, weights):
        adapted = (raw @ parameters["down.weight"].T).clamp(min=0)
        adapted = (adapted @ parameters["up.weight"].T).clamp(min=0)
        logits = tiny_backbone.logit_scale * unit(ratio * adapted + (1 - ratio) * raw) @ texts.T
        of_target = logits.softmax(dim=1)[torch.arange(len(targets)), targets]
        return logits, {"cross_entropy": (-weights * of_target.log()).sum() / weights.sum()}

    # The reference adapts unnormalized features: layers without biases do not depend on the scale.
    compare_steps(learner, NAMES, reference)


def test_number_of_parameters():
    learner = CLIPAdapter().learner(problem_of(AnyWidthBackbone(512), NAMES))
    assert sum(p.numel() for p in learner.parameters()) == 131_072
    assert all(p.requires_grad for p in learner.parameters())
    assert learner.down.weight.shape == (128, 512)


def test_ratio_zero_is_zero_shot(tiny_backbone):
    clf = PromptTunedCLIPClassifier(tiny_backbone, method=CLIPAdapter(0.0), max_epochs=2, random_state=0)
    expected = ZeroShotCLIPClassifier(tiny_backbone).fit(X, Y).predict_proba(X)
    np.testing.assert_allclose(clf.fit(X, Y).predict_proba(X), expected, atol=1e-6)


def test_initial_values_are_those_of_torch(tiny_backbone):
    learner = CLIPAdapter(reduction=2).learner(problem_of(tiny_backbone, NAMES))
    for layer, width in ((learner.down, 64), (learner.up, 32)):
        assert layer.weight.abs().max() <= width**-0.5
        assert layer.weight.abs().max() > 0.9 * width**-0.5


def test_scale_of_embeddings_does_not_matter():
    params = {"method": "clip-adapter", "max_epochs": 3, "random_state": 0, "learning_rate": 0.02}
    first, second = (PromptTunedCLIPClassifier(AnyWidthBackbone(64), **params) for _ in range(2))
    first, second = first.fit(X, Y).predict_proba(X), second.fit(7 * X, Y).predict_proba(0.1 * X)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_new_classes_have_zero_shot_text_features_and_adapted_images():
    clf = PromptTunedCLIPClassifier(
        AnyWidthBackbone(64), method=CLIPAdapter(0.5), max_epochs=5, learning_rate=0.05, random_state=0
    ).fit(X, Y)
    other = clf.with_classes(["owl", "cow"])
    zero_shot = clf.zero_shot().with_classes(["owl", "cow"])
    np.testing.assert_allclose(other.text_features_, zero_shot.text_features_, atol=1e-6)
    down, up = (clf.learned_[f"{name}.weight"].astype(float) for name in ("down", "up"))
    raw = X / np.linalg.norm(X, axis=1, keepdims=True)
    moved = 0.5 * np.maximum(np.maximum(raw @ down.T, 0) @ up.T, 0) + 0.5 * raw
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    logits = 100 * moved @ other.text_features_.T.astype(float)
    np.testing.assert_allclose(other.decision_function(X), logits[:, 1] - logits[:, 0], atol=1e-5)
    assert np.abs(other.predict_proba(X) - zero_shot.predict_proba(X)).max() > 1e-3


def test_width_smaller_than_the_reduction():
    learner = CLIPAdapter(reduction=4).learner(problem_of(AnyWidthBackbone(2), NAMES))
    assert learner.down.weight.shape == (1, 2)
    assert learner.encode_images(batch_of(torch.eye(2))).shape == (2, 2)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"residual_ratio": 1.5}, r"'residual_ratio'.*Got 1\.5"),
        ({"reduction": 0}, "'reduction'.*Got 0"),
        ({"template": "no place"}, "template"),
    ],
)
def test_invalid_parameters_raise(params, words):
    with pytest.raises(ValueError, match=words):
        CLIPAdapter(**params).learner(problem_of(AnyWidthBackbone(), NAMES))
