"""The script that measures the trade-off on base and new classes: numbers, tables, and a short run."""

import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from joblib import Memory

from clipcal.demo import COOP, COOP_DOR, KGCOOP, METHODS, N_TEST, ZERO_SHOT, Cell, run_cell
from clipcal.metrics import feature_divergence

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks" / "methods"
RESULTS = SCRIPTS / "results" / "trade_off.json"
PAGE = ROOT / "docs" / "method" / "dor.rst"
# Source distributions have no benchmarks.
pytestmark = pytest.mark.skipif(not SCRIPTS.exists(), reason="there are no benchmarks here")

QUANTITIES = [f"{half} {name}" for half in ("base", "new") for name in ("accuracy", "confidence", "ece")]


def results_of(**numbers):
    """Return results of two runs with two epochs, in which all methods have the same numbers by epoch."""
    runs = []
    for method in (ZERO_SHOT, COOP, KGCOOP, COOP_DOR):
        for seed in range(2):
            epochs = [0] if method == ZERO_SHOT else [1, 2]
            runs += [[method, "colors", "street", seed, epoch, *numbers[method][seed]] for epoch in epochs]
    names = ["base accuracy", "base confidence", "new accuracy", "new confidence"]
    return {"setup": {"epochs": 2}, "quantities": names, "runs": runs}


def test_gap_is_confidence_minus_accuracy(scripts):
    same = [[0.5, 0.6, 0.4, 0.3], [0.7, 0.6, 0.2, 0.3]]
    numbers = {ZERO_SHOT: same, COOP: same, KGCOOP: same, COOP_DOR: same}
    measured = scripts("trade_off_figures").Measured(results_of(**numbers))
    np.testing.assert_allclose(measured.of(COOP, "base gap"), [0.1, -0.1])
    np.testing.assert_allclose(measured.of(ZERO_SHOT, "new gap"), [-0.1, 0.1])


def test_epochs(scripts):
    results = {"setup": {"epochs": 2}, "quantities": ["base ece"], "runs": []}
    results["runs"] = [[COOP, "colors", "street", 0, 1, 0.3], [COOP, "colors", "street", 0, 2, 0.1]]
    measured = scripts("trade_off_figures").Measured(results)
    assert measured.of(COOP, "base ece") == [0.1]
    assert measured.of(COOP, "base ece", 1) == [0.3]


def test_numbers_are_those_of_the_demo(scripts, tmp_path):
    cell = Cell("colors", "street", 0, 2, noun_step=4096)
    memory = Memory(tmp_path, verbose=0)
    for method in (ZERO_SHOT, COOP):
        found = scripts("trade_off").run(cell, method, memory)
        assert [record["run"] for record in found] == [
            [method, "colors", "street", 0, epoch] for epoch in ([0] if method == ZERO_SHOT else [1, 2])
        ]
        expected = {r.half: r for r in run_cell(cell, method, memory) if r.method == method}
        for name in QUANTITIES:
            half, quantity = name.split()
            assert found[-1]["numbers"][name] == pytest.approx(getattr(expected[half], quantity), abs=1e-6)


def test_divergence_is_that_of_the_text_features(scripts, tmp_path):
    cell = Cell("colors", "street", 0, 1)
    (record,) = scripts("trade_off").run(cell, ZERO_SHOT, Memory(tmp_path, verbose=0))
    halves = scripts("trade_off").class_halves(cell)
    test = scripts("trade_off").embedded_subset(cell, "test", 1)
    base = METHODS[ZERO_SHOT](cell, None).fit(test.X, test.y).with_classes(halves["base"])
    expected = feature_divergence(base.text_features_)
    assert record["numbers"]["base divergence"] == pytest.approx(expected)


def test_short_run(scripts, run_script, tmp_path, capsys):
    settings, out = dict(matplotlib.rcParams), tmp_path / "trade_off.json"
    run_script(scripts("trade_off"), "--quick", "--out", out)
    printed = capsys.readouterr().out
    assert "CoOp + DOR minus CoOp" in printed
    results = json.loads(out.read_text(encoding="utf-8"))
    # Zero-shot predictions have no epochs; the three others have two, and there are two seeds.
    assert len(results["runs"]) == 2 * (1 + 3 * 2)
    assert results["setup"]["n_test"] == N_TEST
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        run_script(scripts("trade_off"), "--out", out, "--figures", folder)
    assert dict(matplotlib.rcParams) == settings, "figures change settings of the process"
    first = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert sorted(first) == ["dor_trade_off.svg", "dor_training.svg"]
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}


class TestStoredResults:
    def test_page_has_the_tables_of_the_results(self, scripts):
        figures = scripts("trade_off_figures")
        measured = figures.Measured(json.loads(RESULTS.read_text(encoding="utf-8")))
        page = PAGE.read_text(encoding="utf-8")
        found = figures.tables(measured)
        for title, table in found.items():
            assert f".. table: {title}\n\n{table}\n" in page, f"run trade_off.py --page {PAGE.name}"
        assert set(re.findall(r"(?m)^\.\. table: (.+)$", page)) == set(found)

    def test_results_are_complete_and_small(self):
        text = RESULTS.read_text(encoding="utf-8")
        assert len(text) < 100_000
        assert not re.search(r"/[a-z]+/", text)
        results = json.loads(text)
        n_epochs = 3 * results["setup"]["epochs"] + 1
        assert len(results["runs"]) == len(results["setup"]["tasks"]) * results["setup"]["n_seeds"] * n_epochs
        assert np.isfinite([run[5:] for run in results["runs"]]).all()

    def test_figures_are_small(self):
        figures = sorted(PAGE.parent.glob("dor_*.svg"))
        assert [path.stem for path in figures] == ["dor_trade_off", "dor_training"]
        assert all(path.stat().st_size < 100_000 for path in figures)
