"""The examples and calls in the documentation run, and the API reference is complete."""

import doctest
import re
from types import SimpleNamespace

import numpy as np
import pytest
from written_pages import PAGES, ROOT

import clipcal
import clipcal.metrics


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT / "docs").as_posix())
def test_doctests_of_pages(path):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testfile(str(path), module_relative=False, optionflags=flags, encoding="utf-8")
    assert failed == 0


def calls_in(page):
    """Return the calls of metrics in a page."""
    found = re.findall(r"``([^`]+)``", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    calls = [" ".join(text.split()) for text in found]
    return [call for call in dict.fromkeys(calls) if re.search(r"\w\(y, p\b", call)]


@pytest.mark.parametrize("call", calls_in("method/metrics_in_papers.rst"))
def test_calls_in_the_page_of_papers_run(call):
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1.0, 1.0, 1.0], 300)
    clf = SimpleNamespace(classes_=np.array(["a", "b", "c"]))
    names = {**vars(clipcal.metrics), "np": np, "p": p, "y": rng.choice(clf.classes_, 300), "clf": clf}
    names |= {"X": rng.normal(size=(300, 4)), "X_validation": rng.normal(size=(60, 4))}
    assert 0 < np.mean(getattr(value := eval(call, names), "error", value)) < 1


def test_calls_in_the_page_of_papers_are_found():
    assert len(calls_in("method/metrics_in_papers.rst")) > 20


def test_all_metrics_are_defined():
    page = (ROOT / "docs" / "method" / "metrics.rst").read_text(encoding="utf-8")
    metrics = vars(clipcal.metrics)
    functions = [name for name in clipcal.metrics.__all__ if not isinstance(metrics[name], type)]
    assert [name for name in functions if not re.search(rf"\b{name}\b", page)] == []


def test_all_public_names_are_in_the_api_reference():
    for package in set(dir(clipcal)) - set(clipcal.__all__):
        page = (ROOT / "docs" / "api" / f"{package}.rst").read_text(encoding="utf-8")
        assert set(getattr(clipcal, package).__all__) <= set(re.findall(r"\w+", page)), package
