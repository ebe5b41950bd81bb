"""Kinds of X and y accepted by classifiers, and errors for invalid data and parameters."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from tensor_elsewhere import elsewhere
from toy_backbone import AnyWidthBackbone

from clipcal import (
    CLIPImageEncoder,
    CoOp,
    ImagePaths,
    PromptTunedCLIPClassifier,
    ZeroShotCLIPClassifier,
    ece_scorer,
)
from clipcal.exceptions import BackboneError, ClassNameError, ImageReadError
from clipcal.regularizers import AnchorRegularizer, DynamicOutlierRegularizer

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (8, 20, 24, 3), dtype=np.uint8)
LABELS = np.array(["dog", "river"] * 4)
EMBEDDINGS = RNG.normal(size=(8, 10))
BOTH = [ZeroShotCLIPClassifier, PromptTunedCLIPClassifier]


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(len(PIXELS))]
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def make(cls=PromptTunedCLIPClassifier, **params):
    if cls is PromptTunedCLIPClassifier:
        params = {"max_epochs": 2, "random_state": 0, **params}
    return cls(**{"backbone": AnyWidthBackbone(), **params})


class TestKindsOfX:
    @pytest.mark.parametrize("cls", BOTH)
    def test_all_kinds_give_the_same_predictions(self, cls, files, tiny_backbone):
        root = files[0].parent
        kinds = {
            "array": PIXELS,
            "list of arrays": list(PIXELS),
            "str": [str(path) for path in files],
            "array of str": np.array([str(path) for path in files]),
            "Path": files,
            "ImagePaths": ImagePaths([path.name for path in files], root=root),
            "PIL": [Image.fromarray(pixels) for pixels in PIXELS],
            "embeddings": CLIPImageEncoder(tiny_backbone).transform(PIXELS),
            "raw embeddings": 7.0 * CLIPImageEncoder(tiny_backbone, normalize=False).transform(PIXELS),
            "lists of embeddings": CLIPImageEncoder(tiny_backbone).transform(PIXELS).tolist(),
        }
        expected = None
        for kind, X in kinds.items():
            clf = make(cls, backbone=tiny_backbone).fit(X, LABELS)
            proba = clf.predict_proba(X)
            expected = proba if expected is None else expected
            np.testing.assert_allclose(proba, expected, atol=1e-5, rtol=0, err_msg=kind)
            assert clf.n_features_in_ == 64
            # Prediction accepts another kind than fit.
            np.testing.assert_allclose(clf.predict_proba(PIXELS), expected, atol=1e-5, rtol=0, err_msg=kind)
        assert np.ptp(expected[:, 0]) > 1e-3

    def test_predictions_do_not_depend_on_the_other_images(self, tiny_backbone):
        clf = make(backbone=tiny_backbone, batch_size=3).fit(PIXELS, LABELS)
        proba = clf.predict_proba(PIXELS)
        np.testing.assert_allclose(clf.predict_proba(PIXELS[::-1])[::-1], proba, atol=1e-5)
        one_by_one = np.concatenate([clf.predict_proba(PIXELS[[i]]) for i in range(len(PIXELS))])
        np.testing.assert_allclose(one_by_one, proba, atol=1e-5)

    def test_gray_images_equal_color_images(self, tiny_backbone):
        grey = PIXELS[..., 0]
        clf = make(backbone=tiny_backbone).fit(grey, LABELS)
        colour = np.repeat(grey[..., None], 3, axis=-1)
        np.testing.assert_allclose(clf.predict_proba(grey), clf.predict_proba(colour), atol=1e-6)

    def test_series_of_paths_and_frame_of_embeddings(self, files):
        pd = pytest.importorskip("pandas")
        index = [f"row {i}" for i in range(8)][::-1]
        paths = pd.Series([str(path) for path in files], index=index)
        y = pd.Series(LABELS, index=index)
        clf = make().fit(paths, y)
        np.testing.assert_allclose(clf.predict_proba(paths), make().fit(PIXELS, LABELS).predict_proba(PIXELS))
        assert not hasattr(clf, "feature_names_in_")

        frame = pd.DataFrame(EMBEDDINGS, columns=[f"clip{i}" for i in range(10)])
        clf.fit(frame, y)
        assert clf.feature_names_in_.tolist() == list(frame.columns)
        with pytest.raises(ValueError, match="should match those that were passed during fit"):
            clf.predict(frame[frame.columns[::-1]])
        # A later fit without column names removes the attribute.
        clf.fit(PIXELS, LABELS)
        assert not hasattr(clf, "feature_names_in_")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clf.predict(RNG.normal(size=(2, 32)))

    @pytest.mark.parametrize("cls", BOTH)
    @pytest.mark.parametrize(
        "convert",
        [
            lambda X: X.bfloat16(),
            lambda X: X.half(),
            lambda X: X.clone().requires_grad_(),
            elsewhere,
            lambda X: list(X.bfloat16().requires_grad_()),
            lambda X: tuple(elsewhere(X)),
        ],
        ids=["bfloat16", "float16", "in a graph", "elsewhere", "list", "tuple"],
    )
    def test_tensors_of_embeddings_equal_arrays(self, cls, convert):
        # Multiples of 1/8 are exact in all data types.
        exact = np.round(EMBEDDINGS * 8) / 8
        X = convert(torch.from_numpy(exact).float())
        weights = torch.arange(1.0, 9.0)
        clf = make(cls).fit(X, LABELS, sample_weight=convert(weights))
        other = make(cls).fit(exact, LABELS, sample_weight=weights.numpy())
        np.testing.assert_array_equal(clf.predict(X), other.predict(exact))
        for method in ("predict_proba", "predict_log_proba", "decision_function", "image_features"):
            np.testing.assert_allclose(getattr(clf, method)(X), getattr(other, method)(exact), atol=1e-12)
        assert clf.score(X, LABELS) == other.score(exact, LABELS)

    @pytest.mark.parametrize("cls", BOTH)
    @pytest.mark.parametrize("weights", [None, [1, 1, 1, 1, 1, 1, 1, 0]])
    def test_tensors_of_images_equal_arrays(self, cls, weights):
        whole = torch.from_numpy(PIXELS)
        expected = make(cls).fit(PIXELS, LABELS, sample_weight=weights).predict_proba(PIXELS)
        for X in (whole, list(whole), elsewhere(whole), tuple(elsewhere(whole))):
            proba = make(cls).fit(X, LABELS, sample_weight=weights).predict_proba(X)
            np.testing.assert_array_equal(proba, expected)

    @pytest.mark.parametrize("cls", BOTH)
    def test_series_and_arrays_of_paths_equal_lists(self, cls, files):
        pd = pytest.importorskip("pandas")
        paths = [str(path) for path in files]
        columns = [pd.Series(paths, dtype="string"), pd.Series(files), np.array(files)]
        if hasattr(np.dtypes, "StringDType"):
            columns.append(np.array(paths, dtype=np.dtypes.StringDType()))
        weights = [1] * 7 + [0]
        expected = make(cls).fit(paths, LABELS, sample_weight=weights).predict_proba(paths)
        for X in columns:
            proba = make(cls).fit(X, LABELS, sample_weight=weights).predict_proba(X)
            np.testing.assert_array_equal(proba, expected)

    def test_read_only_arrays_do_not_warn(self):
        X = EMBEDDINGS.copy()
        X.flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            make().fit(X, LABELS).predict(X)


class TestLabels:
    @pytest.mark.parametrize(
        ("labels", "names"),
        [
            (["river", "dog"], None),
            ([7, -3], {7: "dog", -3: "river"}),
            ([True, False], {True: "dog", False: "river"}),
            (np.array(["river", "dog"], dtype=object), None),
            (["n02", "n01"], {"n01": "dog", "n02": "river", "n03": "unused"}),
        ],
        ids=["strings", "integers", "booleans", "objects", "ids"],
    )
    @pytest.mark.parametrize("cls", BOTH)
    def test_predicted_labels_have_the_type_of_y(self, cls, labels, names):
        labels = np.asarray(labels)
        y = labels[[0, 1, 0, 1, 1, 0, 0, 1]]
        clf = make(cls, class_names=names).fit(EMBEDDINGS, y)
        assert clf.classes_.dtype == y.dtype
        assert clf.classes_.tolist() == sorted(labels.tolist())
        predicted = clf.predict(EMBEDDINGS)
        assert predicted.dtype == y.dtype
        assert set(predicted.tolist()) <= set(labels.tolist())
        best = clf.predict_proba(EMBEDDINGS).argmax(axis=1)
        np.testing.assert_array_equal(predicted, clf.classes_[best])
        names = names or {label: label for label in labels.tolist()}
        assert clf.class_names_ == {label: names[label] for label in clf.classes_.tolist()}

    @pytest.mark.parametrize("cls", BOTH)
    def test_tensors_of_labels(self, cls):
        names = {0: "dog", 1: "river"}
        ids = torch.tensor([0, 1] * 4)
        for y in (ids, elsewhere(ids), list(ids), ids.to(torch.int16)):
            clf = make(cls, class_names=names).fit(EMBEDDINGS, y)
            assert clf.classes_.tolist() == [0, 1]
            assert clf.class_names_ == names
        floats = ids.to(torch.bfloat16).requires_grad_()
        assert make(cls, class_names=names).fit(EMBEDDINGS, floats).classes_.tolist() == [0.0, 1.0]

    @pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="needs NumPy with StringDType")
    @pytest.mark.parametrize("cls", BOTH)
    def test_strings_of_variable_width(self, cls):
        y = LABELS.astype(np.dtypes.StringDType())
        clf = make(cls).fit(EMBEDDINGS, y)
        assert clf.class_names_ == {"dog": "dog", "river": "river"}
        np.testing.assert_array_equal(
            clf.predict(EMBEDDINGS), make(cls).fit(EMBEDDINGS, LABELS).predict(EMBEDDINGS)
        )

    def test_numbers_without_names_warn(self):
        with pytest.warns(UserWarning, match=r"pass class_names=\{0: 'its name'"):
            make().fit(EMBEDDINGS, [0, 1] * 4)

    def test_one_image_per_class_does_not_warn(self):
        names = [f"thing {chr(97 + i)}" for i in range(8)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for y in (np.array(names), np.array(names, dtype=object)):
                assert len(make().fit(EMBEDDINGS, y).classes_) == 8

    def test_underscores_of_names_become_spaces(self):
        clf = make().fit(EMBEDDINGS, ["hot_dog", "river"] * 4)
        assert clf.class_names_ == {"hot_dog": "hot dog", "river": "river"}
        assert set(clf.predict(EMBEDDINGS)) <= {"hot_dog", "river"}


NOT_AN_IMAGE = "not an image"

BAD_X = {
    "empty list": ([], ValueError, "X is empty|0 sample"),
    "no rows": (np.empty((0, 10)), ValueError, "0 sample"),
    "too few": (PIXELS[:5], ValueError, r"inconsistent numbers of samples: \[5, 8\]"),
    "too few embeddings": (EMBEDDINGS[:5], ValueError, r"inconsistent numbers of samples: \[5, 8\]"),
    "NaN": (np.full((8, 10), np.nan), ValueError, "Input X contains NaN"),
    "infinite": (np.full((8, 10), np.inf), ValueError, "Input X contains infinity"),
    "sparse": (scipy.sparse.csr_matrix(EMBEDDINGS), TypeError, "Sparse data was passed.*dense"),
    "single path": ("dog.png", TypeError, r"single path.*\['dog.png'\]"),
    "single Path": (Path("dog.png"), TypeError, "single path"),
    "float images": (PIXELS / 255, ValueError, r"\(X \* 255\)\.round\(\)\.astype\(np\.uint8\)"),
    "mixed": (["dog.png", *PIXELS[1:]], TypeError, r"mixes paths \(position 0\) and arrays \(position 1\)"),
    "1-D numbers": (np.arange(8.0), ValueError, "Expected 2D array, got 1D array"),
    "dict": ({"a": 1}, TypeError, "X is a dict"),
    "folders": (["."] * 8, ImageReadError, r"'\.' is a folder.*Write X = \["),
    "boolean images": (PIXELS > 127, ValueError, r"write X\.astype\(np\.uint8\) \* 255"),
    "tensor with channels first": (
        torch.from_numpy(PIXELS / 255).permute(0, 3, 1, 2),
        ValueError,
        r"write \(X\.permute\(0, 2, 3, 1\) \* 255\)\.round\(\)\.to\(torch\.uint8\)",
    ),
}

BAD_Y = {
    "one class": (["dog"] * 8, ValueError, "at least 2 classes.*only one class: 'dog'"),
    "no y": (None, ValueError, "requires y to be passed, but the target y is None"),
    "too few": (["dog", "river"], ValueError, r"inconsistent numbers of samples: \[8, 2\]"),
    "NaN": (
        np.array([np.nan, *LABELS[1:]], dtype=object),
        TypeError,
        "the same type; got a mixture of float, str.*Drop samples",
    ),
    "None": (np.array([None, *LABELS[1:]], dtype=object), TypeError, "a mixture of NoneType, str"),
    "float NaN": (np.array([np.nan] + [1.0] * 7), ValueError, "y contains NaN"),
    "continuous": (np.linspace(0, 1, 8), ValueError, "Unknown label type"),
    "2-D": (np.zeros((8, 2)), ValueError, "should be a 1d array"),
    "empty name": (["dog", " "] * 4, ClassNameError, "name of label ' ' is empty"),
    "same name": (["hot dog", "hot_dog"] * 4, ClassNameError, "'hot dog', 'hot_dog' share the name"),
    "long name": (["dog", "very " * 80 + "long"] * 4, ClassNameError, r"very very.*limit is 77"),
}

BAD_WEIGHTS = {
    "zero": (np.zeros(8), ValueError, "at least one non-zero"),
    "negative": (-np.ones(8), ValueError, "Negative values in data passed to `sample_weight`"),
    "too few": (np.ones(3), ValueError, r"sample_weight.shape == \(3,\), expected \(8,\)"),
    "NaN": (np.full(8, np.nan), ValueError, "sample_weight contains NaN"),
    "one class left": (np.array([1, 0] * 4), ValueError, "only one class: 'dog'"),
}

BAD_PARAMS = {
    "class_names lacks one": (
        {"class_names": {"dog": "hound"}},
        ClassNameError,
        "has no name.*labels 'river'; add",
    ),
    "class_names list": ({"class_names": ["hound"]}, ValueError, "'class_names'.*Mapping.*Got"),
    "class_names alike": (
        {"class_names": {"dog": "x", "river": "x"}},
        ClassNameError,
        "'dog', 'river' share the name 'x'",
    ),
    "backbone name": ({"backbone": "no-such"}, BackboneError, "no-such"),
    "batch_size": ({"batch_size": 0}, ValueError, "'batch_size'.*Got 0"),
    "precision": ({"precision": "fp8"}, ValueError, "'precision'.*Got 'fp8'"),
    "memory": ({"memory": 3}, ValueError, "'memory'.*Got 3"),
}

BAD_TUNING = {
    "regularizer name": (
        {"regularizer": "l2"},
        ValueError,
        "regularizer='l2' is not known; choose among 'dor', 'dor-visual'",
    ),
    "regularizer name in a list": (
        {"regularizer": ["kg", "l2"]},
        ValueError,
        "'l2' is not known; choose among",
    ),
    "regularizer number": ({"regularizer": [3]}, TypeError, "regularizer must be one of .*got 3"),
    "regularizer class": (
        {"regularizer": AnchorRegularizer},
        TypeError,
        r"pass an instance: AnchorRegularizer\(\)",
    ),
    "regularizer twice": (
        {"regularizer": ["kg", AnchorRegularizer(1.0)]},
        ValueError,
        r"several entries of the same kind: \['kg', 'kg'\]",
    ),
    "regularizer weight": ({"regularizer": AnchorRegularizer(-1.0)}, ValueError, r"'weight'.*Got -1\.0"),
    "method name": ({"method": "clip"}, ValueError, "method='clip' is not known; choose among 'coop'"),
    "method class": ({"method": CoOp}, TypeError, r"class CoOp; pass an instance: CoOp\(\)"),
    "context": ({"method": CoOp(n_context=16)}, ValueError, "has 4 tokens, but n_context=16"),
    "outliers of one class": (
        {"method": CoOp(class_specific=True), "regularizer": DynamicOutlierRegularizer(lexicon=["denim"])},
        ValueError,
        "separate ones for each class",
    ),
    "n_views": ({"n_views": 0}, ValueError, "'n_views'.*Got 0"),
    "n_views float": ({"n_views": 2.0}, ValueError, r"'n_views'.*Got 2\.0"),
    "max_epochs": ({"max_epochs": -1}, ValueError, "'max_epochs'.*Got -1"),
    "learning_rate": ({"learning_rate": 0.0}, ValueError, r"'learning_rate'.*Got 0\.0"),
    "random_state": ({"random_state": "zero"}, ValueError, "'random_state'.*Got 'zero'"),
    "divergence": ({"learning_rate": 1e37, "max_epochs": 5}, FloatingPointError, "lower learning_rate"),
    "divergence of SGD": (
        {"learning_rate": 3e38, "max_epochs": 5, "optimizer": "sgd"},
        FloatingPointError,
        "lower learning_rate",
    ),
    "divergence in the last step": (
        {"learning_rate": 3e38, "max_epochs": 1, "optimizer": "sgd"},
        FloatingPointError,
        "text features are not finite or zero; lower learning_rate",
    ),
}


def fit_fails(clf, error, words, X=EMBEDDINGS, y=LABELS, **kwargs):
    """Check the error, and that the failed fit does not change the state of the classifier."""
    before = clf.predict_proba(EMBEDDINGS) if hasattr(clf, "classes_") else None
    attributes = {name for name in vars(clf) if name.endswith("_")}
    with pytest.raises(error, match=words):
        clf.fit(X, y, **kwargs)
    assert {name for name in vars(clf) if name.endswith("_")} == attributes
    if before is None:
        with pytest.raises(NotFittedError):
            clf.predict(EMBEDDINGS)
    else:
        np.testing.assert_array_equal(clf.predict_proba(EMBEDDINGS), before)


@pytest.fixture(params=["unfitted", "fitted"])
def make_clf(request):
    def build(cls, **params):
        if request.param == "unfitted":
            return make(cls, **params)
        clf = make(cls).fit(EMBEDDINGS[:6], ["owl", "cow", "fox"] * 2)
        return clf.set_params(**params)

    return build


class TestErrors:
    @pytest.mark.parametrize("cls", BOTH)
    @pytest.mark.parametrize(("X", "error", "words"), BAD_X.values(), ids=BAD_X)
    def test_invalid_x(self, make_clf, cls, X, error, words):
        fit_fails(make_clf(cls), error, words, X=X)

    @pytest.mark.parametrize("cls", BOTH)
    @pytest.mark.parametrize(("y", "error", "words"), BAD_Y.values(), ids=BAD_Y)
    def test_invalid_y(self, make_clf, cls, y, error, words):
        fit_fails(make_clf(cls), error, words, y=y)

    @pytest.mark.parametrize("cls", BOTH)
    @pytest.mark.parametrize(("weights", "error", "words"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
    def test_invalid_sample_weight(self, make_clf, cls, weights, error, words):
        fit_fails(make_clf(cls), error, words, sample_weight=weights)

    @pytest.mark.parametrize("cls", BOTH)
    @pytest.mark.parametrize(("params", "error", "words"), BAD_PARAMS.values(), ids=BAD_PARAMS)
    def test_invalid_parameters(self, make_clf, cls, params, error, words):
        fit_fails(make_clf(cls, **params), error, words)

    @pytest.mark.parametrize(("params", "error", "words"), BAD_TUNING.values(), ids=BAD_TUNING)
    def test_invalid_tuning_parameters(self, make_clf, params, error, words):
        fit_fails(make_clf(PromptTunedCLIPClassifier, **params), error, words)

    @pytest.mark.parametrize(
        ("template", "error", "words"),
        [
            ([], ValueError, "template is empty; pass at least one"),
            ("a photo", ClassNameError, r"exactly one '\{\}'.*got 'a photo'"),
            (["a {}.", "{} {}"], ClassNameError, r"got '\{\} \{\}'"),
            ("oxfordpets", ClassNameError, "Did you mean 'oxford_pets'"),
            (3, ValueError, "'template'.*Got 3"),
        ],
    )
    def test_invalid_template(self, make_clf, template, error, words):
        fit_fails(make_clf(ZeroShotCLIPClassifier, template=template), error, words)

    def test_error_for_an_unreadable_file_names_file_and_position(self, files):
        files[3].write_text(NOT_AN_IMAGE)
        words = rf"Image 3, '{files[3]}', could not be read"
        fit_fails(make(), ImageReadError, words, X=files)
        fit_fails(make(), ImageReadError, "Image 0, 'nowhere.png': there is no such", X=["nowhere.png"] * 8)
        clf = make().fit(PIXELS, LABELS)
        with pytest.raises(ImageReadError, match=words):
            clf.predict(files)
        with pytest.raises(ImageReadError, match=r"Image 1, 'gone\.png': there is no such file"):
            clf.predict([files[0], "gone.png"])

    @pytest.mark.parametrize("cls", BOTH)
    def test_wrong_number_of_features_raises(self, cls, tiny_backbone):
        clf = make(cls, backbone=tiny_backbone)
        with pytest.raises(BackboneError, match=r"X has 10 features, but.*have 64; compute them with"):
            clf.fit(EMBEDDINGS, LABELS)
        clf.fit(RNG.normal(size=(8, 64)), LABELS)
        with pytest.raises(ValueError, match=r"X has 10 features, but .* is expecting 64 features"):
            clf.predict(EMBEDDINGS)

    @pytest.mark.parametrize("cls", BOTH)
    @pytest.mark.parametrize(
        "method",
        ["predict", "predict_proba", "predict_log_proba", "decision_function", "feature_divergence"],
    )
    def test_unfitted_classifier_raises(self, cls, method):
        args = [] if method == "feature_divergence" else [EMBEDDINGS]
        with pytest.raises(NotFittedError):
            getattr(make(cls), method)(*args)
        with pytest.raises(NotFittedError):
            make(cls).with_classes(["dog", "cow"])


class TestSamplesOfWeightZero:
    WEIGHT = np.array([1.0, 2.0, 1.0, 1.0, 3.0, 1.0, 0.0, 0.0])
    BROKEN = np.where(np.arange(8)[:, None] < 6, EMBEDDINGS, np.nan)

    @pytest.mark.parametrize("cls", BOTH)
    @pytest.mark.parametrize("missing", [None, np.nan, "lonely"])
    def test_are_ignored(self, cls, missing):
        labels = LABELS.astype(object)
        labels[6:] = missing
        expected = make(cls).fit(EMBEDDINGS[:6], LABELS[:6], self.WEIGHT[:6])
        for y in (labels, list(labels)):
            for X in (self.BROKEN, self.BROKEN.tolist()):
                clf = make(cls).fit(X, y, self.WEIGHT)
                assert clf.classes_.tolist() == ["dog", "river"]
                found = clf.predict_proba(EMBEDDINGS)
                np.testing.assert_array_equal(found, expected.predict_proba(EMBEDDINGS))
        accuracy = expected.score(EMBEDDINGS[:6], LABELS[:6], self.WEIGHT[:6])
        assert clf.score(self.BROKEN, labels, self.WEIGHT) == accuracy

    def test_their_files_are_not_read(self, files, tiny_backbone):
        expected = make(backbone=tiny_backbone).fit(files[:6], LABELS[:6], self.WEIGHT[:6])
        files[6].write_text("no image")
        files[7] = files[7].with_name("nowhere.png")
        root = files[0].parent
        for X in (files, np.array(list(map(str, files))), ImagePaths([f.name for f in files], root=root)):
            clf = make(backbone=tiny_backbone).fit(X, LABELS, self.WEIGHT)
            np.testing.assert_allclose(clf.learned_["context"], expected.learned_["context"], atol=1e-6)
        assert clf.score(files, LABELS, self.WEIGHT) == expected.score(files[:6], LABELS[:6], self.WEIGHT[:6])
        scored = ece_scorer(clf, files, LABELS, sample_weight=self.WEIGHT)
        without = ece_scorer(clf, files[:6], LABELS[:6], sample_weight=self.WEIGHT[:6])
        assert scored == pytest.approx(without, rel=1e-6)


@pytest.mark.parametrize("cls", BOTH)
def test_labels_of_other_array_types(cls):
    expected = make(cls).fit(EMBEDDINGS, LABELS)
    wide = LABELS.astype(np.dtypes.StringDType())
    clf = make(cls).fit(EMBEDDINGS, wide)
    np.testing.assert_array_equal(clf.predict_proba(EMBEDDINGS), expected.predict_proba(EMBEDDINGS))
    assert clf.classes_.tolist() == ["dog", "river"] and clf.classes_.dtype == LABELS.dtype
    assert clf.score(EMBEDDINGS, wide) == expected.score(EMBEDDINGS, LABELS)
    more = np.array(["cat", "dog", "a_very_long_river"], dtype=np.dtypes.StringDType())
    assert clf.with_classes(more).classes_.tolist() == sorted(more.tolist())
    texts = {"dog": "hound", "river": "stream"}
    names = dict(zip(wide[:2], texts.values(), strict=True))
    assert make(cls, class_names=names).fit(EMBEDDINGS, wide).class_names_ == texts
    numbers = torch.tensor([3, 5] * 4)
    names = {3: "hound", 5: "stream"}
    clf = make(cls, class_names=names).fit(EMBEDDINGS, numbers, torch.ones(8))
    assert clf.classes_.tolist() == [3, 5]
    assert clf.score(EMBEDDINGS, numbers) == clf.score(EMBEDDINGS, numbers.numpy())
    assert clf.with_classes(torch.tensor([5, 3])).classes_.tolist() == [3, 5]
    with pytest.raises((TypeError, ValueError), match="mixture of NoneType, str"):
        missing = np.dtypes.StringDType(na_object=None)
        make(cls).fit(EMBEDDINGS, np.array([None, *LABELS[1:]], dtype=missing))


@pytest.mark.parametrize("cls", BOTH)
def test_embeddings_of_zeros_issue_a_warning(cls):
    zeros = EMBEDDINGS.copy()
    zeros[[2, 5]] = 0
    words = "2 of 8 embeddings are zero, the first in row 2"
    with pytest.warns(UserWarning, match=words) as found:
        clf = make(cls).fit(zeros, LABELS)
    assert found[0].filename == __file__
    with pytest.warns(UserWarning, match=words):
        clf.predict_proba(zeros)


def test_views_of_embeddings_issue_a_warning():
    with pytest.warns(UserWarning, match="n_views=2 has no effect on embeddings"):
        make(n_views=2).fit(EMBEDDINGS, LABELS)
