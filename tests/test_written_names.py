"""Parameters, calls and files that pages of the documentation name exist."""

import inspect
import re
from pathlib import Path

import pytest

from clipcal import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.datasets import load_benchmark
from clipcal.methods import METHODS
from clipcal.regularizers import REGULARIZERS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Source distributions have no scripts.
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="this is no checkout")


def literals(page):
    """Return the literals of a page, each on one line."""
    text = (DOCS / page).read_text(encoding="utf-8") if DOCS.exists() else ""
    return sorted({" ".join(found.split()) for found in re.findall(r"``([^`]+)``", text)})


COMPONENTS = {cls.__name__: cls for cls in (*METHODS.values(), *REGULARIZERS.values())}
CALLS = [
    text for text in literals("guide/from_coop.rst") if text.partition("(")[0] in COMPONENTS and "(" in text
]
ARGUMENTS = [text for text in literals("guide/from_coop.rst") if re.fullmatch(r"\w+=.*", text)]
PATHS = [
    text
    for page in ("development/contributing.rst", "development/architecture.rst")
    for text in literals(page)
    if re.fullmatch(r"(?:clipcal|tests|benchmarks)/[\w/.]+|(?:guide|method|api)/\w+\.rst", text)
]


KNOWN = {
    name
    for found in (PromptTunedCLIPClassifier, ZeroShotCLIPClassifier, load_benchmark, *METHODS.values())
    for name in inspect.signature(found).parameters
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_of_the_page_for_users_of_coop(call):
    eval(call, dict(COMPONENTS))


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_arguments_of_the_page_for_users_of_coop(argument):
    assert argument.partition("=")[0] in KNOWN


def test_calls_and_arguments_of_the_page_for_users_of_coop_are_found():
    assert len(CALLS) > 5
    assert {"recipe", "n_views", "max_epochs"} <= {text.partition("=")[0] for text in ARGUMENTS}


@pytest.mark.parametrize("path", PATHS)
def test_files_of_the_pages_for_contributors(path):
    assert (ROOT / path).exists() or (DOCS / path).exists()


def test_files_of_the_pages_for_contributors_are_found():
    assert len(PATHS) > 20
