"""The script that compares views of training images: its statistics, and one short run."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipcal.demo import COOP, METHODS, Cell, class_halves, run_cell

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "training" / "views.py"
# Source distributions have no benchmarks.
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="there are no benchmarks here")


@pytest.fixture(scope="module")
def views():
    spec = importlib.util.spec_from_file_location("views", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(n_views, seed, value, *, half="base", task="colors", domain="street"):
    numbers = dict.fromkeys(("accuracy", "confidence", "gap", "ece", "nll", "fit_seconds"), value)
    return {"task": task, "domain": domain, "seed": seed, "n_views": n_views, "half": half, **numbers}


class TestDifferences:
    def test_by_hand(self, views):
        found = views.summarize_differences([0.1, 0.3, -0.1, 0.1])
        # Deviations from the mean 0.1: 0, 0.2, -0.2, 0; their squares sum to 0.08.
        assert found["mean"] == pytest.approx(0.1)
        assert found["deviation"] == pytest.approx(np.sqrt(0.08 / 3))
        assert (found["n_agreeing"], found["n_runs"]) == (3, 4)
        # Two standard errors are 0.163.
        assert found["clear"] is False
        assert views.summarize_differences([0.1, 0.3, 0.1, 0.1])["clear"] is True

    def test_sign_of_the_mean_decides_which_runs_agree(self, views):
        assert views.summarize_differences([-0.1, -0.3, 0.1, 0.0])["n_agreeing"] == 2

    def test_one_run_is_never_clear(self, views):
        assert views.summarize_differences([0.5])["clear"] is False

    def test_runs_are_paired_by_task_domain_and_seed(self, views):
        records = [
            record("fresh", 1, 0.9),
            record("fresh", 0, 0.4),
            record("fresh", 0, 0.7, domain="faded"),
            record(10, 0, 0.3),
            record(10, 0, 0.5, domain="faded"),
            record(10, 1, 0.6),
            # No partner.
            record(10, 2, 100.0),
        ]
        rows = [row for row in views.compare(records) if row["quantity"] == "ece"]
        assert {row["difference"] for row in rows} == {"fresh - 10"}
        means = {row["task"]: (row["mean"], row["n_runs"]) for row in rows}
        assert means == {
            "colors (street)": (pytest.approx(0.2), 2),
            "colors (faded)": (pytest.approx(0.2), 1),
            "all": (pytest.approx(0.2), 3),
        }

    def test_halves_are_apart(self, views):
        records = [record(n, 0, v, half=h) for n, h, v in [(10, "base", 3), (1, "base", 1), (1, "new", 7)]]
        assert {row["half"] for row in views.compare(records)} == {"base"}


def test_means_are_of_one_task_or_of_all(views):
    records = [record(1, 0, 0.2), record(1, 1, 0.4), record(1, 0, 0.9, task="shapes"), record(4, 0, 0.5)]
    found = {(row["task"], row["n_views"]): row["ece"] for row in views.summarize(records)}
    assert found["colors (street)", 1] == pytest.approx((0.3, np.sqrt(0.02)))
    assert found["shapes (street)", 1] == (0.9, 0.0)
    assert found["all", 1] == pytest.approx((0.5, np.sqrt(0.13)))
    assert found["all", 4] == (0.5, 0.0)


def test_start_vectors_do_not_depend_on_views(views):
    cell = Cell("colors", "street", 3, 0)
    images, y = views.base_images(cell, class_halves(cell)["base"])
    starts = [
        METHODS[COOP](cell, None).set_params(n_views=n_views).fit(images, y).learned_["context"]
        for n_views in (1, 2, "fresh")
    ]
    np.testing.assert_array_equal(starts[1], starts[0])
    np.testing.assert_array_equal(starts[2], starts[0])


@pytest.mark.slow
def test_quick_run(tmp_path):
    out = tmp_path / "views.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--quick", "--out", str(out)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    assert "| all | fresh | 1 |" in printed
    found = json.loads(out.read_text(encoding="utf-8"))
    records = {(r["n_views"], r["half"]): r for r in found["records"]}
    assert set(records) == {(n, half) for n in (1, 4, "fresh") for half in ("base", "new")}
    # A centre crop that is embedded in `fit` is what the demo embeds before it.
    for expected in run_cell(Cell("colors", "street", 0, 2), COOP)[:2]:
        one = records[1, expected.half]
        assert one["accuracy"] == expected.accuracy
        assert one["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
        assert one["gap"] == one["confidence"] - one["accuracy"]
        assert one["ece"] == pytest.approx(expected.ece, abs=1e-3)
    assert len({records[n, "base"]["nll"] for n in (1, 4, "fresh")}) == 3
