"""The table of methods in the documentation agrees with their flags and recipes."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_towers import pixel_problem
from tiny_clip import uneven_backbone
from toy_backbone import toy_backbone_for
from tuning_problem import problem_of

from clipcal.classifiers._components import find_method
from clipcal.methods import METHODS
from clipcal.methods._class_rows import ClassRowLearner
from clipcal.methods._frozen_text import FrozenTextLearner
from clipcal.regularizers import REGULARIZERS
from clipcal.training import EmbeddedData, seeded

PAGE = Path(__file__).parents[2] / "docs" / "method" / "methods.rst"
# Source distributions have no documentation.
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="there is no documentation here")
NAMES = ["cat", "dog", "old hammer"]


def table_after(label):
    """Return the rows of the first list table after a label, as lists of cells."""
    text = PAGE.read_text(encoding="utf-8").partition(f".. _{label}:")[2].partition(".. list-table::")[2]
    rows = []
    for line in text.splitlines():
        if found := re.fullmatch(r"   ([* ]) - (.*)", line):
            if found[1] == "*":
                rows.append([])
            rows[-1].append(found[2])
        elif rows and line.startswith("       "):
            rows[-1][-1] += " " + line.strip()
        elif rows and line and not line.startswith(" "):
            break
    return rows


def by_name(label):
    """Return the rows of a table as dictionaries by the name in their first column."""
    head, *rows = table_after(label) if PAGE.exists() else [[]]
    return {row[0].strip('`"'): dict(zip(head, row, strict=True)) for row in rows}


RECIPES, FLAGS = by_name("methods"), by_name("method-flags")


def learner_of(method):
    if method.needs_pixels:
        return method.learner(pixel_problem(uneven_backbone(), method=method.name))
    raw = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 1, 16)))
    data = EmbeddedData.from_raw(raw, torch.arange(6) % 3, torch.ones(6))
    problem = problem_of(toy_backbone_for(method.name, 16), NAMES, method=method.name, data=data)
    with seeded(problem.generator):
        return method.learner(problem)


def test_lists_all_methods():
    assert list(RECIPES) == list(FLAGS) == list(METHODS)


def test_lists_all_loss_terms():
    assert [row[0].strip('`"') for row in table_after("loss-formulas")[1:]] == list(REGULARIZERS)
    rows = {row[0].strip('`"'): row[1] for row in table_after("loss-terms")[1:]}
    assert list(rows) == list(REGULARIZERS)
    for name, regularizer in REGULARIZERS.items():
        assert rows[name] == f":class:`~clipcal.regularizers.{regularizer.__name__}`"


@pytest.mark.parametrize("name", METHODS)
def test_flags(name):
    method, row = find_method(name), FLAGS[name]
    said = {"yes": True, "no": False}
    assert said[row["text depends on the image"]] == method.text_depends_on_image
    assert said[row["accepts embeddings"]] == (not method.needs_pixels)
    assert said[row["linear"]] == method.linear


@pytest.mark.parametrize("name", METHODS)
def test_learners(name):
    learner, row = learner_of(find_method(name)), FLAGS[name]
    assert (row["prefix shared by all prompts"] == "no text prompts") == isinstance(
        learner, FrozenTextLearner
    )
    kinds = {"no": not learner.supports_new_classes, "zero-shot": isinstance(learner, ClassRowLearner)}
    assert row["new classes"] == next((kind for kind, holds in kinds.items() if holds), "yes")


@pytest.mark.parametrize("name", METHODS)
def test_recipes(name):
    recipe = find_method(name).recipes["original"]
    text = RECIPES[name]["original recipe (SGD unless stated)"]
    if METHODS[name].training_free:
        assert (text, recipe.max_epochs) == ("no training", 0)
        return
    assert f"{recipe.max_epochs} epochs" in text or f"{recipe.max_epochs} steps" in text
    assert f"batches of {recipe.batch_size}" in text or "all samples" in text
    words = {"sgd": [], "adam": ["Adam,"], "adamw": ["AdamW"]}[recipe.optimizer]
    assert [word for word in ("Adam,", "AdamW") if word in text] == words
