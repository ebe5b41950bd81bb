"""Notebooks are stored without outputs, consist of prose and code, and run without errors or warnings."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(path, monkeypatch):
    """Run a notebook, and return its texts: those of streams and of results."""
    nb_run = pytest.importorskip("nbmake.nb_run")
    pytest.importorskip("matplotlib")
    pytest.importorskip("pandas")
    # The kernel is a subprocess: make it import this clipcal, with one thread.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = nb_run.NotebookRun(path, default_timeout=600).execute()
    assert result.error is None, result.error.trace
    outputs = [output for cell in code_cells(result.nb) for output in cell.outputs]
    return "".join(
        output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) for output in outputs
    )


def write(path, code):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    return path


def test_there_are_three_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["dor_and_temperature", "folder_to_classifier", "quickstart"]


@each_notebook
def test_notebooks_are_stored_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    code = code_cells(notebook)
    assert [cell.id for cell in code if cell.outputs or cell.execution_count is not None] == []
    # Further metadata could allow errors, or hold the state of widgets.
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.id for cell in notebook.cells if cell.metadata] == []


@each_notebook
def test_cells_have_names(path):
    notebook = read(path)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    names = [cell.id for cell in notebook.cells]
    assert len(set(names)) == len(names)
    # Random ids would change whenever a notebook is edited by a program.
    assert [name for name in names if not name.replace("-", "").isalpha()] == []


@each_notebook
def test_notebooks_are_explained(path):
    cells = read(path).cells
    prose = [cell for cell in cells if cell.cell_type == "markdown"]
    titles = [cell.id for cell in prose if cell.source.startswith("# ")]
    assert titles == [cells[0].id]
    assert len(prose) > len(cells) / 3
    # Code is introduced by text, except for the imports.
    kinds = [cell.cell_type for cell in cells]
    assert [cells[i].id for i in range(1, len(cells)) if kinds[i - 1] == kinds[i] == "code"] == []


@each_notebook
def test_notebooks_are_listed_in_the_gallery(path):
    assert path.name in (FOLDER.parent / "README.rst").read_text(encoding="utf-8")


@pytest.mark.slow
@each_notebook
def test_notebooks_run(path, monkeypatch):
    before = sorted(FOLDER.rglob("*"))
    assert "Warning" not in run(path, monkeypatch)
    assert sorted(FOLDER.rglob("*")) == before


@pytest.mark.slow
def test_errors_in_a_notebook_are_found(tmp_path, monkeypatch):
    path = write(tmp_path / "broken.ipynb", "import clipcal\nassert not clipcal.__file__")
    with pytest.raises(AssertionError, match=r"not clipcal\.__file__"):
        run(path, monkeypatch)


@pytest.mark.slow
def test_progress_bars_are_shown_without_warnings(tmp_path, monkeypatch):
    code = """
import numpy as np
import clipcal
from clipcal import PromptTunedCLIPClassifier
images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
PromptTunedCLIPClassifier("mini", max_epochs=2, verbose=1).fit(images, ["ant", "bee"] * 4);
print(clipcal.__file__)
"""
    shown = run(write(tmp_path / "bars.ipynb", code), monkeypatch)
    assert "Encoding images: 100%" in shown
    assert "Tuning CoOp: 100%" in shown
    assert "Warning" not in shown
    assert str(ROOT / "clipcal" / "__init__.py") in shown
