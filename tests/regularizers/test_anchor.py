"""Knowledge-guided regularizer."""

import pytest
import torch
from torch.nn.functional import normalize
from tuning_problem import encode, out_of, problem_of

from clipcal.methods import CoOp, zero_shot_features
from clipcal.regularizers import AnchorRegularizer
from clipcal.training import torch_generator

NAMES = ["dog", "river", "hammer"]


def prepared(backbone, regularizer, method=None):
    problem = problem_of(backbone, NAMES)
    learner = (method or CoOp()).learner(problem)
    return regularizer.prepare(problem, learner), encode(learner, learner.prompts(NAMES))


def value_of(term, features):
    return term(out_of(features), None, None)


def test_equals_the_formula(tiny_backbone):
    term, features = prepared(tiny_backbone, AnchorRegularizer(3.0), CoOp(context_init="one of the"))
    anchors = zero_shot_features(tiny_backbone, NAMES, "a photo of a {}.")
    cosines = [torch.cosine_similarity(w, w0, dim=0) for w, w0 in zip(features, anchors, strict=True)]
    expected = 3.0 * (1 - sum(cosines) / 3)
    assert expected > 1e-2
    torch.testing.assert_close(value_of(term, features), expected)
    assert term.draw(torch_generator(0)) is None


def test_hand_computed_value(tiny_backbone):
    term, _ = prepared(tiny_backbone, AnchorRegularizer())
    term.anchors = torch.eye(3)
    features = normalize(torch.tensor([[1.0, 0, 0], [0, 3, 4], [0, 0, -1]]), dim=1)
    # Cosines 1, 0.6 and -1; weight 8.
    assert value_of(term, features).item() == pytest.approx(8 * (1 - 0.2))


def test_does_not_depend_on_the_length_of_the_features(tiny_backbone):
    term, features = prepared(tiny_backbone, AnchorRegularizer(), CoOp(context_init=None))
    longer = torch.tensor([[0.5], [3.0], [70.0]]) * features
    torch.testing.assert_close(value_of(term, longer), value_of(term, features))


@pytest.mark.parametrize(("template", "is_zero"), [("a photo of a {}.", True), ("{} texture.", False)])
def test_is_zero_at_the_start_with_the_same_template(tiny_backbone, template, is_zero):
    term, features = prepared(tiny_backbone, AnchorRegularizer(template=template))
    value = value_of(term, features).item()
    assert abs(value) < 1e-5 if is_zero else value > 1e-2


def test_gradient_is_proportional_to_the_anchors(tiny_backbone):
    term, features = prepared(tiny_backbone, AnchorRegularizer(2.0), CoOp(context_init=None))
    (gradient,) = torch.autograd.grad(value_of(term, features), features)
    # Without the part along the features, as the cosine does not depend on their length.
    along = (term.anchors * features).sum(dim=1, keepdim=True) * features
    torch.testing.assert_close(gradient, -2.0 / 3 * (term.anchors - along))
    assert not term.anchors.requires_grad


@pytest.mark.parametrize(
    ("params", "words"), [({"weight": -1.0}, "weight"), ({"template": None}, "template")]
)
def test_invalid_parameters_raise(tiny_backbone, params, words):
    with pytest.raises(ValueError, match=f"'{words}' parameter of AnchorRegularizer"):
        prepared(tiny_backbone, AnchorRegularizer(**params))
