"""make_shapes: randomness, image sizes, classes and class names."""

import time

import numpy as np
import pytest

from clipcal.datasets import make_shapes

TASKS = {"colors": 30, "shapes": 24, "textures": 14, "colored-shapes": 30}
DOMAINS = ["studio", "street", "grainy", "faded"]


@pytest.mark.parametrize(("task", "n_classes"), TASKS.items())
@pytest.mark.parametrize("domain", DOMAINS)
def test_returned_bunch(task, n_classes, domain):
    data = make_shapes(task, domain=domain, n_per_class=3, random_state=0)
    assert data.images.shape == (3 * n_classes, 32, 32, 3)
    assert data.images.dtype == np.uint8
    assert data.target.dtype.kind == "U"
    names, counts = np.unique(data.target, return_counts=True)
    assert set(counts) == {3}
    assert isinstance(data.class_names, list)
    assert len(data.class_names) == len(set(data.class_names)) == n_classes
    assert set(data.class_names) == set(names)
    # Images of one class differ.
    first = data.images[data.target == data.class_names[0]]
    assert (first[0] != first[1]).any()
    for words in (task, domain, f"{3 * n_classes} images", f"{n_classes} classes", "32 x 32"):
        assert words in data.DESCR
    X, y = make_shapes(task, domain=domain, n_per_class=3, random_state=0, return_X_y=True)
    np.testing.assert_array_equal(X, data.images)
    np.testing.assert_array_equal(y, data.target)


def test_class_names_are_in_the_order_of_the_task():
    data = make_shapes("shapes", n_per_class=1, random_state=0)
    assert data.class_names[:4] == ["circle", "square", "triangle", "pentagon"]
    assert data.class_names != sorted(data.class_names)
    assert data.target.tolist() != data.class_names
    # Sorting the returned list in place does not affect later calls.
    data.class_names.sort()
    assert make_shapes("shapes", n_per_class=1, random_state=0).class_names[0] == "circle"


class TestRandomness:
    def draw(self, **params):
        return make_shapes(**{"task": "textures", "n_per_class": 2, "random_state": 0, **params}).images

    @pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
    def test_a_seed_is_reproducible(self, seed):
        np.testing.assert_array_equal(self.draw(random_state=seed), self.draw(random_state=seed))
        np.testing.assert_array_equal(self.draw(random_state=np.int64(seed)), self.draw(random_state=seed))

    @pytest.mark.parametrize(
        "other", [{"random_state": 1}, {"subset": "test"}, {"subset": "validation"}, {"domain": "street"}]
    )
    def test_seed_subset_and_domain_change_every_image(self, other):
        # Compared as sets of images, as their order is random.
        first = {image.tobytes() for image in self.draw()}
        assert len(first) == 28
        assert first.isdisjoint(image.tobytes() for image in self.draw(**other))

    def test_seed_0_differs_from_none(self):
        assert (self.draw(random_state=None) != self.draw(random_state=None)).any()
        assert (self.draw(random_state=None) != self.draw(random_state=0)).any()

    def test_a_random_state_instance_advances(self):
        state = np.random.RandomState(0)
        first, second = self.draw(random_state=state), self.draw(random_state=state)
        assert (first != second).any()
        np.testing.assert_array_equal(first, self.draw(random_state=np.random.RandomState(0)))

    def test_global_random_state_is_unchanged(self):
        before = np.random.get_state()[1].copy()
        self.draw()
        np.testing.assert_array_equal(np.random.get_state()[1], before)

    def test_images_come_in_random_order(self):
        target = make_shapes("textures", n_per_class=10, random_state=0).target
        assert (target[1:] != target[:-1]).mean() > 0.8


@pytest.mark.parametrize("size", [4, 48, 64])
def test_image_size(size):
    images = make_shapes("shapes", n_per_class=1, image_size=size, random_state=0).images
    assert images.shape == (24, size, size, 3)
    assert images.std(axis=(1, 2, 3)).min() > 0


def test_objects_have_the_colour_of_their_class():
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
    n_images = len(make_shapes("colors", n_per_class=50, random_state=0).images)
    assert n_images / (time.perf_counter() - start) > 500


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"task": "sounds"}, "task='sounds' is not supported; choose one of 'colors', 'shapes', 'textures'"),
        ({"domain": "moon"}, "domain='moon' is not supported; choose one of 'studio'"),
        ({"subset": "dev"}, "subset='dev' is not supported; choose one of 'train', 'validation', 'test'"),
        ({"n_per_class": 0}, "n_per_class must be a positive integer; got 0"),
        ({"n_per_class": 2.5}, r"n_per_class must be .*; got 2\.5"),
        ({"image_size": 30}, "image_size must be a positive multiple of 4; got 30"),
        ({"image_size": 0}, "image_size must be .*; got 0"),
        ({"random_state": "zero"}, "'zero' cannot be used to seed"),
        ({"random_state": -1}, "random_state|non-negative|negative"),
    ],
)
def test_invalid_parameters_raise(params, match):
    with pytest.raises(ValueError, match=match):
        make_shapes(**{"n_per_class": 1, **params})


@pytest.mark.parametrize("value", [None, ["colors"], 3])
def test_task_that_is_not_a_string_raises(value):
    with pytest.raises((ValueError, TypeError), match="task="):
        make_shapes(value)
