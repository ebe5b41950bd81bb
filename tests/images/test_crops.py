"""Numbered random crops, which can be drawn again one at a time."""

import numpy as np
import pytest
import torch
from PIL import Image
from toy_backbone import AnyWidthBackbone

from clipcal.images import PixelLoader, encode_images
from clipcal.images._views import crops

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 40, 50, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS[0])


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(len(PIXELS))]
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels).save(path)
    return [str(path) for path in paths]


class TestCrops:
    def test_a_crop_does_not_depend_on_others(self, tiny_backbone):
        five = crops(IMAGE, tiny_backbone, range(5), seed=7)
        assert five.shape == (5, 3, 32, 32)
        assert torch.equal(crops(IMAGE, tiny_backbone, [3, 0, 3, 4], seed=7), five[[3, 0, 3, 4]])
        for number in range(5):
            assert torch.equal(crops(IMAGE, tiny_backbone, [number], seed=7)[0], five[number])

    def test_depends_on_number_seed_and_pixels(self, tiny_backbone):
        changed = PIXELS[0].copy()
        changed[-1, -1, 0] ^= 1
        drawn = [
            crops(IMAGE, tiny_backbone, [0, 1, 256, 2**31 - 1], seed=7),
            crops(IMAGE, tiny_backbone, [0, 1], seed=8),
            crops(Image.fromarray(changed), tiny_backbone, [0, 1], seed=7),
        ]
        found = torch.cat(drawn).flatten(1).numpy()
        assert len(np.unique(found, axis=0)) == len(found) == 8

    def test_large_numbers_and_seeds(self, tiny_backbone):
        number, seed = 2**31 - 2, 2**31 - 2
        first, again = (crops(IMAGE, tiny_backbone, [number], seed) for _ in range(2))
        assert torch.equal(first, again)

    def test_global_random_state_is_neither_used_nor_changed(self, tiny_backbone):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        first = crops(IMAGE, tiny_backbone, [0], seed=7)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(1)
        assert torch.equal(crops(IMAGE, tiny_backbone, [0], seed=7), first)


def test_three_views_are_the_first_of_five(tiny_backbone):
    three, five = (encode_images(PIXELS, tiny_backbone, n_views=n, random_state=3) for n in (3, 5))
    np.testing.assert_allclose(three, five[:, :3], atol=1e-6)
    assert np.abs(five[:, 3] - five[:, 2]).max() > 1e-3


def test_views_do_not_depend_on_the_position(tiny_backbone):
    forward = encode_images(PIXELS, tiny_backbone, n_views=2, random_state=3)
    backward = encode_images(PIXELS[::-1], tiny_backbone, n_views=2, random_state=3)
    np.testing.assert_allclose(backward[::-1], forward, atol=1e-6)


class TestPixelLoader:
    def test_evaluation_transform(self, files, tiny_backbone):
        expected = torch.stack([tiny_backbone.preprocess(Image.fromarray(PIXELS[row])) for row in (4, 1)])
        for images in (PIXELS, files):
            loader = PixelLoader(images, tiny_backbone, seed=None)
            # Numbers have no effect without a seed.
            assert torch.equal(loader.load([4, 1], [0, 9]), expected)

    def test_same_crop_in_another_batch(self, files, tiny_backbone):
        loader = PixelLoader(files, tiny_backbone, seed=5)
        batch = loader.load([0, 3, 0, 5], [2, 0, 1, 2])
        for i, (row, number) in enumerate([(0, 2), (3, 0), (0, 1), (5, 2)]):
            assert torch.equal(loader.load([row], [number])[0], batch[i])
            alone = PixelLoader(PIXELS[row : row + 1], tiny_backbone, seed=5)
            assert torch.equal(alone.load([0], [number])[0], batch[i])

    def test_same_crops_as_of_embedded_images(self):
        """A method that reads pixels and one that reads embeddings see the same crops of a seed."""
        backbone, n_views = AnyWidthBackbone(), 3
        embedded = encode_images(PIXELS, backbone, n_views=n_views, random_state=11)
        # The seed of the crops is the first number that is drawn.
        seed = int(np.random.RandomState(11).randint(2**31 - 1))
        loader = PixelLoader(PIXELS, backbone, seed=seed)
        pixels = [loader.load(list(range(len(PIXELS))), [view] * len(PIXELS)) for view in range(n_views)]
        for view in range(n_views):
            encoded = backbone.encode_images(pixels[view])
            np.testing.assert_allclose(encoded, embedded[:, view], atol=1e-5)
        assert (pixels[0] - pixels[1]).abs().max() > 0.01
