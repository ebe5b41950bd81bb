"""Lazily opened PIL images stay undecoded, and give the same pixels as decoded ones."""

import copy
import io
import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import pytest
from PIL import Image
from toy_backbone import AnyWidthBackbone

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.exceptions import ImageReadError
from clipcal.images import as_images, encode_images, image_digest, input_kind, read_image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 38, 53, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS[0])
LABELS = ["dog", "river"] * 3


def unread(image):
    """Whether an image of a format with tiles, such as PNG and JPEG, is not decoded yet."""
    return bool(image.tile)


def file_of(image, file_format, **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **kwargs)
    buffer.seek(0)
    return buffer


@pytest.fixture
def opened(tmp_path):
    images = []
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        images.append(Image.open(tmp_path / f"{i}.png"))
    yield images
    for image in images:
        image.close()


def read(image):
    """Return the pixels; assert that reading does not change whether the image is decoded."""
    before = unread(image)
    pixels = np.asarray(read_image([image], 0))
    assert unread(image) == before
    return pixels


def loaded(image):
    """Decode the image itself and return its pixels."""
    image.load()
    return np.asarray(read_image([image], 0))


class TestStayUndecoded:
    def test_input_kind_and_digests(self, opened):
        assert input_kind(opened) == "images"
        images = as_images(opened)
        digests = [image_digest(images, i) for i in range(len(images))]
        assert digests == [image_digest(PIXELS, i) for i in range(len(images))]
        assert all(map(unread, opened))

    @pytest.mark.parametrize("n_views", [1, 2])
    @pytest.mark.parametrize("memory", [False, True])
    def test_encode_images(self, opened, tmp_path, n_views, memory):
        kwargs = {"n_views": n_views, "random_state": 0, "memory": tmp_path / "cache" if memory else None}
        expected = encode_images(PIXELS, AnyWidthBackbone(), n_views=n_views, random_state=0)
        for _ in range(2):  # with a cache, the second run reads from it
            embeddings = encode_images(opened, AnyWidthBackbone(), **kwargs)
            np.testing.assert_array_equal(embeddings, expected)
            assert all(map(unread, opened))
        # Only some of the images are cached.
        twice = [*opened, *(Image.open(image.filename).convert("L").convert("RGB") for image in opened)]
        encode_images(twice, AnyWidthBackbone(), **kwargs)
        assert all(map(unread, opened))

    def test_encoder(self, opened):
        encoder = CLIPImageEncoder(AnyWidthBackbone())
        for X in (opened, tuple(opened)):
            np.testing.assert_array_equal(encoder.fit_transform(X), encoder.transform(PIXELS))
        assert all(map(unread, opened))

    @pytest.mark.parametrize("weights", [None, [1, 1, 1, 1, 0, 0]])
    @pytest.mark.parametrize("cls", [ZeroShotCLIPClassifier, PromptTunedCLIPClassifier])
    def test_classifiers(self, opened, cls, weights):
        params = {} if cls is ZeroShotCLIPClassifier else {"max_epochs": 1, "random_state": 0}
        clf = cls(AnyWidthBackbone(), **params).fit(opened, LABELS, sample_weight=weights)
        for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
            getattr(clf, method)(opened)
        clf.image_features(opened)
        clf.score(opened, LABELS)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            clf.fit(opened, LABELS[:-1])
        assert all(map(unread, opened))


