"""The messages on the page of troubleshooting are those of the code."""

import ast
import re
from pathlib import Path

import pytest

import clipcal

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "troubleshooting.rst"
# Source distributions have no documentation.
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="there is no documentation here")

# Messages of other packages, with a file of the package that has it; None for compiled code.
FOREIGN = {
    "All the ... fits failed.": "sklearn/model_selection/_validation.py",
    "A worker process managed by the executor was unexpectedly terminated.": (
        "joblib/externals/loky/process_executor.py"
    ),
    "CUDA out of memory.": None,
}


def headings(text):
    """Return the messages in each heading of the lowest level, with the text of its section."""
    parts = re.split(r"^(.+)\n\^+\n", text, flags=re.MULTILINE)
    return [(title.split(" / "), section) for title, section in zip(parts[1::2], parts[2::2], strict=True)]


SECTIONS = headings(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else []
MESSAGES = [message for messages, _ in SECTIONS for message in messages]


def pattern_of(message):
    """Return a pattern that has the words of a message, with anything for each ellipsis."""
    return re.compile(r"\s+".join(".*".join(map(re.escape, word.split("..."))) for word in message.split()))


def texts_in(path):
    """Return the strings in a module, with braces for the values in f-strings."""
    texts = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        if all(isinstance(part, ast.Constant | ast.FormattedValue) for part in parts):
            texts.append(
                "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
            )
    return texts


def raised_in(section):
    """Return the expected outputs of the snippets in a section, which the tests of pages verify."""
    outputs = re.findall(r"^Traceback.*?(?=\n\n|\n>>>)", section, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(output.split()) for output in outputs]


@pytest.fixture(scope="module")
def texts():
    package = Path(clipcal.__file__).parent
    return [text for path in package.rglob("*.py") for text in texts_in(path)]


@pytest.mark.parametrize(("messages", "section"), SECTIONS, ids=[messages[0] for messages, _ in SECTIONS])
def test_messages_are_in_the_code_or_raised_by_a_snippet(messages, section, texts):
    raised = raised_in(section)
    for message in messages:
        if message not in FOREIGN:
            assert any(pattern_of(message).search(text) for text in [*raised, *texts])
    # Each snippet is an example of the heading.
    for output in raised:
        assert any(pattern_of(message).search(output) for message in messages)


@pytest.mark.parametrize(("message", "place"), FOREIGN.items())
def test_messages_of_other_packages(message, place):
    assert message in MESSAGES
    if place is not None:
        package = pytest.importorskip(place.partition("/")[0])
        path = Path(package.__file__).parents[1] / place
        assert any(pattern_of(message).search(text) for text in texts_in(path))


def test_most_messages_have_a_snippet():
    assert len(SECTIONS) > 20
    assert sum(bool(raised_in(section)) for _, section in SECTIONS) > 15


def test_other_words_are_not_found(texts):
    assert not any(pattern_of("X has ... features, but the images").search(text) for text in texts)
