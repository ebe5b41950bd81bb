"""The training curve, one JSON record a line."""

from __future__ import annotations

import json
import time
from pathlib import Path


class Curve:
    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")
        self.start = time.time()

    def write(self, record: dict) -> None:
        seconds = round(time.time() - self.start, 1)
        self.file.write(json.dumps({**record, "seconds": seconds}) + "\n")
        self.file.flush()
