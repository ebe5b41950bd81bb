"""Dynamic outlier regularization: pool, random batches and loss term."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from toy_backbone import AnyWidthBackbone
from tuning_problem import batch_of, encode, problem_of

import clipcal.methods
from clipcal import PromptTunedCLIPClassifier
from clipcal.backbones import open_backbone
from clipcal.methods import CoOp, KgCoOp, zero_shot_features
from clipcal.regularizers import (
    AnchorRegularizer,
    DynamicOutlierRegularizer,
    _outlier,
    rank_outliers,
)
from clipcal.text import load_nouns, name_key
from clipcal.training import torch_generator

NAMES = ["dog", "hot_dog", "Red Panda"]
NOUNS = [
    "denim", "river", "hammer", "violin", "twilight", "granite", "lantern", "walnut", "harbor", "cactus",
    "orchid", "compass", "blizzard", "velvet", "mustard", "pyramid", "sparrow", "thimble", "glacier", "flute",
]  # fmt: skip


class Case:
    """Loss term of a regularizer, and its learner."""

    def __init__(self, backbone, method=None, *, names=NAMES, seed=1, given=(), **params):
        names = [name.replace("_", " ") for name in names]
        problem = problem_of(backbone, names, seed=seed, regularizers=("dor", *given))
        self.learner = (method or CoOp()).learner(replace(problem, generator=torch_generator(0)))
        regularizer = DynamicOutlierRegularizer(**{"lexicon": NOUNS, **params})
        self.term = regularizer.prepare(problem, self.learner)

    def step(self, seed=0):
        """Draw, encode, and return the loss term with the drawn features."""
        drawn = encode(self.learner, self.term.draw(torch_generator(seed)))
        return self.term(None, None, drawn), drawn


def prepared(backbone, method=None, **params):
    return Case(backbone, method, **params).term


class TestLoss:
    @pytest.mark.parametrize("kind", ["tiny", "mini"])
    def test_is_zero_for_the_words_of_the_template(self, kind, tiny_backbone):
        backbone = tiny_backbone if kind == "tiny" else open_backbone("mini", device="cpu")
        assert abs(Case(backbone, batch_size=20).step()[0].item()) < 1e-4
        assert Case(backbone, template="{} texture.").step()[0].item() > 1e-3

    def test_is_not_zero_for_a_random_context(self, tiny_backbone):
        assert Case(tiny_backbone, CoOp(context_init=None, n_context=16)).step()[0].item() > 1e-2

    def test_value_and_gradient_equal_the_formula(self, tiny_backbone):
        case = Case(tiny_backbone, CoOp(context_init="one of the"), weight=5.0, batch_size=4)
        value, drawn = case.step()
        nouns = [case.term.nouns[i] for i in case.term.drawn]
        targets = zero_shot_features(tiny_backbone, nouns, "a photo of a {}.")
        expected = 5.0 * (1 - torch.cosine_similarity(drawn, targets).mean())
        torch.testing.assert_close(value, expected)
        (gradient,) = torch.autograd.grad(value, drawn, retain_graph=True)
        # Without the part along the features, as the cosine does not depend on their length.
        along = (targets * drawn).sum(dim=1, keepdim=True) * drawn
        torch.testing.assert_close(gradient, -5.0 / 4 * (targets - along))
        # Only the tuned outlier features have a gradient with respect to the context.
        assert not case.term.targets.requires_grad
        value.backward()
        context = case.learner.context
        through_features, context.grad = context.grad.clone(), None
        encode(case.learner, case.learner.prompts(nouns)).backward(-5.0 / 4 * targets)
        # Rounding depends on the other names of the pass, so single small entries differ.
        error = (context.grad - through_features).norm()
        assert through_features.norm() > 0
        assert error < 1e-5 * through_features.norm()

    def test_is_averaged_over_images_if_the_text_depends_on_them(self, tiny_backbone):
        case = Case(tiny_backbone, batch_size=4, weight=3.0)
        case.term.draw(torch_generator(0))
        drawn = torch.nn.functional.normalize(torch.randn(2, 4, 64, generator=torch_generator(1)), dim=-1)
        first, second = (case.term(None, None, of_image) for of_image in drawn)
        batch = batch_of(torch.ones(2, 64), weights=[1.0, 3.0])
        torch.testing.assert_close(case.term(None, batch, drawn), (first + 3 * second) / 4)


class TestPool:
    def test_score_is_the_mean_cosine(self, tiny_backbone):
        candidates = zero_shot_features(tiny_backbone, NOUNS, "a photo of a {}.")
        classes = zero_shot_features(tiny_backbone, NAMES, "a photo of a {}.")
        one_by_one = [
            sum(float(torch.cosine_similarity(o, c, dim=0)) for c in classes) / len(classes)
            for o in candidates
        ]
        torch.testing.assert_close(
            rank_outliers(candidates, classes), torch.tensor(one_by_one), atol=1e-6, rtol=0
        )

    def test_names_of_base_classes_are_dropped(self, tiny_backbone):
        lexicon = ["Dog", "HOT DOG", "hot_dog", "red_panda", "panda", "hotdog", "denim"]
        term = prepared(tiny_backbone, lexicon=lexicon)
        assert sorted(term.nouns) == ["denim", "hotdog", "panda"]

    def test_near_and_far_pools_are_sorted_by_score(self, tiny_backbone):
        candidates = zero_shot_features(tiny_backbone, NOUNS, "a photo of a {}.")
        classes = zero_shot_features(tiny_backbone, [n.replace("_", " ") for n in NAMES], "a photo of a {}.")
        scores = dict(zip(NOUNS, (candidates @ classes.mean(dim=0)).tolist(), strict=True))
        ranked = sorted(NOUNS, key=lambda noun: -scores[noun])
        near = prepared(tiny_backbone, pool_size=6).nouns
        assert near == ranked[:6]
        assert prepared(tiny_backbone, pool_size=6, pool="far").nouns == ranked[-6:]

    def test_random_pool_depends_on_the_seed(self, tiny_backbone):
        first, again, other = (
            prepared(tiny_backbone, pool_size=6, pool="random", seed=seed).nouns for seed in (1, 1, 2)
        )
        assert first == again
        assert set(first) != set(other)
        assert len(set(first)) == 6
        assert set(first) <= set(NOUNS)

    @pytest.mark.parametrize("pool", ["near", "far", "random"])
    def test_targets_belong_to_their_nouns(self, tiny_backbone, pool):
        term = prepared(tiny_backbone, pool=pool, pool_size=7, template="art of the {}.")
        assert len(term.nouns) == len(term.prompts) == 7
        expected = zero_shot_features(tiny_backbone, term.nouns, "art of the {}.")
        torch.testing.assert_close(term.targets, expected, atol=1e-5, rtol=0)

    def test_all_candidates_are_used_if_there_are_fewer_than_pool_size(self, tiny_backbone):
        assert sorted(prepared(tiny_backbone, pool_size=5000).nouns) == sorted(NOUNS)

    def test_lexicon_can_be_a_file(self, tiny_backbone, tmp_path):
        path = tmp_path / "nouns.txt"
        path.write_text("\n".join(NOUNS))
        assert prepared(tiny_backbone, lexicon=path).nouns == prepared(tiny_backbone).nouns

    def test_nouns_too_long_for_the_context_are_dropped(self, tiny_backbone):
        long = "bergschrund antidisestablishmentarianism"
        method = CoOp(context_init=None, n_context=70)
        term = prepared(tiny_backbone, method, lexicon=[*NOUNS, long])
        assert sorted(term.nouns) == sorted(NOUNS)
        assert len(term.targets) == len(NOUNS)
        with pytest.raises(ValueError, match="every outlier is too long for the text tower"):
            prepared(tiny_backbone, method, lexicon=[long])

    @pytest.mark.parametrize("n_nouns", [5, 1200])
    def test_nouns_too_long_for_the_template_are_dropped(self, n_nouns):
        # Their rows of the table are zeros, which are no valid targets.
        long = "very " * 71 + "long"
        nouns = [f"noun{i}" for i in range(n_nouns)]
        # The context is shorter than the template, so the noun would fit the context.
        term = prepared(AnyWidthBackbone(), CoOp("a"), pool="far", lexicon=[long, *nouns])
        assert sorted(term.nouns) == sorted(nouns)


class TestReuse:
    """Work that early stopping would otherwise repeat for each split."""

    @pytest.mark.parametrize("pool", ["near", "far", "random"])
    def test_pools_targets_and_draws_equal_a_plain_implementation(self, tiny_backbone, pool):
        template, n_context = "a photo of a {}.", 70
        fits_template, fits_neither = "very " * 9 + "long", "very " * 80 + "long"
        lexicon = [*load_nouns()[::300], "Hot_Dog", "DOG", fits_template, fits_neither, "red panda"]
        method = CoOp(context_init=None, n_context=n_context)
        for names in (["dog", "red panda"], ["hot dog", "cat", "river"], ["dog", "red panda"]):
            case = Case(tiny_backbone, method, names=names, lexicon=lexicon, pool=pool, pool_size=200)
            nouns = load_nouns(lexicon)
            table = zero_shot_features(tiny_backbone, nouns, template, skip_long=True)
            base = {name_key(name) for name in names}
            free = [i for i in range(len(nouns)) if table[i].any() and name_key(nouns[i]) not in base]
            scores = table[free] @ zero_shot_features(tiny_backbone, names, template).mean(dim=0)
            order = scores.argsort(descending=True, stable=True).tolist()
            if pool == "random":
                chosen = torch.randperm(len(order), generator=torch_generator(1))[:200].tolist()
                order = [order[i] for i in chosen]
            else:
                order = order[:200] if pool == "near" else order[-200:]
            room = tiny_backbone.context_length - n_context
            lengths = tiny_backbone.text_lengths(
                tiny_backbone.tokenize([f"{nouns[free[i]]}." for i in order])
            )
            kept = [free[i] for i, length in zip(order, lengths.tolist(), strict=True) if length <= room]
            assert 0 < len(kept) < 200
            assert case.term.nouns == [nouns[i] for i in kept]
            assert torch.equal(case.term.targets, table[kept])
            prompts = case.learner.prompts(case.term.nouns)
            assert torch.equal(case.term.prompts.tokens, prompts.tokens)
            assert torch.equal(case.term.prompts.lengths, prompts.lengths)
            drawn = torch.randperm(len(kept), generator=torch_generator(5))[: len(names)]
            assert torch.equal(case.term.draw(torch_generator(5)).tokens, prompts.tokens[drawn])

    def test_pool_is_tokenized_once(self, tiny_backbone, monkeypatch):
        calls = []
        learner_type = type(CoOp().learner(problem_of(tiny_backbone, NAMES)))
        tokenize = learner_type.prompts
        monkeypatch.setattr(
            learner_type,
            "prompts",
            lambda learner, names: calls.append(len(names)) or tokenize(learner, names),
        )
        assert len(prepared(tiny_backbone).prompts) == len(NOUNS)
        assert calls.count(len(NOUNS)) == 1

    def test_names_of_a_lexicon_are_normalized_once(self, monkeypatch):
        _outlier._keys.cache_clear()
        normalized = []
        monkeypatch.setattr(_outlier, "name_key", lambda name: normalized.append(name) or name_key(name))
        for names in (NAMES, ["violin", "dog"], NAMES):
            term = prepared(AnyWidthBackbone(), names=names)
            assert ("violin" in term.nouns) == (names is NAMES)
        assert len(normalized) == len(NOUNS) + 2 * len(NAMES) + 2
        # Another lexicon.
        assert prepared(AnyWidthBackbone(), lexicon=["Dog", "opal"]).nouns == ["opal"]

    @pytest.mark.parametrize("template", ["a photo of a {}.", ["a {}.", "{} texture."]])
    def test_features_of_the_lexicon_are_read_once_per_fit(self, rng_data, monkeypatch, tmp_path, template):
        tables = []

        def spy(*args, **params):
            features = zero_shot_features(*args, **params)
            if params.get("skip_long"):
                tables.append(weakref.ref(features))
            return features

        monkeypatch.setattr(clipcal.methods, "zero_shot_features", spy)

        def fit(memory, **params):
            tables.clear()
            dor = DynamicOutlierRegularizer(50.0, lexicon=NOUNS, template=template, pool_size=15)
            params = {"recipe": "fast", "memory": memory, "random_state": 0, **params}
            return PromptTunedCLIPClassifier(AnyWidthBackbone(), regularizer=dor, **params).fit(*rng_data)

        plain = fit(None)
        n_runs = len(tables)
        assert n_runs > 2
        for _ in range(2):  # the second time from the files
            cached = fit(tmp_path)
            assert len(tables) == 1
            assert (cached.text_features_ == plain.text_features_).all()
            assert cached.validation_history_ == plain.validation_history_
            gc.collect()
            assert tables[0]() is None

    def test_last_table_is_kept_for_the_same_arguments_only(self, tmp_path):
        clf = PromptTunedCLIPClassifier(AnyWidthBackbone(), max_epochs=0, memory=tmp_path)
        clf.fit(torch.randn(3, 16, generator=torch_generator(0)).numpy(), NAMES)
        table = clf._problem(AnyWidthBackbone(), torch_generator(0)).zero_shot_table
        first = table(NOUNS, "a {}.")
        assert table(tuple(NOUNS), ["a {}."]) is first
        for names, template, params in [
            (NOUNS, "a {}.", {"normalize": False}),
            (NOUNS[::-1], "a {}.", {}),
            (NOUNS, "the {}.", {}),
            (NOUNS, ["a {}.", "the {}."], {}),
        ]:
            expected = zero_shot_features(AnyWidthBackbone(), names, template, **params)
            torch.testing.assert_close(table(names, template, **params), expected)


class TestDraws:
    def test_batch_size_defaults_to_the_number_of_classes(self, tiny_backbone):
        assert len(prepared(tiny_backbone).draw(torch_generator(0))) == 3
        assert len(prepared(tiny_backbone, batch_size=5).draw(torch_generator(0))) == 5
        assert len(prepared(tiny_backbone, batch_size=50).draw(torch_generator(0))) == len(NOUNS)

    def test_batches_are_drawn_uniformly_without_replacement(self, tiny_backbone):
        term = prepared(tiny_backbone, batch_size=8)
        generator = torch_generator(0)
        counts = torch.zeros(len(NOUNS))
        batches = []
        for _ in range(400):
            prompts = term.draw(generator)
            assert torch.equal(prompts.tokens, term.prompts.tokens[term.drawn])
            batches.append(term.drawn.tolist())
            counts[term.drawn] += 1
        assert all(len(set(batch)) == 8 for batch in batches)
        assert len(set(map(tuple, batches))) > 390
        # 160 draws each on average, standard deviation 10.
        assert counts.min() > 110
        assert counts.max() < 210

    def test_batches_depend_on_the_seed(self, tiny_backbone):
        term = prepared(tiny_backbone)
        drawn = []
        for seed in (0, 0, 1):
            term.draw(torch_generator(seed))
            drawn.append(term.drawn.tolist())
        assert drawn[0] == drawn[1] != drawn[2]

    def test_one_batch_is_used_in_all_steps_if_it_is_not_drawn_again(self, tiny_backbone):
        fixed, dynamic = (prepared(tiny_backbone, resample=resample) for resample in (False, True))
        generators = torch_generator(0), torch_generator(0)
        first = fixed.draw(generators[0])
        assert torch.equal(first.tokens, dynamic.draw(generators[1]).tokens)
        assert torch.equal(fixed.drawn, dynamic.drawn)
        used = [fixed.draw(generators[0]) for _ in range(20)]
        assert all(batch is first for batch in used)
        assert torch.equal(first.tokens, fixed.prompts.tokens[fixed.drawn])
        assert len({tuple(dynamic.draw(generators[1]).tokens.flatten().tolist()) for _ in range(20)}) > 10

    def test_fixed_batch_in_training(self, rng_data):
        def fit(**params):
            dor = DynamicOutlierRegularizer(50.0, lexicon=NOUNS, batch_size=3, **params)
            training = {"max_epochs": 8, "learning_rate": 0.02, "random_state": 0}
            clf = PromptTunedCLIPClassifier(AnyWidthBackbone(), regularizer=dor, **training)
            return clf.fit(*rng_data)

        fixed, again, dynamic = fit(resample=False), fit(resample=False), fit()
        assert (fixed.text_features_ == again.text_features_).all()
        assert fixed.history_[0]["dor"] == dynamic.history_[0]["dor"]
        assert abs(fixed.history_[-1]["dor"] - dynamic.history_[-1]["dor"]) > 1e-6
        assert abs(fixed.text_features_ - dynamic.text_features_).max() > 1e-5


class TestWeight:
    @pytest.mark.parametrize(
        ("method", "others", "expected"),
        [
            ("coop", [], 8.0),
            (CoOp(), [], 8.0),
            ("coop", ["kg"], 2.0),
            ("kgcoop", [], 2.0),
            (KgCoOp(), [AnchorRegularizer(1.0)], 2.0),
        ],
    )
    def test_auto_weight_is_that_of_the_paper(self, method, others, expected, rng_data):
        class Spy(DynamicOutlierRegularizer):
            def prepare(self, problem, learner):
                term = super().prepare(problem, learner)
                self.seen = term.weight
                return term

        spy = Spy(lexicon=NOUNS)
        clf = PromptTunedCLIPClassifier(
            AnyWidthBackbone(), method=method, regularizer=[*others, spy], max_epochs=1
        )
        clf.fit(*rng_data)
        assert spy.seen == expected

    def test_given_weight_is_used(self, tiny_backbone):
        assert prepared(tiny_backbone, weight=3).weight == 3.0
        assert prepared(tiny_backbone).weight == 8.0


@pytest.fixture
def rng_data():
    return torch.randn(9, 16, generator=torch_generator(0)).numpy(), NAMES * 3


class TestErrors:
    def test_class_specific_contexts_raise(self, tiny_backbone):
        with pytest.raises(
            ValueError, match=r"separate ones for each class \(CoOp: class_specific=True\); use"
        ):
            prepared(tiny_backbone, CoOp(class_specific=True))

    def test_lexicon_of_base_classes_raises(self, tiny_backbone):
        with pytest.raises(ValueError, match=r"Every noun of lexicon=\['DOG'.*larger lexicon"):
            prepared(tiny_backbone, lexicon=["DOG", "hot_dog"])

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"weight": -1}, "'weight'.*Got -1"),
            ({"weight": "heavy"}, "'weight'.*Got 'heavy'"),
            ({"pool": "close"}, "'pool'.*'near'"),
            ({"resample": "no"}, "'resample'.*Got 'no'"),
            ({"pool_size": 0}, "'pool_size'.*Got 0"),
            ({"batch_size": 0}, "'batch_size'.*Got 0"),
            ({"lexicon": 3}, "'lexicon'.*Got 3"),
            ({"template": "no place"}, r"exactly one '\{\}'"),
        ],
    )
    def test_invalid_parameters_raise(self, tiny_backbone, params, words):
        with pytest.raises(ValueError, match=words):
            prepared(tiny_backbone, **params)
