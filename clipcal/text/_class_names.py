"""Convert labels to the class names that prompts use."""

from __future__ import annotations

import html
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from clipcal.exceptions import ClassNameError

__all__ = ["check_distinct", "class_texts", "name_key", "split_labels"]

# Characters of an ASCII name, in lower case, that a tokenizer may ignore.
_IGNORABLE = re.compile(r"[^a-z0-9]+")


def class_texts(labels: Sequence[Any], class_names: Mapping[Any, str] | None = None) -> list[str]:
    """Return the class name of each label, as used in prompts.

    Underscores are replaced by spaces, as in all published trainers.

    Parameters
    ----------
    labels : sequence of hashable, length n_classes
        Class labels. If `class_names` is None, the labels themselves are the names.
    class_names : mapping of label to str, default=None
        Name of each label. Labels that are not in `labels` are ignored.

    Returns
    -------
    texts : list of str, length n_classes
        Class names.

    Raises
    ------
    ClassNameError
        If a label has no name, or a name is empty or not a string.

    Examples
    --------
    >>> from clipcal.text import class_texts
    >>> class_texts([3, 7], {3: "tabby_cat", 7: "dog", 9: "fish"})
    ['tabby cat', 'dog']
    """
    labels = [label.item() if hasattr(label, "item") else label for label in labels]
    if class_names is None:
        if not all(isinstance(label, str) for label in labels):
            warnings.warn(
                f"The labels are not strings ({_some(labels)}), so prompts read "
                f"'a photo of a {labels[0]}.'; pass class_names={{{labels[0]!r}: 'its name', ...}}. If your "
                "labels are strings, a function such as cross_val_predict has encoded them as integers; "
                "then pass class_names=dict(enumerate(sorted(set(y)))).",
                UserWarning,
                stacklevel=3,
            )
        raw: list[Any] = [str(label) for label in labels]
    else:
        if not isinstance(class_names, Mapping):
            raise ClassNameError(
                f"class_names must be a mapping of label to name, such as {{{labels[0]!r}: 'its name'}}; "
                f"got {type(class_names).__name__}."
            )
        missing = [label for label in labels if label not in class_names]
        if missing:
            raise ClassNameError(f"class_names has no name for the labels {_some(missing)}; add them.")
        raw = [class_names[label] for label in labels]
    texts = []
    for label, text in zip(labels, raw, strict=True):
        if not isinstance(text, str):
            raise ClassNameError(f"The name of label {label!r} must be a string; got {text!r}.")
        texts.append(" ".join(text.replace("_", " ").split()))
        if not texts[-1]:
            raise ClassNameError(f"The name of label {label!r} is empty; set it in class_names.")
    return texts


def check_distinct(names: Mapping[Any, str], tokenize: Callable[[list[str]], Any]) -> None:
    """Raise if several class names have the same tokens.

    Tokenizers fix broken Unicode, unescape HTML and convert to lower case, each in its own way, so the names
    are compared after tokenization.

    Parameters
    ----------
    names : mapping of label to str
        The name of each label.
    tokenize : callable
        ``tokenize(texts)`` returns token ids (n_texts, length). It is not called if all names are ASCII and
        differ in letters or digits, which no tokenizer ignores.

    Raises
    ------
    ClassNameError
        If several labels share all tokens of their names.

    Examples
    --------
    >>> from clipcal.text import check_distinct
    >>> check_distinct({0: "crane bird", 1: "crane machine"}, tokenize=None)
    """
    if _differ_in_letters(names.values()):
        return
    owners = defaultdict(list)
    rows = tokenize([f"{name}." for name in names.values()]).tolist()
    for label, tokens in zip(names, rows, strict=True):
        owners[tuple(tokens)].append(label)
    for labels in owners.values():
        if len(labels) > 1:
            shared = list(dict.fromkeys(names[label] for label in labels))
            same = f"share the name {shared[0]!r}"
            if len(shared) > 1:
                same = f"have the names {_some(shared)}, which have the same tokens"
            raise ClassNameError(
                f"The labels {_some(labels)} {same}, so their prompts are identical; give them different "
                "names in class_names, or pass allow_duplicate_names=True to use one prompt for all of them."
            )


def _differ_in_letters(names: Iterable[str]) -> bool:
    keys = set()
    for name in (names := list(names)):
        if not (name.isascii() and name.isprintable()) or "&" in name:
            return False
        keys.add(_IGNORABLE.sub(" ", name.lower()).strip())
    return len(keys) == len(names)


def name_key(name: str) -> str:
    """Normalize a class name: NFKC, HTML-unescaped, case-folded, underscores replaced by spaces.

    Examples
    --------
    >>> from clipcal.text import name_key
    >>> name_key("Hot_Dog") == name_key("hot dog")
    True
    """
    plain = unicodedata.normalize("NFKC", html.unescape(name.replace("_", " ")))
    return " ".join(plain.casefold().split())


def split_labels(labels: Sequence[Any] | Mapping[Any, str]) -> tuple[list[Any], Mapping[Any, str] | None]:
    """Split a list of labels, or a mapping ``{label: name}``, into labels and mapping (None for a list).

    Parameters
    ----------
    labels : sequence or mapping of labels to str
        The labels, or a mapping of each label to its text.

    Returns
    -------
    labels : list
        The labels.
    mapping : mapping or None
        The mapping; None if `labels` is a sequence.

    Examples
    --------
    >>> from clipcal.text import split_labels
    >>> split_labels(["cat", "dog"])
    (['cat', 'dog'], None)
    >>> split_labels({7: "tabby cat"})
    ([7], {7: 'tabby cat'})
    """
    if isinstance(labels, str):
        raise ClassNameError(
            f"Expected a list of labels or a mapping of label to name; got the string {labels!r}."
        )
    if not isinstance(labels, Iterable):
        raise ClassNameError(f"Expected a list of labels or a mapping of label to name; got {labels!r}.")
    values = list(labels)
    # Numbers of different types may be mixed if NumPy can promote them to one dtype.
    kinds = sorted({"str" if isinstance(value, str) else type(value).__name__ for value in values})
    if len(kinds) > 1 and np.asarray(values).dtype.kind in "USO":
        raise ClassNameError(f"The labels must be of one kind; got a mixture of {', '.join(kinds)}.")
    return values, labels if isinstance(labels, Mapping) else None


def _some(items: Sequence[Any], n_shown: int = 5) -> str:
    shown = ", ".join(repr(item) for item in items[:n_shown])
    return shown + (f" and {len(items) - n_shown} more" if len(items) > n_shown else "")
