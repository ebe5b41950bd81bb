"""Tables of results, and their formats."""

import csv
import io
import re

import pytest
from fake_results import base_to_new_cells, few_shot_cells, make_cell, transfer_cells, write_results

from clipcal.benchmark import read_results
from clipcal.benchmark._aggregate import make_grids
from clipcal.benchmark._formats import csv_of, latex_of, markdown_of, records_to_csv
from clipcal.benchmark._paper import paper_table
from clipcal.benchmark._tables import Row, Table, Value, comparison_table, dataset_tables, summary_table
from clipcal.exceptions import ResultsError


def results_of(folder, cells, **options):
    return read_results(write_results(folder, cells, **options))


def grid_of(folder, cells, **options):
    [grid] = make_grids(results_of(folder, cells, **options))
    return grid


def texts(table):
    return [[str(cell) for cell in row.cells] for row in table.rows]


def table_of(*cells, columns=("name", "number")):
    return Table("small", "", "A title", "A caption.", columns, (Row(cells),))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value(92.0, 0.1475), "92.00 ± 0.15"),
        (Value(0.5, digits=4), "0.5000"),
        (Value(0.25, signed=True), "+0.25"),
        (Value(-0.25, signed=True), "-0.25"),
        (Value(note="2 of 3 seeds"), "\u2013 (2 of 3 seeds)"),
    ],
)
def test_text_of_a_value(value, text):
    assert str(value) == text


def test_summary_of_base_and_new_classes(tmp_path):
    figures = {"base": (0.8228, 0.03), "new": (0.7514, 0.05)}

    def metrics(cell):
        return dict(zip(("accuracy", "ece"), figures[cell["classes"]], strict=True))

    table = summary_table(grid_of(tmp_path, base_to_new_cells(), metrics=metrics))
    assert table.columns[1:4] == ("accuracy, base", "accuracy, new", "accuracy, HM")
    assert table.columns[4:] == ("ECE, base", "ECE, new", "ECE, mean")
    assert texts(table)[0] == ["zero-shot", "82.28", "75.14", "78.55", "3.00", "5.00", "4.00"]
    spread = " ± 0.00"
    assert texts(table)[1][1:4] == ["82.28" + spread, "75.14" + spread, "78.55"]
    assert "15 bins" in table.caption


def test_spread_of_a_summary(tmp_path):
    accuracies = {0: 0.5, 1: 0.9181, 2: 0.9201, 3: 0.9217}
    cells = few_shot_cells(["one"], n_shots=[16])
    grid = grid_of(tmp_path, cells, metrics=lambda cell: {"accuracy": accuracies[cell["seed"]]})
    assert texts(summary_table(grid))[1][:2] == ["CoOp", "92.00 ± 0.15"]
    table = summary_table(grid, "ci95")
    assert texts(table)[1][:2] == ["CoOp", "92.00 ± 0.17"] and "1.96" in table.caption


def test_summary_of_transfer_has_source_and_targets(tmp_path):
    accuracies = {"imagenet": 0.9, "dtd": 0.4, "eurosat": 0.5}
    grid = grid_of(tmp_path, transfer_cells(), metrics=lambda cell: {"accuracy": accuracies[cell["dataset"]]})
    table = summary_table(grid)
    assert table.columns[1:3] == ("accuracy, source", "accuracy, targets")
    assert texts(table)[0][1:3] == ["90.00", "45.00"]
    assert "without the data set of the training, imagenet" in table.caption


def test_numbers_of_images_have_a_column_if_they_differ(tmp_path):
    table = summary_table(grid_of(tmp_path / "many", few_shot_cells(n_shots=[1, 16])))
    assert table.columns[1] == "shots"
    assert [row[:2] for row in texts(table)[:3]] == [["zero-shot", "0"], ["CoOp", "1"], ["CoOp", "16"]]
    assert summary_table(grid_of(tmp_path / "one", few_shot_cells(n_shots=[16]))).columns[1] != "shots"


def test_tables_of_data_sets(tmp_path):
    lost = make_cell("base-to-new", "one", "one", "new", "CoOp", "DOR", seed=2)
    grid = grid_of(tmp_path, base_to_new_cells(["one", "two"]), missing=lambda cell: cell == lost)
    tables = {table.name: table for table in dataset_tables(grid)}
    assert list(tables) == [
        f"base-to-new_{name}"
        for name in ("accuracy_base", "accuracy_new", "accuracy_hm", "ece_base", "ece_new", "ece_mean")
    ]
    table = tables["base-to-new_accuracy_new"]
    assert table.columns == ("model", "one", "two", "average")
    mean = grid.over_seeds(grid.models[1], "two", "new", "accuracy").mean
    assert texts(table)[1][2].startswith(f"{100 * mean:.2f} ± ")
    assert texts(table)[2][1] == "\u2013 (2 of 3 seeds)"
    assert texts(table)[2][3] == "\u2013 (1 of 2 data sets)"
    assert texts(tables["base-to-new_accuracy_hm"])[2][3] == "\u2013 (new: 1 of 2 data sets)"


def test_comparison_table(tmp_path):
    table = comparison_table(grid_of(tmp_path, base_to_new_cells(seeds=[1, 2])))
    assert [row[:2] for row in texts(table)] == [
        ["CoOp + DOR", name] for name in ("accuracy, base", "accuracy, new", "ECE, base", "ECE, new")
    ]
    assert "Each data set and seed is one pair" in table.caption
    assert all("too few pairs" in row[5] and row[6] == "4" for row in texts(table))


