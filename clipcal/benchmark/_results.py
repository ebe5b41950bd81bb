"""Read a folder of benchmark results."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcal.exceptions import ResultsError

__all__ = ["Predictions", "Results", "read_results"]

_FORMAT = 1


@dataclass(frozen=True)
class Predictions:
    """Predictions of one cell on its test images.

    Parameters
    ----------
    y_true : ndarray of int, shape (n_test,)
        Column of the true class of each image.
    y_prob : ndarray of float32, shape (n_test, n_classes)
        Predicted probabilities.
    classes : ndarray of str, shape (n_classes,)
        Label of each column.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.benchmark import Predictions
    >>> y_prob = np.float32([[0.9, 0.1], [0.4, 0.6]])
    >>> predictions = Predictions(np.array([0, 1]), y_prob, np.array(["cat", "dog"]))
    >>> predictions.classes[predictions.y_prob.argmax(axis=1)].tolist()
    ['cat', 'dog']
    """

    y_true: NDArray[np.int64]
    y_prob: NDArray[np.float32]
    classes: NDArray[np.str_]


@dataclass(frozen=True)
class Results:
    """Results of a benchmark plan, from :func:`read_results`.

    Parameters
    ----------
    folder : Path
        The folder of the results.
    cells : list of dict
        Finished cells, in the order of the plan.
    missing : list of dict
        Cells of the plan that have not been run, each with its ``key`` and ``cell``.
    failed : list of dict
        Cells of the plan whose last run raised an error, each with ``key``, ``cell``, ``error`` and
        ``traceback``.
    plan : dict
        Content of ``plan.json``; ``plan["cells"]`` lists all cells of the plan in its order.
    paper : list of dict
        Published figures.
    """

    folder: Path
    cells: list[dict[str, Any]]
    missing: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    plan: dict[str, Any]
    paper: list[dict[str, Any]]

    def has_predictions(self, key: str) -> bool:
        """Tell whether the folder has the predictions of a cell.

        Parameters
        ----------
        key : str
            Key of the cell.

        Returns
        -------
        present : bool
        """
        return self._place(key).is_file()

    def predictions(self, key: str) -> Predictions:
        """Read the predictions of a finished cell.

        Parameters
        ----------
        key : str
            Key of the cell.

        Returns
        -------
        predictions : Predictions

        Raises
        ------
        ResultsError
            If the file is missing or damaged.
        """
        path = self._place(key)
        try:
            with np.load(path, allow_pickle=False) as file:
                return Predictions(file["y_true"], file["y_prob"], file["classes"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise _damaged(path, error) from error

    def run(self, key: str) -> dict[str, Any]:
        """Read the run time and the device of a finished cell.

        Parameters
        ----------
        key : str
            Key of the cell.

        Returns
        -------
        run : dict
            Empty if the folder has no such file.

        Raises
        ------
        ResultsError
            If the file is damaged.
        """
        path = self.folder / "runs" / f"{key}.json"
        return _read_object(path) if path.is_file() else {}

    def _place(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.npz"


def read_results(folder: str | os.PathLike[str]) -> Results:
    """Read a folder of benchmark results.

    Only cells of the plan in ``plan.json`` are read. Files of other cells, such as those of an earlier
    version of the plan, are ignored.

    Parameters
    ----------
    folder : str or Path
        The folder.

    Returns
    -------
    results : Results
        The finished cells, and what is missing or failed.

    Raises
    ------
    ResultsError
        If the folder has no ``plan.json``, or a file is damaged or was written by a newer version.

    Examples
    --------
    >>> import tempfile
    >>> from clipcal.benchmark import Plan, read_results, run_plan
    >>> plan = {"name": "a", "backbone": "mini", "datasets": ["mini/shapes-studio"], "methods": ["zero-shot"]}
    >>> folder = tempfile.mkdtemp()
    >>> summary = run_plan(Plan.from_dict(plan), folder)
    >>> results = read_results(folder)
    >>> [cell["cell"]["classes"] for cell in results.cells], results.missing
    (['base', 'new'], [])
    >>> results.predictions(results.cells[0]["key"]).y_prob.shape
    (600, 12)
    """
    place = Path(folder)
    path = place / "plan.json"
    if not path.is_file():
        raise ResultsError(
            f"{os.fspath(folder)!r} is not a folder of benchmark results: it has no file plan.json. "
            "Run a plan first: clipcal bench PLAN --out FOLDER"
        )
    plan = _read(path, ("cells",))
    finished, missing, failed = [], [], []
    for expected in plan["cells"]:
        done, error = (place / part / f"{expected['key']}.json" for part in ("cells", "failed"))
        if done.is_file():
            finished.append(_read(done, ("key", "cell", "metrics")))
        elif error.is_file():
            failed.append(_read(error, ("key", "cell", "error")))
        else:
            missing.append(expected)
    return Results(place, finished, missing, failed, plan, list(plan.get("paper", ())))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it is not a JSON object")
    return content


def _read(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Read a JSON object that has the given keys."""
    content = _read_object(path)
    lacking = [key for key in keys if key not in content]
    if lacking:
        raise _damaged(path, f"it has no {lacking[0]!r}")
    if content.get("format") != _FORMAT:
        raise ResultsError(
            f"{str(path)!r} has the format {content.get('format')!r}, and this version of clipcal reads the "
            f"format {_FORMAT}. Update clipcal to read it."
        )
    return content


def _damaged(path: Path, reason: Any) -> ResultsError:
    return ResultsError(
        f"{str(path)!r} cannot be read: {reason}. Delete the files of this cell and run the plan again."
    )
