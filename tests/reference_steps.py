"""Compare the training steps of a learner with an independent implementation of its equations."""

import torch
from tuning_problem import batch_of

RATE = 0.05


def open_clip_features(backbone, template, names):
    """Encode names with open_clip itself: padded to 77 tokens, without normalization."""
    texts = [template.replace("{}", name) for name in names]
    tokens = torch.zeros(len(texts), 77, dtype=torch.long)
    for row, ids in zip(tokens, backbone.tokenize(texts), strict=True):
        row[: len(ids)] = ids
    with torch.no_grad():
        return backbone.model.encode_text(tokens)


def compare_steps(learner, names, reference, *, make_optimizer=None, n_steps=3):
    """Assert that logits, losses and gradients of a learner equal those of a reference in each step.

    ``reference(parameters, raw, targets, weights)`` returns logits and a dict of losses, given parameters by
    name and unnormalized image features. `make_optimizer` takes a list of parameters; plain SGD by default.
    """
    make_optimizer = make_optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=RATE))
    generator = torch.Generator().manual_seed(1)
    parameters = {name: value.detach().clone().requires_grad_() for name, value in learner.named_parameters()}
    optimizers = [make_optimizer(list(learner.parameters())), make_optimizer(list(parameters.values()))]
    prompts = learner.prompts(names)
    for _ in range(n_steps):
        raw = 3 * torch.randn(6, learner.embedding_dim, generator=generator)
        targets = torch.randint(len(names), (6,), generator=generator)
        weights = torch.rand(6, generator=generator) + 0.5
        batch = batch_of(raw, targets, weights)
        out, _ = learner(batch, prompts, len(names))
        losses = learner.losses(out, batch)
        logits, expected = reference(parameters, raw, targets, weights)
        torch.testing.assert_close(out.logits, logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
        for optimizer in optimizers:
            optimizer.zero_grad()
        learner.backward(losses)
        torch.stack(list(expected.values())).sum().backward()
        for name, value in learner.named_parameters():
            gradient = parameters[name].grad
            assert gradient.norm() > 1e-4
            assert (value.grad - gradient).norm() < 1e-4 * gradient.norm()
        for optimizer in optimizers:
            optimizer.step()
