"""Checks of learners and loss terms before training, with errors for authors of methods."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clipcal.training._data import TrainingData
from clipcal.training._learner import Learner, LossTerm
from clipcal.training._prompts import Prompts

__all__ = ["check_learner", "check_terms"]

# Columns of the history that do not come from losses.
_RESERVED = {"epoch", "learning_rate", "loss", "accuracy"}


def check_learner(
    learner: Learner,
    class_prompts: Prompts,
    data: TrainingData,
    terms: Sequence[LossTerm],
    *,
    linear: bool,
    text_depends_on_image: bool,
    training_free: bool,
) -> None:
    """Raise an error if a learner contradicts the flags of its method, or returns wrong shapes.

    One forward pass with at most two samples is computed.

    Parameters
    ----------
    learner : Learner
    class_prompts : Prompts
    data : TrainingData
    terms : sequence of LossTerm
        The names of the terms are checked, too.
    linear, text_depends_on_image, training_free : bool
        Flags of the method.

    Raises
    ------
    TypeError
        If something is missing or contradictory.
    ValueError
        If a shape or a name is wrong.
    """
    kind = type(learner).__name__
    changed = [
        name
        for name in ("encode_images", "logits")
        if getattr(type(learner), name) is not getattr(Learner, name)
    ]
    if linear and (changed or text_depends_on_image):
        reason = f"{kind} overrides {changed[0]}" if changed else "text_depends_on_image is True"
        raise TypeError(
            f"{reason}, so predictions are not cosine similarities with fixed text features; set "
            "linear = False on the method."
        )
    if training_free == any(parameter.requires_grad for parameter in learner.parameters()):
        has = "has parameters" if training_free else "has no parameters to train"
        raise TypeError(f"{kind} {has}; set training_free = {not training_free} on the method.")
    learner.eval()
    with torch.no_grad():
        batch = data.first(2)
        out, _ = learner(batch, class_prompts, len(class_prompts))
    n, n_classes = len(batch.targets), len(class_prompts)
    if out.logits.shape != (n, n_classes):
        raise ValueError(
            f"{kind} returned logits of shape {tuple(out.logits.shape)} for {n} images and {n_classes} "
            f"classes; expected {(n, n_classes)}."
        )
    leading = (n, n_classes) if text_depends_on_image else (n_classes,)
    if out.texts.shape[:-1] != leading:
        raise ValueError(
            f"{kind} returned text features of shape {tuple(out.texts.shape)} for {n} images and {n_classes} "
            f"classes; expected {leading} and the width, as text_depends_on_image is {text_depends_on_image}."
        )
    with torch.no_grad():
        losses = list(learner.losses(out, batch))
    unknown = [name for name in learner.loss_factors if name not in losses]
    if unknown:
        raise ValueError(
            f"{kind} has a factor for the loss {unknown[0]!r}, which does not exist; its losses are "
            f"{', '.join(map(repr, losses))}."
        )
    check_terms(terms, losses)


def check_terms(terms: Sequence[LossTerm], losses: Sequence[str]) -> None:
    """Raise an error unless loss terms have names of their own and replace losses that exist.

    Parameters
    ----------
    terms : sequence of LossTerm
    losses : sequence of str
        Names of the losses of the learner.

    Raises
    ------
    TypeError
        If an entry is not a loss term with a name.
    ValueError
        If a name is taken, or a replaced loss does not exist or is replaced twice.
    """
    taken = {*_RESERVED, *losses}
    replaced: dict[str, str] = {}
    for term in terms:
        if not isinstance(term, LossTerm) or not isinstance(getattr(term, "name", None), str):
            raise TypeError(f"prepare must return a LossTerm with a name; got {term!r}.")
        if term.name in taken:
            raise ValueError(
                f"The loss term {type(term).__name__} has the name {term.name!r}, which is taken; the names "
                f"in use are {', '.join(map(repr, sorted(taken)))}."
            )
        taken.add(term.name)
        if term.replaces is None:
            continue
        if term.replaces in replaced:
            raise ValueError(
                f"The loss terms {replaced[term.replaces]!r} and {term.name!r} both replace the loss "
                f"{term.replaces!r}; pass one of them."
            )
        if term.replaces not in losses:
            raise ValueError(
                f"The loss term {term.name!r} replaces the loss {term.replaces!r}, which does not exist; the "
                f"losses of the method are {', '.join(map(repr, losses))}."
            )
        replaced[term.replaces] = term.name
