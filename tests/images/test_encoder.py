"""encode_images and CLIPImageEncoder: input types, views, the cache, and the transformer API."""

import pickle
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, check_param_validation
from tensor_elsewhere import elsewhere
from toy_backbone import AnyWidthBackbone

from clipcal.exceptions import BackboneError, ImageReadError
from clipcal.images import CLIPImageEncoder, ImagePaths, encode_images

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (7, 20, 24, 3), dtype=np.uint8)


class Counting(AnyWidthBackbone):
    """Backbone that records the size of each batch of images."""

    def __init__(self, embedding_dim=32):
        super().__init__(embedding_dim)
        self.batches = []

    def encode_images(self, pixels):
        self.batches.append(len(pixels))
        return super().encode_images(pixels)


@pytest.fixture
def files(tmp_path):
    paths = []
    for i, pixels in enumerate(PIXELS):
        paths.append(tmp_path / "images" / f"{i}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(paths[-1])
    return paths


class TestEncodeImages:
    def test_all_input_types_give_the_same_embeddings(self, files, tiny_backbone):
        expected = encode_images(PIXELS, tiny_backbone)
        assert expected.shape == (7, 64)
        assert expected.dtype == np.float32
        root = files[0].parent
        kinds = [
            files,
            [str(path) for path in files],
            np.array([str(path) for path in files]),
            pd.Series([str(path) for path in files], index=range(7, 0, -1)),
            ImagePaths([path.name for path in files], root=root),
            [Image.open(path) for path in files],
            list(PIXELS),
            torch.from_numpy(PIXELS),
            elsewhere(torch.from_numpy(PIXELS)),
            list(torch.from_numpy(PIXELS)),
            pd.Series(files),
            pd.Series([str(path) for path in files], dtype="string"),
        ]
        if hasattr(np.dtypes, "StringDType"):
            kinds.append(np.array([str(path) for path in files], dtype=np.dtypes.StringDType()))
        for images in kinds:
            np.testing.assert_array_equal(encode_images(images, tiny_backbone), expected)

    def test_equals_preprocess_and_encode_images_of_the_backbone(self, tiny_backbone):
        pixels = torch.stack([tiny_backbone.preprocess(Image.fromarray(array)) for array in PIXELS])
        expected = tiny_backbone.encode_images(pixels).numpy()
        np.testing.assert_array_equal(encode_images(PIXELS, tiny_backbone), expected)

    @pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
    def test_batch_size_does_not_change_the_embeddings(self, tiny_backbone, batch_size):
        expected = encode_images(PIXELS, tiny_backbone)
        actual = encode_images(PIXELS, tiny_backbone, batch_size=batch_size)
        np.testing.assert_allclose(actual, expected, atol=1e-5)

    def test_embeddings_do_not_depend_on_order_or_other_images(self, tiny_backbone):
        order = [3, 0, 6]
        for n_views in (1, 3):
            whole = encode_images(PIXELS, tiny_backbone, n_views=n_views, random_state=0)
            part = encode_images(PIXELS[order], tiny_backbone, n_views=n_views, random_state=0)
            np.testing.assert_allclose(part, whole[order], atol=1e-5)

    def test_sizes_of_batches(self):
        backbone = Counting()
        encode_images(PIXELS, backbone, batch_size=3)
        encode_images(PIXELS, backbone, batch_size=6, n_views=2)
        encode_images(PIXELS, backbone, batch_size=1, n_views=4)
        assert backbone.batches == [3, 3, 1, 6, 6, 2, *[4] * 7]

    def test_one_pixel_and_extreme_aspect_ratio(self, tiny_backbone):
        images = [np.zeros((1, 1), np.uint8), np.zeros((2, 900, 3), np.uint8)]
        assert np.isfinite(encode_images(images, tiny_backbone, n_views=2)).all()

    def test_one_lazy_image_many_times(self, files):
        with Image.open(files[0]) as image:
            embeddings = encode_images([image] * 20, AnyWidthBackbone(), batch_size=20)
        np.testing.assert_array_equal(embeddings, np.tile(embeddings[0], (20, 1)))

    def test_batch_size_and_n_views_below_1_raise(self, tiny_backbone):
        with pytest.raises(ValueError, match="at least 1"):
            encode_images(PIXELS, tiny_backbone, batch_size=0)
        with pytest.raises(ValueError, match="at least 1"):
            encode_images(PIXELS, tiny_backbone, n_views=0)

    def test_error_gives_path_and_position(self, files, tiny_backbone):
        files[5].write_bytes(b"no image")
        with pytest.raises(ImageReadError, match=r"Image 5, '.*5\.png'"):
            encode_images(files, tiny_backbone, batch_size=2)

    def test_global_random_state_is_unchanged_and_nothing_is_printed(self, tiny_backbone, capfd):
        numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
        encode_images(PIXELS, tiny_backbone, n_views=2, random_state=0)
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert capfd.readouterr() == ("", "")

    def test_verbose_shows_a_progress_bar(self, tiny_backbone, capfd):
        encode_images(PIXELS, tiny_backbone, verbose=1)
        assert "7/7" in capfd.readouterr().err


class TestViews:
    def test_random_state_determines_the_views(self, tiny_backbone):
        first = encode_images(PIXELS, tiny_backbone, n_views=3, random_state=0)
        assert first.shape == (7, 3, 64)
        assert first.dtype == np.float32
        again = encode_images(
            PIXELS, tiny_backbone, n_views=3, random_state=np.random.RandomState(0), batch_size=2
        )
        np.testing.assert_allclose(again, first, atol=1e-5)
        other = encode_images(PIXELS, tiny_backbone, n_views=3, random_state=1)
        assert not np.allclose(other, first, atol=1e-3)

    def test_views_of_an_image_differ(self, tiny_backbone):
        views = encode_images(PIXELS, tiny_backbone, n_views=3, random_state=0)
        assert not np.allclose(views[:, 0], views[:, 1], atol=1e-4)

    def test_files_and_arrays_give_the_same_views(self, files, tiny_backbone):
        from_files = encode_images(files, tiny_backbone, n_views=2, random_state=0)
        from_arrays = encode_images(PIXELS, tiny_backbone, n_views=2, random_state=0)
        np.testing.assert_array_equal(from_files, from_arrays)


class TestMemory:
    def encode(self, images, memory, backbone=None, **kwargs):
        backbone = backbone or Counting()
        result = encode_images(images, backbone, memory=memory, **kwargs)
        return result, sum(backbone.batches)

    def test_cached_embeddings_are_identical(self, files, tmp_path):
        first, n_first = self.encode(files, tmp_path / "cache")
        second, n_second = self.encode(files, str(tmp_path / "cache"), batch_size=2, verbose=0)
        third, n_third = self.encode(files, joblib.Memory(str(tmp_path / "cache"), verbose=0))
        assert (n_first, n_second, n_third) == (7, 0, 0)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)

    def test_moved_files_are_cache_hits(self, files, tmp_path):
        self.encode(files, tmp_path / "cache")
        moved = [path.rename(path.with_name(f"moved_{path.name}")) for path in files]
        assert self.encode(moved, tmp_path / "cache")[1] == 0
        assert self.encode(ImagePaths(moved), tmp_path / "cache")[1] == 0

    def test_a_changed_byte_is_a_cache_miss(self, files, tmp_path):
        self.encode(files, tmp_path / "cache")
        files[2].write_bytes(files[2].read_bytes() + b"\0")
        assert self.encode(files, tmp_path / "cache")[1] == 1
        self.encode(PIXELS, tmp_path / "cache")
        changed = PIXELS.copy()
        changed[6, 0, 0, 0] ^= 1
        assert self.encode(PIXELS.copy(), tmp_path / "cache")[1] == 0
        assert self.encode(changed, tmp_path / "cache")[1] == 1

    def test_cache_key_has_views_seed_and_backbone_but_not_order(self, tmp_path):
        cache = tmp_path / "cache"
        self.encode(PIXELS, cache)
        assert self.encode(PIXELS[::-1], cache)[1] == 0
        assert self.encode(PIXELS, cache, Counting(16))[1] == 7
        assert self.encode(PIXELS, cache, n_views=2, random_state=0)[1] == 14
        assert self.encode(PIXELS, cache, n_views=2, random_state=1)[1] == 14
        assert self.encode(PIXELS, cache, n_views=2, random_state=1)[1] == 0

    def test_another_precision_is_a_cache_miss(self, tmp_path):
        self.encode(PIXELS, tmp_path)
        rounded = Counting()
        rounded.precision = "bf16"
        assert self.encode(PIXELS, tmp_path, rounded)[1] == 7

    def test_nothing_is_written_outside_the_cache(self, files, tmp_path, monkeypatch):
        elsewhere = tmp_path / "cwd"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        before = sorted(files[0].parent.iterdir())
        self.encode(files, tmp_path / "cache")
        self.encode(files, None)
        assert list(elsewhere.iterdir()) == []
        assert sorted(files[0].parent.iterdir()) == before


