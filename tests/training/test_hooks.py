"""Hooks of the training loop and settings of a recipe."""

from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipcal.training import (
    EmbeddedData,
    Learner,
    LossTerm,
    Prompts,
    Recipe,
    torch_generator,
    tune,
)
from clipcal.training._checks import check_terms

WIDTH, N_CLASSES = 4, 3


class Linear(Learner):
    """Learner whose parameters are the text features, one row for each prompt."""

    def __init__(self):
        super().__init__(logit_scale=10.0)
        self.rows = nn.Parameter(torch.eye(N_CLASSES, WIDTH))

    def encode_texts(self, prompts, images):
        return self.rows[: len(prompts)]


def class_prompts():
    return Prompts(torch.zeros(N_CLASSES, 3, dtype=torch.long), torch.full((N_CLASSES,), 3), n_shared=1)


def data(n_samples=6):
    raw = torch.randn(n_samples, 1, WIDTH, generator=torch_generator(0))
    return EmbeddedData.from_raw(raw, torch.arange(n_samples) % N_CLASSES, torch.ones(n_samples))


def run(learner, terms=(), *, on_epoch_end=None, **settings):
    settings = {"max_epochs": 3, "learning_rate": 0.1, "batch_size": 6, "warmup_epochs": 0, **settings}
    return tune(
        learner,
        class_prompts(),
        data(),
        terms,
        recipe=Recipe(**settings),
        data_generator=torch_generator(1),
        term_generator=torch_generator(2),
        on_epoch_end=on_epoch_end,
    )


class Smoothing(LossTerm):
    name = "smoothed"
    replaces = "cross_entropy"

    def __call__(self, out, batch, drawn):
        smoothed = F.cross_entropy(out.logits, batch.targets, reduction="none", label_smoothing=0.3)
        return batch.mean(smoothed)


