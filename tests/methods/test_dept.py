"""DePT, compared with prompts encoded one at a time and two classifiers of raw features."""

import numpy as np
import pytest
import torch
from plain_prompts import plain_features, plain_raw_features, plain_rows
from sklearn.model_selection import GridSearchCV
from torch.nn.functional import normalize
from toy_backbone import AnyWidthBackbone
from training_steps import assert_steps_agree, cross_entropy_of, weighted_data, weighted_mean
from tuning_problem import encode as features_of
from tuning_problem import problem_of

import clipcal
from clipcal import CalibratedCLIPClassifier, CLIPImageEncoder, PromptTunedCLIPClassifier, make_shapes
from clipcal.classifiers._components import find_method, find_recipe
from clipcal.exceptions import ClassNameError
from clipcal.methods import CLIPAdapter, CoCoOp, CoOp, DePT, KgCoOp, ProDA, ProGrad, TaskRes
from clipcal.regularizers import AnchorRegularizer, DynamicOutlierRegularizer
from clipcal.training import seeded

NAMES = ["dog", "golden retriever puppy", "crane (bird)"]
NOUNS = ["denim", "violin", "old lantern", "granite"]
SMALL = {"coop": CoOp(None, n_context=3), "kgcoop": KgCoOp("one of the"), "cocoop": CoCoOp(None, n_context=3)}
NEW = ("image_scale", "image_shift", "text_scale", "text_shift", "head.weight", "head.bias")


def learner_for(problem, method):
    with seeded(problem.generator):
        return method.learner(problem)


def learner_of(backbone, base="coop", **params):
    return learner_for(problem_of(backbone, NAMES, method="dept"), DePT(base, **params))


def context_of(parameters, image):
    """Return the context of a base method for one image."""
    context = parameters["base.context"]
    if "base.meta_net.0.weight" not in parameters:
        return context
    hidden = parameters["base.meta_net.0.weight"] @ image + parameters["base.meta_net.0.bias"]
    return context + parameters["base.meta_net.2.weight"] @ hidden.relu() + parameters["base.meta_net.2.bias"]


def raw_texts_of(backbone, parameters, image, names):
    context = context_of(parameters, image)
    return torch.stack(
        [plain_raw_features(backbone, plain_rows(backbone, context, name, "end")) for name in names]
    )


def head_of(parameters, features, kind):
    moved = parameters[f"{kind}_scale"] * features + parameters[f"{kind}_shift"]
    return parameters["head.weight"] @ moved + parameters["head.bias"]


@pytest.mark.parametrize("with_dor", [False, True])
@pytest.mark.parametrize(("base", "weight"), [("coop", 0.7), ("kgcoop", 0.25), ("cocoop", 0.7)])
def test_three_steps_equal_those_of_single_prompts(tiny_backbone, base, weight, with_dor):
    backbone = tiny_backbone
    data = weighted_data(len(NAMES), 64, n_samples=4)
    problem = problem_of(backbone, NAMES, method="dept", regularizers=("dor",), data=data)
    learner = learner_for(problem, DePT(SMALL[base], head_weight=weight))
    dor = DynamicOutlierRegularizer(lexicon=NOUNS, batch_size=2)
    term = dor.prepare(problem, learner) if with_dor else None
    words = backbone.embed_tokens(backbone.tokenize(["a photo of a"]))[0, 1:5]

    def reference(parameters, batch, nouns):
        logits, of_texts, of_images, cosines = [], [], [], []
        for unit, norm, target in zip(batch.embeddings, batch.norms, batch.targets, strict=True):
            raw = raw_texts_of(backbone, parameters, unit, [*NAMES, *nouns])
            logits.append(backbone.logit_scale * normalize(raw[:3], dim=1) @ unit)
            of_texts.append(head_of(parameters, raw[target], "text"))
            of_images.append(head_of(parameters, unit * norm, "image"))
            targets = [plain_features(backbone, plain_rows(backbone, words, noun, "end")) for noun in nouns]
            pairs = zip(raw[3:], targets, strict=True)
            cosines.append(sum(torch.cosine_similarity(w, w0, dim=0) for w, w0 in pairs) / 2)
        logits = torch.stack(logits)
        entropies = [cross_entropy_of(batch, torch.stack(rows)) for rows in (of_texts, of_images)]
        losses = {
            "cross_entropy": (1 - weight) * cross_entropy_of(batch, logits),
            "head": weight * sum(entropies) / 2,
        }
        if nouns:
            losses["dor"] = 2.0 * (1 - weighted_mean(batch, cosines))
        return logits, losses, None

    factors = dict.fromkeys(NEW, 6.5)
    assert_steps_agree(learner, NAMES, data, reference, term=term, rate_factors=factors, learning_rate=0.005)


