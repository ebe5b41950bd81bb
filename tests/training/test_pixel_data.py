"""Training images that are read when they are needed: what is computed, how often, and in which thread."""

import gc
import threading
import time
import weakref

import pytest
import torch
from torch.nn.functional import normalize
from toy_backbone import AnyWidthBackbone

from clipcal.exceptions import ImageReadError
from clipcal.training import ImageViews, PixelData, _pixel_data, torch_generator

N_IMAGES = 8


class Watched(AnyWidthBackbone):
    """Toy backbone that counts the images it embeds and encodes."""

    def __init__(self):
        super().__init__()
        self.n_embedded, self.n_encoded = [], []

    def embed_pixels(self, pixels):
        self.n_embedded.append(len(pixels))
        return pixels.flatten(2).transpose(1, 2) * 2

    def encode_images(self, pixels):
        self.n_encoded.append(len(pixels))
        return super().encode_images(pixels)


class Source:
    """Images whose pixels depend on row and number of the view."""

    def __init__(self, *, unreadable=()):
        self.calls, self.threads, self.unreadable = [], [], set(unreadable)

    def pixels(self, row, number):
        return torch.randn(3, 8, 8, generator=torch_generator(1000 * row + number))

    def load(self, rows, numbers):
        self.calls.append(list(zip(rows, numbers, strict=True)))
        self.threads.append(threading.current_thread())
        for row in rows:
            if row in self.unreadable:
                raise ImageReadError(f"Image {row} cannot be read.")
        return torch.stack([self.pixels(*view) for view in zip(rows, numbers, strict=True)])

    @property
    def n_loaded(self):
        return sum(map(len, self.calls))


def data_of(source, backbone=None, *, n_crops=1, keep=True, n_images=N_IMAGES):
    return PixelData(
        torch.arange(n_images) % 2,
        torch.ones(n_images),
        views=ImageViews(source.load, backbone or Watched(), keep=keep),
        rows=torch.arange(n_images),
        n_crops=n_crops,
    )


def epoch(data, *, seed=0, size=4, drop_last=True):
    """Return patches, embeddings and norms of the batches of an epoch."""
    batches = data.batches(size, torch_generator(seed), drop_last=drop_last)
    return [(batch.patches, batch.embeddings, batch.norms) for batch in batches]


class TestBatch:
    def one(self, *, backbone=None, rows=(5, 2, 7), views=(1, 0, 3)):
        source, backbone = Source(), backbone or Watched()
        data = data_of(source, backbone, n_crops=4)
        return data.batch(torch.tensor(rows), torch.tensor(views)), source, backbone

    def test_values(self):
        batch, source, _ = self.one()
        pixels = torch.stack([source.pixels(5, 1), source.pixels(2, 0), source.pixels(7, 3)])
        features = AnyWidthBackbone().encode_images(pixels)
        assert torch.equal(batch.pixels, pixels)
        assert torch.equal(batch.patches, 2 * pixels.flatten(2).transpose(1, 2))
        torch.testing.assert_close(batch.embeddings, normalize(features, dim=1))
        torch.testing.assert_close(batch.norms, features.norm(dim=1))
        torch.testing.assert_close(batch.raw_embeddings, features)
        assert batch.targets.tolist() == [1, 0, 1] and batch.weights.tolist() == [1, 1, 1]
        assert source.calls == [[(5, 1), (2, 0), (7, 3)]]

    def test_nothing_is_computed_before_it_is_read(self):
        batch, source, backbone = self.one()
        _ = batch.targets, batch.weights
        assert source.calls == backbone.n_embedded == backbone.n_encoded == []
        _ = batch.pixels
        assert source.n_loaded == 3 and backbone.n_embedded == backbone.n_encoded == []
        _ = batch.patches
        assert backbone.n_embedded == [3] and backbone.n_encoded == []
        _ = batch.norms
        assert backbone.n_encoded == [3]

    @pytest.mark.parametrize("name", ["pixels", "patches", "embeddings", "norms"])
    def test_each_is_computed_once(self, name):
        batch, source, backbone = self.one()
        assert getattr(batch, name) is getattr(batch, name)
        _ = batch.pixels, batch.patches, batch.embeddings, batch.norms
        _ = batch.pixels, batch.patches, batch.embeddings, batch.norms
        assert (source.n_loaded, backbone.n_embedded, backbone.n_encoded) == (3, [3], [3])

    def test_backbone_that_does_not_embed(self):
        batch, source, _ = self.one(backbone=AnyWidthBackbone())
        assert batch.patches is None
        assert source.calls == []
        assert batch.pixels.shape == (3, 3, 8, 8)


