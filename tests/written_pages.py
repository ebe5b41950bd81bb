"""The pages of the documentation, without those that are made from docstrings and examples."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = {"_build", "gallery", "generated"}
PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*")
    if path.suffix in {".md", ".rst"} and not GENERATED & set(path.parts)
)
