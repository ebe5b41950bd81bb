"""Fixtures of the scripts in benchmarks, which import other scripts of their folder by name."""

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@contextmanager
def importing(folder):
    """Return a function that imports a script of a folder by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture(scope="module")
def scripts():
    """Return a function that imports a script of benchmarks/methods by name."""
    with importing(BENCHMARKS / "methods") as import_script:
        yield import_script


@pytest.fixture(scope="module")
def speed_scripts():
    """Return a function that imports a script of benchmarks/speed by name."""
    with importing(BENCHMARKS / "speed") as import_script:
        yield import_script


@pytest.fixture(scope="module")
def mini_clip_scripts():
    """Return a function that imports a script of benchmarks/mini_clip by name."""
    with importing(BENCHMARKS / "mini_clip") as import_script:
        yield import_script


@pytest.fixture(scope="session")
def run_script():
    """Return a function that calls ``main`` of a script with arguments."""

    def run(module, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["script", *map(str, arguments)])
            module.main()

    return run
