"""Fixtures of the scripts in benchmarks/methods, which import each other by name."""

import importlib
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "methods"


@pytest.fixture(scope="module")
def scripts():
    """Return a function that imports a script by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield importlib.import_module
    for path in SCRIPTS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture(scope="session")
def run_script():
    """Return a function that calls ``main`` of a script with arguments."""

    def run(module, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["script", *map(str, arguments)])
            module.main()

    return run
