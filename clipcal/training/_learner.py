"""Interfaces of learners, the trainable part of tuning methods, and of additional loss terms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from clipcal.training._data import Batch
from clipcal.training._problem import Forward
from clipcal.training._prompts import Prompts

__all__ = ["Learner", "LossTerm"]


class Learner(nn.Module):
    """The learnable part of a tuning method, bound to one tuning problem.

    A subclass implements :meth:`prompts` and :meth:`encode_texts`. The other methods have defaults, which
    a subclass may override: image features of the frozen CLIP, scaled cosine similarities as logits, the
    cross-entropy loss and a single backward pass. A subclass that overrides :meth:`encode_images` or
    :meth:`logits` belongs to a method with ``linear = False``. Predictions do not call :meth:`forward`.

    Tensors that are not learned are registered as buffers: they are then kept with the learned parameters,
    and follow them to another device and to float64 in predictions. A learner is rebuilt for predictions, so
    everything else that it needs is computed from the tuning problem without its data. It is in training mode
    in the steps of training only. Modules that draw random numbers in training mode, such as
    ``torch.nn.Dropout``, use torch's global generator, which ``random_state`` does not control.

    See :doc:`/development/adding_a_method`.

    Parameters
    ----------
    logit_scale : float
        Factor by which cosine similarities are multiplied.

    Attributes
    ----------
    supports_new_classes : bool
        Whether the learned parameters can be used for classes that were not in the training data.
    tunes_other_names : bool
        Whether training changes the text features of names that are not training classes.
    loss_factors : mapping of str to float
        Factors of the losses of the learner by name, 1 for losses that are not listed. A loss term that
        replaces a loss is multiplied by the factor of that loss.
    """

    supports_new_classes: bool = True
    tunes_other_names: bool = True
    loss_factors: Mapping[str, float] = MappingProxyType({})

    def __init__(self, logit_scale: float) -> None:
        super().__init__()
        self.logit_scale = logit_scale

    # What a method defines

    def prompts(self, names: Sequence[str]) -> Prompts:
        """Tokenize the prompts of names. Raises ClassNameError if a name is too long."""
        raise NotImplementedError(f"{type(self).__name__} does not implement prompts(names).")

    def encode_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Return text features, differentiable.

        Parameters
        ----------
        prompts : Prompts
        images : Tensor of shape (n, embedding_dim) or None
            Image features of the batch. If None, the features must not depend on an image; a method whose
            text features depend on the image returns representative ones.

        Returns
        -------
        texts : Tensor, shape (n_prompts, embedding_dim) or (n, n_prompts, embedding_dim)
            Features of unit length, unless the logits of the method need other features.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement encode_texts(prompts, images).")

    def encode_images(self, batch: Batch) -> Tensor:
        """Return image features (n, embedding_dim); those of the frozen CLIP by default."""
        return batch.embeddings

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return the logits (n, n_classes); scaled dot products by default."""
        if texts.ndim == 3:
            return self.logit_scale * torch.einsum("nd,ncd->nc", images, texts)
        return self.logit_scale * images @ texts.T

    def forward(self, batch: Batch, prompts: Prompts, n_classes: int) -> tuple[Forward, Tensor]:
        """Encode a batch and the prompts of classes and loss terms in one pass through the text tower.

        Parameters
        ----------
        batch : Batch
        prompts : Prompts
            Prompts of the classes, followed by those drawn by loss terms.
        n_classes : int

        Returns
        -------
        out : Forward
        others : Tensor, shape (n_others, embedding_dim) or (n, n_others, embedding_dim)
            Text features of the prompts drawn by loss terms.
        """
        images = self.encode_images(batch)
        texts = self.encode_texts(prompts, images)
        texts, others = texts.split([n_classes, len(prompts) - n_classes], dim=-2)
        return Forward(images, texts, self.logits(images, texts)), others

    def losses(self, out: Forward, batch: Batch) -> dict[str, Tensor]:
        """Return the parts of the method's own loss; cross-entropy by default.

        They are multiplied by ``loss_factors`` and summed.
        """
        cross_entropy = F.cross_entropy(out.logits, batch.targets, reduction="none")
        return {"cross_entropy": batch.mean(cross_entropy)}

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Compute the gradients of all losses, including those of loss terms."""
        torch.stack(list(losses.values())).sum().backward()

    def parameter_groups(self) -> list[dict[str, object]]:
        """Return parameter groups in the format of torch's optimizers.

        The entry ``"rate_factor"``, 1 by default, multiplies the learning rate of a group.
        """
        return [{"params": list(self.parameters())}]

    def end_epoch(self, epoch: int, n_epochs: int) -> None:
        """Run after each epoch, for instance to update averages of parameters."""

    def finish(self) -> None:
        """Run after the last epoch, also after an early stop, for instance to set averaged parameters.

        It is also run between epochs, to predict with the parameters that an early stop would give. The
        learned tensors are restored before the next epoch; nothing else may change.
        """

    def for_names(self, names: Sequence[str]) -> Learner:
        """Return a learner for other classes; the learner itself by default.

        Raises
        ------
        ValueError
            If the learned parameters are specific to the training classes.
        """
        if not self.supports_new_classes:
            raise ValueError(
                f"{type(self).__name__} has learned separate parameters for each training class, so it does "
                "not support other classes."
            )
        return self

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the largest product in a step, used to set the number of threads."""
        return math.inf

    # What is kept

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies of the learned tensors, parameters and buffers, by name; floats as float32."""
        return {
            name: value.detach()
            .to("cpu", torch.float32 if value.is_floating_point() else value.dtype, copy=True)
            .numpy()
            for name, value in self.state_dict().items()
        }

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the learned tensors; the inverse of :meth:`arrays`.

        Raises
        ------
        ValueError
            If a name or a shape differs.
        """
        state = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"The learned tensors do not fit {type(self).__name__}: {error}") from error


class LossTerm:
    """Loss term of a regularizer.

    See :doc:`/development/adding_a_method`.

    Attributes
    ----------
    name : str
        Key of the term in the history.
    replaces : str or None
        Part of the method's own loss that the term replaces, if any.
    """

    name: ClassVar[str]
    replaces: ClassVar[str | None] = None

    def draw(self, generator: torch.Generator) -> Prompts | Batch | None:
        """Return additional prompts or images that the learner encodes in this step, or None.

        Prompts are encoded together with those of the classes. Images are encoded by
        :meth:`Learner.encode_images`; their targets are ignored.
        """
        return None

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        """Return the weighted loss, a scalar.

        A term that replaces a loss need not apply the factor of that loss.

        Parameters
        ----------
        out : Forward
            Features and logits of the step.
        batch : Batch
            Samples of the step.
        drawn : Tensor or None
            Features of the prompts or images returned by :meth:`draw`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement __call__(out, batch, drawn).")
