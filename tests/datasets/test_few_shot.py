"""Draws of a few images per class, and base and new classes."""

import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcal.datasets import base_new_classes, draw_few_shot
from clipcal.exceptions import DatasetError

# Images per class of EuroSAT, in the order of the labels. Half are for training, a fifth for validation.
EUROSAT_SIZES = [3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000]


def blocks(*sizes):
    """Return labels of classes of the given sizes, one after the other."""
    return [label for label, size in enumerate(sizes) for _ in range(size)]


def dassl(labels, n_shots, random_state=1):
    return draw_few_shot(labels, n_shots, random_state=random_state, draw="dassl")


# Published draws


def test_published_draw_of_one_class():
    assert dassl(blocks(60), 4) == [8, 36, 54, 51]


def test_published_draws_of_consecutive_classes():
    rows = dassl(blocks(3, 25, 60, 100), 2)
    starts = [0, 0, 3, 3, 28, 28, 88, 88]
    assert [row - start for row, start in zip(rows, starts, strict=True)] == [0, 2, 8, 3, 31, 48, 57, 60]


def test_published_draws_go_on_in_the_same_stream():
    stream = random.Random(1)
    rows = dassl(blocks(60, 1500, 16), 16, stream)
    assert rows[:16] == [8, 36, 54, 51, 48, 4, 16, 7, 31, 55, 28, 30, 41, 24, 13, 6]
    assert [row - 60 for row in rows[16:21]] == [999, 58, 798, 886, 1244]
    assert [row - 1560 for row in rows[32:]] == [0, 10, 8, 15, 6, 14, 3, 11, 12, 4, 1, 9, 13, 2, 7, 5]
    assert dassl(blocks(24), 4, stream) == [7, 21, 14, 9]


