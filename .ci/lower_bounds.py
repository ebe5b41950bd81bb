"""Print the lower bounds of the dependencies as exact versions, for ``pip install --constraint``."""

import re
import tomllib
from itertools import chain
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
    if found := re.match(r"([\w.-]+)>=([\d.]+)", requirement):
        print(f"{found[1]}=={found[2]}")
