"""The folder of results: one file of metrics and one of predictions for each cell, written atomically."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clipcal._whole_file import remove_stale, write_whole
from clipcal.benchmark._fit import Outcome

__all__ = ["Store", "is_done", "read_run"]


def is_done(folder: Path, key: str) -> bool:
    """Whether a cell is complete."""
    return all((folder / "cells" / f"{key}{suffix}").is_file() for suffix in (".json", ".npz"))


def read_run(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the times of a cell, or None if they are missing or damaged."""
    try:
        found = json.loads((folder / "runs" / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if {"fit_seconds", "evaluation_seconds"} <= found.keys() else None


class Store:
    """Writer of a folder of results.

    Parameters
    ----------
    folder : Path
        The folder; it is created if needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in (folder, *(folder / name for name in ("cells", "failed", "runs"))):
            part.mkdir(parents=True, exist_ok=True)
            remove_stale(part)

    def write_plan(self, plan: Mapping[str, Any], identities: Iterable[Mapping[str, Any]]) -> None:
        """Write the plan, with the keys of all its cells."""
        cells = [{"key": identity["key"], "cell": identity["cell"]} for identity in identities]
        content = {"format": 1, "name": plan["name"], "plan": plan, "cells": cells, "paper": plan["paper"]}
        self._write_json("plan.json", content)

    def write(self, outcome: Outcome) -> None:
        """Write the result of a cell. The metrics come last, as their file marks the cell as complete."""
        key = outcome.key
        if outcome.predictions is None:
            self._write_json(f"failed/{key}.json", outcome.record)
            return
        predictions = outcome.predictions
        write_whole(self.folder / "cells" / f"{key}.npz", lambda file: file.write(predictions))
        if outcome.run:
            self._write_json(f"runs/{key}.json", {"key": key, **outcome.run})
        self._write_json(f"cells/{key}.json", outcome.record)
        (self.folder / "failed" / f"{key}.json").unlink(missing_ok=True)

    def _write_json(self, name: str, content: Any) -> None:
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(self.folder / name, lambda file: file.write(text.encode()))
