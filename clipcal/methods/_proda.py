"""ProDA, which learns a distribution of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from clipcal._compat import Interval, StrOptions, validate_parameters
from clipcal.backbones import upload
from clipcal.methods._base import TuningMethod
from clipcal.methods._coop import check_room
from clipcal.methods._name_position import moved_forward, name_lengths
from clipcal.training import (
    Batch,
    Forward,
    Learner,
    PromptEncoder,
    Prompts,
    Recipe,
    TuningProblem,
    tokenize_prompts,
)

__all__ = ["ProDA", "PromptDistributionLearner"]

_RECIPE = Recipe(max_epochs=100, learning_rate=0.001, batch_size=4)
# A step encodes prompts at most this many times: one for each position of the name, and one without names.
_MAX_PASSES = 4


class PromptDistributionLearner(Learner):
    """Learner of many contexts, whose text features are a sample of a distribution.

    The class name is before the context in the first quarter of the prompts, in its middle in the second
    quarter, and after it in all others.

    Parameters
    ----------
    problem : TuningProblem
        The tuning problem. Its generator draws the contexts, and the prompts of each step.
    n_prompts : int
        Number of contexts.
    n_context : int
        Number of vectors of each context.
    n_active : int
        Number of prompts in a training step, a divisor of `n_prompts`.
    orthogonality_weight : float
        Factor of the loss of prompts without names.
    text_chunk_size : int or "auto"
        Number of prompts encoded at once; see :class:`~clipcal.training.PromptEncoder`.
    """

    def __init__(
        self,
        problem: TuningProblem,
        *,
        n_prompts: int,
        n_context: int,
        n_active: int,
        orthogonality_weight: float,
        text_chunk_size: int | str,
    ) -> None:
        backbone = problem.backbone
        super().__init__(backbone.logit_scale)
        # Drawn on the CPU, so that a seed gives the same contexts on every device.
        drawn = torch.randn((n_prompts, n_context, backbone.token_dim), generator=problem.generator)
        self.context = nn.Parameter((0.02 * drawn).to(backbone.device))
        self.n_active = n_active
        self.orthogonality_weight = orthogonality_weight
        self.generator = problem.generator
        self.remaining: list[int] = []
        self.encoder = PromptEncoder(backbone, text_chunk_size)
        self.encoder.memory_budget //= _MAX_PASSES
        # "X" is always a single token of CLIP's vocabulary.
        self.placeholder = " ".join(["X"] * n_context)
        self.nameless = tokenize_prompts(backbone, [f"{self.placeholder}."], n_context)
        quarter = n_prompts // 4
        self.first_positions = [0] * quarter + [n_context // 2] * quarter
        self.first_positions += [n_context] * (n_prompts - 2 * quarter)

    def prompts(self, names: Sequence[str]) -> Prompts:
        """Tokenize the prompts of names, with the name after the context."""
        backbone, n_context = self.encoder.backbone, self.context.shape[1]
        prompts = tokenize_prompts(backbone, [f"{self.placeholder} {name}." for name in names], n_context)
        return replace(prompts, extra={"name_length": name_lengths(backbone, names)})

    def _with_name_after(self, prompts: Prompts, n_before: int) -> Prompts:
        """Return prompts whose name follows the first vectors of the context."""
        n_context = self.context.shape[1]
        if n_before == n_context:
            return prompts
        first = self.encoder.backbone.n_start_tokens + n_before
        order = moved_forward(
            prompts.extra["name_length"],
            prompts.tokens.shape[1],
            first=first,
            n_passed=n_context - n_before,
        )
        return replace(prompts, n_shared=first, order=order)

    def encode_each(self, prompts: Prompts, active: Iterable[int]) -> Tensor:
        """Encode names in some of the contexts; features have unit length.

        Contexts with the same position of the name are encoded together, because the prefix that does not
        depend on the name is as long as the context before the name.

        Parameters
        ----------
        prompts : Prompts
        active : iterable of int
            Numbers of the contexts.

        Returns
        -------
        features : Tensor, shape (n_active, n_prompts, embedding_dim)
            Features, sorted by the position of the name.
        """
        groups: dict[int, list[int]] = {}
        for number in active:
            groups.setdefault(self.first_positions[number], []).append(number)
        parts = []
        for n_before, numbers in groups.items():
            rows = upload(torch.tensor(numbers), self.context.device)
            parts.append(self.encoder(self._with_name_after(prompts, n_before), self.context[rows, None]))
        return normalize(torch.cat(parts), dim=-1)

    def encode_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Return the mean feature over all contexts, which is shorter than one."""
        return self.encode_each(prompts, range(len(self.context))).mean(dim=0)

    def forward(self, batch: Batch, prompts: Prompts, n_classes: int) -> tuple[Forward, Tensor]:
        """Encode a batch, and names in the contexts of this step, or in all contexts in evaluation mode.

        The text features are the means over the contexts, as in :meth:`encode_texts`.
        """
        images = self.encode_images(batch)
        active = self._next_active() if self.training else range(len(self.context))
        features = self.encode_each(prompts, active)
        mean = features.mean(dim=0)
        texts, others = mean.split([n_classes, len(prompts) - n_classes])
        extra = {"deviations": features[:, :n_classes] - texts}
        return Forward(images, texts, self.logits(images, texts), extra), others

    def _next_active(self) -> list[int]:
        """Return the next numbers of a random permutation, which is drawn again after its end."""
        if not self.remaining:
            self.remaining = torch.randperm(len(self.context), generator=self.generator).tolist()
        active, self.remaining = self.remaining[: self.n_active], self.remaining[self.n_active :]
        return active

    def losses(self, out: Forward, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of the mean, its increase by the covariance, and the orthogonality."""
        variances = difference_variances(out.images, out.extra["deviations"], batch.targets)
        raised = out.logits + self.logit_scale**2 / 2 * variances
        increase = raised.logsumexp(dim=1) - out.logits.logsumexp(dim=1)
        nameless = normalize(self.encoder(self.nameless, self.context[:, None])[:, 0], dim=-1)
        return {
            **super().losses(out, batch),
            "covariance": batch.mean(increase),
            "orthogonality": self.orthogonality_weight * _mean_overlap(nameless),
        }

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the largest matrix product in a step."""
        return self.encoder.work(prompts, self.context[: self.n_active, None])


def difference_variances(images: Tensor, deviations: Tensor, targets: Tensor) -> Tensor:
    """Return the variance of the difference of two cosine similarities: of each class and the target.

    For image feature ``u`` of class ``y`` it is ``sum_qj u_j^2 (d_qcj - d_qyj)^2 / (n_active + 1)``, where
    ``d`` are the deviations. The square is expanded, so that the memory is O(n n_active embedding_dim).

    Parameters
    ----------
    images : Tensor, shape (n, embedding_dim)
        Image features.
    deviations : Tensor, shape (n_active, n_classes, embedding_dim)
        Text features of each prompt, minus their mean over the prompts.
    targets : Tensor of int, shape (n,)
        Class of each image.

    Returns
    -------
    variances : Tensor, shape (n, n_classes)
        Variances, which are zero for the target.
    """
    squares = images.square()
    own = squares @ deviations.square().sum(dim=0).T
    of_target = own.gather(1, targets[:, None])
    common = torch.einsum("qnd,qcd->nc", squares * deviations[:, targets], deviations)
    variances = (own + of_target - 2 * common) / (len(deviations) + 1)
    # Exactly zero, without rounding errors.
    return variances.scatter(1, targets[:, None], 0.0)


def _mean_overlap(features: Tensor) -> Tensor:
    """Return the mean absolute inner product of different rows."""
    products = features @ features.T
    n = len(features)
    return (products - products.diagonal().diag()).abs().sum() / max(n * (n - 1), 1)


class ProDA(TuningMethod):
    """Prompt distribution learning (ProDA): many prompts, whose text features vary around their mean.

    Each of ``n_prompts`` prompts has a context of its own. The name is before the context in the first
    quarter of the prompts, in its middle in the second, and after it in all others. Let ``v_cp`` be the text
    feature of class ``c`` in prompt ``p``, of unit length. The text feature of a class is the mean
    ``w_c = mean_p v_cp``, which is not normalized, and its logit is ``s <u, w_c>`` for the image feature
    ``u`` of unit length.

    A training step uses ``n_active`` prompts. It minimizes an upper bound of the expected cross-entropy if
    the features ``v_c`` of the classes have a common normal distribution [1]_:

    ``-log(exp(z_y) / sum_c exp(z_c + s^2 / 2 V_c)) + orthogonality_weight * mean_{p != q} |<h_p, h_q>|``

    where ``z`` are the logits of the mean over the active prompts, ``V_c`` is the variance of
    ``<u, v_c - v_y>`` for the true class ``y``, and ``h_p`` is the text feature of prompt ``p`` without a
    name. The second term keeps all prompts different from each other.

    Parameters
    ----------
    n_prompts : int, default=32
        Number of prompts, a multiple of ``n_active``.
    n_context : int, default=16
        Number of context vectors of each prompt. They are drawn from a normal distribution with standard
        deviation 0.02.
    n_active : int, default=4
        Number of prompts in a training step. The prompts are used in a random order, which is drawn again
        after all of them have been used.
    orthogonality_weight : float, default=0.1
        Factor of the second term, at least 0.
    text_chunk_size : int or "auto", default="auto"
        Number of names encoded at once, in the active prompts; see :class:`CoOp`.

    Notes
    -----
    ``history_`` contains the bound in two parts: ``"cross_entropy"`` is that of ``z``, and ``"covariance"``
    is its increase by the variances, which is not negative. A loss term that replaces the cross-entropy
    does not change the second part.

    The entries of the features are treated as independent, as in the published code: ``V_c`` is
    ``sum_j u_j^2 K_j``, where ``K_j`` is the variance of entry ``j`` of ``v_c - v_y`` over the active
    prompts. The published code divides the sum of squares by ``n_active + 1``, and so does clipcal.

    The rows of ``text_features_`` have a length of less than 1. It lowers the confidence, and predictions use
    it. Loss terms of text features, such as ``"kg"`` and ``"dor"``, compare the direction of the mean over
    the active prompts.

    The code of the authors of ProDA is not public. Both recipes, 100 epochs with batches of 4 and a learning
    rate of 0.001, and the default parameters are those of the code of the authors of DOR. That code keeps
    underscores in class names, and finds the end of such names at a wrong position; clipcal replaces
    underscores by spaces, as for all methods.

    References
    ----------
    .. [1] Y. Lu, J. Liu, Y. Zhang, Y. Liu, X. Tian, "Prompt Distribution Learning", CVPR 2022,
       arXiv:2205.03340.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> from clipcal.methods import ProDA
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> method = ProDA(n_prompts=8, n_context=4)
    >>> clf = PromptTunedCLIPClassifier("mini", method=method, max_epochs=1, random_state=0).fit(X, y)
    >>> clf.learned_["context"].shape
    (8, 4, 128)
    >>> bool((abs(clf.text_features_ @ clf.text_features_.T) < 1).all())
    True
    """

    name: ClassVar[str] = "proda"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType({"original": _RECIPE, "dor": _RECIPE})
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_prompts": [Interval(Integral, 1, None, closed="left")],
        "n_context": [Interval(Integral, 1, None, closed="left")],
        "n_active": [Interval(Integral, 1, None, closed="left")],
        "orthogonality_weight": [Interval(Real, 0, None, closed="left")],
        "text_chunk_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        n_prompts: int = 32,
        *,
        n_context: int = 16,
        n_active: int = 4,
        orthogonality_weight: float = 0.1,
        text_chunk_size: int | str = "auto",
    ) -> None:
        self.n_prompts = n_prompts
        self.n_context = n_context
        self.n_active = n_active
        self.orthogonality_weight = orthogonality_weight
        self.text_chunk_size = text_chunk_size

    def learner(self, problem: TuningProblem) -> PromptDistributionLearner:
        """Return a learner with random contexts.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem. Its generator draws the contexts, and the order of the prompts in training.

        Returns
        -------
        learner : PromptDistributionLearner
            The learner.

        Raises
        ------
        ClassNameError
            If the contexts are too long to be followed by a class name.
        ValueError
            If a parameter is out of range, or ``n_prompts`` is not a multiple of ``n_active``.
        """
        validate_parameters(self)
        if self.n_prompts % self.n_active:
            raise ValueError(
                f"n_prompts={self.n_prompts} is not a multiple of n_active={self.n_active}; use "
                f"n_prompts={self.n_active * (self.n_prompts // self.n_active + 1)}, for example."
            )
        check_room(problem.backbone, self.n_context)
        return PromptDistributionLearner(problem, **self.get_params(deep=False))
