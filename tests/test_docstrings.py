"""Docstrings of public objects: numpydoc format, documented attributes, and an example."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pytest

import clipcal
from clipcal import CalibratedCLIPClassifier, PromptTunedCLIPClassifier, ZeroShotCLIPClassifier, make_shapes

numpydoc_validate = pytest.importorskip("numpydoc.validate")
docscrape = pytest.importorskip("numpydoc.docscrape")

# Codes of numpydoc that all public docstrings must pass.
FORM = {
    *(
        "GL03",
        "GL05",
        "GL06",
        "GL07",
        "GL08",
        "GL09",
    ),  # it exists; sections are valid and in order
    *("SS01", "SS02", "SS03", "SS04", "SS06"),  # one summary line with capital letter and period
    *("PR02", "PR03", "PR04", "PR10"),  # parameters match the signature, in its order, with types
    *("SA02", "SA03", "SA04"),  # See Also entries have descriptions
}
# Additional codes for the names in clipcal.__all__; other short docstrings may omit sections.
COMPLETE = FORM | {"PR01", "RT01", "YD01"}


def packages() -> Iterator[Any]:
    for found in pkgutil.iter_modules(clipcal.__path__):
        if not found.name.startswith("_") and found.name != "cli":
            yield importlib.import_module(f"clipcal.{found.name}")


def public_objects() -> Iterator[tuple[str, Any]]:
    for package in packages():
        for name in package.__all__:
            found = getattr(package, name)
            if inspect.isclass(found) or inspect.isroutine(found):
                yield f"{package.__name__}.{name}", found


def own_methods(cls: type) -> Iterator[str]:
    """Yield the public methods and properties that classes of clipcal define, including inherited ones."""
    for base in cls.__mro__:
        if base.__module__.startswith("clipcal."):
            for name, value in vars(base).items():
                function = getattr(value, "__func__", getattr(value, "fget", value))
                known = inspect.isfunction(function) or isinstance(value, cached_property)
                if known and not name.startswith("_"):
                    yield name


def documented() -> Iterator[str]:
    names: dict[str, None] = {}
    for path, found in public_objects():
        names[path] = None
        if inspect.isclass(found):
            names.update(dict.fromkeys(f"{path}.{method}" for method in own_methods(found)))
    yield from names


def is_top_level(path: str) -> bool:
    return path.split(".")[2] in clipcal.__all__


@pytest.mark.parametrize("package", list(packages()), ids=lambda package: package.__name__)
def test_packages_have_a_docstring_and_a_sorted_all(package):
    assert (package.__doc__ or "").strip().splitlines()[0].endswith(".")
    assert sorted(package.__all__, key=str.lower) == sorted(set(package.__all__), key=str.lower)


@pytest.mark.parametrize("path", list(documented()))
def test_numpydoc_validation(path):
    report = numpydoc_validate.validate(path)
    required = COMPLETE if is_top_level(path) else FORM
    # A Parameters section must be complete.
    if "\nParameters\n" in inspect.cleandoc(report["docstring"] or ""):
        required = required | {"PR01"}
    violations = [f"{code}: {message}" for code, message in report["errors"] if code in required]
    assert not violations, f"{report['file']}:{report['file_line']}\n" + "\n".join(violations)


@pytest.mark.parametrize("name", sorted(set(clipcal.__all__) - {"__version__"}))
def test_top_level_names_have_an_example(name):
    found = getattr(clipcal, name)
    if inspect.isclass(found) or inspect.isroutine(found):
        assert ">>> from clipcal" in (found.__doc__ or "")


@pytest.mark.parametrize("path", [path for path, _ in public_objects() if path.split(".")[1] in dir(clipcal)])
def test_public_names_have_an_example_or_name_the_place_of_one(path):
    """Results name their function, and base classes the page on subclasses; exceptions need no example."""
    _, package, name = path.split(".")
    found = getattr(getattr(clipcal, package), name)
    text = found.__doc__ or ""
    elsewhere = ":func:" in text or ":doc:`/development/adding_a_method`" in text
    is_exception = inspect.isclass(found) and issubclass(found, Exception)
    assert ">>> " in text or elsewhere or is_exception


FITTED = {
    ZeroShotCLIPClassifier: ZeroShotCLIPClassifier("mini"),
    PromptTunedCLIPClassifier: PromptTunedCLIPClassifier(
        "mini", max_epochs=1, early_stopping=True, random_state=0
    ),
    CalibratedCLIPClassifier: CalibratedCLIPClassifier(ZeroShotCLIPClassifier("mini"), cv=2),
}


@pytest.mark.parametrize("estimator", FITTED.values(), ids=[cls.__name__ for cls in FITTED])
def test_documented_attributes_equal_those_set_by_fit(estimator):
    X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    estimator.fit(X, y)
    listed = {item.name for item in docscrape.ClassDoc(type(estimator))["Attributes"]}
    listed = {name for name in listed if name.endswith("_")}
    there = {name for name in vars(estimator) if name.endswith("_") and not name.startswith("_")}
    # feature_names_in_ is set only if X is a data frame of embeddings.
    assert there == listed - {"feature_names_in_"}
