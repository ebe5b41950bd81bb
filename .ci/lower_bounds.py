"""Print the lower bounds of the dependencies as exact versions, for ``pip install --constraint``."""

import re
import tomllib
from itertools import chain
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
    if requirement.startswith(f"{project['name']}["):
        continue
    found = re.fullmatch(r"([\w.-]+)>=([\d.]+)(,<[\d.]+)?", requirement)
    if found is None:
        raise ValueError(f"The requirement {requirement!r} is not of the form name>=version.")
    print(f"{found[1]}=={found[2]}")
