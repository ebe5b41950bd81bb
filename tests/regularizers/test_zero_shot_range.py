"""Regularizers that relate logits to the range of the zero-shot logits: ZS-Norm and the penalty."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_terms import LOGITS, NAMES, TARGETS, X, fitted, logits_out, samples, term_of
from torch.nn.functional import cross_entropy
from tuning_problem import batch_of

from clipcal import ZeroShotCLIPClassifier
from clipcal.methods import zero_shot_features
from clipcal.regularizers import LogitRangeRegularizer, ZeroShotNormRegularizer

BOTH = [ZeroShotNormRegularizer, LogitRangeRegularizer]
# Zero-shot logits of the samples, whose ranges are [-1, 1], [0, 2], [0, 3] and [1, 1.5].
ZERO_SHOT = torch.tensor([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.5, 1.0, 1.0]])


def given(regularizer):
    """Return the loss term and a batch of samples with the zero-shot logits above."""
    term = term_of(regularizer)
    # The product of the embeddings and these texts is the embeddings.
    term.texts = torch.eye(3)
    return term, replace(batch_of(torch.ones(4, 3), TARGETS), embeddings=ZERO_SHOT)


def test_hand_computed_penalty():
    term, batch = given(LogitRangeRegularizer(3.0))
    # Above the range: 1 | 1 | 1 | nothing; below it: nothing | nothing | 1 | nothing.
    assert term(logits_out(), batch, None).item() == pytest.approx(3.0 * (1 + 1 + 2) / 12)
    inside = logits_out(ZERO_SHOT.flip(1))
    assert term(inside, batch, None).item() == 0


def test_hand_computed_normalization():
    term, batch = given(ZeroShotNormRegularizer())
    # Each row of the logits mapped to the range of the zero-shot logits.
    mapped = torch.tensor([[1.0, 1 / 3, -1.0], [0.0, 2.0, 1 / 3], [0.0, 0.6, 3.0], [1.0, 1.5, 1.0]])
    expected = cross_entropy(mapped, torch.tensor(TARGETS))
    torch.testing.assert_close(term(logits_out(), batch, None), expected)


def test_gradients_equal_those_of_the_published_formulas():
    low, high = ZERO_SHOT.min(1, keepdim=True)[0], ZERO_SHOT.max(1, keepdim=True)[0]
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)) * 3

    def normalized(z):
        least, most = z.min(1, keepdim=True)[0], z.max(1, keepdim=True)[0]
        scaled = (z - least) / (most - least) * (high - low) + low
        return cross_entropy(scaled, torch.tensor(TARGETS))

    def penalty(z):
        return 10 * (torch.relu(z - high).mean() + torch.relu(low - z).mean())

    for regularizer, formula in ((ZeroShotNormRegularizer(), normalized), (LogitRangeRegularizer(), penalty)):
        term, batch = given(regularizer)
        ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        found, expected = term(logits_out(ours), batch, None), formula(theirs)
        torch.testing.assert_close(found, expected)
        gradients = torch.autograd.grad(found, ours)[0], torch.autograd.grad(expected, theirs)[0]
        assert gradients[1].norm() > 1e-2
        torch.testing.assert_close(*gradients)


def test_normalized_logits_do_not_depend_on_scale_and_offset():
    term, batch = given(ZeroShotNormRegularizer())
    scaled = logits_out(3 * torch.tensor(LOGITS) - 5)
    torch.testing.assert_close(term(scaled, batch, None), term(logits_out(), batch, None))


def test_equal_logits_have_a_finite_loss_and_gradient():
    term, batch = given(ZeroShotNormRegularizer())
    logits = torch.ones(4, 3, requires_grad=True)
    loss = term(logits_out(logits), batch, None)
    assert loss.item() == pytest.approx(np.log(3))
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_gradients_of_small_ranges_are_bounded():
    """The gradient is inversely proportional to the range, down to a range of 1e-6."""

    def gradients(width):
        term, batch = given(ZeroShotNormRegularizer())
        logits = (width * torch.tensor(LOGITS, dtype=torch.float64)).requires_grad_()
        return torch.autograd.grad(term(logits_out(logits), batch, None), logits)[0]

    # The ranges of the logits are between 0.5 and 5 times the width.
    torch.testing.assert_close(1e-5 * gradients(1e-5), gradients(1.0))
    largest = gradients(1e-9).abs().max()
    assert 1e5 < largest < 1e7
    torch.testing.assert_close(gradients(1e-12).abs().max(), largest, rtol=1e-2, atol=0)


@pytest.mark.parametrize("regularizer", BOTH)
@pytest.mark.parametrize("template", ["a photo of a {}.", ["{} texture.", "art of the {}."]])
def test_zero_shot_logits_are_those_of_the_zero_shot_classifier(regularizer, template, tiny_backbone):
    term = term_of(regularizer(template=template), tiny_backbone)
    embeddings = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    low, high = term.zero_shot_range(batch_of(embeddings))
    texts = zero_shot_features(tiny_backbone, NAMES, template).numpy().astype(np.float64)
    unit = embeddings.numpy() / np.linalg.norm(embeddings.numpy(), axis=1, keepdims=True)
    logits = tiny_backbone.logit_scale * unit @ texts.T
    np.testing.assert_allclose(low[:, 0], logits.min(axis=1), atol=1e-4)
    np.testing.assert_allclose(high[:, 0], logits.max(axis=1), atol=1e-4)


@pytest.mark.parametrize("regularizer", BOTH)
def test_zero_shot_logits_are_those_of_the_classifier(regularizer):
    clf = ZeroShotCLIPClassifier(fitted(None, max_epochs=0).backbone).fit(X, NAMES * 8)
    low, high = term_of(regularizer(), names=sorted(NAMES)).zero_shot_range(batch_of(torch.tensor(X).float()))
    logits = clf.decision_function(X)
    np.testing.assert_allclose(low[:, 0], logits.min(axis=1), atol=1e-4)
    np.testing.assert_allclose(high[:, 0], logits.max(axis=1), atol=1e-4)


@pytest.mark.parametrize("regularizer", BOTH)
def test_samples_are_weighted(regularizer):
    term = term_of(regularizer())
    single = []
    for row, target in enumerate(TARGETS):
        whole = samples()
        one = batch_of(whole.raw_embeddings[[row]], [target])
        single.append(term(logits_out([LOGITS[row]]), one, None))
    expected = (3 * single[0] + single[2]) / 4
    torch.testing.assert_close(term(logits_out(), samples([3, 0, 1, 0]), None), expected)


def test_penalty_is_zero_at_the_start_and_limits_the_range():
    # One step, at the context that equals zero-shot CLIP.
    first = fitted("logit-range", max_epochs=1, batch_size=24).history_[0]
    assert first["logit-range"] == pytest.approx(0, abs=1e-4)
    limited, plain = (fitted(each, max_epochs=20) for each in ("logit-range", None))
    for record in limited.history_:
        assert record["loss"] == pytest.approx(record["cross_entropy"] + record["logit-range"], abs=1e-5)

    def outside(clf):
        z, z0 = clf.decision_function(X), clf.zero_shot().decision_function(X)
        high, low = z0.max(axis=1, keepdims=True), z0.min(axis=1, keepdims=True)
        return (np.maximum(z - high, 0) + np.maximum(low - z, 0)).mean()

    assert outside(limited) < outside(plain)


def test_normalization_replaces_the_cross_entropy():
    clf = fitted("zs-norm")
    for record in clf.history_:
        assert "cross_entropy" not in record
        assert record["loss"] == pytest.approx(record["zs-norm"])
    # At the context that equals zero-shot CLIP it is the cross-entropy.
    one = {"max_epochs": 1, "batch_size": 24}
    first, plain = (fitted(each, **one).history_[0] for each in ("zs-norm", None))
    assert first["zs-norm"] == pytest.approx(plain["cross_entropy"], rel=1e-4)
    with pytest.raises(
        ValueError, match="'zs-norm' and 'label-smoothing' both replace the loss 'cross_entropy'"
    ):
        fitted(["zs-norm", "label-smoothing"])


@pytest.mark.parametrize("regularizer", BOTH)
@pytest.mark.parametrize("params", [{"weight": -1.0}, {"template": None}])
def test_invalid_parameters_raise(regularizer, params):
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter of {regularizer.__name__}"):
        fitted(regularizer(**params))
