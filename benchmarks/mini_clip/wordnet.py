"""Noun synsets of a WordNet 3.0 database folder, and how closely they are related."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

MAX_STEPS = 2  # two nouns are related if they have a hypernym in common at most this many steps above each


@dataclass(frozen=True)
class Synset:
    lemmas: tuple[str, ...]
    gloss: str
    hypernyms: tuple[int, ...]  # positions in the list of synsets
    topic: int  # number of the lexicographer file


def _lines(path: Path) -> list[str]:
    """Return the lines of a file of the database without the licence."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("  ")]


def read_nouns(wordnet: Path) -> tuple[list[Synset], dict[str, list[int]]]:
    """Return the noun synsets, and the positions of those of each noun, its most frequent sense first."""
    lines = _lines(wordnet / "data.noun")
    position = {line[:8]: row for row, line in enumerate(lines)}
    synsets = []
    for line in lines:
        data, gloss = line.split(" | ", 1)
        parts = data.split(" ")
        n_lemmas = int(parts[3], 16)
        lemmas = tuple(parts[4 + 2 * i].replace("_", " ").lower() for i in range(n_lemmas))
        pointers = parts[5 + 2 * n_lemmas :]
        hypernyms = tuple(
            position[pointers[i + 1]] for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")
        )
        definition = gloss.split('; "')[0].strip().lower()
        synsets.append(Synset(lemmas, definition, hypernyms, int(parts[1])))
    senses = {}
    for line in _lines(wordnet / "index.noun"):
        parts = line.split()
        senses[parts[0].replace("_", " ").lower()] = [position[x] for x in parts[-int(parts[2]) :]]
    return synsets, senses


def ancestors(synsets: list[Synset]) -> csr_array:
    """Return a matrix whose rows hold ``2 ** -steps`` for each hypernym at most two steps above a synset.

    The synset itself is at step 0. The product of two rows is positive if the synsets are related.
    """
    rows, columns, values = [], [], []
    for row in range(len(synsets)):
        steps, level = {row: 0}, [row]
        for step in range(1, MAX_STEPS + 1):
            level = [above for synset in level for above in synsets[synset].hypernyms]
            for above in level:
                steps.setdefault(above, step)
        rows += [row] * len(steps)
        columns += steps.keys()
        values += [0.5**step for step in steps.values()]
    shape = (len(synsets), len(synsets))
    return csr_array((np.array(values, dtype=np.float32), (rows, columns)), shape=shape)


def incidence(nouns: list[str], senses: dict[str, list[int]], n_synsets: int) -> csr_array:
    """Return a matrix with a one for each sense of each noun, shape (n_nouns, n_synsets)."""
    rows = [row for row, noun in enumerate(nouns) for _ in senses[noun]]
    columns = [synset for noun in nouns for synset in senses[noun]]
    return csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(len(nouns), n_synsets))
