"""Stage 2: the text tower on nouns, their glosses and their hypernyms, with the captions held in place."""

from __future__ import annotations

import argparse
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from captions import FRAMES, PLAIN, random_captions
from curve import Curve
from evaluate import ZeroShotTasks
from open_clip.model import CLIP
from torch import Tensor
from towers import Optimization, contrast, encode_by_length, tokenize
from wordnet import Synset, ancestors, incidence

from clipcal.scenes import SHAPES, TEXTURES, color_table

IMAGE_WORDS = tuple(dict.fromkeys((*color_table()[0], *SHAPES, *TEXTURES)))
IMAGE_TOPICS = (7, 25)  # attributes, with the colours, and shapes
FAMILY_SIZE = 4
FAMILY_WEIGHT = 1.0
N_FRAMES = 4  # prompts of each word in other frames
N_PAIRS = N_CAPTIONS = 5000


@cache
def tokens_of(text: str) -> list[int]:
    return tokenize(text)


class Anchor:
    """Texts about images with their features after stage 1.

    The texts are prompts of all colours, shapes and textures, in one frame and in others, prompts of pairs
    of a colour and a shape, and captions of random scenes. A quarter of each batch is of each kind.
    """

    @torch.no_grad()
    def __init__(self, model: CLIP, imprecise: float, generator: np.random.Generator) -> None:
        def framed(word: str) -> str:
            return FRAMES[generator.integers(len(FRAMES))].format(word)

        colors = color_table()[0]
        pairs = generator.integers((len(colors), len(SHAPES)), size=(N_PAIRS, 2))
        kinds = (
            [PLAIN.format(word) for word in IMAGE_WORDS],
            [framed(word) for word in IMAGE_WORDS for _ in range(N_FRAMES)],
            [framed(f"{colors[color]} {SHAPES[shape]}") for color, shape in pairs],
            random_captions(generator, N_CAPTIONS, imprecise),
        )
        self.texts = [text for kind in kinds for text in kind]
        self.features = encode_by_length(model, self.texts)
        self.edges = np.cumsum([0, *map(len, kinds)])
        self.row_of = {word: row for row, word in enumerate(IMAGE_WORDS)}

    def draw(self, generator: np.random.Generator, size: int) -> tuple[list[str], Tensor]:
        rows = np.concatenate(
            [
                generator.integers(low, high, size // 4)
                for low, high in zip(self.edges[:-1], self.edges[1:], strict=True)
            ]
        )
        return [self.texts[row] for row in rows], self.features[rows]

    def replace(self, nouns: list[str], features: Tensor) -> Tensor:
        """Return the features, with those after stage 1 for nouns that images show."""
        rows = torch.tensor([self.row_of.get(noun, -1) for noun in nouns])
        return torch.where((rows >= 0)[:, None], self.features[rows], features)


class Nouns:
    """Draw families of nouns, and relate them to each other and to the nouns that images show."""

    def __init__(self, synsets: list[Synset], senses: dict[str, list[int]], anchor: Anchor) -> None:
        self.synsets, self.senses = synsets, senses
        self.image_words = frozenset(IMAGE_WORDS)
        self.ancestors = ancestors(synsets)
        self.hyponyms: list[list[int]] = [[] for _ in synsets]
        for row, synset in enumerate(synsets):
            for above in synset.hypernyms:
                self.hyponyms[above].append(row)
        shown = [word for word in dict.fromkeys(IMAGE_WORDS) if word in senses]
        self.shown_features = anchor.features[[anchor.row_of[word] for word in shown]]
        self.shown_above = self.ancestors[[self.main_sense(word) for word in shown]]
        self.shown_any = incidence(shown, senses, len(synsets)) @ self.ancestors

    def main_sense(self, noun: str) -> int:
        """Return the most frequent sense; of a noun that images show, the first among colours and shapes."""
        senses = self.senses[noun]
        shown = [sense for sense in senses if self.synsets[sense].topic in IMAGE_TOPICS]
        return shown[0] if shown and noun in self.image_words else senses[0]

    def lemma(self, generator: np.random.Generator, synset: int) -> str:
        """Return a noun of a synset, one whose main sense it is if there is one."""
        lemmas = self.synsets[synset].lemmas
        main = [lemma for lemma in lemmas if self.main_sense(lemma) == synset]
        return (main or lemmas)[generator.integers(len(main or lemmas))]

    def draw(self, generator: np.random.Generator, size: int) -> tuple[list[str], np.ndarray]:
        """Draw nouns and their synsets: random ones, each with a hypernym and some other hyponyms of it."""
        rows: dict[int, None] = {}
        while len(rows) < size:
            seed = int(generator.integers(len(self.synsets)))
            family = [seed]
            if self.synsets[seed].hypernyms:
                above = self.synsets[seed].hypernyms[0]
                below = self.hyponyms[above]
                family += [below[i] for i in generator.integers(len(below), size=FAMILY_SIZE - 2)] + [above]
            rows.update(dict.fromkeys(family))
        chosen = list(rows)[:size]
        return [self.lemma(generator, row) for row in chosen], np.array(chosen)

    def targets(self, nouns: list[str], rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the weights of the relations to the nouns and to the shown nouns, and which to leave out."""
        above = self.ancestors[rows]
        any_sense = incidence(nouns, self.senses, len(self.synsets)) @ self.ancestors
        weights = np.hstack([(above @ above.T).toarray(), (above @ self.shown_above.T).toarray()])
        related = np.hstack([(any_sense @ any_sense.T).toarray(), (any_sense @ self.shown_any.T).toarray()])
        np.fill_diagonal(weights, 0.0)
        return torch.from_numpy(weights), torch.from_numpy((related > 0) & (weights == 0))


def family_contrast(
    features: Tensor, others: Tensor, weights: Tensor, left_out: Tensor, scale: float
) -> Tensor:
    """Return the cross-entropy of the softmax over other nouns to the weights of the relations."""
    logits = scale * features @ torch.cat([features, others]).T
    log_prob = F.log_softmax(logits.masked_fill(left_out, -torch.inf), dim=-1)
    total = weights.sum(dim=1, keepdim=True)
    rows = (weights * log_prob.masked_fill(left_out, 0.0)).sum(dim=1) / total.clamp_min(1e-6).squeeze(1)
    return -rows[total.squeeze(1) > 0].mean()


@torch.no_grad()
def gloss_loss(model: CLIP, synsets: list[Synset], size: int = 64, n_batches: int = 16) -> float:
    """Return the mean contrastive loss of random nouns and their glosses, the same ones at each call."""
    generator = np.random.default_rng(0)
    losses = []
    for _ in range(n_batches):
        chosen = [synsets[i] for i in generator.choice(len(synsets), size, replace=False)]
        prompts = [PLAIN.format(one.lemmas[generator.integers(len(one.lemmas))]) for one in chosen]
        glosses = [one.gloss[:160] for one in chosen]
        losses.append(contrast(encode_by_length(model, prompts), encode_by_length(model, glosses)).item())
    return float(np.mean(losses))


def train_on_words(
    model: CLIP, args: argparse.Namespace, synsets: list[Synset], senses: dict[str, list[int]], curve: Curve
) -> CLIP:
    """Train the text tower of a model in place."""
    generator = np.random.default_rng([args.seed, 2])
    tasks = ZeroShotTasks(model.eval(), "validation")
    anchor = Anchor(model, args.imprecise, generator)
    nouns = Nouns(synsets, senses, anchor)
    text_tower = [(n, p) for n, p in model.named_parameters() if not n.startswith("visual.")]
    optimization = Optimization(text_tower, args.word_lr, args.word_steps)
    model.train()
    for step in range(args.word_steps):
        names, rows = nouns.draw(generator, args.n_nouns)
        frames = [
            PLAIN if generator.random() < 0.8 else FRAMES[generator.integers(len(FRAMES))] for _ in names
        ]
        prompts = [frame.format(name) for frame, name in zip(frames, names, strict=True)]
        texts, kept = anchor.draw(generator, args.n_anchors)
        glosses = [synsets[row].gloss[:160] for row in rows]
        features = encode_by_length(model, prompts + glosses + texts, tokens_of)
        noun, gloss, text = features.split([len(prompts), len(glosses), len(texts)])
        noun = anchor.replace(names, noun)
        weights, left_out = nouns.targets(names, rows)
        losses = {
            "gloss": contrast(noun, gloss),
            "family": family_contrast(noun, nouns.shown_features, weights, left_out, args.family_scale),
            "anchor": (text - kept).square().sum(dim=1).mean(),
        }
        total = losses["gloss"] + FAMILY_WEIGHT * losses["family"] + args.anchor_weight * losses["anchor"]
        optimization.step(total)
        if step % 20 == 0:
            curve.write({"stage": 2, "step": step, **{name: loss.item() for name, loss in losses.items()}})
        if step % args.check_every == args.check_every - 1:
            model.eval()
            curve.write({"stage": 2, "step": step, "gloss_loss_of_64": gloss_loss(model, synsets)})
            for row in tasks.table(model):
                curve.write({"stage": 2, "step": step, **row})
            model.train()
    return model
