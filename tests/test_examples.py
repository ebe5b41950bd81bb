"""Examples of the gallery run without warnings, draw one figure each and use public names only."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)

# Runs a script and prints the number of open figures. Warnings to users, and of code in clipcal, are errors.
DRIVER = """
import runpy, sys, warnings
for category in (UserWarning, DeprecationWarning, FutureWarning):
    warnings.filterwarnings("error", category=category, module=r"clipcal|__main__")
warnings.filterwarnings("error", category=UserWarning)
runpy.run_path(sys.argv[1], run_name="__main__")
from matplotlib import pyplot
print("figures:", len(pyplot.get_fignums()))
"""


def imported_modules(path):
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def test_examples_exist():
    assert EXAMPLES


@each_example
def test_examples_begin_with_a_title_and_a_text(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    title, underline, blank, *text = docstring.split("\n")
    assert title.strip() == title != ""
    assert underline == "=" * len(title)
    assert blank == ""
    assert "\n".join(text).rstrip()[-1] in ".?"


@each_example
def test_examples_have_cells_and_use_public_names_only(path):
    source = path.read_text()
    assert source.count("\n# %%\n") >= 2
    modules = imported_modules(path)
    assert any(name.startswith("clipcal") for name in modules)
    parts = [name.split(".") for name in modules if name.startswith("clipcal")]
    assert [".".join(name) for name in parts if any(part.startswith("_") for part in name)] == []
    # Attributes such as clipcal.x._y, or clf._fit.
    attributes = [node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    assert [name for name in attributes if re.match("_[^_]", name)] == []


@pytest.mark.slow
@each_example
def test_examples_run_without_warnings_and_draw_one_figure(path):
    # The build of the documentation runs all examples, too, but does not check this.
    for package in ("matplotlib", "mapie", "skactiveml", "sphinx_gallery"):
        pytest.importorskip(package)
    environment = os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    # An example takes less than a minute on one core; other processes may use the core as well.
    run = subprocess.run(
        [sys.executable, "-c", DRIVER, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=480,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "figures: 1"
    assert "Warning" not in run.stderr