@pytest.mark.parametrize(
    ("seed", "rows"),
    [
        (1, [275, 2665, 3129, 5022, 5991, 7507, 8920, 10217, 11527, 12429]),
        (2, [115, 1687, 3173, 5239, 6096, 7753, 8631, 9765, 11990, 12434]),
        (3, [487, 2713, 4114, 4767, 6507, 7937, 9236, 10220, 11939, 12134]),
    ],
)
def test_published_draws_of_eurosat(seed, rows):
    assert dassl(blocks(*(size // 2 for size in EUROSAT_SIZES)), 1, seed) == rows


def test_published_draw_of_validation_images_of_eurosat():
    stream = random.Random(1)
    dassl(blocks(*(size // 2 for size in EUROSAT_SIZES)), 1, stream)
    validation = dassl(blocks(*(size // 5 for size in EUROSAT_SIZES)), 1, stream)
    assert validation == [96, 1099, 1229, 2257, 2727, 2999, 3421, 3702, 4656, 5256]


def test_classes_are_drawn_in_the_order_of_their_first_image():
    # Both draws take 4 of 60, from one stream: the class that comes first gets the first numbers.
    labels = ["zebra"] * 60 + ["ant"] * 60
    expected = [8, 36, 54, 51]
    assert dassl(labels, 4)[:4] == expected
    assert dassl(labels[::-1], 4)[:4] == expected


@pytest.mark.parametrize("draw", ["dassl", "stable"])
def test_small_classes_are_used_whole_with_a_warning(draw):
    labels = blocks(3, 60)
    paths = [f"{i}.jpg" for i in range(63)]
    with pytest.warns(UserWarning, match=r"1 classes have fewer than 4 images and are used whole: 0 \(3\)"):
        rows = draw_few_shot(labels, 4, paths=paths, random_state=1, draw=draw)
    assert sorted(rows[:3]) == [0, 1, 2]
    if draw == "dassl":
        # The small class does not advance the stream.
        assert rows == [0, 1, 2, 3 + 8, 3 + 36, 3 + 54, 3 + 51]


def test_a_class_of_exactly_n_images_is_shuffled():
    assert dassl(blocks(16), 16) != list(range(16))


# Stable draws


def paths_of(n):
    return [f"class/image {i}.jpg" for i in range(n)]


def drawn(labels, paths, n_shots, seed=1, name="set"):
    rows = draw_few_shot(labels, n_shots, paths=paths, random_state=seed, name=name)
    return [paths[row] for row in rows]


STABLE = [
    "class/image 15.jpg",
    "class/image 3.jpg",
    "class/image 20.jpg",
    "class/image 35.jpg",
]


def test_stable_draw_is_that_of_the_first_release():
    # These images must be drawn by all versions.
    paths = paths_of(40)
    assert drawn(blocks(20, 20), paths, 2) == STABLE
    assert drawn(blocks(20, 20), paths, 2, seed=2) != STABLE
    assert drawn(blocks(20, 20), paths, 2, name="other") != STABLE


@given(st.permutations(range(12)), st.integers(0, 3), st.integers(1, 5))
def test_stable_draw_does_not_depend_on_the_order_of_images(order, seed, n_shots):
    paths, labels = paths_of(12), blocks(6, 6)
    shuffled = drawn([labels[i] for i in order], [paths[i] for i in order], n_shots, seed)
    assert shuffled == drawn(labels, paths, n_shots, seed)


@given(st.integers(0, 100), st.integers(1, 9))
def test_stable_draws_of_fewer_images_are_part_of_those_of_more(seed, n_shots):
    paths = paths_of(10)
    assert drawn([0] * 10, paths, n_shots, seed) == drawn([0] * 10, paths, 10, seed)[:n_shots]


def test_stable_draw_of_a_class_does_not_depend_on_other_classes():
    paths = paths_of(20)
    alone = drawn([0] * 10, paths[:10], 3)
    assert drawn(blocks(10, 10), paths, 3)[:3] == alone


def test_stable_draw_does_not_depend_on_the_form_of_unicode():
    composed = [f"Crêpe/{i}.jpg" for i in range(10)]
    decomposed = [unicodedata.normalize("NFD", path) for path in composed]
    assert decomposed != composed
    rows = [draw_few_shot([0] * 10, 3, paths=paths, random_state=1) for paths in (composed, decomposed)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("draw", ["dassl", "stable"])
def test_draws_leave_global_generators_as_they_are(draw):
    before = random.getstate(), np.random.get_state()[1].tolist()
    draw_few_shot(blocks(9, 9), 4, paths=paths_of(18), random_state=1, draw=draw)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


# Invalid parameters


@pytest.mark.parametrize("n_shots", [0, -1, 1.5, "4", True])
def test_invalid_number_of_images_raises(n_shots):
    with pytest.raises(DatasetError, match="n_shots must be a positive integer or None, got"):
        draw_few_shot([0, 0], n_shots, draw="dassl")


@pytest.mark.parametrize("seed", [None, 1.0, np.random.RandomState(0), True])
def test_invalid_seed_raises(seed):
    with pytest.raises(DatasetError, match="random_state must be an integer, so that the same images"):
        draw_few_shot([0, 0], 1, random_state=seed, paths=["a", "b"])


def test_seeds_of_numpy_are_accepted():
    assert dassl(blocks(60), 4, np.int64(1)) == dassl(blocks(60), 4, 1)


def test_seed_zero_is_a_seed():
    assert dassl(blocks(60), 4, 0) == random.Random(0).sample(range(60), 4)


def test_unknown_draw_raises():
    with pytest.raises(DatasetError, match="draw='Dassl' is unknown; choose among 'stable', 'dassl'"):
        draw_few_shot([0, 0], 1, draw="Dassl")


def test_stable_draw_without_paths_raises():
    with pytest.raises(DatasetError, match="pass paths="):
        draw_few_shot([0, 0], 1)


# Base and new classes


@pytest.mark.parametrize(
    ("n_classes", "n_base", "n_new"),
    [
        (37, 19, 18),
        (47, 24, 23),
        (101, 51, 50),
        (397, 199, 198),
        (10, 5, 5),
        (100, 50, 50),
        (196, 98, 98),
        (102, 51, 51),
        (1000, 500, 500),
        (2, 1, 1),
    ],
)
def test_numbers_of_base_and_new_classes(n_classes, n_base, n_new):
    base, new = base_new_classes(list(range(n_classes)))
    assert (len(base), len(new)) == (n_base, n_new)
    assert base + new == list(range(n_classes))


def test_classes_are_not_sorted():
    assert base_new_classes(["face", "leopard", "motorbike", "accordion"])[0] == ["face", "leopard"]


@pytest.mark.parametrize("classes", [[], ["cat"]])
def test_fewer_than_two_classes_raise(classes):
    with pytest.raises(DatasetError, match="need at least two classes"):
        base_new_classes(classes)


def test_file_names_need_not_be_utf8():
    paths = ["a/1.jpg", "a/\udcff.jpg", "a/3.jpg"]
    assert sorted(draw_few_shot("aaa", 3, paths=paths)) == [0, 1, 2]
    few = draw_few_shot("aaa", 1, paths=paths)
    assert [paths[i] for i in few] == [paths[::-1][i] for i in draw_few_shot("aaa", 1, paths=paths[::-1])]
