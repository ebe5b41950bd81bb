"""Rules on imports between packages, and on the length of modules and functions."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from package_imports import ROOT, Import, imports_of, package_of
from written_pages import GENERATED

MODULES = sorted(ROOT.rglob("*.py"))
REPOSITORY = Path(__file__).parents[1]
SCRIPTS_AND_PAGES = sorted(
    path
    for place in ("README.md", "benchmarks", "docs", "examples")
    for path in [REPOSITORY / place, *(REPOSITORY / place).rglob("*")]
    if path.suffix in {".ipynb", ".md", ".py", ".rst"} and not GENERATED & set(path.parts)
)
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50

# Modules and packages that all others may import.
SHARED = {
    "_arrays",
    "_caller",
    "_columns",
    "_compat",
    "_components",
    "_fitting",
    "_logit_input",
    "_logit_range",
    "_optional",
    "_progress",
    "_score",
    "_weights",
    "caching",
    "exceptions",
}
# The other packages that each package may import.
ALLOWED_IMPORTS: dict[str, set[str]] = {
    "clipcal": set(),
    "_arrays": set(),
    "_caller": set(),
    "_columns": set(),
    "_compat": set(),
    "_components": set(),
    "_fitting": set(),
    "_logit_input": set(),
    "_logit_range": set(),
    "_optional": set(),
    "_progress": set(),
    "_score": set(),
    "_weights": set(),
    "_whole_file": set(),
    "exceptions": set(),
    "caching": {"_whole_file"},
    "metrics": set(),
    "model_selection": set(),
    "calibration": {"metrics", "model_selection", "text"},
    "plots": {"metrics"},
    "text": set(),
    "backbones": set(),
    "images": {"_whole_file"},
    "scenes": set(),
    "datasets": {"images", "scenes", "text"},
    "methods": {"backbones", "regularizers", "text", "training"},
    "regularizers": {"backbones", "datasets", "text", "training"},
    "training": {"backbones"},
    "classifiers": {"images", "metrics", "model_selection", "text"},
    "persistence": {"_whole_file", "calibration", "classifiers", "model_selection"},
    "demo": {
        "calibration",
        "classifiers",
        "datasets",
        "images",
        "metrics",
        "model_selection",
        "plots",
        "text",
    },
    "benchmark": {"_whole_file", "calibration", "classifiers", "datasets", "images", "metrics", "text"},
    "_environment": {"clipcal"},
    "cli": {"clipcal"},
    "__main__": {"cli"},
}
# Packages that may be imported only inside functions and under TYPE_CHECKING.
DEFERRED_IMPORTS: dict[str, set[str]] = {
    "clipcal": {  # its names, for type checkers
        "backbones",
        "benchmark",
        "caching",
        "calibration",
        "classifiers",
        "datasets",
        "exceptions",
        "images",
        "methods",
        "metrics",
        "model_selection",
        "persistence",
        "plots",
        "regularizers",
        "text",
        "training",
    },
    "images": {"backbones"},
    "classifiers": {"backbones", "methods", "regularizers", "training"},
    "persistence": {"backbones", "methods", "regularizers"},
    "demo": {"backbones", "methods", "regularizers", "training"},
    "benchmark": {"backbones", "methods", "regularizers"},
    "_environment": {"backbones"},
    "cli": {"_environment", "benchmark", "datasets", "demo"},
}

TORCH_PACKAGES = {"backbones", "methods", "regularizers", "training"}
TORCH_FREE_PACKAGES = {"calibration", "datasets", "metrics", "model_selection", "plots", "scenes", "text"}
TORCH = {"torch", "torchvision"}
# The only modules that may import a third-party package.
OWNERS = {
    "open_clip": {"clipcal/backbones/_open_clip.py", "clipcal/backbones/_loading.py"},
    "huggingface_hub": {"clipcal/backbones/_hub.py"},
    "nltk": {"clipcal/text/_lexicon.py"},
    "matplotlib": {"clipcal/plots/"},
}
NEVER_AT_MODULE_LEVEL = {"datasets", "jinja2", "matplotlib", "nltk", "pandas", "pyarrow", "rich"}


IMPORTS = [found for path in MODULES for found in imports_of(path)]
FOREIGN = [found for found in IMPORTS if found.top != "clipcal"]
OWN = [found for found in IMPORTS if found.top == "clipcal"]


def target_package(found: Import) -> str:
    """Return the imported package of clipcal; ``clipcal`` for top-level names."""
    part = found.target.split(".")[1]
    return part if part in ALLOWED_IMPORTS else "clipcal"


def private_uses(text: str) -> list[str]:
    """Return the private modules and names of clipcal that a script, page or notebook uses."""
    uses = [found.group() for found in re.finditer(r"\bclipcal(\.\w+)*\._[a-z]\w*", text)]
    for found in re.finditer(r"\bfrom\s+clipcal[\w.]*\s+import\s+(\([^)]*\)|[^\n]*)", text):
        uses += [f"{found.group().split()[1]}.{name}" for name in re.findall(r"\b_[a-z]\w*", found.group(1))]
    return uses


def assert_none(violations: list[str]) -> None:
    assert not violations, "\n" + "\n".join(sorted(set(violations)))


def test_allowed_imports_list_all_packages():
    assert {package_of(path) for path in MODULES} <= set(ALLOWED_IMPORTS)


def test_imports_are_absolute():
    assert_none([f"{found.here}: from {found.module}" for found in IMPORTS if found.module.startswith(".")])


def test_packages_import_allowed_packages_only():
    violations = []
    for found in OWN:
        source, target = package_of(found.path), target_package(found)
        allowed = ALLOWED_IMPORTS[source] | SHARED | {source}
        if found.deferred:
            allowed |= DEFERRED_IMPORTS.get(source, set())
        if target not in allowed:
            when = "inside a function" if found.deferred else "at module level"
            violations.append(f"{found.here}: {source} may not import {target} {when}")
    assert_none(violations)


def cycles_in(together: dict[Any, set[Any]]) -> dict[Any, set[Any]]:
    """Return the subgraph of the nodes that are on or between cycles; empty if there are no cycles."""
    rest = {name: set(targets) for name, targets in together.items()}
    while leaves := [name for name, targets in rest.items() if not targets & set(rest)]:
        for leaf in leaves:
            del rest[leaf]
    # Drop nodes that lead to a cycle but are not on one.
    while roots := set(rest) - {target for targets in rest.values() for target in targets}:
        for root in roots:
            del rest[root]
    return {name: targets & set(rest) for name, targets in rest.items()}


def test_allowed_imports_have_no_cycles():
    together = {name: ALLOWED_IMPORTS[name] | DEFERRED_IMPORTS.get(name, set()) for name in ALLOWED_IMPORTS}
    assert cycles_in(together) == {}


def file_of(target: str) -> Path:
    """Return the file of an imported module, or of the module of an imported name."""
    place = ROOT.parent.joinpath(*target.split("."))
    found = [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
    return found[0] if found else file_of(target.rpartition(".")[0])


def test_files_have_no_import_cycles():
    """Imports inside functions count too: a cycle there works, but indicates a wrong division into files."""
    together: dict[Path, set[Path]] = {path: set() for path in MODULES}
    for found in OWN:
        if not found.for_types:
            together[found.path].add(file_of(found.target))
    assert cycles_in(together) == {}


def test_cycles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert cycles_in(graph) == {"b": {"c"}, "c": {"b"}}
    assert cycles_in({"a": {"b"}, "b": set()}) == {}
    assert cycles_in({"a": {"a"}}) == {"a": {"a"}}


def test_private_modules_are_imported_in_their_package_only():
    violations = []
    for found in OWN:
        parts = found.target.split(".")
        foreign = target_package(found) not in {package_of(found.path), "clipcal"}
        package = (ROOT / parts[1]).is_dir()
        if foreign and package and any(part.startswith("_") for part in parts[2:]):
            violations.append(f"{found.here}: {found.target} is another package's private module or name")
    assert_none(violations)


@pytest.mark.parametrize("path", SCRIPTS_AND_PAGES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_scripts_and_pages_use_public_names_only(path):
    assert_none(private_uses(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "text",
    [
        "from clipcal.text._lexicon import load_nouns",
        "from clipcal.text import (\n    load_nouns,\n    _nouns,\n)",
        ">>> from clipcal.text import load_nouns, _nouns",
        "import clipcal._arrays",
        '"from clipcal.text import (\\n",\n    "    _nouns)"',
        "clipcal.text._lexicon.load_nouns()",
    ],
)
def test_private_uses_are_found(text):
    assert private_uses(text)


def test_public_uses_are_not_reported():
    assert not private_uses(
        "from clipcal.text import (\n    load_nouns,\n)\n_nouns = load_nouns()\nimport clipcal"
    )


def test_torch_is_imported_at_module_level_in_torch_packages_only():
    assert_none(
        [
            f"{found.here}: {found.module} at module level"
            for found in FOREIGN
            if found.top in TORCH and not found.deferred and package_of(found.path) not in TORCH_PACKAGES
        ]
    )


def test_torch_free_packages_do_not_import_torch_or_classifiers():
    assert_none(
        [
            f"{found.here}: {found.target}"
            for found in IMPORTS
            if package_of(found.path) in TORCH_FREE_PACKAGES
            and (found.top in TORCH or found.target.startswith("clipcal.classifiers"))
        ]
    )


def test_third_party_packages_are_imported_by_their_owners_only():
    violations = []
    for found in FOREIGN:
        owners = OWNERS.get(found.top)
        if owners and not any(found.here.startswith(owner) for owner in owners):
            violations.append(f"{found.here}: {found.top} may be imported by {', '.join(owners)} only")
        if found.top in NEVER_AT_MODULE_LEVEL and not found.deferred:
            violations.append(f"{found.here}: {found.top} at module level")
    assert_none(violations)


def test_private_names_of_scikit_learn_are_imported_in_compat_only():
    assert_none(
        [
            f"{found.here}: {found.target}"
            for found in FOREIGN
            if found.top == "sklearn"
            and any(part.startswith("_") for part in found.target.split("."))
            and package_of(found.path) != "_compat"
        ]
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    n_lines = len(text.splitlines())
    violations = [f"{n_lines} lines"] if n_lines > MAX_MODULE_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not only_sets_parameters(node):
            n_body = body_lines(node)
            if n_body > MAX_FUNCTION_LINES:
                violations.append(f"line {node.lineno}: {node.name} has {n_body} lines without its docstring")
    assert_none(violations)


def only_sets_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is the constructor of an estimator, which has a line per parameter."""
    lines = [ast.unparse(line) for line in node.body]
    return node.name == "__init__" and all(re.fullmatch(r"self\.(\w+) = \1", line) for line in lines)


