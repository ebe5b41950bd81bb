"""The interface of what is learned, and of loss terms that join its loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from clipcal.training._problem import Batch, Forward
from clipcal.training._prompts import Prompts

__all__ = ["Learner", "LossTerm"]


class Learner(nn.Module):
    """The learnable part of a tuning method, bound to one tuning problem.

    A subclass writes :meth:`prompts` and :meth:`encode_texts`. It overrides the rest where its method
    differs from: image features of the frozen CLIP, scaled cosines as logits, cross-entropy, one backward
    pass.

    Parameters
    ----------
    logit_scale : float
        Factor of the cosines.

    Attributes
    ----------
    supports_new_classes : bool
        Whether what was learned serves classes that were not trained.
    """

    supports_new_classes: bool = True

    def __init__(self, logit_scale: float) -> None:
        super().__init__()
        self.logit_scale = logit_scale

    # What a method defines

    def prompts(self, names: Sequence[str]) -> Prompts:
        """Tokenise prompts for names, once; raises ClassNameError for a name that does not fit."""
        raise NotImplementedError

    def encode_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Return text features, differentiable.

        Parameters
        ----------
        prompts : Prompts
        images : Tensor of shape (n, embedding_dim) or None
            Image features of the batch. None asks for features that stand for the classes without any image;
            methods whose text depends on the image choose which.

        Returns
        -------
        texts : Tensor, shape (n_prompts, embedding_dim) or (n, n_prompts, embedding_dim)
            Of unit length, unless the method's logits need other features.
        """
        raise NotImplementedError

    def encode_images(self, batch: Batch) -> Tensor:
        """Return image features (n, embedding_dim); those of the frozen CLIP by default."""
        return batch.embeddings

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return the logits (n, n_classes); scaled dot products by default."""
        if texts.ndim == 3:
            return self.logit_scale * torch.einsum("nd,ncd->nc", images, texts)
        return self.logit_scale * images @ texts.T

    def forward(self, batch: Batch, prompts: Prompts, n_classes: int) -> tuple[Forward, Tensor]:
        """Encode a batch and prompts, the classes' and others, in one pass through the text tower.

        Parameters
        ----------
        batch : Batch
        prompts : Prompts
            Those of the classes, followed by those that loss terms have drawn.
        n_classes : int

        Returns
        -------
        out : Forward
        others : Tensor, shape (n_others, embedding_dim) or (n, n_others, embedding_dim)
            Text features of the prompts after the classes.
        """
        images = self.encode_images(batch)
        texts = self.encode_texts(prompts, images)
        texts, others = texts.split([n_classes, len(prompts) - n_classes], dim=-2)
        return Forward(images, texts, self.logits(images, texts)), others

    def losses(self, out: Forward, batch: Batch) -> dict[str, Tensor]:
        """Return the method's own loss by parts, which are summed; cross-entropy by default."""
        cross_entropy = F.cross_entropy(out.logits, batch.targets, reduction="none")
        return {"cross_entropy": batch.mean(cross_entropy)}

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Compute the gradients of all losses, those of loss terms included."""
        torch.stack(list(losses.values())).sum().backward()

    def parameter_groups(self) -> list[dict[str, object]]:
        """Return groups of parameters as torch's optimizers take them.

        ``"rate_factor"`` multiplies the learning rate of a group, 1 by default.
        """
        return [{"params": list(self.parameters())}]

    def end_epoch(self, epoch: int, n_epochs: int) -> None:
        """Run after each epoch, for instance to gather averages."""

    def finish(self) -> None:
        """Run after the last epoch, also after an early stop, for instance to swap in averages."""

    def for_names(self, names: Sequence[str]) -> Self:
        """Return the learner that serves other classes; itself by default.

        Raises
        ------
        ValueError
            If what was learned belongs to the trained classes.
        """
        if not self.supports_new_classes:
            raise ValueError(
                f"{type(self).__name__} has parameters of its own for each trained class, so it serves no "
                "other classes."
            )
        return self

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the largest product in a step, by which threads are chosen."""
        return math.inf

    # What is kept

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the learned tensors, parameters and buffers, by name."""
        return {
            name: value.detach().to("cpu", torch.float32, copy=True).numpy()
            for name, value in self.state_dict().items()
        }

    def load_arrays(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Put learned tensors back; the inverse of :meth:`arrays`.

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
    """A regularizer at work: one term of the loss.

    Attributes
    ----------
    name : str
        Its column in the history.
    replaces : str or None
        The part of the method's own loss that it takes the place of.
    """

    name: ClassVar[str]
    replaces: ClassVar[str | None] = None

    def draw(self, generator: torch.Generator) -> Prompts | Batch | None:
        """Return what is to be encoded with the learner in this step besides the batch.

        Prompts join the text pass of the classes. A batch, of images without classes, passes
        :meth:`Learner.encode_images`.
        """
        return None

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        """Return the weighted loss, a scalar.

        Parameters
        ----------
        out : Forward
            Features and logits of the step.
        batch : Batch
            Its samples.
        drawn : Tensor or None
            Features of what :meth:`draw` returned.
        """
        raise NotImplementedError