def test_loss_term_can_replace_a_loss():
    history = run(Linear(), [Smoothing()], max_epochs=1)
    assert list(history[0]) == ["epoch", "learning_rate", "loss", "accuracy", "smoothed"]
    (batch,) = data().batches(6, torch_generator(1))
    logits = 10 * batch.embeddings @ torch.eye(N_CLASSES, WIDTH).T
    expected = F.cross_entropy(logits, batch.targets, label_smoothing=0.3).item()
    assert history[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert history[0]["smoothed"] == pytest.approx(expected, rel=1e-5)


class Mixed(Linear):
    loss_factors: ClassVar[dict[str, float]] = {"cross_entropy": 0.3, "length": 2.0}

    def losses(self, out, batch):
        return {**super().losses(out, batch), "length": out.texts.square().sum(), "count": out.texts.sum()}


class Plain(LossTerm):
    name = "plain"

    def __call__(self, out, batch, drawn):
        return out.texts[0].sum()


@pytest.mark.parametrize("terms", [[], [Smoothing()], [Plain(), Smoothing()]])
def test_factor_of_a_loss_applies_to_the_term_that_replaces_it(terms):
    learner = Mixed()
    settings = {"momentum": 0.0, "weight_decay": 0.0, "learning_rate": 1.0}
    (record,) = run(learner, terms, max_epochs=1, **settings)
    (batch,) = data().batches(6, torch_generator(1))
    rows = torch.eye(N_CLASSES, WIDTH).requires_grad_()
    smoothing = 0.3 if terms else 0.0
    entropy = F.cross_entropy(10 * batch.embeddings @ rows.T, batch.targets, label_smoothing=smoothing)
    expected = {"smoothed" if terms else "cross_entropy": 0.3 * entropy}
    expected |= {"length": 2 * rows.square().sum(), "count": rows.sum()}
    if len(terms) == 2:
        expected["plain"] = rows[0].sum()
    total = sum(expected.values())
    assert record.keys() - {"epoch", "learning_rate", "loss", "accuracy"} == expected.keys()
    for name, loss in {**expected, "loss": total}.items():
        assert record[name] == pytest.approx(loss.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(total, rows)
    torch.testing.assert_close(torch.eye(N_CLASSES, WIDTH) - learner.rows, gradient, atol=1e-5, rtol=1e-5)


def test_drawn_images_are_encoded_by_the_learner():
    class Doubled(Linear):
        def encode_images(self, batch):
            return 2 * batch.embeddings

    (drawn_batch,) = data(2).batches(2, torch_generator(5))
    seen = []

    class OfImages(LossTerm):
        name = "of images"

        def draw(self, generator):
            return drawn_batch

        def __call__(self, out, batch, drawn):
            seen.append(drawn)
            return drawn.sum() * 0 + out.texts.sum() * 0

    run(Doubled(), [OfImages()], max_epochs=1)
    torch.testing.assert_close(seen[0], 2 * drawn_batch.embeddings)


def test_learner_can_change_gradients():
    """Remove from one gradient its component along the gradient of another loss, as ProGrad does."""

    class Projected(Linear):
        def losses(self, out, batch):
            return {**super().losses(out, batch), "length": out.texts.square().sum()}

        def backward(self, losses):
            (a,) = torch.autograd.grad(losses["cross_entropy"], self.rows, retain_graph=True)
            (b,) = torch.autograd.grad(losses["length"], self.rows)
            self.rows.grad = a - (a * b).sum() / (b * b).sum() * b

    learner = Projected()
    run(learner, max_epochs=1, momentum=0.0, weight_decay=0.0)
    step = learner.rows.detach() - torch.eye(N_CLASSES, WIDTH)
    assert step.norm() > 1e-2
    # The gradient of the length at the start is twice the identity.
    assert abs((step * torch.eye(N_CLASSES, WIDTH)).sum()) < 1e-6


@pytest.mark.parametrize("stop_after", [None, 2])
def test_learner_can_average_parameters_over_epochs(stop_after):
    class Averaged(Linear):
        def __init__(self):
            super().__init__()
            self.gathered = []
            self.epochs = []

        def end_epoch(self, epoch, n_epochs):
            self.epochs.append((epoch, n_epochs))
            self.gathered.append(self.rows.detach().clone())

        def finish(self):
            with torch.no_grad():
                self.rows.copy_(torch.stack(self.gathered).mean(dim=0))

    learner, plain = Averaged(), Linear()
    weights = []
    run(plain, on_epoch_end=lambda record: weights.append(plain.rows.detach().clone()))
    run(learner, on_epoch_end=lambda record: record["epoch"] + 1 == stop_after)
    n_epochs = stop_after or 3
    assert learner.epochs == [(epoch, 3) for epoch in range(n_epochs)]
    torch.testing.assert_close(learner.rows.detach(), torch.stack(weights[:n_epochs]).mean(dim=0))


class TestRecipe:
    def one_step(self, **settings):
        learner = Linear()
        run(learner, max_epochs=1, **settings)
        return learner.rows.detach() - torch.eye(N_CLASSES, WIDTH)

    def gradient(self):
        learner = Linear()
        (batch,) = data().batches(6, torch_generator(1))
        out, _ = learner(batch, class_prompts(), N_CLASSES)
        return torch.autograd.grad(learner.losses(out, batch)["cross_entropy"], learner.rows)[0]

    def test_sgd_adds_weight_decay_to_the_gradient(self):
        expected = -0.1 * (self.gradient() + 0.5 * torch.eye(N_CLASSES, WIDTH))
        torch.testing.assert_close(self.one_step(weight_decay=0.5), expected)

    @pytest.mark.parametrize("optimizer", ["adam", torch.optim.Adam])
    def test_optimizer_by_name_or_class(self, optimizer):
        # The first step of Adam is proportional to the sign of the gradient.
        expected = -0.1 * self.gradient().sign()
        step = self.one_step(optimizer=optimizer, weight_decay=0.0)
        torch.testing.assert_close(step, expected, atol=1e-5, rtol=0)

    def test_adamw_decouples_weight_decay(self):
        expected = -0.1 * (self.gradient().sign() + 0.5 * torch.eye(N_CLASSES, WIDTH))
        step = self.one_step(optimizer="adamw", weight_decay=0.5)
        torch.testing.assert_close(step, expected, atol=1e-5, rtol=0)

    def test_options_of_the_optimizer(self):
        # The first step of Adam is g / (|g| + eps).
        gradient = self.gradient()
        options = {"eps": 0.05}
        step = self.one_step(optimizer="adam", weight_decay=0.0, optimizer_options=options)
        torch.testing.assert_close(step, -0.1 * gradient / (gradient.abs() + 0.05))
        recipe = Recipe(optimizer="adam", optimizer_options=options)
        assert recipe.plain()["optimizer_options"] == options
        assert recipe.with_values(optimizer="adam", max_epochs=2).optimizer_options == options
        other = recipe.with_values(optimizer="sgd")
        assert other.optimizer_options == {} and "optimizer_options" not in other.plain()
        assert recipe.with_values(optimizer="adamw", optimizer_options=options).optimizer_options == options

    def test_momentum_adds_the_previous_step(self):
        rows = []
        learner = Linear()
        settings = {"schedule": "constant", "momentum": 0.5, "weight_decay": 0.0, "max_epochs": 2}
        run(learner, on_epoch_end=lambda record: rows.append(learner.rows.detach().clone()), **settings)
        first = rows[0] - torch.eye(N_CLASSES, WIDTH)
        other = Linear()
        with torch.no_grad():
            other.rows.copy_(rows[0])
        run(other, **{**settings, "momentum": 0.0, "max_epochs": 1})
        torch.testing.assert_close(rows[1] - rows[0], other.rows.detach() - rows[0] + 0.5 * first)

    def test_schedule_and_warm_up(self):
        settings = {"max_epochs": 4, "warmup_epochs": 2, "warmup_rate": 0.25, "learning_rate": 1.0}
        rates = [record["learning_rate"] for record in run(Linear(), schedule="constant", **settings)]
        assert rates == [0.25, 0.25, 1.0, 1.0]
        rates = [record["learning_rate"] for record in run(Linear(), **settings)]
        np.testing.assert_allclose(rates, [0.25, 0.25, 1.0, (1 + np.cos(np.pi / 4)) / 2])

    def test_with_values_ignores_none(self):
        recipe = Recipe(batch_size=4).with_values(max_epochs=0, learning_rate=None, drop_last=False)
        assert (recipe.max_epochs, recipe.learning_rate, recipe.batch_size) == (0, 0.002, 4)
        assert recipe.plain()["drop_last"] is False
        assert Recipe(optimizer=torch.optim.Adam).plain()["optimizer"] == "Adam"
        assert "method_params" not in recipe.plain()

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            (
                {"optimizer": "Adam"},
                "optimizer must be one of 'sgd', 'adam', 'adamw' or a callable, got 'Adam'",
            ),
            ({"schedule": "lin"}, "schedule must be one of 'cosine', 'constant', got 'lin'"),
            ({"max_epochs": "10"}, "max_epochs must be an integer of at least 0, got '10'"),
            ({"batch_size": 0}, "batch_size must be an integer of at least 1 or 'all', got 0"),
        ],
    )
    def test_invalid_settings(self, settings, words):
        with pytest.raises(ValueError, match=words):
            Recipe(**settings)

    def test_optimizer_callables(self):
        def flat(groups, lr, weight_decay):
            parameters = [parameter for group in groups for parameter in group["params"]]
            return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay)

        step = self.one_step(optimizer=flat, weight_decay=0.0)
        torch.testing.assert_close(step, -0.1 * self.gradient())
        with pytest.raises(TypeError, match=r"optimizer must return a torch\.optim\.Optimizer, got NoneType"):
            self.one_step(optimizer=lambda groups, lr, weight_decay: None)


