"""Lists of labeled images in files: CSV, TSV, Parquet, and the JSON splits of CoOp."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipcal._optional import import_optional
from clipcal.datasets._loaded import Labeled, assemble, check_files, check_labels, check_rows
from clipcal.images import ImagePaths, LazyImages

__all__ = ["ROLES", "class_label", "find_columns", "numbered", "read_file"]

# What a column holds, and the names by which it is recognized.
ROLES: dict[str, tuple[str, ...]] = {
    "image": ("path", "image", "file_name", "filename", "file", "img"),
    "label": ("label", "class", "target"),
    "split": ("split",),
    "class_name": ("class_name",),
}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_file(path: Path, *, root: Path | None, columns: Mapping[str, str] | None, labeled: bool) -> Labeled:
    """Read a list of labeled images.

    Parameters
    ----------
    path : Path
        The file; its suffix gives the format.
    root : Path or None
        Folder of relative paths. If None, the folder of the file.
    columns : mapping of str to str, or None
        Names of columns by role.
    labeled : bool
        Whether the images have labels.
    """
    suffix = path.suffix.lower()
    root = path.parent if root is None else root
    if suffix in _DELIMITERS:
        return _read_text(path, _DELIMITERS[suffix], root, columns, labeled)
    if suffix == ".parquet":
        return _read_parquet(path, root, columns, labeled)
    if suffix == ".json":
        if columns is not None or not labeled:
            raise ValueError("A JSON file of splits has no columns and always has labels.")
        return _read_splits(path, root)
    raise ValueError(
        f"{str(path)!r} is not a folder, and its format is unknown: write a file with the suffix .csv, .tsv "
        "or .parquet, or .json with the splits of CoOp."
    )


def find_columns(
    available: Sequence[str],
    columns: Mapping[str, str] | None,
    *,
    labeled: bool,
    what: str,
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the column of each role.

    Parameters
    ----------
    available : sequence of str
        All columns.
    columns : mapping of str to str, or None
        The columns that the user gave, by role.
    labeled : bool
        Whether labels are required.
    what : str
        The source, for messages.
    known : mapping of str to str, or None
        Columns by role that are known from their type; columns of the user have priority.
    """
    given = dict(columns or {})
    for role, name in given.items():
        if role not in ROLES:
            raise ValueError(f"columns has the key {role!r}; the keys are {', '.join(map(repr, ROLES))}.")
        if name not in available:
            raise ValueError(f"{what} has no column {name!r}; its columns are {list(available)}.")
    found = dict(known or {}) | given
    for role, names in ROLES.items():
        here = [name for name in names if name in available]
        if role not in found and here:
            found[role] = here[0]
    for role in ("image", "label") if labeled else ("image",):
        if role not in found:
            without = " For images without labels, pass labeled=False." if role == "label" else ""
            raise ValueError(
                f"{what} has no column {' or '.join(map(repr, ROLES[role]))}; its columns are "
                f"{list(available)}. Pass columns={{{role!r}: ...}} with the column of the {role}.{without}"
            )
    if not labeled:
        found.pop("label", None)
    return found


def _read_text(
    path: Path, delimiter: str, root: Path, columns: Mapping[str, str] | None, labeled: bool
) -> Labeled:
    what = repr(str(path))
    # utf-8-sig drops the byte order mark that spreadsheets write.
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(rows, [])
            _check_header(header, delimiter, what)
            found = find_columns(header, columns, labeled=labeled, what=what)
            lists: dict[str, list[Any]] = {role: [] for role in found}
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ValueError(f"it has {len(row)} fields, but there are {len(header)} columns.")
                for role, name in found.items():
                    value = row[header.index(name)]
                    if not value.strip():
                        raise ValueError(f"the {name!r} is empty.")
                    lists[role].append(value)
        except UnicodeDecodeError as error:
            raise ValueError(f"{what} is not encoded in UTF-8; save it as UTF-8.") from error
        except (ValueError, csv.Error) as error:
            where = f"line {rows.line_num} of {what}: " if rows.line_num > 1 else ""
            raise ValueError(f"{where}{error}") from error
    return _from_paths(lists, root, what)


def _check_header(header: Sequence[str], delimiter: str, what: str) -> None:
    if len(header) == 1 and any(other in header[0] for other in ",;\t"):
        suffix = "; for tabs, name it .tsv" if "\t" in header[0] else ""
        raise ValueError(f"The columns of {what} must be separated by {delimiter!r}{suffix}.")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{what} has several columns {twice!r}; rename all but one.")


def _from_paths(lists: Mapping[str, list[Any]], root: Path, what: str, **classes: Any) -> Labeled:
    """Check columns whose images are paths, and group their rows by split."""
    paths = lists["image"]
    if not paths:
        raise ValueError(f"{what} lists no images.")
    labels = lists.get("label")
    if labels is not None:
        check_rows(paths, labels, what)
    images = ImagePaths(paths, root)
    check_files(images, what)
    if "class_name" in lists:
        classes["names"] = _names(labels, lists["class_name"], what)
    return assemble(images, tuple(paths), labels, lists.get("split"), what, **classes)


