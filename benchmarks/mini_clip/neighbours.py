"""Whether the nouns nearest to a word, for the text tower, are related to it in WordNet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from captions import PLAIN
from open_clip.model import CLIP
from towers import encode_by_length
from wordnet import Synset, ancestors, incidence

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
        """Yield the share of related nouns among the nearest ones, and among all nouns, of each group."""
        for group, words in self.groups.items():
            related = self.related(words)
            nearest = np.take_along_axis(related, self.nearest(features, words), axis=1)
            yield {
                "group": group,
                "n_words": len(words),
                "related": round(float(nearest.mean()), 4),
                "chance": round(float(related.sum() / (len(words) * (len(self.nouns) - 1))), 4),
            }

    def examples(self, features: torch.Tensor) -> Iterator[tuple[str, list[str]]]:
        for word, rows in zip(EXAMPLES, self.nearest(features, list(EXAMPLES)), strict=True):
            yield word, [self.nouns[row] for row in rows[:8]]
