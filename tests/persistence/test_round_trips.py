"""Loaded estimators have exactly the predictions, parameters, labels and names of the saved ones."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors import numpy as safetensors
from saved_models import (
    NEW,
    X,
    Y,
    answers,
    calibrated,
    fitted_calibrator,
    named_calibrator,
    tuned,
    zero_shot,
)
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import ShuffleSplit, StratifiedKFold
from toy_backbone import AnyWidthBackbone

import clipcal
from clipcal import CalibratedCLIPClassifier, LeaveClassesOut, PromptTunedCLIPClassifier, make_shapes
from clipcal.calibration import CALIBRATORS, BinMeanShift, DistanceAwareCalibration, TemperatureScaling
from clipcal.methods import METHODS, CoCoOp, CoOp, DePT, ProDA, TipAdapter
from clipcal.regularizers import REGULARIZERS, DynamicOutlierRegularizer

pytestmark = pytest.mark.filterwarnings("ignore:The data do not determine", "ignore:.*rows")


def round_trip(estimator, folder, **options):
    path = folder / "model.clipcal"
    clipcal.save(estimator, path)
    return clipcal.load(path, **{"backbone": AnyWidthBackbone(), **options})


def same(first, second):
    """Compare values with their types, arrays with their memory order, and objects by their attributes."""
    assert type(first) is type(second)
    if isinstance(first, np.ndarray):
        assert first.dtype == second.dtype and second.flags.writeable and second.flags.owndata
        assert first.flags.fnc == second.flags.fnc  # by columns
        assert_array_equal(first, second)
        assert first.dtype != object or list(map(type, first)) == list(map(type, second))
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            same(one, other)
    elif isinstance(first, dict):
        same(list(first), list(second))
        same(list(first.values()), list(second.values()))
    elif hasattr(first, "__dict__") and not isinstance(first, (AnyWidthBackbone, type)):
        held = [
            {key: value for key, value in vars(each).items() if key not in ("device", "memory", "backbone")}
            for each in (first, second)
        ]
        for attributes in held:
            attributes.pop("_backbone_fingerprint_", None)
        same(dict(sorted(held[0].items())), dict(sorted(held[1].items())))
    elif isinstance(first, float) and np.isnan(first):
        assert np.isnan(second)
    else:
        assert first == second


VARIANTS = [
    *CALIBRATORS.values(),
    named_calibrator("isotonic", scope="pooled"),
    *(
        named_calibrator(name, scope="one-vs-rest")
        for name in ("isotonic", "histogram", "beta", "venn-abers")
    ),
    named_calibrator("histogram", strategy="uniform", smoothing=0.25),
    BinMeanShift(CALIBRATORS["vector"], n_groups=3, min_samples=80),
    DistanceAwareCalibration(TemperatureScaling(shrinkage=1.0)),
]


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("calibrator", VARIANTS, ids=repr)
def test_calibrators_round_trip(calibrator, n_classes, tmp_path):
    fitted = fitted_calibrator(calibrator, n_classes)
    loaded = round_trip(fitted, tmp_path)
    same(fitted, loaded)
    for before, after in zip(answers(fitted), answers(loaded), strict=True):
        assert_array_equal(before, after)
    if fitted.class_agnostic and "text_features" not in fitted.side_inputs:
        assert loaded.for_classes(list("abc")).classes_.tolist() == list("abc")
    same(clone(loaded), clone(fitted))


def test_objects_shared_by_groups_are_still_shared(tmp_path):
    fitted = fitted_calibrator(BinMeanShift(min_samples=1000))
    loaded = round_trip(fitted, tmp_path)
    assert {id(each) for each in loaded.calibrators_} == {id(loaded.global_calibrator_)}


CLASSIFIERS = {
    "zero-shot": lambda: zero_shot(template=["a {}.", "an old {}."]),
    "tuned": lambda: tuned(class_names={"ant": "an ant", "bee": "a bee", "cat": "a cat", "dog": "a dog"}),
    "class-specific": lambda: tuned(method=CoOp(context_init=None, n_context=4, class_specific=True)),
    "cocoop": lambda: tuned(method="cocoop", batch_size=20),
    "prograd": lambda: tuned(method="prograd"),
    "proda": lambda: tuned(method=ProDA(8, n_context=4)),
    "tip-adapter": lambda: tuned(method=TipAdapter("search", "search")),
    "tip-adapter-f": lambda: tuned(method="tip-adapter-f"),
    "dept": lambda: tuned(method="dept"),
    "dept-cocoop": lambda: tuned(method=DePT(CoCoOp(None, n_context=4)), batch_size=20),
    "dor": lambda: tuned(regularizer=["kg", DynamicOutlierRegularizer(0.1, lexicon=["river", "denim"])]),
    "temperature": calibrated,
    "vector": lambda: calibrated("vector"),
    "dac": lambda: calibrated("dac"),
    "sals": lambda: calibrated("sals"),
    "bin-mean-shift": lambda: calibrated("bin-mean-shift"),
    "classes": lambda: calibrated(cv="classes"),
    "leave": lambda: calibrated(cv=LeaveClassesOut(n_splits=2, seen_size=0.2, random_state=0)),
    "prefit": lambda: CalibratedCLIPClassifier(tuned(), cv="prefit").fit(X, Y),
    "frozen": lambda: CalibratedCLIPClassifier(FrozenEstimator(zero_shot())).fit(X, Y),
    "twice": lambda: CalibratedCLIPClassifier(calibrated("vector"), cv="prefit").fit(X, Y),
    "splits": lambda: CalibratedCLIPClassifier(zero_shot(), cv=[(np.arange(40), np.arange(40, 80))]).fit(
        X, Y
    ),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_round_trip(name, tmp_path):
    fitted = CLASSIFIERS[name]()
    loaded = round_trip(fitted, tmp_path)
    same(fitted, loaded)
    again = pickle.loads(pickle.dumps(loaded))
    copy = round_trip(loaded, tmp_path)  # without opening the backbone
    for other in (loaded, again, copy):
        for before, after in zip(answers(fitted), answers(other), strict=True):
            assert_array_equal(before, after)
    if name not in ("prefit", "twice"):  # cv="prefit" needs a fitted estimator, which a clone does not have
        assert_array_equal(clone(loaded).fit(X, Y).predict(NEW), clone(fitted).fit(X, Y).predict(NEW))


@pytest.mark.parametrize(
    "name",
    [
        "zero-shot",
        "tuned",
        "cocoop",
        "prograd",
        "proda",
        "tip-adapter",
        "tip-adapter-f",
        "dept",
        "dept-cocoop",
        "dor",
        "temperature",
        "dac",
        "sals",
        "classes",
        "prefit",
    ],
)
def test_with_classes_of_loaded_classifiers(name, tmp_path):
    fitted = CLASSIFIERS[name]()
    loaded = round_trip(fitted, tmp_path)
    other, expected = loaded.with_classes(["eel", "ant"]), fitted.with_classes(["eel", "ant"])
    assert_array_equal(other.predict_proba(NEW), expected.predict_proba(NEW))
    same(expected, round_trip(other, tmp_path))
    assert_array_equal(loaded.predict_proba(NEW), fitted.predict_proba(NEW))


def test_prefit_classifier_is_still_one_object(tmp_path):
    loaded = round_trip(CLASSIFIERS["prefit"](), tmp_path)
    assert loaded.estimator_ is loaded.estimator
    calibrator = CalibratedCLIPClassifier(loaded.estimator, cv="prefit", method="vector").fit(X, Y)
    assert calibrator.predict_proba(NEW).shape == (7, 4)


@pytest.mark.parametrize(
    ("method", "regularizer"),
    [
        *((name, None) for name in METHODS),
        *(("clip-adapter" if name == "dor-visual" else "coop", name) for name in REGULARIZERS),
    ],
)
def test_methods_and_regularizers_round_trip(method, regularizer, tmp_path):
    method = METHODS[method]()
    regularizer = REGULARIZERS[regularizer]() if regularizer else None
    if regularizer is not None and "lexicon" in regularizer.get_params():
        regularizer.set_params(lexicon=["river", "denim", "hammer"])
    X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    if not method.needs_pixels:
        X = clipcal.CLIPImageEncoder("mini", device="cpu", normalize=False).transform(X)
    clf = PromptTunedCLIPClassifier(
        "mini", method=method, regularizer=regularizer, max_epochs=1, random_state=0, device="cpu"
    )
    clf.fit(X, y)
    loaded = round_trip(clf, tmp_path, backbone=None)
    same(clf, loaded)
    assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


def test_predictions_for_images_round_trip(tmp_path, capsys):
    X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    clf = PromptTunedCLIPClassifier("mini", max_epochs=1, random_state=0, device="cpu").fit(X, y)
    wrapped = CalibratedCLIPClassifier(clf, cv="prefit").fit(X, y)
    for estimator in (clf, wrapped, clf.zero_shot()):
        path = tmp_path / "m.clipcal"
        clipcal.save(estimator, path)
        assert_array_equal(clipcal.load(path).predict_proba(X), estimator.predict_proba(X))
        print(f"{type(estimator).__name__}: {path.stat().st_size} bytes")
        assert path.stat().st_size < 60_000


LABELS = {
    "int": np.array([3, -1]),
    "uint8": np.array([3, 7], dtype=np.uint8),
    "bool": np.array([False, True]),
    "float": np.array([0.1, 2.0]),
    "float32": np.array([0.1, 2.0], dtype=np.float32),
    "text": np.array(["naïve\u2028 \U0001f600", "b" * 300]),
    "bytes": np.array([b"ab", b"c"]),
    "big-endian": np.array([1, 2], dtype=">i8"),
    "object": np.array(["x", "y" * 40], dtype=object),
    "surrogate": np.array(["\udc80", "$float"], dtype=object),
    "objects of NumPy": np.array([np.str_("x"), np.str_("y")], dtype=object),
    "integers in objects": np.array([1, 2**70], dtype=object),
    "days": np.array(["2024-01-01", "2025-01-01"], dtype="M8[D]"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_keep_their_type(kind, tmp_path):
    labels = LABELS[kind]
    fitted = TemperatureScaling().fit([[3.0, 0.0]] * 3, labels[[0, 0, 1]], classes=labels)
    loaded = round_trip(fitted, tmp_path)
    assert loaded.classes_.dtype == labels.dtype.newbyteorder("=")
    assert loaded.classes_.tolist() == labels.tolist()
    assert [*map(type, loaded.classes_)] == [*map(type, labels)]


@pytest.mark.parametrize("kind", ["int", "uint8", "bool", "text", "object", "objects of NumPy"])
def test_classifiers_keep_the_type_of_labels(kind, tmp_path):
    labels = LABELS[kind]
    names = dict(zip(labels.tolist(), ["a cat", "a dog"], strict=True))
    clf = clipcal.ZeroShotCLIPClassifier(AnyWidthBackbone(), class_names=names).fit(
        X, labels[(Y == "ant").astype(int)]
    )
    loaded = round_trip(clf, tmp_path)
    same(clf, loaded)
    assert loaded.predict(NEW).dtype == clf.predict(NEW).dtype


def test_numbers_round_trip_exactly(tmp_path):
    clf = tuned()
    clf.history_ = [
        {"a": 0.1 + 0.2, "b": float("nan"), "c": -float("inf"), "d": -0.0, "e": 5e-324, "f": 2**80}
    ]
    clf.history_[0].update(g=np.float32(0.1), h=np.int64(-3), i=True, j=None, k=1e308, l=np.float64("inf"))
    clf.logit_scale_ = np.nextafter(100.0, 101.0)
    loaded = round_trip(clf, tmp_path)
    same(clf.history_, loaded.history_)
    assert np.signbit(loaded.history_[0]["d"])
    same(clf.logit_scale_, loaded.logit_scale_)


def test_arrays_keep_their_memory_order(tmp_path):
    fitted = fitted_calibrator(CALIBRATORS["matrix"])
    fitted.coef_ = np.asfortranarray(fitted.coef_)
    loaded = round_trip(fitted, tmp_path)
    assert loaded.coef_.flags.f_contiguous
    for before, after in zip(answers(fitted), answers(loaded), strict=True):
        assert_array_equal(before, after)
    fitted.intercept_ = np.repeat(fitted.intercept_, 2)[::2]
    assert_array_equal(round_trip(fitted, tmp_path).intercept_, fitted.intercept_)


def test_parameters_of_all_kinds(tmp_path):
    dor = DynamicOutlierRegularizer(np.float32(0.5), lexicon=Path("nouns.txt"), batch_size=np.int64(3))
    clf = tuned(batch_size=np.int32(5))
    clf.set_params(regularizer=(dor, "kg"), random_state=np.random.RandomState(0), memory="/nowhere")
    clf.set_params(class_names={"ant": "x", 3: "y", True: "z", 2.5: "w", np.str_("s"): "v", ("t", 1): "u"})
    loaded = round_trip(clf, tmp_path, memory=None)
    assert loaded.random_state is None and loaded.memory is None and loaded.device == "auto"
    same(loaded.get_params()["class_names"], clf.class_names)
    same(loaded.regularizer, clf.regularizer)
    same(loaded.batch_size, clf.batch_size)
    several = zero_shot().set_params(template=np.array(["a {}.", "{}!"]))
    same(round_trip(several, tmp_path).template, several.template)


@pytest.mark.parametrize(
    "cv", [StratifiedKFold(3, shuffle=True, random_state=1), ShuffleSplit(2, test_size=0.3), None]
)
def test_splitters_of_scikit_learn(cv, tmp_path):
    fitted = CalibratedCLIPClassifier(zero_shot(), cv=cv).fit(X, Y)
    same(fitted.cv, round_trip(fitted, tmp_path).cv)


def test_column_names_are_kept(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(12)])
    fitted = CalibratedCLIPClassifier(clone(zero_shot()), cv=2).fit(frame, Y)
    loaded = round_trip(fitted, tmp_path)
    assert loaded.feature_names_in_.tolist() == frame.columns.tolist()
    assert_array_equal(loaded.predict_proba(frame), fitted.predict_proba(frame))
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[frame.columns[::-1]])


def test_saving_does_not_change_the_estimator(tmp_path):
    fitted = calibrated("bin-mean-shift")
    before = pickle.dumps(fitted)
    clipcal.save(fitted, tmp_path / "m")
    assert pickle.dumps(fitted) == before


def test_files_of_the_same_estimator_are_identical(tmp_path):
    for name in ("one", "other"):
        clipcal.save(calibrated("bin-mean-shift"), tmp_path / name)
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "other").read_bytes()
    # Files can be read with safetensors.
    tensors = safetensors.load(content)
    assert_array_equal(
        tensors["estimator_.text_features_"], calibrated("bin-mean-shift").estimator_.text_features_
    )
