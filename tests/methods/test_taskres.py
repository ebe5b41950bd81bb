"""TaskRes, compared with its equations in plain torch."""

import numpy as np
import pytest
import torch
from reference_steps import compare_steps, open_clip_features
from toy_backbone import AnyWidthBackbone
from tuning_problem import problem_of

from clipcal import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.methods import TaskRes, zero_shot_features
from clipcal.training import torch_generator

NAMES = ["dog", "golden retriever puppy", "crane (bird)", "Boeing 737-800"]
TEMPLATES = ["a photo of a {}.", "{} texture."]
X = np.random.default_rng(0).normal(size=(24, 64))
Y = np.array(NAMES * 6)


def unit(values):
    return values / values.norm(dim=-1, keepdim=True)


def fitted(backbone=None, **params):
    params = {"method": TaskRes(1.0), "max_epochs": 5, "learning_rate": 0.05, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(backbone or AnyWidthBackbone(64), **params).fit(X, Y)


@pytest.mark.parametrize("scale", [0.5, 1.5])
@pytest.mark.parametrize("template", [TEMPLATES[0], TEMPLATES])
def test_three_steps_equal_the_equations(tiny_backbone, scale, template):
    learner = TaskRes(scale, template=template).learner(problem_of(tiny_backbone, NAMES))
    assert [name for name, _ in learner.named_parameters()] == ["residual"]
    assert learner.residual.shape == (4, 64) and not learner.residual.any()
    templates = [template] if isinstance(template, str) else template
    start = torch.stack([open_clip_features(tiny_backbone, t, NAMES) for t in templates]).mean(dim=0)

    def reference(parameters, raw, targets, weights):
        texts = torch.stack(
            [
                (t + scale * x) / (t + scale * x).norm()
                for t, x in zip(start, parameters["residual"], strict=True)
            ]
        )
        logits = tiny_backbone.logit_scale * unit(raw) @ texts.T
        of_target = logits.softmax(dim=1)[torch.arange(len(targets)), targets]
        return logits, {"cross_entropy": (-weights * of_target.log()).sum() / weights.sum()}

    def adam(parameters):
        return torch.optim.Adam(parameters, lr=0.01, weight_decay=5e-4)

    compare_steps(learner, NAMES, reference, make_optimizer=adam)


@pytest.mark.parametrize("template", [TEMPLATES[0], "dtd"])
def test_zero_epochs_are_zero_shot(tiny_backbone, template):
    clf = PromptTunedCLIPClassifier(tiny_backbone, method=TaskRes(template=template), max_epochs=0)
    expected = ZeroShotCLIPClassifier(tiny_backbone, template=template).fit(X, Y)
    np.testing.assert_allclose(clf.fit(X, Y).text_features_, expected.text_features_, atol=1e-6)


def test_ensembles_average_unnormalized_features(tiny_backbone):
    learner = TaskRes(template=TEMPLATES).learner(problem_of(tiny_backbone, NAMES))
    texts = learner.encode_texts(learner.prompts(NAMES), None)
    mean = sum(open_clip_features(tiny_backbone, template, NAMES) for template in TEMPLATES) / 2
    torch.testing.assert_close(texts.detach(), unit(mean), atol=1e-5, rtol=0)
    assert (texts - zero_shot_features(tiny_backbone, NAMES, TEMPLATES)).abs().max() > 1e-4


def test_learned_residuals_give_the_text_features():
    clf = fitted()
    start = zero_shot_features(AnyWidthBackbone(64), sorted(NAMES), TEMPLATES[0], normalize=False).numpy()
    expected = start + clf.learned_["residual"]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(clf.text_features_, expected, atol=1e-6)
    assert np.abs(clf.learned_["residual"]).max() > 0.05
    logits = 100 * X @ expected.T.astype(float) / np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(clf.decision_function(X), logits, atol=1e-4)


def test_new_classes_are_zero_shot_and_training_classes_keep_their_residual(tiny_backbone):
    clf = fitted(tiny_backbone)
    other = clf.with_classes(["owl", "dog", "cow", "Crane_(Bird)"])
    assert other.classes_.tolist() == ["Crane_(Bird)", "cow", "dog", "owl"]
    by_name = dict(zip(clf.classes_, clf.text_features_, strict=True))
    np.testing.assert_allclose(other.text_features_[0], by_name["crane (bird)"], atol=1e-6)
    np.testing.assert_allclose(other.text_features_[2], by_name["dog"], atol=1e-6)
    zero_shot = clf.zero_shot().with_classes(other.classes_.tolist()).text_features_
    np.testing.assert_allclose(other.text_features_[[1, 3]], zero_shot[[1, 3]], atol=1e-6)
    assert np.abs(other.text_features_[2] - zero_shot[2]).max() > 1e-3


def test_prompts_of_other_names_have_no_residual(tiny_backbone):
    learner = TaskRes(1.0).learner(problem_of(tiny_backbone, NAMES))
    with torch.no_grad():
        learner.residual.copy_(torch.randn(4, 64, generator=torch_generator(0)))
    texts = learner.encode_texts(learner.prompts(NAMES).joined(learner.prompts(["owl", "cow"])), None)
    torch.testing.assert_close(texts[4:], zero_shot_features(tiny_backbone, ["owl", "cow"], TEMPLATES[0]))
    alone = learner.encode_texts(learner.prompts(["owl", "dog"]), None)
    torch.testing.assert_close(alone, texts[[4, 0]])
    texts[4:].sum().backward()
    assert not learner.residual.grad.any()


def test_kg_keeps_the_text_features_of_the_classes():
    zero_shot = fitted(max_epochs=0).text_features_
    free, kept = (fitted(max_epochs=30, regularizer=regularizer) for regularizer in (None, "kg"))
    drift = [1 - (clf.text_features_ * zero_shot).sum(axis=1).mean() for clf in (free, kept)]
    assert drift[1] < 0.9 * drift[0]


def test_classes_of_one_name_have_residuals_of_their_own():
    names = {"a": "dog", "b": "river", "c": "dog"}
    params = {"class_names": names, "allow_duplicate_names": True, "random_state": 0, "max_epochs": 3}
    clf = PromptTunedCLIPClassifier(AnyWidthBackbone(64), method="taskres", learning_rate=0.05, **params)
    clf.fit(X, np.array(list("abc") * 8))
    assert np.abs(clf.text_features_[0] - clf.text_features_[2]).max() > 1e-3
    with pytest.raises(ValueError, match=r"Several training classes have the name 'dog'.*different names"):
        clf.with_classes(["owl", "cow"])


def test_recipes():
    original, dor = (PromptTunedCLIPClassifier(method="taskres", recipe=name) for name in ("original", "dor"))
    for clf, rate, scale in ((original, 0.002, 0.5), (dor, 0.0002, 1.0)):
        clf.set_params(backbone=AnyWidthBackbone(64), random_state=0).fit(X, Y)
        recipe = {name: clf.recipe_[name] for name in ("optimizer", "batch_size", "max_epochs")}
        assert recipe == {"optimizer": "adam", "batch_size": 256, "max_epochs": 200}
        assert (clf.recipe_["learning_rate"], clf.method_.scale) == (rate, scale)


@pytest.mark.parametrize(
    ("params", "words"),
    [({"scale": 0}, "'scale'.*Got 0"), ({"template": ["a {}.", "none"]}, "template")],
)
def test_invalid_parameters_raise(params, words):
    with pytest.raises(ValueError, match=words):
        TaskRes(**params).learner(problem_of(AnyWidthBackbone(), NAMES))
