"""Logits, probabilities and predicted classes, for any block size, and their memory."""

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax

from clipcal import ZeroShotCLIPClassifier
from clipcal.classifiers import _prediction
from clipcal.classifiers._prediction import (
    CosineLogits,
    GivenLogits,
    all_logits,
    best_classes,
    class_log_probabilities,
    class_probabilities,
    logit_margins,
)

# Cosines of the first row are 0.6, 0.8, -1, of the second 1, 0, -0.6. The third row is zero.
EMBEDDINGS = np.array([[3.0, 4.0], [2.0, 0.0], [0.0, 0.0]])
TEXT = np.array([[1.0, 0.0], [0.0, 1.0], [-0.6, -0.8]], dtype=np.float32)
RNG = np.random.default_rng(0)
MIB = 2**20


def unit(array):
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def fitted(n_classes, n_features):
    """Return a classifier with the attributes needed for prediction, without fitting it."""
    clf = ZeroShotCLIPClassifier()
    clf.classes_ = np.array([f"class {i:05d}" for i in range(n_classes)])
    clf.text_features_ = unit(np.random.default_rng(1).normal(size=(n_classes, n_features))).astype(
        np.float32
    )
    clf.logit_scale_ = 100.0
    clf.n_features_in_ = n_features
    return clf


@pytest.fixture(params=[1, 2, 1000], ids="rows per block: {}".format)
def n_rows(request, monkeypatch):
    monkeypatch.setattr(_prediction, "_rows_per_block", lambda n_features, n_classes: request.param)


@pytest.mark.usefixtures("n_rows")
class TestHandComputed:
    def test_all_logits(self):
        expected = [[6, 8, -10], [10, 0, -6], [0, 0, 0]]
        np.testing.assert_allclose(all_logits(CosineLogits(EMBEDDINGS, TEXT, 10.0)), expected, atol=1e-6)

    def test_logit_margins(self):
        np.testing.assert_allclose(
            logit_margins(CosineLogits(EMBEDDINGS, TEXT[:2], 10.0)), [2, -10, 0], atol=1e-6
        )

    def test_class_probabilities(self):
        # With a scale of log 2, the exponentials are 2^1, 2^0 and 2^-0.6.
        powers = np.array([2, 1, 2**-0.6])
        proba = class_probabilities(CosineLogits(EMBEDDINGS, TEXT, np.log(2)))
        np.testing.assert_allclose(proba[1], powers / powers.sum(), atol=1e-7)
        np.testing.assert_allclose(proba[2], [1 / 3, 1 / 3, 1 / 3])

    def test_class_log_probabilities(self):
        log_proba = class_log_probabilities(CosineLogits(EMBEDDINGS, TEXT, 2000.0))
        np.testing.assert_allclose(log_proba[0], [-400, 0, -3600], rtol=1e-6)
        np.testing.assert_allclose(log_proba[2], np.full(3, -np.log(3)))

    def test_best_classes(self):
        assert best_classes(CosineLogits(EMBEDDINGS, TEXT, 10.0)).tolist() == [1, 0, 0]

    def test_best_classes_resolves_ties_to_the_first(self):
        text = np.array([[0, 1], [1, 0], [1, 0], [0, -1]])
        embeddings = np.array([[1.0, 0], [-1, 0], [0, -2], [0, 0]])
        assert best_classes(CosineLogits(embeddings, text, 100.0)).tolist() == [1, 0, 3, 0]


def test_given_logits_are_not_changed():
    values = np.array([[1.0, 3.0], [2.0, 2.0], [-1e4, 0.0]])
    given = GivenLogits(values)
    np.testing.assert_array_equal(all_logits(given), values)
    np.testing.assert_array_equal(logit_margins(given), [2, 0, 1e4])
    np.testing.assert_allclose(class_probabilities(given), softmax(values, axis=1), atol=1e-15)
    np.testing.assert_allclose(class_log_probabilities(given), log_softmax(values, axis=1), atol=1e-12)
    assert best_classes(given).tolist() == [1, 0, 1]
    np.testing.assert_array_equal(values, [[1, 3], [2, 2], [-1e4, 0]])


