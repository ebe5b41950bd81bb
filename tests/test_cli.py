"""The command line interface."""

import csv
import os
from concurrent.futures import BrokenExecutor

import pytest
from fake_results import base_to_new_cells, write_results

from clipcal.cli import main
from clipcal.demo import _claims, _tables
from clipcal.demo._claims import Claim


@pytest.mark.parametrize("n_jobs", ["0", "-2", "two", "1.5", ""])
def test_invalid_number_of_processes_raises(n_jobs, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["demo", f"--n-jobs={n_jobs}"])
    assert raised.value.code == 2
    assert f"or -1 for all cores; got {n_jobs!r}" in capsys.readouterr().err


def test_output_path_that_is_a_file_is_an_error(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for out in (taken, taken / "below"):
        with pytest.raises(SystemExit) as raised:
            main(["demo", "--out", str(out)])
        assert raised.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith(f"clipcal: results cannot be written to {str(out)!r} (")
        assert "clipcal demo --out FOLDER" in error
    assert taken.read_text() == "mine"


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="requires a user without root permissions"
)
def test_read_only_output_folder_is_an_error(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    tmp_path.chmod(0o500)
    with pytest.raises(SystemExit):
        main(["demo", "--out", str(tmp_path)])
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.slow
def test_quick_demo(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["demo", "--quick", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    report = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert report in shown
    for word in ("Base classes are", "New classes are", "expected calibration error (ECE) is"):
        assert word in report
    assert "one run" in report and "%" not in report
    assert report.count("| open ") == len(_claims._CLAIMS)
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert len(records) == 20
    # Table and CSV file are in fractions.
    for record in records:
        row = next(line for line in report.splitlines() if line.startswith(f"| {record['method']} "))
        assert f"{float(record['ece']):.3f}" in row
    assert (tmp_path / "out" / "reliability.png").stat().st_size > 10_000


def claim(mean, spread, n_cells):
    return Claim("text", "measure", mean, spread, n_agreeing=n_cells, n_cells=n_cells, bound=0.0)


@pytest.mark.parametrize(
    ("mean", "spread", "n_cells", "verdict"),
    [
        (0.03, 0.03, 9, "holds"),
        (0.01, 0.03, 9, "open"),
        (-0.03, 0.03, 9, "fails"),
        (0.5, 0.0, 1, "open"),
        (-0.5, 0.0, 1, "open"),
    ],
)
def test_verdict_of_a_claim(mean, spread, n_cells, verdict):
    assert claim(mean, spread, n_cells).verdict == verdict


def test_numbers_of_claims_are_fractions():
    assert "| +0.030 ± 0.020 |" in _tables.format_claims([claim(0.03, 0.02, 9)])
    assert "| -0.030    |" in _tables.format_claims([claim(-0.03, 0.0, 1)])


def test_report(tmp_path, capsys):
    pytest.importorskip("jinja2")
    write_results(tmp_path / "results", base_to_new_cells(seeds=[1, 2]))
    assert main(["report", str(tmp_path / "results"), "--out", str(tmp_path / "report")]) == 0
    pages = [tmp_path / "report" / name for name in ("report.html", "report.md")]
    assert capsys.readouterr().out.splitlines() == [str(page) for page in pages]
    assert "1.96" not in pages[1].read_text(encoding="utf-8")
    assert main(["report", str(tmp_path / "results"), "--spread", "ci95"]) == 0
    assert "1.96" in (tmp_path / "results" / "report" / "report.md").read_text(encoding="utf-8")


def test_report_of_a_folder_without_results_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["report", str(tmp_path)])
    assert raised.value.code == 1
    assert "is not a folder of benchmark results" in capsys.readouterr().err


def test_report_into_a_file_is_an_error(tmp_path, capsys):
    pytest.importorskip("jinja2")
    write_results(tmp_path, base_to_new_cells(seeds=[1]))
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(SystemExit) as raised:
        main(["report", str(tmp_path), "--out", str(tmp_path / "taken")])
    assert raised.value.code == 1
    error = capsys.readouterr().err
    assert "cannot be written to" in error and "clipcal report RESULTS --out FOLDER" in error
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "results cannot be written to "),
        (FileNotFoundError(2, "No such file or directory", "/data/1.jpg"), "clipcal: /data/1.jpg: No such"),
        (FileNotFoundError("There is no folder 'pets'."), "clipcal: There is no folder 'pets'."),
        (BrokenExecutor("A worker process was terminated."), "clipcal: A worker process was terminated."),
    ],
)
def test_errors_of_a_run_are_told_for_what_they_are(tmp_path, monkeypatch, capsys, error, message):
    def fail(*args, **kwargs):
        raise error

    plan = tmp_path / "plan.toml"
    plan.write_text('name = "trial"\nmethods = ["zero-shot"]\ndatasets = ["mini/shapes-studio"]')
    monkeypatch.setattr("clipcal.benchmark.run_plan", fail)
    with pytest.raises(SystemExit) as raised:
        main(["bench", str(plan), "--out", str(tmp_path / "results")])
    assert raised.value.code == 1
    assert message in capsys.readouterr().err
