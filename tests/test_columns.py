"""Columns named after labels are matched by name, other columns by position."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
from framed import TextTable

from clipcal._columns import column_names, in_class_order

ROWS = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])


def frame(*names):
    return pd.DataFrame(ROWS, columns=list(names))


@pytest.mark.parametrize(
    ("values", "classes", "order"),
    [
        (frame("cat", "ant", "bee"), ["ant", "bee", "cat"], [1, 2, 0]),
        (frame("ant", "bee", "cat"), ["ant", "bee", "cat"], [0, 1, 2]),
        (frame(7, 3, 5), [3, 5, 7], [1, 2, 0]),
        (frame(7.0, 3.0, 5.0), [3, 5, 7], [1, 2, 0]),
        (frame("7", "3", "5"), np.array([3, 5, 7]), [1, 2, 0]),
        (TextTable(ROWS, [2, 0, 1]), [0, 1, 2], [1, 2, 0]),
        # Default names, and names that are not labels.
        (pd.DataFrame(ROWS), ["ant", "bee", "cat"], [0, 1, 2]),
        (pd.DataFrame(ROWS), [1, 2, 3], [0, 1, 2]),
        (pd.DataFrame(ROWS), ["0", "1", "10"], [0, 1, 2]),
        (frame("p_2", "p_0", "p_1"), [0, 1, 2], [0, 1, 2]),
        (ROWS, ["ant", "bee", "cat"], [0, 1, 2]),
        (ROWS.tolist(), ["ant", "bee", "cat"], [0, 1, 2]),
    ],
)
def test_order_of_columns(values, classes, order):
    np.testing.assert_array_equal(in_class_order(values, classes, "f"), ROWS[:, order])


def test_default_names_do_not_match_string_labels():
    # Sorted strings have "10" and "11" before "2", so default names would reorder the columns.
    labels = sorted(map(str, range(12)))
    values = np.random.default_rng(0).uniform(size=(2, 12))
    np.testing.assert_array_equal(in_class_order(pd.DataFrame(values), labels, "f"), values)


def test_boolean_labels_and_dates():
    two = pd.DataFrame(ROWS[:, :2], columns=["True", "False"])
    np.testing.assert_array_equal(in_class_order(two, [False, True], "f"), ROWS[:, [1, 0]])
    dates = np.array(["2024-01-01", "2024-01-02", "2024-01-03"], dtype="M8[D]")
    named = pd.DataFrame(ROWS, columns=pd.DatetimeIndex(dates[[2, 0, 1]]))
    np.testing.assert_array_equal(in_class_order(named, dates, "f"), ROWS[:, [1, 2, 0]])
    assert column_names(named)[0] == datetime.datetime(2024, 1, 3)


@pytest.mark.parametrize(
    "names", [("ant", "bee", "dog"), ("cat", "cat", "ant"), ("cat", "x", "y"), ("x", "bee", "y")]
)
def test_partly_matching_names_raise(names):
    with pytest.raises(ValueError, match=r"Clf.predict_proba returned columns named .* for the classes"):
        in_class_order(frame(*names), ["ant", "bee", "cat"], "Clf.predict_proba")


def test_pyarrow_and_polars_tables():
    classes = ["ant", "bee", "cat"]
    polars = pytest.importorskip("polars")
    table = polars.DataFrame(ROWS, schema=["cat", "ant", "bee"], orient="row")
    np.testing.assert_array_equal(in_class_order(table, classes, "f"), ROWS[:, [1, 2, 0]])
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({name: ROWS[:, k] for k, name in enumerate(["cat", "ant", "bee"])})
    np.testing.assert_array_equal(in_class_order(table, classes, "f"), ROWS[:, [1, 2, 0]])


def test_columns_may_have_names_of_attributes():
    named = pd.DataFrame(ROWS, columns=["column_names", "dtype", "shape"])
    assert column_names(named) == ["column_names", "dtype", "shape"]
