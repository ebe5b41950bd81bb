"""The pages build without a warning, and what they show runs."""

import doctest
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clipcal

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.rst"))


@pytest.mark.slow
def test_the_pages_build_without_warnings(tmp_path):
    for needed in ("sphinx", "myst_parser", "numpydoc", "pydata_sphinx_theme"):
        pytest.importorskip(needed)
    # autosummary writes its stubs beside the sources: build from a copy.
    source = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("_build", "generated"))
    options = ["-W", "--keep-going", "-q", "-b", "html"]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(tmp_path / "html")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "html" / "method.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_examples_in_the_pages_run(path):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testfile(str(path), module_relative=False, optionflags=flags, encoding="utf-8")
    assert failed == 0


def test_every_public_name_has_a_place_in_the_reference():
    reference = set(re.findall(r"\w+", (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")))
    for package in set(dir(clipcal)) - set(clipcal.__all__):
        assert set(getattr(clipcal, package).__all__) <= reference, package
