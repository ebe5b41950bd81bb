"""What a label is called in a prompt, and which labels are refused."""

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
def test_texts(labels, names, texts):
    assert class_texts(labels, names) == texts


def test_numbers_without_names_warn_and_show_what_to_type():
    with pytest.warns(UserWarning, match=r"'a photo of a 3\.'; pass class_names=\{3: 'its name'"):
        assert class_texts(np.array([3, 4])) == ["3", "4"]


@pytest.mark.parametrize(
    ("labels", "names", "words"),
    [
        ([1, 2], {1: "cat"}, "lacks a name for the labels 2; add"),
        (list(range(9)), {}, "labels 0, 1, 2, 3, 4 and 4 more"),
        ([1], {1: 5}, "label 1 must be a string; got 5"),
        ([1], {1: None}, "label 1 must be a string; got None"),
        (["a", " _ "], None, "label ' _ ' is empty; name it in class_names"),
        ([1, 2], {1: "cat", 2: ""}, "label 2 is empty"),
        ([1, 2], ["cat", "dog"], r"must map each label to its name, as in \{1: 'its name'\}; got list"),
    ],
)
def test_refused(labels, names, words):
    with pytest.raises(ClassNameError, match=words):
        class_texts(labels, names)


def test_labels_or_mapping():
    assert split_labels(np.array(["b", "a"])) == (["b", "a"], None)
    mapping = {2: "dog", 1: "cat"}
    assert split_labels(mapping) == ([2, 1], mapping)
    with pytest.raises(ClassNameError, match=r"Expected a list of labels.*the string 'dog'"):
        split_labels("dog")


def test_strings_of_numpy_and_of_python_are_of_one_kind():
    labels, names = split_labels([*np.array(["cat", "dog"]), "ant"])
    assert labels == ["cat", "dog", "ant"]
    assert names is None