class TestStart:
    @pytest.mark.parametrize("base", SMALL)
    def test_similarity_is_that_of_the_base_method(self, tiny_backbone, base):
        learner = learner_of(tiny_backbone, SMALL[base])
        alone = learner_for(problem_of(tiny_backbone, NAMES), SMALL[base])
        images = normalize(torch.randn(2, 64), dim=1)
        prompts = learner.prompts(NAMES)
        torch.testing.assert_close(features_of(learner, prompts), features_of(alone, prompts))
        expected = alone.encode_texts(prompts, images)
        torch.testing.assert_close(learner.encode_texts(prompts, 5 * images), expected)

    def test_scales_are_one_and_shifts_zero(self, tiny_backbone):
        learner = learner_of(tiny_backbone)
        for name, value in ((name, value) for name, value in learner.named_parameters() if name in NEW[:4]):
            assert (value == (1.0 if name.endswith("scale") else 0.0)).all()
        # Uniform on +-1 / sqrt(64).
        assert learner.head.weight.abs().max() <= 1 / 8
        assert learner.head.weight.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.1)

    def test_number_of_parameters_for_vit_b_16(self):
        class Wide(AnyWidthBackbone):
            token_dim = 512

            def embed_tokens(self, tokens):
                return torch.zeros((*tokens.shape, 512))

        for base, n_base in (("coop", 8_192), ("kgcoop", 2_048), ("cocoop", 35_360)):
            learner = learner_of(Wide(512), base)
            n_parameters = sum(value.numel() for value in learner.parameters())
            assert n_parameters == n_base + 2_048 + 513 * len(NAMES)
            groups = learner.parameter_groups()
            assert [sum(value.numel() for value in group["params"]) for group in groups] == [
                n_base,
                2_048 + 513 * len(NAMES),
            ]
            assert "rate_factor" not in groups[0] and groups[1]["rate_factor"] == 6.5


X = np.random.default_rng(0).normal(size=(12, 64)) * np.linspace(0.5, 3, 12)[:, None]
Y = np.array(NAMES * 4)


def fitted(backbone, base="coop", X=X, y=Y, head_weight=0.7, **params):
    params = {"max_epochs": 2, "learning_rate": 0.01, "random_state": 0, **params}
    method = DePT(SMALL.get(base, base), head_weight=head_weight)
    return PromptTunedCLIPClassifier(backbone, method=method, **params).fit(X, y)


