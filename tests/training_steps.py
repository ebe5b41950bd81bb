"""Steps of training, compared with a reference that computes them one image and one prompt at a time."""

from dataclasses import dataclass, field

import torch

from clipcal.training import Batch, EmbeddedData, Recipe, torch_generator, tune

N_STEPS = 3


@dataclass
class Step:
    """Inputs and results of one step."""

    batch: Batch
    nouns: list[str] | list[int]
    logits: torch.Tensor
    losses: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)


def weighted_data(n_classes, width, n_samples=6, seed=3):
    """Return random embeddings with unequal weights."""
    raw = torch.randn((n_samples, 1, width), generator=torch_generator(seed))
    return EmbeddedData.from_raw(
        raw, torch.arange(n_samples) % n_classes, 0.5 + torch.arange(n_samples) / n_samples
    )


def weighted_mean(batch, values):
    """Return the mean of one value per image times the weight of the image."""
    total = sum(weight * value for weight, value in zip(batch.weights, values, strict=True))
    return total / len(values)


def cross_entropy_of(batch, logits):
    """Return the weighted mean of the cross-entropy, computed image by image."""
    each = [
        -(row - row.max()).exp().div((row - row.max()).exp().sum()).log()[target]
        for row, target in zip(logits, batch.targets, strict=True)
    ]
    return weighted_mean(batch, each)


def assert_steps_agree(learner, names, data, reference, *, term=None, learning_rate=0.02, rate_factors=()):
    """Compare logits, losses and gradients of three steps with those of a reference.

    Parameters
    ----------
    learner : Learner
    names : list of str
    data : EmbeddedData
        All samples form one batch.
    reference : callable
        ``reference(parameters, batch, nouns)`` returns logits, a dictionary of losses, and a dictionary of
        gradients, or None for those of the sum of the losses. If the outliers are images, `nouns` are rows.
    term : LossTerm, default=None
        The loss term of dynamic outlier regularization, of text or image features.
    rate_factors : mapping of str to float, default=()
        Factors of the learning rate of parameters; 1 for all others.
    """
    parameters = {name: value.detach().clone().requires_grad_() for name, value in _trained(learner)}
    rule = {"momentum": 0.9, "weight_decay": 5e-4}
    factors = dict(rate_factors)
    groups = [
        {"params": [value], "lr": learning_rate * factors.get(name, 1)} for name, value in parameters.items()
    ]
    optimizer = torch.optim.SGD(groups, lr=learning_rate, **rule)
    for step in _steps(learner, names, data, term, learning_rate):
        logits, losses, gradients = reference(parameters, step.batch, step.nouns)
        torch.testing.assert_close(step.logits, logits, atol=1e-5, rtol=1e-5)
        for name, loss in losses.items():
            assert abs(step.losses[name] - loss.item()) < 1e-4 * max(abs(loss.item()), 1e-2), name
        if gradients is None:
            found = torch.autograd.grad(sum(losses.values()), list(parameters.values()))
            gradients = dict(zip(parameters, found, strict=True))
        for name, expected in gradients.items():
            assert expected.norm() > 1e-4, name
            assert (step.gradients[name] - expected).norm() < 1e-4 * expected.norm(), name
            parameters[name].grad = expected
        optimizer.step()


def _trained(learner):
    """Return the parameters that have elements, unlike the prompts of further blocks if there are none."""
    return [(name, value) for name, value in learner.named_parameters() if value.numel()]


def _steps(learner, names, data, term, learning_rate):
    steps = []

    def seen(module, args, result):
        drawn = [] if term is None else term.drawn.tolist()
        nouns = [term.nouns[i] for i in drawn] if hasattr(term, "nouns") else drawn
        steps.append(Step(args[0], nouns, result[0].logits.detach().clone()))

    def end_of_step(record):
        steps[-1].losses = record
        steps[-1].gradients = {name: value.grad.clone() for name, value in _trained(learner)}
        return False

    handle = learner.register_forward_hook(seen)
    tune(
        learner,
        learner.prompts(names),
        data,
        [] if term is None else [term],
        recipe=Recipe(
            max_epochs=N_STEPS,
            batch_size=len(data),
            warmup_epochs=0,
            schedule="constant",
            learning_rate=learning_rate,
        ),
        data_generator=torch_generator(0),
        term_generator=torch_generator(1),
        on_epoch_end=end_of_step,
    )
    handle.remove()
    assert len(steps) == N_STEPS
    return steps
