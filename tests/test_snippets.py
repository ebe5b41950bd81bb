"""The code blocks and commands of the README and the documentation run, with the embedded CLIP and few nouns.

Examples with prompts (``>>>``) are run by ``test_docs.py``, and the two commands that open the README by the
continuous integration.
"""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder
from written_pages import PAGES, ROOT

from clipcal import ZeroShotCLIPClassifier, cli, make_shapes, save
from clipcal.benchmark import Plan, run_plan

NOUNS = ("denim", "river", "violin", "hammer", "twilight", "brick", "marble", "curtain")
CLASSES = ("circle", "square", "star", "cross")
SMALL_PLAN = """
name = "small"
backbone = "mini"
datasets = ["mini/shapes-studio"]
methods = ["zero-shot", { name = "CoOp", method = "coop", max_epochs = 1 }]
n_shots = [4]
seeds = [1]
"""


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the code blocks of a page, in either markup."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        pattern = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
    else:
        pattern = re.compile(
            r"^(?P<indent> *)\.\. code-block:: (?P<language>\w+)\n(?:(?P=indent)   :.*\n)*"
            r"(?P<code>(?:\n|(?P=indent)   .*\n)+)",
            re.MULTILINE,
        )
    for found in pattern.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found["language"], dedent(found["code"]).strip() + "\n")


BLOCKS = [block for page in [ROOT / "README.md", *PAGES] for block in blocks_of(page)]
# The page on clusters has a test module of its own.
PYTHON_PAGES = sorted(
    {block.page for block in BLOCKS if block.language == "python" and block.page.stem != "cluster"}
)
COMMANDS = [
    (block, line)
    for block in BLOCKS
    if block.language in ("bash", "console")
    for line in block.code.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def test_blocks_are_found():
    assert {block.language for block in BLOCKS} <= {"bash", "console", "python", "text", "toml"}
    assert len(PYTHON_PAGES) > 3 and len(COMMANDS) > 20


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a small plan."""
    folder = tmp_path_factory.mktemp("results")
    run_plan(Plan.from_dict(tomllib.loads(SMALL_PLAN)), folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with images, a plan and results, and use few nouns instead of all."""
    X, y = make_shapes("shapes", n_per_class=10, random_state=0, return_X_y=True)
    for position, (pixels, label) in enumerate(zip(X, y, strict=True)):
        if label in CLASSES:
            path = tmp_path / "photos" / label / f"{position:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    (tmp_path / "plan.toml").write_text(SMALL_PLAN, encoding="utf-8")
    save(ZeroShotCLIPClassifier("mini").fit(X, y), tmp_path / "photos.clipcal")
    for name in ("RESULTS", "results/mini", "results/base_to_new"):
        shutil.copytree(results, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for place in ("clipcal.regularizers._outlier", "clipcal.benchmark._fit"):
        monkeypatch.setattr(f"{place}.load_nouns", lambda source: NOUNS)
    return tmp_path


# Python


def sources_of(page: Path) -> list[str]:
    """Return the examples with prompts and the code blocks of a page, in their order."""
    parts = [(block.line, block.code) for block in blocks_of(page) if block.language == "python"]
    if page.suffix == ".rst":
        examples = doctest.DocTestParser().get_examples(page.read_text(encoding="utf-8"))
        parts += [(found.lineno, found.source) for found in examples if not found.exc_msg]
    return [code.replace("ViT-B-16/openai", "mini") for _, code in sorted(parts) if can_be_imported(code)]


def can_be_imported(code: str) -> bool:
    """Check that the optional packages that a block imports are installed."""
    names = re.findall(r"^ *(?:from|import) (\w+)", code, re.MULTILINE)
    return all(is_installed(name) for name in names)


def is_installed(name: str) -> bool:
    # A folder of tests is called "datasets", too, but has no file.
    found = find_spec(name)
    return found is not None and found.origin is not None


def hugging_face_splits(folder: Path) -> Any:
    """Return a data set of Hugging Face with the images of a folder."""
    datasets = pytest.importorskip("datasets")
    paths = sorted(map(str, (folder / "photos").rglob("*.jpg")))
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    columns = {"image": paths, "label": [Path(path).parent.name for path in paths]}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return datasets.DatasetDict({"train": made})


def names_taken_for_granted() -> dict[str, Any]:
    """Return objects of the user that short blocks refer to, by their names."""
    images, labels = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    return {
        "X": images,
        "clf": ZeroShotCLIPClassifier("mini"),
        "grid": {"template": ["a photo of a {}.", "{}"]},
        "images": images,
        "labels": labels,
        "other_images": images,
        "y": labels,
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_blocks_run(page, folder, monkeypatch):
    pytest.importorskip("matplotlib").use("agg")
    downloads = {"torchvision.datasets.CIFAR10": lambda *args, **options: ImageFolder("photos")}
    if is_installed("datasets"):
        downloads["datasets.load_dataset"] = lambda name: hugging_face_splits(folder)
    for name, replacement in downloads.items():
        monkeypatch.setattr(name, replacement)
    names = names_taken_for_granted()
    for source in sources_of(page):
        exec(compile(source, str(page), "exec"), names)


# Commands


def options_of(script: Path) -> set[str]:
    return set(re.findall(r'"(--[\w-]+)"', script.read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "line"), COMMANDS, ids=[f"{block}-{line[:40]}" for block, line in COMMANDS]
)
def test_commands_run(block, line, folder, monkeypatch):
    words = shlex.split(line, comments=True)
    if words[0] == "clipcal" or words[:3] == ["python", "-m", "clipcal"]:
        run_clipcal(words[words.index("clipcal") + 1 :], monkeypatch)
    elif words[0] == "python" and words[1].startswith("benchmarks"):
        # The scripts run in tests of their own.
        script = ROOT / words[1]
        assert script.is_file()
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options_of(script)
    elif words[:2] == ["python", "-c"]:
        exec(words[2].replace("ViT-B-16/openai", "mini"), {})
    else:
        assert is_of_another_tool(words), line


def is_of_another_tool(words: list[str]) -> bool:
    """Check for commands that install, build, test or download, or start a cluster."""
    tools = {"conda", "dask", "export", "hf", "mypy", "pip", "pytest", "ruff", "sphinx-build"}
    of_other_code = words[:2] == ["python", "train.py"]
    in_an_environment = words[:3] == ["python", "-m", "venv"] or words[0].startswith("trial/bin/")
    return words[0] in tools or "=" in words[0] or of_other_code or in_an_environment


def run_clipcal(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command with the embedded CLIP, without training for long and without data sets of others."""
    extra = {"evaluate": ["--backbone", "mini", "-q"], "bench": ["--dry-run"], "demo": ["--quick"]}
    command, *options = arguments
    here = {
        "dataset=dtd,eurosat": "dataset=mini/shapes-studio",
        "/data": ".",
        "DATA": ".",
        "benchmarks/plans/base_to_new.toml": "plan.toml",
    }
    options = [here.get(option, option) for option in options]
    monkeypatch.setattr("clipcal.datasets.fetch_benchmark", lambda name, **options: Path(name))
    missing_data = command == "data" and options[0] == "check"
    assert cli.main([command, *options, *extra.get(command, [])]) == (1 if missing_data else 0)
