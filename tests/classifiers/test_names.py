"""Class names with the same and with different tokens."""

import numpy as np
import pytest
from toy_backbone import AnyWidthBackbone

from clipcal import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.backbones import open_backbone
from clipcal.exceptions import ClassNameError
from clipcal.text import check_distinct

CLASSIFIERS = [ZeroShotCLIPClassifier, PromptTunedCLIPClassifier]
X = np.random.default_rng(0).standard_normal((8, 128))
Y = np.array([0, 1] * 4)

SAME = {
    "case": ("Dog", "dog"),
    "composed": ("caf\u00e9", "cafe\u0301"),
    "entity": ("<b>", "&lt;b&gt;"),
    "ampersand": ("salt & pepper", "salt &amp; pepper"),
    "twice escaped": ("salt & pepper", "salt &amp;amp; pepper"),
    "apostrophe": ("bird's nest", "bird\u2019s nest"),
    "quotes": ('"dog" house', "\u201cdog\u201d house"),
    "byte order mark": ("dog", "\ufeffdog"),
    "NUL": ("dog", "dog\x00"),
    "mojibake": ("caf\u00e9", "caf\u00c3\u00a9"),
    "ligature": ("firefly", "\ufb01refly"),
    "full width": ("dog", "\uff44\uff4f\uff47"),
}
DIFFERENT = {
    "sharp s": ("Strasse", "Stra\u00dfe"),
    "hyphen": ("t-shirt", "t shirt"),
    "accent": ("cafe", "caf\u00e9"),
    "punctuation": ("dog", "dog!"),
    "Chinese": ("\u72d7", "\u732b"),
    "superscript": ("m2", "m\u00b2"),
}


def fit(classifier, names, **params):
    if classifier is PromptTunedCLIPClassifier:
        params |= {"max_epochs": 1, "random_state": 0}
    return classifier("mini", class_names=dict(enumerate(names)), **params).fit(X, Y)


def tokens(name):
    return open_backbone("mini").tokenize([f"{name}."])[0].tolist()


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("names", SAME.values(), ids=SAME)
def test_names_with_the_same_tokens_raise(classifier, names):
    assert tokens(names[0]) == tokens(names[1])
    with pytest.raises(ClassNameError, match=r"labels 0, 1 have the names.*the same tokens"):
        fit(classifier, names)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("names", DIFFERENT.values(), ids=DIFFERENT)
def test_names_with_different_tokens_are_accepted(classifier, names):
    assert tokens(names[0]) != tokens(names[1])
    prob = fit(classifier, names).predict_proba(X)
    assert (np.abs(prob[:, 0] - prob[:, 1]) > 1e-6).all()


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_with_classes_compares_tokens(classifier):
    clf = fit(classifier, ("dog", "cat"))
    with pytest.raises(ClassNameError, match="the same tokens"):
        clf.with_classes(["bird's nest", "bird\u2019s nest"])
    with pytest.raises(ClassNameError, match="share the name 'ant'"):
        clf.with_classes({3: "ant", 4: "ant"})


def test_tokenizer_of_the_backbone_is_used():
    # The toy tokenizer distinguishes upper and lower case.
    clf = ZeroShotCLIPClassifier(AnyWidthBackbone()).fit(X, np.array(["Dog", "dog"] * 4))
    assert not np.allclose(*clf.text_features_)


def test_plain_names_need_no_tokenizer():
    check_distinct(dict(enumerate(["hot dog", "hotdog", "dog", "dog 2"])), tokenize=None)


class TestAllowDuplicateNames:
    @pytest.mark.parametrize("classifier", CLASSIFIERS)
    def test_classes_with_the_same_name_have_the_same_probability(self, classifier):
        names = {0: "missile", 1: "missile", 2: "dog"}
        params = {"max_epochs": 1, "random_state": 0} if classifier is PromptTunedCLIPClassifier else {}
        clf = classifier("mini", class_names=names, allow_duplicate_names=True, **params)
        prob = clf.fit(X[:6], [0, 1, 2] * 2).predict_proba(X)
        np.testing.assert_array_equal(prob[:, 0], prob[:, 1])
        assert set(clf.predict(X)) <= {0, 2}
        assert clf.class_names_ == names
        other = clf.with_classes({5: "ant", 6: "ant", 7: "bee"}).predict_proba(X)
        np.testing.assert_array_equal(other[:, 0], other[:, 1])

    def test_zero_shot_passes_the_parameter_on(self):
        clf = fit(PromptTunedCLIPClassifier, ("missile", "missile"), allow_duplicate_names=True)
        assert clf.zero_shot().with_classes({1: "ant", 2: "ant"}).classes_.tolist() == [1, 2]

    def test_regularizers_accept_duplicates(self):
        regularizers = ["kg"]
        fit(PromptTunedCLIPClassifier, ("ant", "ant"), allow_duplicate_names=True, regularizer=regularizers)

    @pytest.mark.parametrize("classifier", CLASSIFIERS)
    def test_error_by_default_names_the_parameter(self, classifier):
        with pytest.raises(ClassNameError, match=r"share the name 'missile'.*allow_duplicate_names=True"):
            fit(classifier, ("missile", "missile"))
