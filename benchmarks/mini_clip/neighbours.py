"""Whether the nouns nearest to a word, for the text tower, are related to it in WordNet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from captions import PLAIN
from open_clip.model import CLIP
from towers import encode_by_length
from wordnet import Synset, ancestors, incidence

from clipcal.datasets import TASKS
from clipcal.regularizers import DynamicOutlierRegularizer, rank_outliers
from clipcal.scenes import SHAPES, TEXTURES, color_table
from clipcal.text import load_nouns, name_key

N_NEAREST = 20
N_OTHERS = 500
EXAMPLES = ("teal", "salmon", "circle", "star", "plaid", "giraffe", "violin")


class Neighbours:
    """Find the nouns nearest to a word and count those related to it.

    Two nouns are related if senses of them share a hypernym at most two steps above each. A sense counts as
    its own hypernym, zero steps above.
    """

    def __init__(self, synsets: list[Synset], senses: dict[str, list[int]]) -> None:
        self.nouns = [noun for noun in load_nouns() if name_key(noun) in senses]
        self.row_of = {name_key(noun): row for row, noun in enumerate(self.nouns)}
        self.above = incidence(list(self.row_of), senses, len(synsets)) @ ancestors(synsets)
        # These contain the words of all class names of clipcal.datasets.TASKS.
        shown = {"colours": dict.fromkeys(color_table()[0]), "shapes": SHAPES, "textures": TEXTURES}
        self.groups = {
            group: [word for word in words if word in self.row_of] for group, words in shown.items()
        }
        others = [noun for noun in self.row_of if not any(noun in words for words in shown.values())]
        picked = np.random.default_rng(0).choice(len(others), N_OTHERS, replace=False)
        named = [self.row_of[word] for words in self.groups.values() for word in words]
        self.named = np.isin(np.arange(len(self.nouns)), named)
        self.groups["other nouns"] = [others[i] for i in picked]

    @torch.no_grad()
    def encode(self, model: CLIP) -> torch.Tensor:
        return encode_by_length(model, [PLAIN.format(noun) for noun in self.nouns], size=512)

    def nearest(self, features: torch.Tensor, words: list[str]) -> np.ndarray:
        """Return the rows of the nearest nouns of each word, without the word, the nearest first."""
        rows = torch.tensor([self.row_of[word] for word in words])
        similarity = features[rows] @ features.T
        similarity[torch.arange(len(rows)), rows] = -torch.inf
        return similarity.topk(N_NEAREST, dim=1).indices.numpy()

    def related(self, words: list[str]) -> np.ndarray:
        """Return whether each noun is related to each word, shape (n_words, n_nouns)."""
        rows = [self.row_of[word] for word in words]
        related = (self.above[rows] @ self.above.T).toarray() > 0
        related[np.arange(len(rows)), rows] = False
        return related

    def table(self, features: torch.Tensor) -> Iterator[dict]:
        """Yield the shares of related and of named nouns among the nearest ones, for each group of words.

        Named nouns are the names of colours, shapes and textures, whose features stage 2 keeps. Chance is the
        share of related nouns among all nouns.
        """
        for group, words in self.groups.items():
            related, nearest = self.related(words), self.nearest(features, words)
            of_nearest, named = np.take_along_axis(related, nearest, axis=1), self.named[nearest]
            yield {
                "group": group,
                "n_words": len(words),
                "related": round(float(of_nearest.mean()), 4),
                "related_or_named": round(float((of_nearest | named).mean()), 4),
                "chance": round(float(related.sum() / (len(words) * (len(self.nouns) - 1))), 4),
            }

    @torch.no_grad()
    def pools(self, model: CLIP, features: torch.Tensor) -> Iterator[dict]:
        """Yield, for each task, how many nouns in the pool of DOR are related to a word of the base classes.

        The pool is that of ``DynamicOutlierRegularizer()`` for the first half of the classes, but includes
        the names of these.
        """
        size = DynamicOutlierRegularizer().pool_size
        for task, names in TASKS.items():
            base = names[: len(names) // 2]
            words = {word for name in base for word in (name, *name.split()) if word in self.row_of}
            related = self.related(sorted(words)).any(axis=0)
            scores = rank_outliers(features, encode_by_length(model, [PLAIN.format(name) for name in base]))
            yield {
                "task": task,
                "words": ", ".join(sorted(words)),
                "related": round(float(related[scores.topk(size).indices.numpy()].mean()), 4),
                "chance": round(float(related.mean()), 4),
            }

    def examples(self, features: torch.Tensor) -> Iterator[tuple[str, list[str]]]:
        for word, rows in zip(EXAMPLES, self.nearest(features, list(EXAMPLES)), strict=True):
            yield word, [self.nouns[row] for row in rows[:8]]