def test_no_comparison_without_loss_terms(tmp_path):
    grid = grid_of(tmp_path, base_to_new_cells(contenders=[("zero-shot", "none"), ("CoOp", "none")]))
    assert comparison_table(grid) is None


def test_no_comparison_on_classes_that_the_plan_leaves_out(tmp_path):
    cells = [
        cell for cell in base_to_new_cells() if cell["method"] == "zero-shot" or cell["classes"] == "base"
    ]
    assert {row[1] for row in texts(comparison_table(grid_of(tmp_path, cells)))} == {
        "accuracy, base",
        "ECE, base",
    }


# Published figures.

PAPER = {"protocol": "base-to-new", "method": "CoOp", "metric": "accuracy", "source": "MaPLe README"}


def published(folder, *entries, **options):
    results = results_of(folder, base_to_new_cells(), paper=entries, **options)
    return paper_table(results, make_grids(results))


def test_published_figures_are_beside_ours(tmp_path):
    accuracies = {"base": 0.83, "new": 0.63}
    table = published(
        tmp_path,
        {**PAPER, "dataset": "mean", "base": 82.69, "new": 63.22, "note": "200 epochs"},
        metrics=lambda cell: {"accuracy": accuracies[cell["classes"]]},
    )
    shown = [row[3:] for row in texts(table)]
    assert shown[0] == ["accuracy, base", "83.00", "82.69", "+0.31", "MaPLe README", "200 epochs"]
    assert shown[1][:4] == ["accuracy, new", "63.00", "63.22", "-0.22"]
    assert shown[2][:4] == ["accuracy, HM", "71.63", "71.66", "-0.03"]


def test_published_errors_have_the_arithmetic_mean(tmp_path):
    table = published(tmp_path, {**PAPER, "metric": "ece", "base": 6.35, "new": 12.45})
    assert texts(table)[2][3:6:2] == ["ECE, mean", "9.40"]


def test_published_figure_of_one_data_set(tmp_path):
    name = "mini/shapes-plain"
    table = published(
        tmp_path, {**PAPER, "dataset": name, "base": 50}, metrics=lambda cell: {"accuracy": 0.75}
    )
    assert texts(table)[0][2:7] == [name, "accuracy, base", "75.00", "50.00", "+25.00"]


def test_published_figures_of_unknown_models_and_incomplete_means(tmp_path):
    [row] = texts(published(tmp_path / "a", {**PAPER, "method": "MaPLe", "base": 82.28}))
    assert row[4:7] == ["\u2013 (no such model in the plan)", "82.28", "\u2013"]
    [row] = texts(published(tmp_path / "b", {**PAPER, "base": 82.28}, missing=lambda cell: cell["seed"] == 3))
    assert row[4:7] == ["\u2013 (0 of 2 data sets)", "82.28", "\u2013"]


def test_differing_settings_of_published_figures_are_flagged(tmp_path):
    table = published(tmp_path, {**PAPER, "base": 82.69, "n_bins": 10, "seeds": [1, 2, 3], "note": "old"})
    assert texts(table)[0][-1].startswith("old; n_bins differs: 10 there, 15 here")


def test_published_figures_are_not_mixed_between_calibrators(tmp_path):
    table = published(tmp_path, {**PAPER, "calibrator": "temperature", "base": 82.69})
    assert texts(table)[0][1] == "CoOp + temperature" and "no such model" in texts(table)[0][4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": None}, "has no 'method'"),
        ({"metric": "acc"}, "metric 'acc' is unknown; choose among accuracy, ece"),
        ({"base": None}, "none of the figures all, base and new"),
    ],
)
def test_invalid_published_figures_are_errors(tmp_path, change, message):
    entry = {key: value for key, value in {**PAPER, "base": 1.0, **change}.items() if value is not None}
    with pytest.raises(ResultsError, match=message):
        published(tmp_path, entry)


# Formats.


def test_csv_has_full_precision_spreads_and_notes():
    rows = (Row(("a, b", Value(100 / 3, 1 / 3))), Row(("c", Value(note="2 of 3 seeds"))))
    table = Table("small", "", "Title", "Caption", ("name", "accuracy"), rows)
    lines = list(csv.reader(io.StringIO(csv_of(table))))
    assert lines[0] == ["name", "accuracy", "accuracy spread", "accuracy note"]
    assert lines[1] == ["a, b", repr(100 / 3), repr(1 / 3), ""]
    assert lines[2] == ["c", "", "", "2 of 3 seeds"]


def test_csv_of_records_has_the_columns_of_all():
    assert records_to_csv([{"a": 1}, {"a": 2, "b": "x"}]) == "a,b\n1,\n2,x\n"


def test_latex_is_escaped_and_has_all_columns():
    text = latex_of(table_of("A_b & 50% {x} ~ ^ \\", Value(92.0, 0.15)))
    assert r"A\_b \& 50\% \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}" in text
    assert r"92.00 $\pm$ 0.15 \\" in text
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(rf"\{rule}") == 1
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    assert len(re.findall(r"(?<!\\)&", body)) == 2 and r"\begin{tabular}{lr}" in text
    assert text.isascii()


def test_latex_of_a_missing_number_is_a_dash():
    assert r"x & -- \\" in latex_of(table_of("x", Value(note="2 of 3 seeds")))


def test_markdown_is_aligned_and_escaped():
    lines = markdown_of(table_of("a|b <i> *c* d_e", Value(1.0))).splitlines()
    assert lines[0] == "## A title" and lines[-1] == "A caption."
    assert lines[4].startswith(r"| a\|b \<i\> \*c\* d\_e | 1.00")
    assert len({len(line) for line in lines[2:5]}) == 1
