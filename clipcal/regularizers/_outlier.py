"""Dynamic outlier regularization, which keeps text features of other nouns near their zero-shot features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from clipcal._compat import Interval, StrOptions, validate_parameters
from clipcal.backbones import upload
from clipcal.exceptions import ClassNameError
from clipcal.regularizers._base import Regularizer, check_tuned_texts, mean_cosine
from clipcal.text import DEFAULT_TEMPLATE, load_nouns, name_key
from clipcal.training import Batch, Forward, Learner, LossTerm, Prompts, TuningProblem

__all__ = ["DynamicOutlierRegularizer", "rank_outliers"]


def rank_outliers(zero_shot_candidates: Tensor, zero_shot_classes: Tensor) -> Tensor:
    """Score candidates by their mean cosine similarity to the base classes.

    For features of unit length this is the dot product with the mean class feature.

    Parameters
    ----------
    zero_shot_candidates : Tensor, shape (n_candidates, embedding_dim)
    zero_shot_classes : Tensor, shape (n_classes, embedding_dim)

    Returns
    -------
    scores : Tensor, shape (n_candidates,)

    Examples
    --------
    >>> import torch
    >>> from clipcal.regularizers import rank_outliers
    >>> classes = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    >>> rank_outliers(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), classes)
    tensor([0.9000, 0.3000])
    """
    return zero_shot_candidates @ zero_shot_classes.mean(dim=0)


class _OutlierTerm(LossTerm):
    name = "dor"

    def __init__(
        self,
        weight: float,
        nouns: Sequence[str],
        prompts: Prompts,
        targets: Tensor,
        batch_size: int,
        resample: bool,
    ) -> None:
        self.weight = weight
        self.nouns = list(nouns)
        self.prompts = prompts
        self.targets = targets
        self.batch_size = min(batch_size, len(nouns))
        self.resample = resample
        self.drawn = torch.empty(0, dtype=torch.long)
        self.batch: Prompts | None = None

    def draw(self, generator: torch.Generator) -> Prompts:
        """Draw outliers uniformly without replacement, in each step or in the first step only."""
        if self.batch is None or self.resample:
            # Drawn on the CPU, because the lengths of the nouns determine the shapes of the step.
            drawn = torch.randperm(len(self.nouns), generator=generator)[: self.batch_size]
            self.drawn = upload(drawn, self.targets.device)
            self.batch = self.prompts.take(drawn)
        return self.batch

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        assert drawn is not None
        return self.weight * (1 - mean_cosine(drawn, self.targets[self.drawn], batch))


class DynamicOutlierRegularizer(Regularizer):
    """Dynamic outlier regularization (DOR).

    Nouns that are not base classes are ranked by their zero-shot similarity to the base classes. The
    ``pool_size`` most similar nouns form a pool, from which a new batch is drawn in each step. The loss term
    ``weight * (1 - mean_b cos(w(o_b), w0(o_b)))`` keeps the tuned text feature ``w(o)`` of outlier ``o`` near
    its zero-shot feature ``w0(o)``. It does not constrain the features of the base classes.

    Parameters
    ----------
    weight : float or "auto", default="auto"
        Factor of the loss term, at least 0. ``"auto"`` is 8 for CoOp without other regularizers and 2
        otherwise, as in the paper.
    pool : {"near", "far", "random"}, default="near"
        Candidates in the pool: those most similar to the base classes, those least similar, or a random
        sample.
    pool_size : int, default=5000
        Number of nouns in the pool. If there are fewer candidates, all of them are used.
    batch_size : int or None, default=None
        Number of outliers drawn in each step. If None, it is the number of base classes.
    resample : bool, default=True
        Whether new outliers are drawn in each step. If False, those of the first step are used in all steps,
        which shows what drawing new ones contributes.
    lexicon : {"wordnet", "nltk"}, path or list of str, default="wordnet"
        Source of the candidates; see :func:`clipcal.text.load_nouns`. Scoring all nouns of WordNet encodes
        117,798 prompts, once per backbone and process.
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot features, for scores and for targets, the name of a known template, or a
        sequence of these, which forms an ensemble; see :func:`clipcal.text.find_templates`. The whole lexicon
        is encoded with each template of an ensemble.

    Notes
    -----
    The weight "auto" depends on whether there are other regularizers, even if their weight is 0. Give a
    number to compare such models, for example in a search over the weight of another regularizer.

    Candidates with the name of a base class are dropped. Names are compared in lower case and with
    underscores replaced by spaces (:func:`clipcal.text.name_key`). The paper states neither how overlapping
    names are detected, nor the template of the scores, nor how batches are drawn. Here they are drawn
    uniformly without replacement.

    References
    ----------
    .. [1] S. Wang, Y. Li, H. Wei, "Understanding and Mitigating Miscalibration in Prompt Tuning for
       Vision-Language Models", ICML 2025, arXiv:2410.02681.

    Examples
    --------
    >>> from clipcal.regularizers import DynamicOutlierRegularizer
    >>> DynamicOutlierRegularizer(weight=4.0, pool="far")
    DynamicOutlierRegularizer(pool='far', weight=4.0)
    """

    name = "dor"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "weight": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "pool": [StrOptions({"near", "far", "random"})],
        "pool_size": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "resample": ["boolean"],
        "lexicon": [str, Path, "array-like"],
        "template": [str, "array-like"],
    }

    def __init__(
        self,
        weight: float | str = "auto",
        *,
        pool: str = "near",
        pool_size: int = 5000,
        batch_size: int | None = None,
        resample: bool = True,
        lexicon: str | Path | Iterable[str] = "wordnet",
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
    ) -> None:
        self.weight = weight
        self.pool = pool
        self.pool_size = pool_size
        self.batch_size = batch_size
        self.resample = resample
        self.lexicon = lexicon
        self.template = template

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Choose the pool, tokenize it and encode its targets.

        Parameters
        ----------
        problem : TuningProblem
        learner : Learner

        Returns
        -------
        term : LossTerm

        Raises
        ------
        ValueError
            If the contexts are class-specific, the method does not train the text features of other names, no
            candidate remains, or no candidate fits the context.
        """
        validate_parameters(self)
        check_tuned_texts(self.name, problem, learner)
        if not learner.tunes_other_names:
            raise ValueError(
                f"regularizer='dor' has no effect on method={problem.method!r}, which trains text features "
                "of the training classes only; use regularizer='kg', or no regularizer."
            )
        if not learner.supports_new_classes:
            raise ValueError(
                "regularizer='dor' needs parameters that can be used with any noun, but the method learns "
                "separate ones for each class (CoOp: class_specific=True); use a shared context, or "
                "regularizer='kg'."
            )
        nouns, prompts, targets = self._pool(problem, learner)
        batch_size = self.batch_size or len(problem.names)
        weight, resample = self._weight(problem), bool(self.resample)
        return _OutlierTerm(weight, nouns, prompts, targets, batch_size, resample)

    def _weight(self, problem: TuningProblem) -> float:
        if self.weight != "auto":
            return float(self.weight)
        plain_coop = problem.method == "coop" and set(problem.regularizers) <= {self.name}
        return 8.0 if plain_coop else 2.0

    def _pool(self, problem: TuningProblem, learner: Learner) -> tuple[list[str], Prompts, Tensor]:
        """Return the pooled nouns, their prompts and their zero-shot features."""
        candidates = load_nouns(self.lexicon)
        table = problem.zero_shot_table(candidates, self.template)
        base = {name_key(name) for name in problem.names}
        usable = table.any(dim=1)  # rows of nouns that are too long are zeros
        usable[[i for i, key in enumerate(_keys(candidates)) if key in base]] = False
        free = usable.nonzero()[:, 0]
        if len(free) == 0:
            raise ValueError(
                f"Every noun of lexicon={self.lexicon!r} is a base class, so there are no outliers; use a "
                "larger lexicon."
            )
        scores = rank_outliers(table.index_select(0, free), problem.zero_shot(problem.names, self.template))
        ranked = free[scores.argsort(descending=True, stable=True)]
        size = min(self.pool_size, len(ranked))
        if self.pool == "near":
            kept = ranked[:size]
        elif self.pool == "far":
            kept = ranked[-size:]
        else:
            chosen = torch.randperm(len(ranked), generator=problem.generator)[:size]
            kept = ranked[chosen.to(ranked.device)]
        pool = kept.tolist()
        prompts = _prompts(learner, [candidates[i] for i in pool])
        if prompts is None:
            pool = [i for i in pool if _prompts(learner, [candidates[i]]) is not None]
            if not pool:
                raise ValueError(
                    "With this context every outlier is too long for the text tower; use a smaller n_context."
                )
            prompts = learner.prompts([candidates[i] for i in pool])
        return [candidates[i] for i in pool], prompts, table[torch.tensor(pool, device=table.device)]


# Cached, because early stopping prepares the same lexicon for each split.
@lru_cache(maxsize=1)
def _keys(nouns: tuple[str, ...]) -> list[str]:
    return [name_key(noun) for noun in nouns]


def _prompts(learner: Learner, nouns: Sequence[str]) -> Prompts | None:
    """Return the prompts of nouns, or None if one is too long for the text tower with the context."""
    try:
        return learner.prompts(nouns)
    except ClassNameError:
        return None
