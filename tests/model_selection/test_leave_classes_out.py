"""Splits that hold out classes: rows, frequencies, and invalid input."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.model_selection import GroupKFold, check_cv, cross_validate

from clipcal import LeaveClassesOut
from clipcal.images import ImagePaths

Y = np.repeat(["ant", "bee", "cat", "dog", "eel", "fox"], [5, 1, 4, 3, 2, 6])


def held_out(cv, y=Y):
    return [sorted(set(y[test]) - set(y[train])) for train, test in cv.split(np.zeros(len(y)), y)]


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(1, 6), min_size=4, max_size=9),
    n_splits=st.integers(1, 9),
    out=st.integers(2, 7),
    seed=st.integers(0, 99),
)
def test_classes_are_held_out_equally_often(counts, n_splits, out, seed):
    n_out = min(out, len(counts) - 2)
    y = np.random.RandomState(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    splits = list(LeaveClassesOut(n_splits, test_size=n_out, random_state=seed).split(y, y))
    assert len(splits) == n_splits
    times = Counter({code: 0 for code in range(len(counts))})
    for train, test in splits:
        assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(y)))
        assert not set(y[train]) & set(y[test])
        assert len(set(y[test])) == n_out
        times.update(set(y[test]))
    assert max(times.values()) - min(times.values()) <= 1


def test_consecutive_halves_are_complementary():
    first, second, third, fourth = held_out(LeaveClassesOut(4, random_state=0))
    assert sorted(first + second) == sorted(third + fourth) == sorted(set(Y))
    assert {tuple(first), tuple(second)} != {tuple(third), tuple(fourth)}


@pytest.mark.parametrize(
    ("n_classes", "size", "expected"),
    [(10, 0.5, 5), (15, 0.5, 7), (7, 0.3, 2), (10, 0.7, 7), (10, 0.29, 3), (10, 2, 2), (10, np.int64(8), 8)],
)
def test_sizes(n_classes, size, expected):
    y = np.arange(n_classes)
    assert {len(out) for out in held_out(LeaveClassesOut(3, test_size=size, random_state=0), y)} == {expected}


def test_seen_size_moves_rows_of_training_classes():
    cv = LeaveClassesOut(6, test_size=2, seen_size=0.3, random_state=0)
    # 30 % of each class, rounded, at least one, and none of the class with a single row.
    expected = {"ant": 1, "bee": 0, "cat": 1, "dog": 1, "eel": 1, "fox": 2}
    parts = []
    for (train, test), out in zip(cv.split(Y, Y), held_out(cv), strict=True):
        assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(Y)))
        seen = Counter(Y[test])
        for name in set(Y) - set(out):
            assert seen[name] == expected[name]
        parts.append(tuple(test[Y[test] == "fox"]))
    assert len(set(parts)) > 2

    by_number = LeaveClassesOut(1, test_size=2, seen_size=3, random_state=0)
    ((train, _),) = by_number.split(Y, Y)
    total = Counter(Y)
    assert all(n_left == max(1, total[name] - 3) for name, n_left in Counter(Y[train]).items())


def test_the_same_seed_gives_the_same_splits():
    cv = LeaveClassesOut(5, seen_size=1, random_state=3)
    for split, other in zip(cv.split(Y, Y), pickle.loads(pickle.dumps(cv)).split(Y, Y), strict=True):
        assert_array_equal(np.concatenate(split), np.concatenate(other))
    assert held_out(cv) != held_out(LeaveClassesOut(5, seen_size=1, random_state=4))
    state = np.random.RandomState(0)
    assert held_out(LeaveClassesOut(5, random_state=state)) != held_out(
        LeaveClassesOut(5, random_state=state)
    )


def test_global_random_state_is_not_changed():
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    held_out(LeaveClassesOut(random_state=0))
    assert_array_equal(np.random.get_state()[1], before)


def test_kinds_of_labels_and_input():
    expected = [test.tolist() for _, test in LeaveClassesOut(random_state=0).split(Y, Y)]
    codes = np.unique(Y, return_inverse=True)[1]
    paths = [f"{number}.jpg" for number in range(len(Y))]
    for X, y in [
        (paths, list(Y)),
        (ImagePaths(paths), Y.astype(object)),
        (Y, codes * 10 - 3),
        (Y, codes / 2),
        (Y, Y[:, None][:, 0]),
    ]:
        assert [test.tolist() for _, test in LeaveClassesOut(random_state=0).split(X, y)] == expected


def test_scikit_learn_api():
    cv = LeaveClassesOut(3, random_state=0)
    assert check_cv(cv, Y, classifier=True) is cv
    assert cv.get_n_splits(Y, Y) == 3
    assert repr(cv) == "LeaveClassesOut(n_splits=3, random_state=0, seen_size=0.0, test_size=0.5)"
    assert not hasattr(cv, "set_split_request")
    with config_context(enable_metadata_routing=True):
        assert not cv.get_metadata_routing().split.requests


def test_groups_are_not_requested_in_metadata_routing():
    from sklearn.dummy import DummyClassifier

    with config_context(enable_metadata_routing=True):
        groups = np.arange(len(Y)) % 3
        cross_validate(DummyClassifier(), Y[:, None], Y, cv=GroupKFold(3), params={"groups": groups})
        with pytest.raises(TypeError, match="groups"):
            cross_validate(DummyClassifier(), Y[:, None], Y, cv=LeaveClassesOut(), params={"groups": groups})


@pytest.mark.parametrize(
    ("parameters", "y", "message"),
    [
        ({"test_size": 1}, Y, r"test_size=1 holds out 1 of 6 classes and leaves 5 .* from 2 to 4"),
        ({"test_size": 5}, Y, r"holds out 5 of 6 classes and leaves 1"),
        ({"test_size": 0.1}, Y, r"test_size=0.1 holds out 1 of 6"),
        ({}, Y[:10], r"holds out 1 of 3 classes .* Pass y with at least 4 classes"),
        ({}, Y == "ant", r"holds out 1 of 2 classes"),
        ({"seen_size": 1}, np.arange(6), r"seen_size=1 .* a single row"),
        # The two classes with two rows are both held out in one of the splits.
        ({"seen_size": 0.5, "n_splits": 20}, [0, 0, 1, 1, 2, 3], r"seen_size=0.5 .* a single row"),
        ({"test_size": 0.0}, Y, "test_size == 0.0, must be > 0"),
        ({"test_size": 1.0}, Y, "test_size == 1.0, must be < 1"),
        ({"test_size": True}, Y, "test_size == True"),
        ({"seen_size": 1.0}, Y, "seen_size == 1.0, must be < 1"),
        ({"seen_size": -1}, Y, "seen_size == -1, must be >= 0"),
        ({"n_splits": 0}, Y, "n_splits == 0, must be >= 1"),
        ({}, None, r"pass y, as in split\(X, y\)"),
        ({}, np.tile(Y, (2, 1)).T, "should be a 1d array"),
    ],
)
def test_invalid_input_raises(parameters, y, message):
    X = np.zeros(len(Y) if y is None else len(y))
    with pytest.raises(ValueError, match=message):
        list(LeaveClassesOut(**{"random_state": 0, **parameters}).split(X, y))


def test_invalid_types_and_lengths_raise():
    with pytest.raises(TypeError, match="test_size"):
        list(LeaveClassesOut(test_size="half").split(Y, Y))
    with pytest.raises(TypeError, match="n_splits"):
        LeaveClassesOut(2.5).get_n_splits()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        list(LeaveClassesOut().split(Y[:3], Y))


@pytest.mark.parametrize(
    ("n_classes", "share", "expected"), [(50, 0.07, 3), (50, 0.55, 27), (5, 0.5, 2), (6, 0.6, 4)]
)
def test_fractions_are_rounded_half_down_despite_floating_point_errors(n_classes, share, expected):
    y = np.repeat(np.arange(n_classes), 20)
    (classes,) = held_out(LeaveClassesOut(1, test_size=share, random_state=0), y)
    assert len(classes) == expected
    train, _ = next(LeaveClassesOut(1, test_size=2, seen_size=0.075, random_state=0).split(y, y))
    assert np.bincount(y[train]).max() == 19  # 0.075 * 20 = 1.5 rows are rounded to 1