def _names(labels: Sequence[Any] | None, names: Sequence[str], what: str) -> dict[Any, str]:
    found: dict[Any, str] = {}
    for label, name in zip(labels or [], names, strict=False):
        if found.setdefault(label, name) != name:
            raise ValueError(
                f"The label {label!r} has the class names {found[label]!r} and {name!r} in {what}; each "
                "label must have one."
            )
    return found


def _read_splits(path: Path, root: Path) -> Labeled:
    what = repr(str(path))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [(part, *row) for part, found in content.items() for row in found]
        splits, paths, numbers, names = ([row[i] for row in rows] for i in range(4))
        texts = all(isinstance(value, str) for value in (*paths, *names))
        valid = texts and all(type(number) is int for number in numbers) and {len(row) for row in rows} == {4}
    except (AttributeError, TypeError, IndexError, json.JSONDecodeError):
        valid = False
    if not valid:
        raise ValueError(
            f'{what} is not a JSON object {{"train": [[path, number, class name], ...], "val": [...], '
            '"test": [...]}.'
        )
    order = sorted(set(zip(numbers, names, strict=True)))
    for i in (0, 1):
        values = [pair[i] for pair in order]
        twice = next((pair for pair in order if values.count(pair[i]) > 1), None)
        if twice is not None:
            raise ValueError(
                f"{twice[i]!r} belongs to several classes in {what}: "
                f"{[pair for pair in order if pair[i] == twice[i]]}; each class must have one number and one "
                "name."
            )
    ids = [name for _, name in order]
    return _from_paths({"image": paths, "label": names, "split": splits}, root, what, class_ids=ids)


class _ArrowColumn:
    """A column of an Arrow table whose values are converted at access."""

    def __init__(self, column: Any) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, i: int) -> Any:
        return self.column[i].as_py()


def _read_parquet(path: Path, root: Path, columns: Mapping[str, str] | None, labeled: bool) -> Labeled:
    what = repr(str(path))
    parquet = import_optional("pyarrow.parquet", extra="parquet", caller="Reading a Parquet file")
    try:
        schema = parquet.read_schema(path)
    except ValueError as error:
        raise ValueError(f"{what} is not a Parquet file: {error}") from error
    found = find_columns(schema.names, columns, labeled=labeled, what=what)
    table = parquet.read_table(path, columns=list(dict.fromkeys(found.values())))
    if not len(table):
        raise ValueError(f"{what} lists no images.")
    for name in found.values():
        if table.column(name).null_count:
            row = table.column(name).is_valid().to_pylist().index(False)
            raise ValueError(f"Row {row} of {what}: the {name!r} is missing.")
    lists = {role: table.column(name).to_pylist() for role, name in found.items() if role != "image"}
    check_labels(lists.get("label", []), what)
    for role in ("split", "class_name"):
        if role in lists:
            lists[role] = [str(value) for value in lists[role]]
    classes = _class_label(schema, found.get("label"))
    column = table.column(found["image"])
    kind = str(column.type)
    if "string" in kind and not kind.startswith("struct"):
        return _from_paths({**lists, "image": column.to_pylist()}, root, what, **classes)
    if "binary" not in kind and not kind.startswith("struct"):
        raise ValueError(
            f"The column {found['image']!r} of {what} has the type {kind}; images are paths, contents of "
            "files (bytes) or records of both. Pass columns={'image': ...} with another column."
        )
    labels = lists.get("label")
    if "class_name" in lists:
        classes["names"] = _names(labels, lists["class_name"], what)
    images = LazyImages(_ArrowColumn(column))
    return assemble(images, _paths_of(column), labels, lists.get("split"), what, **classes)


def _class_label(schema: Any, label: str | None) -> dict[str, Any]:
    """Return the classes that Hugging Face's ``datasets`` writes into Parquet files."""
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    names = info.get("info", {}).get("features", {}).get(label, {}).get("names")
    return class_label(names) if names else {}


def class_label(names: Sequence[str]) -> dict[str, Any]:
    """Return the classes whose labels are the positions in a list of names."""
    return {
        "class_ids": list(range(len(names))),
        "names": {i: name.replace("_", " ") for i, name in enumerate(names)},
    }


def _paths_of(column: Any) -> tuple[str, ...]:
    """Return the paths in records; the position where there is none."""
    fields = [field.name for field in column.type] if str(column.type).startswith("struct") else []
    if "path" not in fields:
        return numbered([None] * len(column))
    which = fields.index("path")
    return numbered([path for chunk in column.chunks for path in chunk.flatten()[which].to_pylist()])


def numbered(paths: Sequence[str | None]) -> tuple[str, ...]:
    """Return the paths, or the positions if some have no path or the same."""
    if None in paths or len(set(paths)) < len(paths):
        return tuple(f"{i:08d}" for i in range(len(paths)))
    return tuple(path for path in paths if path is not None)