class TestEncoder:
    def encoder(self, **kwargs):
        return CLIPImageEncoder(AnyWidthBackbone(), **kwargs)

    def test_transform_works_without_fit(self):
        encoder = self.encoder()
        before = dict(vars(encoder))
        embeddings = encoder.transform(PIXELS)
        assert vars(encoder) == before
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
        np.testing.assert_array_equal(encoder.fit(PIXELS).transform(PIXELS), embeddings)
        np.testing.assert_array_equal(encoder.fit_transform(PIXELS, ["y"] * 7), embeddings)
        assert embeddings.dtype == np.float32

    def test_normalize_false_returns_raw_embeddings(self):
        raw = self.encoder(normalize=False).transform(PIXELS)
        np.testing.assert_array_equal(raw, encode_images(PIXELS, AnyWidthBackbone()))

    def test_zero_embeddings_do_not_become_nan(self):
        class Dark(AnyWidthBackbone):
            def encode_images(self, pixels):
                return torch.zeros(len(pixels), self.embedding_dim)

        assert not CLIPImageEncoder(Dark()).transform(PIXELS).any()

    def test_feature_names_and_pandas_output(self):
        encoder = self.encoder()
        assert encoder.get_feature_names_out().tolist() == [f"clip{i}" for i in range(32)]
        frame = encoder.set_output(transform="pandas").transform(PIXELS)
        assert isinstance(frame, pd.DataFrame)
        assert frame.shape == (7, 32)
        assert frame.columns[31] == "clip31"

    def test_estimator_tags(self):
        tags = get_tags(self.encoder())
        assert not tags.requires_fit
        assert not tags.input_tags.two_d_array
        assert tags.input_tags.three_d_array
        assert tags.input_tags.string
        assert not tags.target_tags.required
        assert tags.transformer_tags.preserves_dtype == []

    def test_estimator_checks_of_scikit_learn(self):
        check_estimator(self.encoder())
        check_param_validation("CLIPImageEncoder", self.encoder())

    def test_clone_and_pickle_are_small(self):
        encoder = self.encoder()
        assert clone(encoder).backbone is encoder.backbone
        again = pickle.loads(pickle.dumps(encoder))
        np.testing.assert_array_equal(again.transform(PIXELS), encoder.transform(PIXELS))
        assert len(pickle.dumps(CLIPImageEncoder())) < 500

    def test_constructor_does_not_open_the_backbone(self):
        assert CLIPImageEncoder().backbone == "ViT-B-16/openai"
        for backbone in (-1, "helloworld", np.ones(3), [], {}):
            clone(CLIPImageEncoder(backbone), safe=False)

    @pytest.mark.parametrize("method", ["fit", "transform"])
    def test_parameters_are_validated_in_fit_and_transform(self, method):
        with pytest.raises(ValueError, match="'batch_size' parameter"):
            getattr(self.encoder(batch_size=0), method)(PIXELS)
        with pytest.raises(BackboneError, match="no architecture 'helloworld'"):
            getattr(CLIPImageEncoder("helloworld"), method)(PIXELS)
        with pytest.raises(BackboneError, match="not a device"):
            getattr(CLIPImageEncoder("mini", device="nowhere"), method)(PIXELS)
        with pytest.raises(ValueError, match="Expected images, got numbers"):
            getattr(self.encoder(), method)(np.zeros((3, 32)))

    def test_cross_validation_of_a_pipeline(self, files):
        dark = [PIXELS[i] // 4 for i in range(7)]
        paths = files + [path.with_name(f"dark_{path.name}") for path in files]
        for path, pixels in zip(paths[7:], dark, strict=True):
            Image.fromarray(pixels).save(path)
        y = ["light"] * 7 + ["dark"] * 7
        pipeline = make_pipeline(self.encoder(), LogisticRegression(C=100))
        for X in (paths, ImagePaths(paths), np.array(list(map(str, paths)))):
            assert cross_val_score(pipeline, X, y, cv=3, error_score="raise").mean() > 0.8

    def test_transform_in_two_processes(self, files):
        encoder = CLIPImageEncoder(AnyWidthBackbone())
        halves = [files[:4], files[4:]]
        parts = joblib.Parallel(n_jobs=2)(joblib.delayed(encoder.transform)(half) for half in halves)
        np.testing.assert_allclose(np.concatenate(parts), encoder.transform(files), atol=1e-6)

    def test_memory_caches_embeddings(self, tmp_path):
        backbone = Counting()
        encoder = CLIPImageEncoder(backbone, memory=str(tmp_path))
        first = encoder.transform(PIXELS)
        np.testing.assert_array_equal(encoder.set_params(normalize=True).transform(PIXELS), first)
        assert sum(backbone.batches) == 7


def test_import_does_not_load_torch():
    code = "import sys, clipcal.images; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