class TestKept:
    def test_second_epoch_computes_nothing(self):
        source, backbone = Source(), Watched()
        data = data_of(source, backbone)
        first, second = epoch(data), epoch(data)
        assert (source.n_loaded, backbone.n_embedded, backbone.n_encoded) == (8, [4, 4], [4, 4])
        torch.testing.assert_close(first, second)

    def test_patches_are_not_computed_for_their_own_sake(self):
        source, backbone = Source(), Watched()
        data = data_of(source, backbone)
        for _ in range(2):
            _ = [batch.embeddings for batch in data.batches(4, torch_generator(0))]
        assert (backbone.n_embedded, backbone.n_encoded) == ([], [4, 4])

    @pytest.mark.parametrize("n_bytes", [0, 3 * 64 * 3 * 4, 5 * 32 * 4])
    def test_results_do_not_depend_on_the_budget(self, n_bytes, monkeypatch):
        expected = [epoch(data_of(Source(), n_crops=3), seed=seed) for seed in range(4)]
        monkeypatch.setattr(_pixel_data, "memory_budget", lambda device: n_bytes)
        source, backbone = Source(), Watched()
        data = data_of(source, backbone, n_crops=3)
        found = [epoch(data, seed=seed) for seed in range(4)]
        torch.testing.assert_close(found, expected)
        # Patches and features together; the others are computed again.
        kept = data.views._patches, data.views._features
        sizes = [value.numel() * 4 for part in kept for value in part._values.values()]
        assert n_bytes - 64 * 3 * 4 < sum(sizes) <= n_bytes
        n_before = len(backbone.n_embedded)
        epoch(data, seed=3)
        assert len(backbone.n_embedded) > n_before

    def test_memory_of_what_is_kept(self, monkeypatch):
        """A view that is kept must not keep the copies of other views that were in its batch."""
        monkeypatch.setattr(_pixel_data, "memory_budget", lambda device: 10**9)
        data = data_of(Source(), n_images=16)
        for n in range(2, 17):  # one new image in each batch
            _ = data.batch(torch.arange(n), torch.zeros(n, dtype=torch.long)).patches
        kept = data.views._patches
        storages = [value.untyped_storage() for value in kept._values.values()]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        assert sum(sizes.values()) == 10**9 - kept.budget.left == 16 * 64 * 3 * 4

    def test_kept_and_other_views_in_a_batch(self):
        source, backbone = Source(), Watched()
        data = data_of(source, backbone, n_crops=2)
        zeros, ones = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
        _ = data.batch(torch.tensor([1, 3]), zeros).patches
        _ = data.batch(torch.tensor([6, 3]), ones).embeddings
        mixed = data.batch(torch.tensor([3, 4, 1, 6]), torch.tensor([0, 0, 0, 1]))
        pixels = torch.stack([source.pixels(*view) for view in [(3, 0), (4, 0), (1, 0), (6, 1)]])
        assert torch.equal(mixed.patches, 2 * pixels.flatten(2).transpose(1, 2))
        torch.testing.assert_close(mixed.raw_embeddings, AnyWidthBackbone().encode_images(pixels))
        assert (backbone.n_embedded, backbone.n_encoded) == ([2, 2], [2, 3])

    def test_keep_false(self):
        source, backbone = Source(), Watched()
        data = data_of(source, backbone, keep=False)
        first, second = epoch(data), epoch(data)
        assert (source.n_loaded, backbone.n_embedded, backbone.n_encoded) == (16, [4] * 4, [4] * 4)
        torch.testing.assert_close(first, second)

    def test_take_shares_what_is_kept(self):
        source, backbone = Source(), Watched()
        data = data_of(source, backbone)
        epoch(data)
        part = data.take(torch.tensor([6, 1, 2]), torch.tensor([0, 2, 1]))
        again = part.take(torch.tensor([2, 0]), torch.tensor([1, 0]))
        (batch,) = part.in_order()
        (last,) = again.in_order()
        pixels = torch.stack([source.pixels(row, 0) for row in (6, 1, 2)])
        assert torch.equal(batch.patches, 2 * pixels.flatten(2).transpose(1, 2))
        assert torch.equal(last.patches, batch.patches[[2, 0]])
        assert batch.targets.tolist() == [0, 2, 1] and last.targets.tolist() == [1, 0]
        torch.testing.assert_close(last.embeddings, batch.embeddings[[2, 0]])
        assert (source.n_loaded, backbone.n_embedded, backbone.n_encoded) == (8, [4, 4], [4, 4])


