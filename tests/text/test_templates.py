"""Filling prompt templates."""

import pytest

from clipcal.exceptions import ClassNameError
from clipcal.text import DEFAULT_TEMPLATE, SELECT_TEMPLATES, fill


def test_names_are_inserted_literally():
    assert fill("a {} {0}%s, {name}.", ["{}", "{0}", "b\\c"]) == [
        "a {} {0}%s, {name}.",
        "a {0} {0}%s, {name}.",
        "a b\\c {0}%s, {name}.",
    ]


@pytest.mark.parametrize("template", ["a photo.", "{} and {}", "a {0}.", "", None, 3, ["{}"]])
def test_template_without_exactly_one_placeholder_raises(template):
    with pytest.raises(ClassNameError, match=r"exactly one '\{\}', such as 'a photo of a \{\}\.'; got"):
        fill(template, ["dog"])


def test_all_packaged_templates_are_valid():
    templates = [DEFAULT_TEMPLATE, *SELECT_TEMPLATES]
    assert len(set(templates)) == 8
    assert all("denim" in fill(template, ["denim"])[0] for template in templates)
