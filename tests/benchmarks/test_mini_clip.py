"""The training scripts of the embedded CLIP model: WordNet, losses of stage 2, and the model card."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from clipcal import ZeroShotCLIPClassifier, make_shapes
from clipcal.metrics import expected_calibration_error

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks" / "mini_clip"
CARD = ROOT / "clipcal" / "backbones" / "mini" / "MODEL_CARD.md"
# Source distributions have no benchmarks.
pytestmark = pytest.mark.skipif(not SCRIPTS.exists(), reason="there are no benchmarks here")

DATA = """\
  1 the licence
00000001 03 n 01 thing 0 000 | that which exists
00000002 07 n 02 color 0 Colour 0 001 @ 00000001 n 0000 | a visual attribute; "a bright color"
00000003 07 n 01 teal 0 002 @ 00000002 n 0000 + 00000009 a 0000 | a blue-green color
00000004 05 n 01 duck 1 001 @ 00000001 n 0000 | a bird
00000005 05 n 01 teal 1 001 @ 00000004 n 0000 | a small duck
00000006 15 n 01 Grey_Lake 0 001 @i 00000005 n 0000 | a lake
"""
INDEX = """\
  1 the licence
color n 1 2 @ ~ 1 0 00000002
colour n 1 2 @ ~ 1 0 00000002
duck n 1 2 @ ~ 1 1 00000004
grey_lake n 1 1 @i 1 0 00000006
teal n 2 1 @ 2 0 00000003 00000005
thing n 1 1 ~ 1 1 00000001
"""


@pytest.fixture(scope="module")
def scripts(mini_clip_scripts):
    return mini_clip_scripts


@pytest.fixture(scope="module")
def wordnet(scripts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wordnet")
    (folder / "data.noun").write_text(DATA, encoding="utf-8")
    (folder / "index.noun").write_text(INDEX, encoding="utf-8")
    return scripts("wordnet").read_nouns(folder)


def test_read_nouns(scripts, wordnet):
    synsets, senses = wordnet
    assert synsets[1] == scripts("wordnet").Synset(("color", "colour"), "a visual attribute", (0,), 7)
    assert synsets[2].hypernyms == (1,)  # the pointer "+" to an adjective is not one
    assert synsets[5] == scripts("wordnet").Synset(("grey lake",), "a lake", (4,), 15)
    assert senses["teal"] == [2, 4]
    assert senses["grey lake"] == [5]


def test_hypernyms_at_most_two_steps_above_relate_nouns(scripts, wordnet):
    synsets, senses = wordnet
    above = scripts("wordnet").ancestors(synsets)
    expected = [
        [1, 0, 0, 0, 0, 0],
        [0.5, 1, 0, 0, 0, 0],
        [0.25, 0.5, 1, 0, 0, 0],
        [0.5, 0, 0, 1, 0, 0],
        [0.25, 0, 0, 0.5, 1, 0],
        [0, 0, 0, 0.25, 0.5, 1],
    ]
    assert_allclose(above.toarray(), expected)
    nouns = ["teal", "color", "grey lake"]
    any_sense = scripts("wordnet").incidence(nouns, senses, len(synsets)) @ above
    related = (any_sense @ any_sense.T).toarray() > 0
    # The lake is three steps below the hypernym that it shares with the colour.
    assert related.tolist() == [[True, True, True], [True, True, False], [True, False, True]]


def test_family_contrast_is_the_cross_entropy_to_normalised_weights(scripts):
    features = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), dim=-1)
    others = torch.tensor([[0.0, -1.0]])
    weights = torch.tensor([[0, 3.0, 0, 1.0], [3.0, 0, 0, 0], [0, 0, 0, 0]])
    left_out = torch.eye(3, 4).bool()
    left_out[1, 3] = True
    value = scripts("words").family_contrast(features, others, weights, left_out, scale=2.0)
    half = np.sqrt(0.5)
    first = np.array([2 * half, 0.0, 0.0])  # the logits of the second, third and last column
    second = np.array([2 * half, 2 * half])  # of the first and third; the last is left out
    expected = [
        np.log(np.exp(first).sum()) - (0.75 * first[0] + 0.25 * first[2]),
        np.log(np.exp(second).sum()) - second[0],
    ]  # The third row has no positive.
    assert float(value) == pytest.approx(np.mean(expected), abs=1e-6)


def test_encoding_by_length_does_not_depend_on_groups(scripts):
    towers = scripts("towers")
    model = towers.new_model().eval()
    texts = ["a red circle", "a", "a photo of a striped teal pentagon, small in the picture", "teal"]
    with torch.no_grad():
        expected = torch.cat([towers.encode_text(model, [text]) for text in texts])
        assert_allclose(towers.encode_by_length(model, texts, size=2), expected, atol=1e-5)


def test_nearest_nouns_are_counted_by_hand(scripts, wordnet, monkeypatch):
    module = scripts("neighbours")
    nouns = ("color", "Duck", "thing", "Grey Lake", "teal", "unknown")
    monkeypatch.setattr(module, "load_nouns", lambda: nouns)
    monkeypatch.setattr(module, "N_NEAREST", 2)
    monkeypatch.setattr(module, "N_OTHERS", 1)
    neighbours = module.Neighbours(*wordnet)
    assert neighbours.nouns == list(nouns[:-1])
    angles = torch.tensor([0.0, 0.1, 2.0, 0.3, 0.2])
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert neighbours.nearest(features, ["color"]).tolist() == [[1, 4]]
    # A colour and a duck share the thing above them; a lake is related to ducks only.
    assert neighbours.related(["color", "grey lake"]).tolist() == [
        [False, True, True, False, True],
        [False, True, False, False, True],
    ]
    assert neighbours.groups["colours"] == ["teal"]
    neighbours.groups = {"some": ["color", "grey lake"]}
    # The nearest nouns of the lake are the colour teal, which is related as a duck, and the duck.
    expected = {"group": "some", "n_words": 2, "related": 1.0, "related_or_named": 1.0, "chance": 5 / 8}
    assert list(neighbours.table(features)) == [expected]
    # Now those of the colour are the lake, which is not related, and teal.
    angles = torch.tensor([0.0, 1.9, 2.0, 0.1, 0.2])
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    neighbours.groups = {"some": ["color"]}
    neighbours.named[3] = False
    assert [row["related"] for row in neighbours.table(features)] == [0.5]
    assert [row["related_or_named"] for row in neighbours.table(features)] == [0.5]
    neighbours.named[3] = True
    assert [row["related_or_named"] for row in neighbours.table(features)] == [1.0]


def test_stage_2_uses_the_colour_sense_and_draws_families(scripts, wordnet, monkeypatch):
    words = scripts("words")
    for name in ("N_PAIRS", "N_CAPTIONS", "N_FRAMES"):
        monkeypatch.setattr(words, name, 1)
    model = scripts("towers").new_model().eval()
    generator = np.random.default_rng(0)
    anchor = words.Anchor(model, 0.2, generator)
    nouns = words.Nouns(*wordnet, anchor)
    assert nouns.main_sense("teal") == 2
    names, rows = nouns.draw(generator, 6)
    assert sorted(rows) == [0, 1, 2, 3, 4, 5]
    assert all(name in wordnet[0][row].lemmas for name, row in zip(names, rows, strict=True))
    weights, left_out = nouns.targets(names, rows)
    assert not (left_out & (weights > 0)).any()
    assert left_out[torch.arange(6), torch.arange(6)].all()
    replaced = anchor.replace(["teal", "duck"], torch.zeros(2, 128))
    with torch.no_grad():
        teal = scripts("towers").encode_text(model, ["a photo of a teal."])[0]
    assert_allclose(replaced[0], teal, atol=1e-5)
    assert not replaced[1].any()


@pytest.mark.parametrize(("task", "domain"), [("colors", "studio"), ("textures", "faded")])
def test_the_card_states_the_results_of_the_packaged_weights(task, domain):
    row = re.search(
        rf"^\| {task} \| {domain} \| \d+ \| ([\d.]+)% .* \| .* \| ([\d.]+)% ", CARD.read_text(), re.M
    )
    X, y = make_shapes(task, domain=domain, subset="test", n_per_class=40, random_state=0, return_X_y=True)
    clf = ZeroShotCLIPClassifier("mini", device="cpu").fit(X, y)
    y_prob = clf.predict_proba(X)
    assert np.mean(clf.classes_[y_prob.argmax(axis=1)] == y) == pytest.approx(float(row[1]) / 100, abs=2e-3)
    ece = expected_calibration_error(y, y_prob, labels=clf.classes_)
    assert ece == pytest.approx(float(row[2]) / 100, abs=3e-3)