class TestPredictions:
    @pytest.mark.parametrize("base", SMALL)
    def test_equal_the_formula(self, tiny_backbone, base):
        clf = fitted(tiny_backbone, base, max_epochs=3)
        learned = {name: torch.from_numpy(values) for name, values in clf.learned_.items()}

        def logits_of(names, with_head):
            rows = []
            for image in torch.from_numpy(X).float():
                unit = normalize(image, dim=0)
                texts = normalize(raw_texts_of(tiny_backbone, learned, unit, names), dim=1)
                row = tiny_backbone.logit_scale * texts @ unit
                if with_head:
                    order = [clf.tuned_names_.index(name) for name in names]
                    row = 0.3 * row + 0.7 * head_of(learned, image, "image")[order]
                rows.append(row)
            return torch.stack(rows).numpy()

        with torch.no_grad():
            fused = logits_of(sorted(NAMES), with_head=True)
            np.testing.assert_allclose(clf.decision_function(X), fused, atol=1e-4)
            assert np.abs(fused - 0.3 * logits_of(sorted(NAMES), with_head=False)).min() > 1e-4
            for names in (["bee", "violin", "zebra"], ["bee", "crane (bird)", "dog"]):
                found = clf.with_classes(names).decision_function(X)
                np.testing.assert_allclose(found, logits_of(names, with_head=False), atol=1e-4)

    @pytest.mark.parametrize("base", SMALL)
    def test_choices_of_training_classes_use_their_outputs_of_the_head(self, tiny_backbone, base):
        clf = fitted(tiny_backbone, base)
        logits = dict(zip(clf.tuned_names_, clf.decision_function(X).T, strict=True))
        # The order of labels differs from that of names.
        found = clf.with_classes({1: "golden retriever puppy", 2: "crane (bird)", 3: "Dog"})
        # "Dog" has the tokens of "dog".
        for column, name in enumerate(["golden retriever puppy", "crane (bird)", "dog"]):
            np.testing.assert_allclose(found.decision_function(X)[:, column], logits[name], atol=1e-5)
        pair = clf.with_classes(["dog", "crane (bird)"])
        expected = logits["dog"] - logits["crane (bird)"]
        np.testing.assert_allclose(pair.decision_function(X), expected, atol=1e-5)

    def test_choosing_classes_does_not_change_the_learner_or_the_generator(self, tiny_backbone):
        learner = learner_of(tiny_backbone).eval()
        before = torch.random.get_rng_state()
        chosen = learner.for_names(["dog"])
        assert torch.equal(torch.random.get_rng_state(), before)
        assert learner.head.out_features == 3 and chosen.head.out_features == 1 and not chosen.training
        torch.testing.assert_close(chosen.head.weight[0], learner.head.weight[0])
        assert learner.for_names(["dog", "bee"]) is learner.base

    def test_the_scale_of_embeddings_matters_for_training_classes_only(self, tiny_backbone):
        clf = fitted(tiny_backbone)
        assert np.abs(clf.decision_function(2 * X) - clf.decision_function(X)).max() > 1e-3
        other = clf.with_classes(["bee", "cow", "emu"])
        np.testing.assert_allclose(other.decision_function(2 * X), other.decision_function(X), atol=1e-9)

    def test_without_a_head_they_are_those_of_the_base_method(self):
        toy = AnyWidthBackbone(64)
        clf = fitted(toy, head_weight=0.0, batch_size=4)
        base = PromptTunedCLIPClassifier(
            toy,
            method=SMALL["coop"],
            recipe="original",
            random_state=0,
            max_epochs=2,
            learning_rate=0.01,
            batch_size=4,
        ).fit(X, Y)
        np.testing.assert_allclose(clf.learned_["base.context"], base.learned_["context"], atol=1e-6)
        np.testing.assert_allclose(clf.predict_proba(X), base.predict_proba(X), atol=1e-5)

    def test_classes_of_one_name_have_outputs_of_their_own(self):
        names = {"a": "dog", "b": "river", "c": "dog"}
        y = np.array(["a", "b", "c"] * 4)
        clf = fitted(AnyWidthBackbone(64), y=y, class_names=names, allow_duplicate_names=True)
        proba = clf.predict_proba(X)
        assert np.abs(proba[:, 0] - proba[:, 2]).max() > 1e-4
        np.testing.assert_allclose(clf.with_classes(list("abc")).predict_proba(X), proba, atol=1e-6)
        assert clf.with_classes(["bee", "emu"]).predict_proba(X).shape == (12, 2)
        with pytest.raises(ValueError, match="Several training classes have the name 'dog'"):
            clf.with_classes({"a": "dog", "b": "river"})

    def test_class_specific_contexts_of_the_base_method_have_no_other_classes(self):
        clf = fitted(AnyWidthBackbone(64), CoOp(class_specific=True))
        assert clf.predict_proba(X).shape == (12, 3)
        for names in (["bee", "emu"], ["dog", "crane (bird)"]):
            with pytest.raises(ValueError, match="class_specific=True"):
                clf.with_classes(names)