class TestUnitRows:
    def test_zeros_and_very_small_rows(self):
        np.testing.assert_array_equal(_prediction._unit_rows(np.zeros((2, 3))), np.zeros((2, 3)))
        # The norm is below 1e-12, so the row is multiplied by 1e12.
        np.testing.assert_allclose(_prediction._unit_rows(np.array([[3e-14, 4e-14]])), [[0.03, 0.04]])

    @pytest.mark.parametrize("factor", [1e-10, 1.0, 1e200, 1e300])
    def test_rows_are_scaled_to_unit_length(self, factor):
        X = np.array([[3.0, 4.0], [0.0, 0.0], [0.3 / factor, 0.4 / factor]]) * factor
        with np.errstate(all="raise", under="ignore"):
            np.testing.assert_allclose(_prediction._unit_rows(X), [[0.6, 0.8], [0, 0], [0.6, 0.8]])

    def test_argument_is_not_modified(self):
        before = EMBEDDINGS.copy()
        _prediction._unit_rows(EMBEDDINGS)
        np.testing.assert_array_equal(EMBEDDINGS, before)


@pytest.mark.parametrize(
    ("n_features", "n_classes", "expected"),
    [(512, 1000, 1048), (512, 10, 2048), (1024, 100, 1024), (512, 100_000, 256), (2, 2, 16_384)],
)
def test_rows_per_block(n_features, n_classes, expected):
    assert _prediction._rows_per_block(n_features, n_classes) == expected


@pytest.mark.usefixtures("n_rows")
@pytest.mark.parametrize("scale", [1.0, 100.0, 5000.0])
def test_equals_scipy(scale):
    X, text = RNG.normal(size=(50, 16)), unit(RNG.normal(size=(7, 16)))
    logits = unit(X) @ text.T * scale
    terms = (X, text, scale)
    np.testing.assert_allclose(all_logits(CosineLogits(*terms)), logits, atol=1e-14 * scale)
    np.testing.assert_allclose(
        class_probabilities(CosineLogits(*terms)), softmax(logits, axis=1), atol=1e-14 * scale
    )
    log_proba = class_log_probabilities(CosineLogits(*terms))
    np.testing.assert_allclose(log_proba, log_softmax(logits, axis=1), atol=1e-14 * scale)
    np.testing.assert_array_equal(best_classes(CosineLogits(*terms)), logits.argmax(axis=1))


@settings(deadline=None)
@given(
    X=arrays(np.float64, st.tuples(st.integers(1, 20), st.just(5)), elements=st.floats(-1e3, 1e3)),
    n_classes=st.integers(2, 12),
    scale=st.floats(0.1, 500.0),
    n_rows=st.integers(1, 25),
    position=st.integers(0, 19),
)
def test_results_do_not_depend_on_blocks_and_other_samples(X, n_classes, scale, n_rows, position):
    terms = (unit(np.random.default_rng(n_classes).normal(size=(n_classes, 5))), scale)
    whole = class_probabilities(CosineLogits(X, *terms))
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-12)
    assert (whole >= 0).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_prediction, "_rows_per_block", lambda n_features, n_classes: n_rows)
        blocked = [
            f(CosineLogits(X, *terms)) for f in (class_probabilities, class_log_probabilities, best_classes)
        ]
    np.testing.assert_allclose(blocked[0], whole, atol=1e-12)
    np.testing.assert_allclose(blocked[1], class_log_probabilities(CosineLogits(X, *terms)), atol=1e-12)
    # Rounding depends on the shape of the product, so only near ties may be predicted differently.
    np.testing.assert_allclose(whole[np.arange(len(X)), blocked[2]], whole.max(axis=1), atol=1e-12)
    best = best_classes(CosineLogits(X, *terms))
    np.testing.assert_array_equal(best, all_logits(CosineLogits(X, *terms)).argmax(axis=1))
    np.testing.assert_array_equal(whole[np.arange(len(X)), best], whole.max(axis=1))
    i = position % len(X)
    np.testing.assert_allclose(class_probabilities(CosineLogits(X[[i]], *terms))[0], whole[i], atol=1e-12)
    np.testing.assert_allclose(class_probabilities(CosineLogits(X[::-1], *terms))[::-1], whole, atol=1e-12)


