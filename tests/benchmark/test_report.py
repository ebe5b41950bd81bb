"""The files of a report."""

import csv
import sys

import pytest
from fake_results import VERSIONS, base_to_new_cells, files_of, key_of, write_results

from clipcal.benchmark import read_results, write_report
from clipcal.exceptions import ResultsError

pytest.importorskip("jinja2")

CELLS = base_to_new_cells(["one", "two"])


def written(folder, cells=CELLS, **options):
    return write_report(write_results(folder, cells, **options))


def records(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_files(tmp_path):
    folder = written(tmp_path)
    assert folder == tmp_path / "report"
    names = {path.name for path in folder.iterdir()}
    assert {"report.md", "cells.csv", "runs.csv", "tables"} <= names
    stems = {path.stem for path in (folder / "tables").glob("*.csv")}
    assert stems == {path.stem for path in (folder / "tables").glob("*.tex")}
    assert {"base-to-new_summary", "base-to-new_comparisons", "base-to-new_ece_new", "environment"} <= stems


def test_other_folder_and_results_that_were_read(tmp_path):
    results = read_results(write_results(tmp_path / "results", CELLS))
    assert write_report(results, tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b" / "report.md").is_file()
    assert not (tmp_path / "results" / "report").exists()


def test_reports_of_equal_cells_have_equal_bytes(tmp_path):
    first, second = (written(tmp_path / name) for name in ("first", "second"))
    # The second run took another time, and its files were written in another order.
    run = tmp_path / "second" / "runs" / f"{key_of(CELLS[0])}.json"
    run.write_text(run.read_text().replace("1.5", "99.5"))
    write_report(tmp_path / "second")
    for path in files_of(first):
        other = second / path.relative_to(first)
        assert (path.read_bytes() == other.read_bytes()) == (path.name != "runs.csv"), path.name


def test_tables_of_earlier_reports_are_removed(tmp_path):
    tables = written(tmp_path, missing=lambda cell: cell == CELLS[2]) / "tables"
    assert (tables / "problems.csv").is_file()
    (tables / "mine.csv").write_text("a")
    (tables / "base-to-new.txt").write_text("a")
    written(tmp_path)
    names = {path.name for path in tables.iterdir()}
    assert not {"problems.csv", "problems.tex"} & names
    assert {"mine.csv", "base-to-new.txt", "base-to-new_summary.csv"} <= names


def test_cells_and_runs(tmp_path):
    broken, lost = CELLS[2], CELLS[3]
    folder = written(tmp_path, missing=lambda cell: cell == lost, failed=lambda cell: cell == broken)
    lines = records(folder / "cells.csv")
    assert [line["key"] for line in lines] == [key_of(cell) for cell in CELLS]
    assert [line["state"] for line in lines[:4]] == ["finished", "finished", "failed", "not run"]
    found = read_results(tmp_path).cells[0]["metrics"]
    assert float(lines[0]["accuracy"]) == found["accuracy"] and float(lines[0]["ece"]) == found["ece"]
    assert lines[2]["accuracy"] == ""
    runs = records(folder / "runs.csv")
    assert len(runs) == len(CELLS) - 2 and runs[0]["fit_seconds"] == "1.5"


def test_markdown_tells_what_is_missing(tmp_path):
    broken, lost = CELLS[2], CELLS[3]
    folder = written(
        tmp_path,
        missing=lambda cell: cell == lost,
        failed=lambda cell: cell == broken,
        error="ValueError: x < 0",
    )
    text = (folder / "report.md").read_text(encoding="utf-8")
    n = len(CELLS)
    assert f"{n - 2} of {n} cells are finished; 1 failed and 1 have not been run." in text
    assert r"ValueError: x \< 0" in text
    complete = (written(tmp_path / "complete") / "report.md").read_text(encoding="utf-8")
    assert f"{n} of {n} cells are finished." in complete and "Missing cells" not in complete


def test_different_versions_and_test_images_are_flagged(tmp_path):
    def versions(cell):
        return {**VERSIONS, "torch": "2.9.0"} if cell["seed"] == 2 else VERSIONS

    folder = written(tmp_path, versions=versions)
    path = next((tmp_path / "cells").glob(f"{key_of(CELLS[-1])}.json"))
    path.write_text(path.read_text().replace('"digest": "', '"digest": "0'))
    write_report(tmp_path)
    text = (folder / "report.md").read_text(encoding="utf-8")
    n_other = sum(cell["seed"] == 2 for cell in CELLS)
    assert (
        f"different versions of torch: 2.8.0 ({len(CELLS) - n_other} cells), 2.9.0 ({n_other} cells)" in text
    )
    assert "The test images of two (new) differ between cells" in text
    assert "different versions of python" not in text


def test_folder_without_results_is_an_error(tmp_path):
    with pytest.raises(ResultsError, match=r"no file plan\.json"):
        write_report(tmp_path)
    write_results(tmp_path, CELLS, missing=lambda cell: True)
    with pytest.raises(ResultsError, match=r"has no finished cells\. 0 of"):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()


def test_unknown_spread_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="spread must be 'std' or 'ci95', got 'sem'"):
        write_report(write_results(tmp_path, CELLS), spread="sem")


def test_missing_jinja2_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    write_results(tmp_path, CELLS)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"requires the package 'jinja2'.*clipcal\[report\]"):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()