class TestLossTerms:
    def test_a_term_that_replaces_the_cross_entropy_gets_its_weight(self, tiny_backbone):
        start = fitted(tiny_backbone, max_epochs=0)
        unit = X / np.linalg.norm(X, axis=1, keepdims=True)
        logits = torch.from_numpy(start.logit_scale_ * unit @ start.text_features_.T.astype(np.float64))
        targets = torch.from_numpy(np.searchsorted(start.classes_, Y))
        settings = {"max_epochs": 1, "batch_size": 12}
        plain = fitted(tiny_backbone, **settings).history_[0]
        smooth = fitted(tiny_backbone, regularizer="label-smoothing", **settings).history_[0]
        for record, smoothing in ((plain, 0.0), (smooth, 0.1)):
            entropy = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
            name = "label-smoothing" if smoothing else "cross_entropy"
            assert record[name] == pytest.approx(0.3 * entropy.item(), rel=1e-4)
            assert record["loss"] == pytest.approx(record[name] + record["head"], rel=1e-5)
        assert smooth["head"] == pytest.approx(plain["head"], rel=1e-5)
        assert "cross_entropy" not in smooth

    def test_regularizer_of_kgcoop_has_weight_two_outside_of_the_mixture(self, tiny_backbone):
        assert DePT("kgcoop").regularizers()[0].get_params()["weight"] == 2.0
        assert DePT().regularizers() == DePT("cocoop").regularizers() == []
        start = fitted(tiny_backbone, "kgcoop", max_epochs=0)
        cosines = (start.text_features_ * start.zero_shot().text_features_).sum(axis=1)
        for given, weight in ((None, 2.0), (AnchorRegularizer(8.0), 8.0)):
            clf = fitted(tiny_backbone, "kgcoop", max_epochs=1, batch_size=12, regularizer=given)
            assert clf.history_[0]["kg"] == pytest.approx(weight * (1 - cosines.mean()), rel=1e-3)
        assert (1 - cosines.mean()) > 1e-3


class TestParameters:
    def test_bases_have_the_published_contexts_and_recipes(self):
        for base, n_context, rate, size in (
            ("coop", (None, 16), 0.0035, 4),
            ("kgcoop", ("a photo of a", None), 0.0035, 4),
            ("cocoop", ("a photo of a", None), 0.002, 1),
        ):
            method = DePT(base).set_params(base__text_chunk_size=7)
            assert (method.base.context_init, method.base.n_context) == n_context
            for found in (DePT(base), method):
                _, recipe = find_recipe(found, "original")
                assert (recipe.max_epochs, recipe.learning_rate, recipe.batch_size) == (10, rate, size)
                assert found.text_depends_on_image == (base == "cocoop")
                assert not found.linear and not found.needs_pixels

    def test_search_over_the_base_method(self):
        clf = PromptTunedCLIPClassifier(AnyWidthBackbone(64), method="dept", max_epochs=1, random_state=0)
        clf.set_params(method__base="kgcoop", method__head_weight=0.5)
        assert (clf.method.base, clf.method.head_weight) == ("kgcoop", 0.5)
        grid = {"method__base": ["coop", CoOp()], "method__base__n_context": [4], "method": ["dept"]}
        search = GridSearchCV(clf, grid, cv=2, error_score="raise").fit(X, Y)
        assert search.best_estimator_.learned_["base.context"].shape == (4, 16)

    @pytest.mark.parametrize(
        ("method", "error", "words"),
        [
            (DePT("taskres"), ValueError, "'base' parameter of DePT must be.*'coop'.*Got 'taskres'"),
            (DePT(head_weight=1.5), ValueError, "'head_weight' parameter of DePT.*Got 1.5"),
            (DePT(CoOp(n_context=0)), ValueError, "'n_context' parameter of CoOp.*Got 0"),
            (DePT(ProGrad(zero_shot_template="a pet")), ClassNameError, "exactly one"),
        ],
    )
    def test_invalid_parameters_raise_before_images_are_encoded(self, method, error, words):
        with pytest.raises(error, match=words):
            find_method(method)

    def test_class_instead_of_an_instance_raises(self):
        with pytest.raises(TypeError, match=r"base is the class CoOp; pass an instance: CoOp\(\)"):
            fitted(AnyWidthBackbone(64), CoOp)

    @pytest.mark.parametrize("base", [ProGrad(), ProDA(), TaskRes(), CLIPAdapter()])
    def test_other_base_methods_are_refused(self, base):
        name = type(base).__name__
        with pytest.raises(ValueError, match=f"DePT needs a base method .*'coop', 'kgcoop'.*; got {name}"):
            fitted(AnyWidthBackbone(64), base)


