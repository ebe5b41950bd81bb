"""Read the imports of clipcal from its source, for the diagram of its packages and for the tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import clipcal

ROOT = Path(clipcal.__file__).parent


@dataclass(frozen=True)
class Import:
    """One imported name."""

    path: Path
    line: int
    target: str  # "torch.nn", or "clipcal.metrics.expected_calibration_error"
    module: str  # the module after "from" or "import"; starts with a dot if relative
    deferred: bool  # not executed when the module is imported
    for_types: bool  # never executed

    @property
    def here(self) -> str:
        return f"{self.path.relative_to(ROOT.parent).as_posix()}:{self.line}"

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]


def package_of(path: Path) -> str:
    """Return the package of a module, such as ``text`` for ``clipcal/text/_lexicon.py``."""
    first = path.relative_to(ROOT).parts[0]
    return "clipcal" if first == "__init__.py" else first.removesuffix(".py")


def guards_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports_of(path: Path) -> Iterator[Import]:
    """Yield the imports of a file in the order of its lines."""

    def walk(node: ast.AST, deferred: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(path, child.lineno, alias.name, alias.name, deferred, for_types)
            elif isinstance(child, ast.ImportFrom):
                module = "." * child.level + (child.module or "")
                for alias in child.names:
                    target = f"{module}.{alias.name}"
                    yield Import(path, child.lineno, target, module, deferred, for_types)
            else:
                inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                guarded = guards_types(child)
                yield from walk(child, deferred or inside or guarded, for_types or guarded)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), deferred=False, for_types=False)
