"""Filling prompt templates, and finding published ones by name."""

import re

import numpy as np
import open_clip
import pytest

from clipcal.exceptions import ClassNameError
from clipcal.text import DEFAULT_TEMPLATE, TEMPLATES, fill, find_templates

# The table of CoOp's zero-shot trainer, by the names of its data sets where they are not the default.
COOP = {
    "oxford_pets": "a photo of a {}, a type of pet.",
    "oxford_flowers": "a photo of a {}, a type of flower.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.",
    "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.",
    "food101": "a photo of {}, a type of food.",
    "ucf101": "a photo of a person doing {}.",
}
PLAIN = [
    "caltech101", "imagenet", "imagenet_a", "imagenet_r",
    "imagenet_sketch", "imagenetv2", "stanford_cars", "sun397",
]  # fmt: skip


def test_names_are_inserted_literally():
    assert fill("a {} %s \\1.", ["{}", "{0}", "b\\c"]) == ["a {} %s \\1.", "a {0} %s \\1.", "a b\\c %s \\1."]


@pytest.mark.parametrize(
    "template",
    ["a photo.", "{} and {}", "a {0}.", "a {c}.", "a {} {name}.", "{} }", "{{}}", "", None, 3, ["{}"]],
)
def test_template_without_exactly_one_placeholder_raises(template):
    words = r"exactly one '\{\}' and no other braces, such as 'a photo of a \{\}\.'; got "
    with pytest.raises(ClassNameError, match=words + re.escape(repr(template))):
        fill(template, ["dog"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_known_template_can_be_filled(name):
    templates = find_templates(name)
    assert templates == TEMPLATES[name] and len(set(templates)) == len(templates)
    for template in templates:
        (text,) = fill(template, ["denim"])
        assert text.split("denim") == template.split("{}")


def test_ensembles_are_those_of_open_clip():
    for name, published in [
        ("imagenet-80", open_clip.OPENAI_IMAGENET_TEMPLATES),
        ("imagenet-7", open_clip.SIMPLE_IMAGENET_TEMPLATES),
    ]:
        assert [fill(template, ["a b"])[0] for template in TEMPLATES[name]] == [t("a b") for t in published]
    assert set(TEMPLATES["imagenet-7"]) < set(TEMPLATES["imagenet-80"])


def test_ensemble_of_promptsrc_omits_twenty_of_the_eighty():
    omitted = [
        "a black and white photo of a", "a dark photo of a", "a drawing of the", "a good photo of a",
        "a jpeg corrupted photo of the", "a photo of a cool", "a photo of a small", "a photo of the large",
        "a photo of the nice", "a photo of the small", "a photo of the weird", "a plushie",
        "a tattoo of the", "a toy", "art of the", "graffiti of the", "itap of a", "itap of my",
        "the cartoon", "the plushie",
    ]  # fmt: skip
    kept, all_80 = find_templates("promptsrc-60"), find_templates("imagenet-80")
    assert len(set(kept)) == len(kept) == 60 and len(omitted) == 20
    assert {*kept, *(f"{words} {{}}." for words in omitted)} == set(all_80)
    assert [template for template in all_80 if template in kept] == list(kept)


def test_templates_of_data_sets_are_those_of_coop():
    expected = COOP | dict.fromkeys(PLAIN, "a photo of a {}.")
    assert {name: TEMPLATES[name] for name in expected} == {name: (t,) for name, t in expected.items()}
    assert set(TEMPLATES) == {*expected, "imagenet-80", "imagenet-7", "promptsrc-60"}


def test_templates_are_found():
    assert find_templates(DEFAULT_TEMPLATE) == (DEFAULT_TEMPLATE,)
    both = ("{} texture.", "a photo of a {}, a type of pet.")
    for given in ["dtd", "oxford_pets"], ("dtd", both[1]), np.array(both), iter(both):
        assert find_templates(given) == both
    assert {type(template) for template in find_templates(np.array(both))} == {str}
    # The published ensemble for data sets other than ImageNet.
    assert find_templates(["imagenet-7", "food101"]) == (*TEMPLATES["imagenet-7"], COOP["food101"])


def test_known_templates_cannot_be_changed():
    with pytest.raises(TypeError):
        TEMPLATES["dtd"] = ("a {}.",)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("OxfordPets", r"or the name of a known one; got 'OxfordPets'\. Did you mean 'oxford_pets'"),
        ("imagenet80", r"Did you mean 'imagenet-80'"),
        ("flowers102", r"Did you mean 'oxford_flowers'\?"),
        (
            "a photo",
            r"exactly one '\{\}'.*got 'a photo'\. Known names: imagenet-80, imagenet-7, promptsrc-60",
        ),
        ("{} and {}", r"exactly one '\{\}'.*got '\{\} and \{\}'\.$"),
        ("a {c}.", r"no other braces, such as 'a photo of a \{\}\.'; got 'a \{c\}\.'\.$"),
        (["a {}.", "pets"], r"got 'pets'\. Did you mean 'oxford_pets'\?"),
        (["a {}.", ["{}."]], r"got \['\{\}\.'\]"),
        ([str.upper], "got <method 'upper'"),
        (None, "got None"),
        ([], r"template is empty; pass at least one, such as 'a photo of a \{\}\.'"),
    ],
)
def test_refusals(template, words):
    with pytest.raises(ClassNameError, match=words):
        find_templates(template)