class TestDraws:
    @pytest.mark.parametrize("n_crops", [1, 3])
    def test_numbers_of_views(self, n_crops):
        source = Source()
        data = data_of(source, n_crops=n_crops, keep=False)
        for seed in range(10):
            epoch(data, seed=seed)
        drawn = [number for call in source.calls for _, number in call]
        assert set(drawn) == set(range(n_crops)) and data.n_views == n_crops

    def test_same_order_as_embedded_data(self):
        """The same seed draws the same samples and views, whether images are read before or in each step."""
        from clipcal.training import EmbeddedData

        source, backbone = Source(), AnyWidthBackbone()
        views = torch.stack([torch.stack([source.pixels(i, k) for k in range(3)]) for i in range(N_IMAGES)])
        features = backbone.encode_images(views.flatten(0, 1)).unflatten(0, (N_IMAGES, 3))
        embedded = EmbeddedData.from_raw(features, torch.arange(N_IMAGES) % 2, torch.ones(N_IMAGES))
        data = data_of(source, backbone, n_crops=3)
        for seed in range(3):
            pairs = zip(
                embedded.batches(3, torch_generator(seed)),
                data.batches(3, torch_generator(seed)),
                strict=True,
            )
            for expected, batch in pairs:
                assert torch.equal(batch.targets, expected.targets)
                torch.testing.assert_close(batch.embeddings, expected.embeddings)

    def test_indices_are_on_the_cpu(self):
        data = PixelData(
            torch.zeros(3, dtype=torch.long, device="meta"),
            torch.ones(3, device="meta"),
            views=data_of(Source()).views,
            rows=torch.arange(3),
        )
        assert data.index_device.type == "cpu"
        (batch,) = data.in_order()
        assert batch.targets.device.type == "meta" and batch.patches.shape == (3, 64, 3)


class TestReadingAhead:
    def test_the_next_batch_is_read_in_another_thread(self):
        source = Source()
        batches = data_of(source).batches(2, torch_generator(0))
        first = next(batches)
        _ = first.pixels
        deadline = time.monotonic() + 30
        while len(source.calls) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        # The second batch was read, though it was not asked for, but not the third.
        assert len(source.calls) == 2
        assert threading.main_thread() not in source.threads
        second = next(batches)
        n_calls = len(source.calls)
        expected = torch.stack([source.pixels(*view) for view in source.calls[1]])
        assert torch.equal(second.pixels, expected)
        assert n_calls <= len(source.calls) <= 3

    def test_order_of_batches(self):
        (whole,) = data_of(Source()).in_order()
        parts = list(data_of(Source()).in_order(3))
        assert [len(part.targets) for part in parts] == [3, 3, 2]
        assert torch.equal(torch.cat([part.pixels for part in parts]), whole.pixels)

    def test_kept_batches_are_not_read(self):
        source = Source()
        data = data_of(source)
        epoch(data)
        for batch in data.batches(4, torch_generator(1)):
            assert batch._reading is None
        assert source.n_loaded == 8

    def test_unreadable_images_raise_where_they_are_used(self):
        source = Source(unreadable=[5])
        batches = data_of(source).in_order(4)
        assert next(batches).pixels.shape == (4, 3, 8, 8)
        last = next(batches)
        for name in ("pixels", "patches", "embeddings"):
            with pytest.raises(ImageReadError, match=r"^Image 5 cannot be read\.$"):
                getattr(last, name)
        # The reader goes on.
        source.unreadable.clear()
        assert [len(batch.pixels) for batch in data_of(source).in_order(4)] == [4, 4]

    def test_reader_survives_an_unreadable_image(self):
        source = Source(unreadable=[0])
        data = data_of(source)
        with pytest.raises(ImageReadError):
            _ = next(data.in_order(4)).pixels
        source.unreadable.clear()
        assert torch.equal(next(data.in_order(1)).pixels[0], source.pixels(0, 0))

    def test_closed_before_the_end(self):
        source = Source(unreadable=[2])
        batches = data_of(source).in_order(2)
        assert len(next(batches).pixels) == 2
        batches.close()  # the error of the second batch is of no interest
        with pytest.raises(StopIteration):
            next(batches)

    def test_threads_end_with_their_data(self):
        def readers():
            return [thread for thread in threading.enumerate() if thread.name.startswith("clipcal-pixels")]

        gc.collect()
        before = len(readers())
        for _ in range(30):
            data = data_of(Source())
            _ = next(data.in_order(2)).pixels
            assert len(readers()) > 0
        del data
        gc.collect()
        deadline = time.monotonic() + 30
        while len(readers()) > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(readers()) <= before

    def test_batches_of_the_past_are_freed(self):
        """An epoch keeps what it must, but neither pixels nor batches."""
        references = []
        for batch in data_of(Source(), keep=False, n_images=40).batches(2, torch_generator(0)):
            _ = batch.patches, batch.embeddings
            references.append(weakref.ref(batch))
            assert sum(reference() is not None for reference in references) <= 2
        assert len(references) == 20
