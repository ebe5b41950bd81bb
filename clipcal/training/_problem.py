"""Tuning problems, and the outputs of a training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clipcal.backbones import Backbone
from clipcal.training._data import TrainingData

__all__ = ["Forward", "TuningProblem"]


@dataclass(frozen=True)
class Forward:
    """Output of the forward pass, from which losses are computed.

    See :doc:`/development/adding_a_method`.

    Attributes
    ----------
    images : Tensor, shape (n, embedding_dim)
        Image features.
    texts : Tensor, shape (n_classes, embedding_dim) or (n, n_classes, embedding_dim)
        Text features of the classes. They have the second shape if they depend on the image.
    logits : Tensor, shape (n, n_classes)
        Logits.
    extra : dict of str to Tensor
        Other results of a method, such as a second set of logits.
    """

    images: Tensor
    texts: Tensor
    logits: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TuningProblem:
    """Inputs of a tuning method and its regularizers.

    See :doc:`/development/adding_a_method`.

    Attributes
    ----------
    backbone : Backbone
        The frozen CLIP.
    names : sequence of str, length n_classes
        Names of the base classes.
    zero_shot : callable
        ``zero_shot(names, template)`` returns zero-shot text features of unit length, shape
        (n_names, embedding_dim). With ``normalize=False``, they are not normalized.
    zero_shot_table : callable
        The same function for long lists, with cached results. The features of names that are too long for
        the backbone are zeros.
    generator : torch.Generator
        Random number generator for initial values, on the CPU.
    data : TrainingData or None, default=None
        The training data, or None if a fitted learner is rebuilt.
    method : str, default=""
        Name of the method.
    regularizers : sequence of str, default=()
        Names of all regularizers of the fit.
    other_images : callable or None, default=None
        ``other_images(images)`` returns images or embeddings that are not in the training data as
        :class:`TrainingData` without labels, with the features of the frozen CLIP. It is a
        :class:`PixelData` if the method reads pixels in each step. None if a fitted learner is rebuilt.
    """

    backbone: Backbone
    names: Sequence[str]
    zero_shot: Callable[..., Tensor]
    zero_shot_table: Callable[..., Tensor]
    generator: torch.Generator
    data: TrainingData | None = None
    method: str = ""
    regularizers: Sequence[str] = ()
    other_images: Callable[[Any], TrainingData] | None = None
