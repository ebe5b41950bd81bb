"""Reading of a folder of results."""

import json

import numpy as np
import pytest
from fake_results import base_to_new_cells, key_of, make_predictions, write_results

from clipcal.benchmark import read_results
from clipcal.exceptions import ResultsError

CELLS = base_to_new_cells(datasets=["one", "two"], seeds=[1, 2])


def test_cells_are_in_the_order_of_the_plan(tmp_path):
    results = read_results(write_results(tmp_path, CELLS, name="trial"))
    assert [found["cell"] for found in results.cells] == CELLS
    assert not results.missing and not results.failed and not results.paper
    assert results.plan["name"] == "trial"


def test_missing_and_failed_cells_are_told_apart(tmp_path):
    lost, broken = CELLS[3], CELLS[5]
    write_results(tmp_path, CELLS, missing=lambda cell: cell == lost, failed=lambda cell: cell == broken)
    results = read_results(str(tmp_path))
    assert [found["cell"] for found in results.missing] == [lost]
    [failed] = results.failed
    assert failed["cell"] == broken and failed["error"].startswith("ValueError: ")
    assert [found["cell"] for found in results.cells] == [
        cell for cell in CELLS if cell not in (lost, broken)
    ]


def test_a_finished_cell_counts_although_an_earlier_run_failed(tmp_path):
    write_results(tmp_path, CELLS, failed=lambda cell: cell == CELLS[0])
    write_results(tmp_path, CELLS)
    assert not read_results(tmp_path).failed


def test_cells_of_other_plans_are_ignored(tmp_path):
    write_results(tmp_path, CELLS)
    write_results(tmp_path, CELLS[:4])
    assert [found["cell"] for found in read_results(tmp_path).cells] == CELLS[:4]


def test_predictions(tmp_path):
    results = read_results(write_results(tmp_path, CELLS[:1], n_test=40, n_classes=3))
    found = results.predictions(key_of(CELLS[0]))
    y_true, y_prob = make_predictions(CELLS[0], 40, 3)
    np.testing.assert_array_equal(found.y_true, y_true)
    np.testing.assert_array_equal(found.y_prob, y_prob)
    assert found.classes.tolist() == ["class 0", "class 1", "class 2"]


def test_folder_without_plan_is_an_error(tmp_path):
    with pytest.raises(ResultsError, match=r"has no file plan\.json\. Run a plan first: clipcal bench"):
        read_results(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "it is not a JSON object"),
        ('{"format": 1, "key": "a", "cell": {}}', "it has no 'metrics'"),
        ('{"format": 2, "key": "a", "cell": {}, "metrics": {}}', r"has the format 2.*Update clipcal"),
    ],
)
def test_damaged_and_newer_files_are_errors(tmp_path, content, message):
    write_results(tmp_path, CELLS[:1])
    (tmp_path / "cells" / f"{key_of(CELLS[0])}.json").write_text(content)
    with pytest.raises(ResultsError, match=message):
        read_results(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "removed", "pickled", "text", "array"])
def test_damaged_predictions_are_an_error(tmp_path, damage):
    results = read_results(write_results(tmp_path, CELLS[:1]))
    path = tmp_path / "cells" / f"{key_of(CELLS[0])}.npz"
    whole = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "pickled":
        np.savez(path, y_true=np.array([{}], dtype=object), y_prob=1, classes=1)
    elif damage == "text":
        path.write_text(json.dumps({"y_true": []}))
    elif damage == "array":
        np.savez(path, y_true=[1])
    with pytest.raises(ResultsError, match=r"npz.* cannot be read"):
        results.predictions(key_of(CELLS[0]))


def test_run_times(tmp_path):
    results = read_results(write_results(tmp_path, CELLS[:2]))
    key = key_of(CELLS[0])
    assert results.run(key)["fit_seconds"] == 1.5
    path = tmp_path / "runs" / f"{key}.json"
    path.write_text("[1]")
    with pytest.raises(ResultsError, match="is not a JSON object"):
        results.run(key)
    path.unlink()
    assert results.run(key) == {}