class TestPixels:
    @pytest.mark.parametrize(
        ("mode", "file_format", "kwargs"),
        [
            ("RGB", "jpeg", {}),
            ("L", "jpeg", {}),
            ("CMYK", "jpeg", {}),
            ("RGB", "png", {}),
            ("RGBA", "png", {}),
            ("P", "png", {}),
            ("P", "png", {"transparency": 3}),
            ("1", "png", {}),
            ("P", "gif", {}),
            ("P", "gif", {"transparency": 3}),
            ("RGB", "tiff", {}),
            ("RGB", "tiff", {"compression": "tiff_lzw"}),
            ("RGB", "bmp", {}),
            ("L", "bmp", {}),
            ("RGB", "ppm", {}),
            ("RGB", "tga", {}),
        ],
    )
    @pytest.mark.parametrize("on_disk", [True, False])
    def test_formats(self, tmp_path, mode, file_format, kwargs, on_disk):
        image = IMAGE.quantize(16) if mode == "P" else IMAGE.convert(mode)
        file = tmp_path / "image" if on_disk else file_of(image, file_format, **kwargs)
        if on_disk:
            image.save(file, file_format, **kwargs)
        with Image.open(file) as opened, Image.open(file) as other:
            assert unread(opened)
            np.testing.assert_array_equal(read(opened), loaded(other))
            # The caller's image is still usable.
            np.testing.assert_array_equal(loaded(opened), loaded(other))

    @pytest.mark.parametrize("file_format", ["webp", "avif", "jpeg2000"])
    def test_optional_formats(self, file_format):
        try:
            file = file_of(IMAGE, file_format, quality=90)
        except (KeyError, OSError):
            pytest.skip(f"this Pillow has no {file_format}")
        opened, other = Image.open(file), Image.open(io.BytesIO(file.getvalue()))
        np.testing.assert_array_equal(np.asarray(read_image([opened], 0)), loaded(other))
        np.testing.assert_array_equal(loaded(opened), loaded(other))

    @pytest.mark.parametrize("change", ["removed", "replaced"])
    @pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed")
    def test_opened_file_may_be_removed_or_replaced(self, opened, change):
        os.unlink(opened[0].filename)
        if change == "replaced":
            Image.fromarray(PIXELS[1]).save(opened[0].filename)
        np.testing.assert_array_equal(read(opened[0]), PIXELS[0])

    def test_images_that_share_a_file_object(self):
        file = file_of(IMAGE, "png")
        images = [Image.open(file), Image.open(file)]
        file.seek(5)
        for image in (*images, *images):
            np.testing.assert_array_equal(read(image), PIXELS[0])
            assert file.tell() == 5
        np.testing.assert_array_equal(loaded(images[1]), PIXELS[0])

    def test_file_object_that_is_not_at_its_start(self):
        # Pillow reads from the start of the file, whatever its current position.
        file = file_of(IMAGE, "png")
        file.seek(100)
        np.testing.assert_array_equal(read(Image.open(file)), PIXELS[0])

    @pytest.mark.parametrize("file_format", ["gif", "tiff", "png", "webp"])
    @pytest.mark.parametrize("frames", [[0], [1], [2], [2, 0], [2, 1]])
    def test_frames(self, file_format, frames):
        pages = [Image.fromarray(pixels).quantize(32) for pixels in PIXELS[:3]]
        pages = pages if file_format == "gif" else [page.convert("RGB") for page in pages]
        try:
            file = file_of(pages[0], file_format, save_all=True, append_images=pages[1:])
        except (KeyError, OSError):
            pytest.skip(f"this Pillow has no {file_format}")
        opened, other = Image.open(file), Image.open(io.BytesIO(file.getvalue()))
        assert opened.n_frames == 3
        for frame in frames:
            opened.seek(frame)
            other.seek(frame)
        actual = np.asarray(read_image([opened], 0))
        assert opened.tell() == frames[-1]
        np.testing.assert_array_equal(actual, loaded(other))
        # The caller's image can still seek to other frames.
        opened.seek(0)
        other.seek(0)
        np.testing.assert_array_equal(loaded(opened), loaded(other))

    @pytest.mark.skipif(
        int(PIL.__version__.split(".")[0]) < 11, reason="Pillow 10 allocates the pixels of a page in seek"
    )
    def test_pages_of_a_tiff_stay_undecoded(self):
        pages = [Image.fromarray(pixels) for pixels in PIXELS[:3]]
        opened = Image.open(file_of(pages[0], "tiff", save_all=True, append_images=pages[1:]))
        opened.seek(2)
        np.testing.assert_array_equal(read(opened), PIXELS[2])
        assert unread(opened)

    @pytest.mark.parametrize("size", [(26, 19), (53, 38), (13, 9), (7, 5), (1, 1)])
    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_draft(self, mode, size):
        file = file_of(IMAGE, "jpeg")
        opened, other = Image.open(file), Image.open(io.BytesIO(file.getvalue()))
        opened.draft(mode, size)
        other.draft(mode, size)
        expected = loaded(other)
        assert expected.shape[:2] == opened.size[::-1]
        np.testing.assert_array_equal(read(opened), expected)

    @pytest.mark.parametrize("file_format", ["jpeg", "png", "tiff"])
    def test_orientation(self, file_format):
        exif = Image.Exif()
        exif[0x0112] = 6
        opened = Image.open(file_of(IMAGE, file_format, exif=exif))
        pixels = read(opened)
        assert pixels.shape == (53, 38, 3)
        np.testing.assert_array_equal(pixels, loaded(opened))

    def test_orientation_that_the_caller_read_or_changed(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        opened = Image.open(file_of(IMAGE, "jpeg", exif=exif))
        assert opened.getexif()[0x0112] == 6
        assert read(opened).shape == (53, 38, 3)
        opened.getexif()[0x0112] = 1
        assert np.asarray(read_image([opened], 0)).shape == (38, 53, 3)

    def test_transparency_that_the_caller_removed(self):
        palette = IMAGE.quantize(16)
        opened = Image.open(file_of(palette, "png", transparency=palette.getpixel((0, 0))))
        assert read(opened)[0, 0].tolist() == [255, 255, 255]
        del opened.info["transparency"]
        expected = np.asarray(palette.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(read_image([opened], 0)), expected)

    def test_modified_pixels_are_used(self, opened):
        opened[0].putpixel((0, 0), (1, 2, 3))
        assert read(opened[0])[0, 0].tolist() == [1, 2, 3]

    def test_copies_of_lazy_images(self, opened):
        copies = [
            opened[0].copy(),
            copy.copy(opened[1]),
            copy.deepcopy(opened[2]),
            pickle.loads(pickle.dumps(opened[3])),
            opened[4].crop((0, 0, 53, 38)),
            opened[5].convert("RGB"),
        ]
        for i, image in enumerate(copies):
            np.testing.assert_array_equal(np.asarray(read_image([image], 0)), PIXELS[i])

    @pytest.mark.parametrize("file_format", ["png", "gif"])
    def test_concurrent_reads(self, tmp_path, file_format):
        # As in a cross-validation with threads, whose folds share the images.
        IMAGE.quantize(200).save(tmp_path / "a", file_format, save_all=True)
        with open(tmp_path / "a", "rb", buffering=0) as file:
            images = [Image.open(file) for _ in range(4)]
            expected = np.asarray(read_image([tmp_path / "a"], 0))
            with ThreadPoolExecutor(8) as pool:
                for pixels in pool.map(lambda i: np.asarray(read_image(images, i % 4)), range(400)):
                    np.testing.assert_array_equal(pixels, expected)
            assert all(map(unread, images))

    def test_attributes_set_by_the_user_are_kept(self, opened):
        opened[0].label = "cat"
        np.testing.assert_array_equal(read(opened[0]), PIXELS[0])
        assert opened[0].label == "cat"


class TestErrors:
    def test_images_closed_before_reading_raise(self, tmp_path):
        IMAGE.save(tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as closed_with_its_block:
            pass
        with open(tmp_path / "a.png", "rb") as file:
            file_closed = Image.open(file)
        closed = Image.open(tmp_path / "a.png")
        closed.close()
        for image in (closed_with_its_block, file_closed, closed):
            with pytest.raises(ImageReadError, match=r"Image 0, a PngImageFile, .*closed before its"):
                read_image([image], 0)

    def test_images_loaded_before_closing_can_be_read(self, tmp_path):
        IMAGE.save(tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as image:
            image.load()
        np.testing.assert_array_equal(read(image), PIXELS[0])

    def test_truncated_file_raises(self):
        content = file_of(IMAGE, "png").getvalue()[:-2000]
        with pytest.raises(ImageReadError, match=r"Image 0, a PngImageFile, could not.*truncated"):
            read_image([Image.open(io.BytesIO(content))], 0)

    def test_warnings_about_large_images_are_not_repeated(self, opened, monkeypatch):
        # Pillow warns about very large images in Image.open; the caller has already seen that warning.
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(np.asarray(read_image(opened, 0)), PIXELS[0])
