"""Results on a GPU equal those on the CPU; skipped without a GPU."""

import warnings

import numpy as np
import open_clip
import pytest
import torch
from tiny_clip import make_tiny_model
from tuning_problem import problem_of

from clipcal import CoOp, DynamicOutlierRegularizer, PromptTunedCLIPClassifier
from clipcal.backbones import OpenClipBackbone
from clipcal.methods import VPT, DePT, MaPLe, PromptSRC

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="requires a CUDA device")

NAMES = ["dog", "golden retriever puppy", "crane (bird)", "Boeing 737-800", "x"]
NOUNS = ["denim", "violin", "twilight", "rhapsody in blue", "lantern", "fire engine", "salt"]


def backbone_on(device, precision="fp32"):
    return OpenClipBackbone(
        make_tiny_model(), open_clip.SimpleTokenizer(), device=device, precision=precision
    )


def features_and_gradient(device, precision="fp32", **params):
    learner = CoOp(**params).learner(problem_of(backbone_on(device, precision), NAMES))
    features = learner.encode_texts(learner.prompts(NAMES), None)
    (features * torch.linspace(-1, 1, 64, device=features.device)).sum().backward()
    return features.detach().cpu(), learner.context.grad.cpu()


@pytest.mark.parametrize("params", [{}, {"text_chunk_size": 2}, {"class_token_position": "middle"}])
def test_features_and_gradient_equal_those_on_the_cpu(params):
    for ours, expected in zip(
        features_and_gradient("cuda", **params), features_and_gradient("cpu", **params), strict=True
    ):
        assert (ours - expected).norm() < 1e-4 * expected.norm()


def test_learned_parameters_are_float32_with_bfloat16_precision():
    features, gradient = features_and_gradient("cuda", "bf16")
    expected, expected_gradient = features_and_gradient("cpu")
    assert features.dtype == gradient.dtype == torch.float32
    assert (features - expected).norm() < 0.03 * expected.norm()
    assert (gradient - expected_gradient).norm() < 0.2 * expected_gradient.norm()


def fit(device, n_samples=40, max_epochs=3, precision="fp32"):
    X = np.random.default_rng(0).normal(size=(n_samples, 64)).astype(np.float32)
    clf = PromptTunedCLIPClassifier(
        backbone_on(device, precision),
        regularizer=DynamicOutlierRegularizer(lexicon=NOUNS, batch_size=4),
        max_epochs=max_epochs,
        batch_size=4,
        random_state=0,
    )
    return clf.fit(X, (NAMES * n_samples)[:n_samples])


def test_fit_reaches_the_same_loss_as_on_the_cpu():
    on_gpu, on_cpu = fit("cuda", max_epochs=20), fit("cpu", max_epochs=20)
    assert on_gpu.device_ == "cuda"
    # Batches are in another order, so only the final loss can be compared.
    assert on_gpu.history_[-1]["loss"] == pytest.approx(on_cpu.history_[-1]["loss"], rel=0.1)
    assert np.isfinite(fit("cuda", precision="bf16").text_features_).all()


def test_training_steps_do_not_synchronize_with_the_device():
    def n_waits(n_samples):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                fit("cuda", n_samples)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in caught)

    fit("cuda", 8)
    # Ten times as many steps, but the same number of synchronizations.
    assert n_waits(80) == n_waits(8)


def fit_on_images(device, method, n_views):
    images = np.random.default_rng(0).integers(0, 256, (15, 32, 32, 3), dtype=np.uint8)
    # A single batch, as the order of images is drawn on the device.
    settings = {"max_epochs": 3, "batch_size": 15, "random_state": 0, "n_views": n_views}
    clf = PromptTunedCLIPClassifier(backbone_on(device), method=method, **settings)
    return clf.fit(images, NAMES * 3), images


@pytest.mark.parametrize(
    "method",
    [MaPLe(), MaPLe(activation_checkpointing=True), PromptSRC(teacher_template="dtd"), VPT(), DePT("maple")],
    ids=["maple", "checkpointing", "promptsrc", "vpt", "dept"],
)
def test_prompts_in_the_image_tower_equal_those_on_the_cpu(method):
    (clf, images), (expected, _) = (fit_on_images(device, method, n_views=1) for device in ("cuda", "cpu"))
    for name, values in expected.learned_.items():
        np.testing.assert_allclose(clf.learned_[name], values, atol=1e-3, rtol=1e-3)
    proba = expected.predict_proba(images)
    np.testing.assert_allclose(clf.predict_proba(images), proba, atol=1e-2)


def test_random_crops_are_read_and_kept_on_the_gpu():
    for n_views in (3, "fresh"):
        clf, images = fit_on_images("cuda", "maple", n_views)
        assert clf.device_.startswith("cuda")
        assert np.isfinite(clf.predict_proba(images)).all()