class TestClassifier:
    @pytest.mark.parametrize("n_classes", [2, 30])
    def test_prediction_methods_are_consistent(self, n_classes):
        clf = fitted(n_classes, 24)
        X = RNG.normal(size=(5000, 24))
        proba, log_proba, values = clf.predict_proba(X), clf.predict_log_proba(X), clf.decision_function(X)
        np.testing.assert_allclose(np.exp(log_proba), proba, atol=1e-12)
        np.testing.assert_array_equal(clf.predict(X), clf.classes_[proba.argmax(axis=1)])
        if n_classes == 2:
            assert values.shape == (5000,)
            np.testing.assert_allclose(log_proba[:, 1] - log_proba[:, 0], values, atol=1e-12)
        else:
            np.testing.assert_allclose(softmax(values, axis=1), proba, atol=1e-12)

    def test_rows_at_block_boundaries(self):
        clf = fitted(2000, 8)
        n = 3 * _prediction._rows_per_block(8, 2000) + 1
        X = RNG.normal(size=(n, 8))
        proba, labels = clf.predict_proba(X), clf.predict(X)
        for i in (0, n // 3 - 1, n // 3, n - 2, n - 1):
            np.testing.assert_allclose(clf.predict_proba(X[[i]])[0], proba[i], atol=1e-12)
            assert clf.predict(X[[i]])[0] == labels[i]

    def test_data_types_and_memory_layouts_give_the_same_result(self, tmp_path):
        pd = pytest.importorskip("pandas")
        clf = fitted(12, 16)
        X = RNG.integers(-9, 10, size=(300, 16))
        expected = clf.predict_proba(X.astype(np.float64))
        mapped = np.memmap(tmp_path / "X", dtype=np.float32, mode="w+", shape=X.shape)
        mapped[:] = X
        mapped.flush()
        read_only = np.memmap(tmp_path / "X", dtype=np.float32, mode="r", shape=X.shape)
        kinds = {
            **{f"{t}": X.astype(t) for t in ("i1", "i8", "f2", "f4", "f8", "longdouble", ">f4", ">f8", "O")},
            "Fortran order": np.asfortranarray(X, dtype=np.float64),
            "Fortran order, float32": np.asfortranarray(X, dtype=np.float32),
            "every other row": np.repeat(X, 2, axis=0).astype(np.float32)[::2],
            "memmap": read_only,
            "frame": pd.DataFrame(X),
            "frame of float32": pd.DataFrame(X.astype(np.float32)),
            "frame of both": pd.DataFrame(X).astype({0: np.float32, 1: np.float64}),
            "lists": X.tolist(),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for kind, given_X in kinds.items():
                proba = clf.predict_proba(given_X)
                assert proba.dtype == np.float64, kind
                np.testing.assert_allclose(proba, expected, atol=1e-13, err_msg=kind)
                assert clf.decision_function(given_X).dtype == np.float64, kind

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_extreme_values_do_not_warn(self, dtype):
        clf = fitted(5, 6)
        X = np.full((40, 6), np.finfo(dtype).max)
        X[::2] = np.finfo(dtype).tiny
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1)
            np.testing.assert_allclose(clf.predict_proba(X)[1], clf.predict_proba(np.ones((1, 6)))[0])
            assert np.isfinite(clf.predict_log_proba(X)).all()

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_not_finite_raise(self, dtype, value):
        X = np.ones((4, 6), dtype=dtype)
        X[2, 3] = value
        with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
            fitted(5, 6).predict(X)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_image_embeddings_that_are_not_finite_give_nan(value):
    # Embeddings passed by users are checked, those computed by the image tower are not.
    with np.errstate(invalid="ignore"):
        logits = all_logits(CosineLogits(np.array([[value, 1.0], [3.0, 4.0]]), np.eye(2), 10.0))
    assert np.isnan(logits[0]).any()
    np.testing.assert_allclose(logits[1], [6, 8])


class TestMemory:
    N, WIDTH, N_CLASSES = 40_000, 256, 400

    def above_the_output(self, method, X):
        """Return the peak memory in MiB without the returned array."""
        tracemalloc.start()
        try:
            result = method(X)
            return (tracemalloc.get_traced_memory()[1] - result.nbytes) / MIB
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
    def test_prediction_needs_memory_for_a_few_blocks(self, method, dtype):
        # X takes 78 MiB in float64, the logits 122 MiB.
        X = np.random.default_rng(0).random((self.N, self.WIDTH), dtype=np.float32).astype(dtype)
        clf = fitted(self.N_CLASSES, self.WIDTH)
        assert self.above_the_output(getattr(clf, method), X) < 30

    def test_decision_function_of_two_classes_stores_no_logits(self):
        # The logits of both classes would take 10 MiB.
        X = np.random.default_rng(0).random((10 * MIB // 16, 4), dtype=np.float32)
        assert self.above_the_output(fitted(2, 4).decision_function, X) < 5