def test_images_and_embeddings_give_the_same_classifier():
    images = np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    toy = AnyWidthBackbone(64)
    rows = CLIPImageEncoder(toy, normalize=False).transform(images)
    assert np.ptp(np.linalg.norm(rows, axis=1)) > 1e-2
    first, second = (fitted(toy, X=inputs) for inputs in (images, rows))
    for name, values in first.learned_.items():
        np.testing.assert_allclose(values, second.learned_[name], atol=1e-5)
    np.testing.assert_allclose(first.predict_proba(images), second.predict_proba(rows), atol=1e-5)


def test_embeddings_of_unit_length_issue_a_warning(recwarn):
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    fitted(AnyWidthBackbone(64))
    assert not [each for each in recwarn if "unit length" in str(each.message)]
    with pytest.warns(UserWarning, match=r"unit length, .*use CLIPImageEncoder\(normalize=False\)") as found:
        clf = fitted(AnyWidthBackbone(64), X=unit)
    assert found[0].filename == __file__
    clf.predict(unit)


@pytest.mark.parametrize("base", ["coop", "cocoop"])
def test_predictions_from_another_scale_than_in_fit_are_an_error(base, tmp_path):
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    clf = fitted(AnyWidthBackbone(64), base)
    words = r"embeddings have unit length, but those in fit have lengths from .*normalize=False"
    for model in (clf, clf.with_classes(NAMES[:2])):
        with pytest.raises(ValueError, match=words):
            model.predict_proba(unit)
    clipcal.save(clf, tmp_path / "clf.clipcal")
    with pytest.raises(ValueError, match=words):
        clipcal.load(tmp_path / "clf.clipcal", backbone=AnyWidthBackbone(64)).predict_proba(unit[:1])
    # The head is not used for new classes.
    clf.with_classes(["bee", "violin"]).predict_proba(unit)
    with pytest.warns(UserWarning, match="unit length"):
        of_unit = fitted(AnyWidthBackbone(64), base, X=unit)
    with pytest.raises(ValueError, match=r"have lengths from .*, but those in fit have unit length"):
        of_unit.predict_proba(X)


@pytest.mark.parametrize("method", ["temperature", "sals", "dac", "density-ratio", "bin-mean-shift"])
def test_calibrators_encode_images_in_the_scale_of_fit(method):
    images, labels = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    clf = PromptTunedCLIPClassifier("mini", method="dept", max_epochs=1, random_state=0).fit(images, labels)
    raw = CLIPImageEncoder("mini", normalize=False).transform(images)
    of_images = CalibratedCLIPClassifier(clf, method=method, cv="prefit").fit(images, labels)
    of_raw = CalibratedCLIPClassifier(clf, method=method, cv="prefit").fit(raw, labels)
    np.testing.assert_allclose(of_images.predict_proba(images), of_raw.predict_proba(raw), atol=1e-4)
