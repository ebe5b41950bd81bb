"""Regularizer of the mean and the covariance of text features, and its sum with that of margins."""

import numpy as np
import pytest
import torch
from loss_terms import NAMES, fitted, logits_out, samples, term_of
from torch.nn.functional import normalize
from tuning_problem import encode, out_of, problem_of

from clipcal.methods import CoOp, zero_shot_features
from clipcal.regularizers import MarginMomentRegularizer, MarginRegularizer, MomentMatchingRegularizer
from clipcal.training import Forward

BOTH = [MomentMatchingRegularizer, MarginMomentRegularizer]


def features(seed, *shape):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def with_targets(targets, weight=5.0):
    """Return the loss term for given zero-shot features."""
    term = term_of(MomentMatchingRegularizer(weight))
    return type(term)(term.weight, targets)


def by_numpy(texts, targets):
    """Return the loss without its weight, in float64, by the functions of NumPy."""
    texts, targets = texts.detach().numpy().astype(np.float64), targets.numpy().astype(np.float64)
    means = texts.mean(axis=0) - targets.mean(axis=0)
    covariances = np.cov(texts.T, bias=True) - np.cov(targets.T, bias=True)
    return (means**2).sum() + (covariances**2).sum()


def test_hand_computed_value():
    # Means (0, 1/2) and (1/2, 1/2); covariances [[0, 0], [0, 1/4]] and [[1, -1], [-1, 1]] / 4.
    term = with_targets(torch.eye(2), weight=3.0)
    texts = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    expected = 3.0 * (0.25 + 3 / 16)
    assert term(out_of(texts), None, None).item() == pytest.approx(expected)


def test_value_and_gradient_equal_the_formula(tiny_backbone):
    problem = problem_of(tiny_backbone, NAMES)
    learner = CoOp("one of the").learner(problem)
    term = MomentMatchingRegularizer().prepare(problem, learner)
    texts = encode(learner, learner.prompts(NAMES))
    targets = zero_shot_features(tiny_backbone, NAMES, "a photo of a {}.")
    found = term(out_of(texts), None, None)
    assert found.item() == pytest.approx(5.0 * by_numpy(texts, targets), rel=1e-4)
    mean, target_mean = texts.mean(dim=0), targets.mean(dim=0)
    centered, of_targets = texts - mean, targets - target_mean
    difference = centered.T @ centered / 3 - of_targets.T @ of_targets / 3
    expected = 5.0 * (2 * (mean - target_mean) / 3 + 4 * centered @ difference / 3)
    # Without the part along the features, as only their directions are compared.
    expected = expected - (expected * texts).sum(dim=1, keepdim=True) * texts
    (gradient,) = torch.autograd.grad(found, texts)
    assert (gradient - expected).norm() < 1e-4 * expected.norm()


def test_does_not_depend_on_the_length_of_the_features():
    term, texts = with_targets(features(0, 6, 8)), features(1, 6, 8)
    longer = torch.linspace(0.5, 70, 6)[:, None] * texts
    torch.testing.assert_close(term(out_of(longer), None, None), term(out_of(texts), None, None))


def test_is_zero_for_equal_features_and_does_not_depend_on_the_order():
    targets, texts = features(0, 6, 8), features(1, 6, 8)
    term = with_targets(targets)
    assert term(out_of(targets), None, None).item() == pytest.approx(0, abs=1e-12)
    assert term(out_of(targets.flip(0)), None, None).item() == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(term(out_of(texts.flip(0)), None, None), term(out_of(texts), None, None))
    assert term(out_of(texts), None, None).item() == pytest.approx(5 * by_numpy(texts, targets), rel=1e-4)


def test_is_averaged_over_images_if_the_text_depends_on_them():
    term, texts = with_targets(features(0, 6, 8)), features(1, 4, 6, 8)
    single = torch.stack([term(out_of(of_image), None, None) for of_image in texts])
    assert single.std() > 1e-2
    torch.testing.assert_close(term(out_of(texts), samples(), None), single.mean())
    weighted = (3 * single[1] + single[2]) / 4
    torch.testing.assert_close(term(out_of(texts), samples([0, 3, 1, 0]), None), weighted)


def test_template(tiny_backbone):
    default, other = (
        term_of(MomentMatchingRegularizer(template=template), tiny_backbone)
        for template in ("a photo of a {}.", ["dtd", "oxford_pets"])
    )
    texts = zero_shot_features(tiny_backbone, NAMES, ["dtd", "oxford_pets"])
    assert other(out_of(texts), None, None).item() == pytest.approx(0, abs=1e-9)
    assert default(out_of(texts), None, None).item() > 1e-3


def test_sum_of_both():
    texts, logits = features(1, 3, 32), torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 5.0]])
    out = Forward(torch.zeros(0), texts, logits)
    batch = samples([1.0, 3.0], targets=[0, 2])
    parts = (term_of(MarginRegularizer()), term_of(MomentMatchingRegularizer()))
    expected = sum(term(out, batch, None) for term in parts)
    torch.testing.assert_close(term_of(MarginMomentRegularizer(2.0))(out, batch, None), 2 * expected)
    assert parts[0](logits_out(logits), batch, None).item() < 0 < parts[1](out, batch, None).item()


def test_is_zero_at_the_start_and_keeps_the_moments():
    first = fitted("moment-matching", max_epochs=1, batch_size=24).history_[0]
    assert first["moment-matching"] == pytest.approx(0, abs=1e-8)
    kept, plain = (fitted(each, max_epochs=20) for each in (MomentMatchingRegularizer(50.0), None))
    for record in kept.history_:
        assert record["loss"] == pytest.approx(record["cross_entropy"] + record["moment-matching"], abs=1e-5)
    targets = torch.from_numpy(plain.zero_shot().text_features_)
    distances = [by_numpy(torch.from_numpy(clf.text_features_), targets) for clf in (kept, plain)]
    assert distances[0] < distances[1]


def test_sum_equals_a_list_of_both():
    one, both = fitted("tcpt"), fitted(["margin", "moment-matching"])
    np.testing.assert_allclose(one.text_features_, both.text_features_, atol=1e-5)
    for record, parts in zip(one.history_, both.history_, strict=True):
        assert record["tcpt"] == pytest.approx(parts["margin"] + parts["moment-matching"], abs=1e-4)


@pytest.mark.parametrize("regularizer", BOTH)
@pytest.mark.parametrize("params", [{"weight": -1.0}, {"template": None}])
def test_invalid_parameters_raise(regularizer, params):
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter of {regularizer.__name__}"):
        fitted(regularizer(**params))
