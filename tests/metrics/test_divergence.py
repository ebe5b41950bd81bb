"""The feature divergence of text features."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.neighbors import NearestNeighbors

from clipcal.metrics import feature_divergence

FEATURES = np.random.default_rng(0).normal(size=(40, 6))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("n_neighbors", [1, 5, 39, 100])
def test_against_scikit_learn(metric, n_neighbors, monkeypatch):
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    found = NearestNeighbors(n_neighbors=min(n_neighbors, 39), metric=metric).fit(unit).kneighbors()[0].mean()
    assert_allclose(feature_divergence(FEATURES, n_neighbors=n_neighbors, metric=metric), found)
    monkeypatch.setattr("clipcal.metrics._proximity._BLOCK_ENTRIES", 100)
    assert_allclose(feature_divergence(FEATURES, n_neighbors=n_neighbors, metric=metric), found)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_scale_does_not_matter(scale):
    with np.errstate(all="raise"):
        assert_allclose(feature_divergence(FEATURES * scale), feature_divergence(FEATURES), rtol=1e-12)


def test_equal_features_are_at_distance_zero():
    for metric in ("euclidean", "cosine"):
        assert feature_divergence(np.tile(FEATURES[:1], (5, 1)), metric=metric) == 0.0


def test_memory_is_below_that_of_a_distance_matrix():
    features = np.random.default_rng(1).normal(size=(8000, 4))
    tracemalloc.start()
    feature_divergence(features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8000**2 * 8 / 3


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ([[1.0, 0.0], [0.0, 0.0]], {}, "Row 1 of text_features is all zeros"),
        ([[1.0, 0.0], [np.nan, 0.0]], {}, "text_features contains NaN"),
        ([[1.0, 0.0]], {}, r"at least two rows.*\(1, 2\)"),
        ([1.0, 0.0], {}, r"\(2,\)"),
        (FEATURES, {"n_neighbors": True}, "n_neighbors must be a positive integer; got True"),
        (FEATURES, {"n_neighbors": 0}, "got 0"),
        (FEATURES, {"metric": "l1"}, "got 'l1'"),
    ],
)
def test_invalid_input_raises(features, options, message):
    with pytest.raises(ValueError, match=message):
        feature_divergence(features, **options)
