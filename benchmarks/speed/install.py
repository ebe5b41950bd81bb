"""Size of the wheel and of the installed packages, and times of imports.

python -m pip install build hatchling
python benchmarks/speed/install.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from functools import partial
from pathlib import Path

from paired import compare, report

ROOT = Path(__file__).parents[2]
IMPORTS = {
    "python -c pass": ["-c", "pass"],
    "import clipcal": ["-c", "import clipcal"],
    "import torch": ["-c", "import torch"],
    "from clipcal import ece_scorer": ["-c", "from clipcal import ece_scorer"],
    "from clipcal import PromptTunedCLIPClassifier": ["-c", "from clipcal import PromptTunedCLIPClassifier"],
    "clipcal --version": ["-m", "clipcal", "--version"],
    "clipcal bench --help": ["-m", "clipcal", "bench", "--help"],
}


def size_of(path: Path) -> int:
    """Return the size of a file, or of all files in a folder without bytecode, in bytes."""
    if path.is_file():
        return path.stat().st_size
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file() and item.suffix != ".pyc")


def built() -> dict[str, int]:
    """Build the distributions, and return their sizes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, str(ROOT)]
        subprocess.run(command, check=True, capture_output=True)
        return {path.suffix.lstrip("."): path.stat().st_size for path in Path(folder).iterdir()}


def installed() -> dict[str, int]:
    """Return the sizes of what is installed in the environment of this interpreter, largest first."""
    place = Path(sysconfig.get_path("purelib"))
    sizes = {item.name: size_of(item) for item in place.iterdir() if not item.name.endswith(".dist-info")}
    return dict(sorted(sizes.items(), key=lambda found: -found[1]))


def run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    times = compare({name: partial(run, code) for name, code in IMPORTS.items()}, n_rounds=args.rounds)
    records = [{"what": name, "seconds": figures["seconds"]} for name, figures in times.items()]
    sizes, files = installed(), built()
    packages = dict(list(sizes.items())[:8])
    for name, size in {
        "source distribution": files["gz"],
        "wheel": files["whl"],
        "clipcal, installed": size_of(ROOT / "clipcal"),
        "environment": sum(sizes.values()),
        **{f"of it, {name}": size for name, size in packages.items()},
    }.items():
        records.append({"what": name, "megabytes": size / 1e6})
    report("install", records)


if __name__ == "__main__":
    main()
