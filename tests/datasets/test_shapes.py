"""Generated pictures: what they promise about randomness, sizes, classes and names."""

import time

import numpy as np
import pytest

from clipcal.datasets import make_shapes

TASKS = {"colors": 30, "shapes": 24, "textures": 14, "colored-shapes": 30}
DOMAINS = ["studio", "street", "grainy", "faded"]


@pytest.mark.parametrize(("task", "n_classes"), TASKS.items())
@pytest.mark.parametrize("domain", DOMAINS)
def test_what_is_returned(task, n_classes, domain):
    data = make_shapes(task, domain=domain, n_per_class=3, random_state=0)
    assert data.images.shape == (3 * n_classes, 32, 32, 3)
    assert data.images.dtype == np.uint8
    assert data.target.dtype.kind == "U"
    names, counts = np.unique(data.target, return_counts=True)
    assert set(counts) == {3}
    assert isinstance(data.class_names, list)
    assert len(data.class_names) == len(set(data.class_names)) == n_classes
    assert set(data.class_names) == set(names)
    # The class decides what is seen, but not everything.
    first = data.images[data.target == data.class_names[0]]
    assert (first[0] != first[1]).any()
    for words in (task, domain, f"{3 * n_classes} pictures", f"{n_classes} classes", "32 x 32"):
        assert words in data.DESCR
    X, y = make_shapes(task, domain=domain, n_per_class=3, random_state=0, return_X_y=True)
    np.testing.assert_array_equal(X, data.images)
    np.testing.assert_array_equal(y, data.target)


def test_class_order_is_the_tasks_own():
    data = make_shapes("shapes", n_per_class=1, random_state=0)
    assert data.class_names[:4] == ["circle", "square", "triangle", "pentagon"]
    assert data.class_names != sorted(data.class_names)
    assert data.target.tolist() != data.class_names
    # A user who sorts the list in place spoils no later call.
    data.class_names.sort()
    assert make_shapes("shapes", n_per_class=1, random_state=0).class_names[0] == "circle"


class TestRandomness:
    def draw(self, **params):
        return make_shapes(**{"task": "textures", "n_per_class": 2, "random_state": 0, **params}).images

    @pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
    def test_a_seed_repeats(self, seed):
        np.testing.assert_array_equal(self.draw(random_state=seed), self.draw(random_state=seed))
        np.testing.assert_array_equal(self.draw(random_state=np.int64(seed)), self.draw(random_state=seed))

    @pytest.mark.parametrize(
        "other", [{"random_state": 1}, {"subset": "test"}, {"subset": "validation"}, {"domain": "street"}]
    )
    def test_everything_else_differs(self, other):
        # Picture by picture, in whatever order.
        first = {image.tobytes() for image in self.draw()}
        assert len(first) == 28
        assert first.isdisjoint(image.tobytes() for image in self.draw(**other))

    def test_zero_is_a_seed_and_none_is_not(self):
        assert (self.draw(random_state=None) != self.draw(random_state=None)).any()
        assert (self.draw(random_state=None) != self.draw(random_state=0)).any()

    def test_a_random_state_moves_on(self):
        state = np.random.RandomState(0)
        first, second = self.draw(random_state=state), self.draw(random_state=state)
        assert (first != second).any()
        np.testing.assert_array_equal(first, self.draw(random_state=np.random.RandomState(0)))

    def test_the_global_generator_is_left_alone(self):
        before = np.random.get_state()[1].copy()
        self.draw()
        np.testing.assert_array_equal(np.random.get_state()[1], before)

    def test_pictures_come_in_random_order(self):
        target = make_shapes("textures", n_per_class=10, random_state=0).target
        assert (target[1:] != target[:-1]).mean() > 0.8


@pytest.mark.parametrize("size", [4, 48, 64])
def test_image_size(size):
    images = make_shapes("shapes", n_per_class=1, image_size=size, random_state=0).images
    assert images.shape == (24, size, size, 3)
    assert images.std(axis=(1, 2, 3)).min() > 0


def test_colours_are_seen():
    """The middle of a plain evenly lit object is nearer to its own colour than to most others."""
    data = make_shapes("colored-shapes", n_per_class=20, image_size=32, random_state=0)
    middle = data.images[:, 14:18, 14:18].reshape(len(data.images), -1, 3).mean(axis=1)
    solid = np.char.endswith(data.target, ("circle"))
    reddish = middle[solid & np.char.startswith(data.target, "aqua")]
    assert reddish[:, 1:].mean() > reddish[:, 0].mean() + 50


def test_domains_look_different():
    studio, faded = (
        make_shapes("colors", domain=domain, n_per_class=4, random_state=0).images.astype(float)
        for domain in ("studio", "faded")
    )
    assert studio.std(axis=(1, 2)).mean() > 1.5 * faded.std(axis=(1, 2)).mean()
    blueness = [(images[..., 2] - images[..., 0]).mean() for images in (studio, faded)]
    assert blueness[1] > blueness[0] + 10


def test_speed():
    start = time.perf_counter()
    n_pictures = len(make_shapes("colors", n_per_class=50, random_state=0).images)
    assert n_pictures / (time.perf_counter() - start) > 500


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"task": "sounds"}, "task='sounds' is not known; choose one of 'colors', 'shapes', 'textures'"),
        ({"domain": "moon"}, "domain='moon' is not known; choose one of 'studio'"),
        ({"subset": "dev"}, "subset='dev' is not known; choose one of 'train', 'validation', 'test'"),
        ({"n_per_class": 0}, "n_per_class must be a positive integer; got 0"),
        ({"n_per_class": 2.5}, r"n_per_class must be .*; got 2\.5"),
        ({"image_size": 30}, "image_size must be a positive multiple of 4; got 30"),
        ({"image_size": 0}, "image_size must be .*; got 0"),
        ({"random_state": "zero"}, "'zero' cannot be used to seed"),
        ({"random_state": -1}, "random_state|non-negative|negative"),
    ],
)
def test_refused(params, words):
    with pytest.raises(ValueError, match=words):
        make_shapes(**{"n_per_class": 1, **params})


@pytest.mark.parametrize("value", [None, ["colors"], 3])
def test_a_task_that_is_no_string(value):
    with pytest.raises((ValueError, TypeError), match="task="):
        make_shapes(value)