@pytest.mark.parametrize(
    ("path", "name"), [("classifiers/_prompt_tuned.py", "fit"), ("training/_loop.py", "tune")]
)
def test_training_reads_like_the_algorithm(path, name):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    (found,) = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name]
    assert body_lines(found) < 40


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    n_lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        docstring = node.body[0]
        assert docstring.end_lineno is not None
        n_lines -= docstring.end_lineno - docstring.lineno + 1
    return n_lines


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import clipcal", ["torch", "open_clip", "matplotlib", "sklearn", "numpy"]),
        ("from clipcal import ece_scorer, TemperatureScaling, ReliabilityDisplay", ["torch", "matplotlib"]),
        ("from clipcal import make_shapes", ["torch", "matplotlib"]),
        ("from clipcal import PromptTunedCLIPClassifier", ["torch", "open_clip"]),
        ("import clipcal.backbones", ["open_clip"]),
        ("from clipcal.text import load_nouns; load_nouns('wordnet')", ["nltk"]),
        ("import clipcal.regularizers; from clipcal.backbones import OpenClipBackbone", ["nltk"]),
        ("import clipcal.cli", ["torch", "matplotlib"]),
    ],
)
def test_imports_do_not_load_unnecessary_packages(statement, absent):
    code = f"import sys; {statement}; print([name for name in {absent!r} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert run.stdout.strip() == "[]"


def test_importing_clipcal_is_fast():
    code = "import time; start = time.perf_counter(); import clipcal; print(time.perf_counter() - start)"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
        )
        for _ in range(3)
    ]
    # The minimum of several runs, as a busy machine may slow some of them.
    assert min(float(run.stdout) for run in runs) < 1.5
