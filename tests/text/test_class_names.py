"""Converting labels to class names, and the errors for invalid labels."""

import numpy as np
import pytest

from clipcal.exceptions import ClassNameError
from clipcal.text import class_texts, split_labels


@pytest.mark.parametrize(
    ("labels", "names", "texts"),
    [
        (["tabby_cat", " hot   dog "], None, ["tabby cat", "hot dog"]),
        (np.array(["b", "a"]), None, ["b", "a"]),
        ([3, 7], {7: "dog", 3: "tabby_cat", 9: "fish"}, ["tabby cat", "dog"]),
        (np.array([0, 1]), {0: "no", 1: "yes"}, ["no", "yes"]),
        (np.array([False, True]), {False: "no", True: "yes"}, ["no", "yes"]),
        (["n01", "n02"], {"n01": "{braces}", "n02": "Käse\u00a0brot"}, ["{braces}", "Käse brot"]),
    ],
    ids=["strings", "array", "integers", "numpy integers", "booleans", "any character"],
)
def test_names_of_labels(labels, names, texts):
    assert class_texts(labels, names) == texts


def test_integer_labels_without_names_warn():
    with pytest.warns(UserWarning, match=r"'a photo of a 3\.'; pass class_names=\{3: 'its name'"):
        assert class_texts(np.array([3, 4])) == ["3", "4"]


@pytest.mark.parametrize(
    ("labels", "names", "match"),
    [
        ([1, 2], {1: "cat"}, "has no name for the labels 2; add"),
        (list(range(9)), {}, "labels 0, 1, 2, 3, 4 and 4 more"),
        ([1], {1: 5}, "label 1 must be a string; got 5"),
        ([1], {1: None}, "label 1 must be a string; got None"),
        (["a", " _ "], None, "label ' _ ' is empty; set it in class_names"),
        ([1, 2], {1: "cat", 2: ""}, "label 2 is empty"),
        ([1, 2], ["cat", "dog"], r"must be a mapping of label to name, such as \{1: 'its name'\}; got list"),
    ],
)
def test_invalid_names_raise(labels, names, match):
    with pytest.raises(ClassNameError, match=match):
        class_texts(labels, names)


def test_split_labels_accepts_lists_and_mappings():
    assert split_labels(np.array(["b", "a"])) == (["b", "a"], None)
    mapping = {2: "dog", 1: "cat"}
    assert split_labels(mapping) == ([2, 1], mapping)
    with pytest.raises(ClassNameError, match=r"Expected a list of labels.*the string 'dog'"):
        split_labels("dog")


def test_numpy_and_python_strings_can_be_mixed():
    labels, names = split_labels([*np.array(["cat", "dog"]), "ant"])
    assert labels == ["cat", "dog", "ant"]
    assert names is None