def test_a_loss_that_is_not_averaged_is_refused():
    class PerSample(LossTerm):
        name = "per sample"

        def __call__(self, out, batch, drawn):
            return out.logits.sum(dim=1)

    with pytest.raises(ValueError, match=r"The loss 'per sample' has shape \(6,\); average it"):
        run(Linear(), [PerSample()])


def test_a_batch_of_samples_with_tiny_weights_has_a_finite_loss():
    small = data()
    small = EmbeddedData(small.targets, torch.zeros(6), small.embeddings, small.norms)
    (batch,) = small.batches(6, torch_generator(0))
    assert batch.mean(torch.ones(6)) == 0


def named(name, replaces=None):
    return type("Term", (Smoothing,), {"name": name, "replaces": replaces})()


@pytest.mark.parametrize(
    ("terms", "error", "words"),
    [
        ([None], TypeError, "prepare must return a LossTerm with a name; got None"),
        ([LossTerm()], TypeError, "LossTerm with a name"),
        ([named("kg"), named("kg")], ValueError, "has the name 'kg', which is taken"),
        ([named("loss")], ValueError, "'loss', which is taken"),
        ([named("cross_entropy")], ValueError, "'cross_entropy', which is taken"),
        (
            [named("a", "cross-entropy")],
            ValueError,
            "'cross-entropy', which does not exist; .*'cross_entropy'",
        ),
        (
            [named("a", "cross_entropy"), named("b", "cross_entropy")],
            ValueError,
            "'a' and 'b' both replace the loss 'cross_entropy'",
        ),
    ],
)
def test_names_of_terms_are_checked(terms, error, words):
    with pytest.raises(error, match=words):
        check_terms(terms, ["cross_entropy"])
    check_terms([named("a"), named("b", "cross_entropy")], ["cross_entropy", "head"])
