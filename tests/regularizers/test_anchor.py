"""The knowledge-guided penalty: how far class features are from the zero-shot ones."""

import pytest
import torch
from torch.nn.functional import normalize

from clipcal.methods import CoOp, zero_shot_features
from clipcal.regularizers import AnchorRegularizer, TuningProblem
from clipcal.training import torch_generator

NAMES = ["dog", "river", "hammer"]


def prepared(backbone, regularizer, method=None):
    learner = (method or CoOp()).learner(backbone, len(NAMES), torch_generator(0))
    problem = TuningProblem(
        learner=learner,
        names=NAMES,
        zero_shot=lambda names, template: zero_shot_features(backbone, names, template),
        zero_shot_table=lambda names, template: zero_shot_features(backbone, names, template, skip_long=True),
        outlier_weight=8.0,
        generator=torch_generator(1),
    )
    return regularizer.prepare(problem), learner(learner.prompts(NAMES))


def test_against_the_formula(tiny_backbone):
    penalty, features = prepared(tiny_backbone, AnchorRegularizer(3.0), CoOp(context_init="one of the"))
    anchors = zero_shot_features(tiny_backbone, NAMES, "a photo of a {}.")
    cosines = [torch.cosine_similarity(w, w0, dim=0) for w, w0 in zip(features, anchors, strict=True)]
    expected = 3.0 * (1 - sum(cosines) / 3)
    assert expected > 1e-2
    torch.testing.assert_close(penalty(features, None), expected)
    assert penalty.draw(torch_generator(0)) is None


def test_by_hand(tiny_backbone):
    penalty, _ = prepared(tiny_backbone, AnchorRegularizer())
    penalty.anchors = torch.eye(3)
    features = normalize(torch.tensor([[1.0, 0, 0], [0, 3, 4], [0, 0, -1]]), dim=1)
    # Cosines 1, 0.6 and -1; weight 8.
    assert penalty(features, None).item() == pytest.approx(8 * (1 - 0.2))


@pytest.mark.parametrize(("template", "is_zero"), [("a photo of a {}.", True), ("{} texture.", False)])
def test_start_value(tiny_backbone, template, is_zero):
    penalty, features = prepared(tiny_backbone, AnchorRegularizer(template=template))
    value = penalty(features, None).item()
    assert abs(value) < 1e-5 if is_zero else value > 1e-2


def test_gradient_points_to_the_anchors(tiny_backbone):
    penalty, features = prepared(tiny_backbone, AnchorRegularizer(2.0), CoOp(context_init=None))
    (gradient,) = torch.autograd.grad(penalty(features, None), features)
    torch.testing.assert_close(gradient, -2.0 / 3 * penalty.anchors)
    assert not penalty.anchors.requires_grad


@pytest.mark.parametrize(
    ("params", "words"), [({"weight": -1.0}, "weight"), ({"template": None}, "template")]
)
def test_refused(tiny_backbone, params, words):
    with pytest.raises(ValueError, match=f"'{words}' parameter of AnchorRegularizer"):
        prepared(tiny_backbone, AnchorRegularizer(**params))
