"""Dynamic outlier regularization: pool, random batches and loss term."""

from dataclasses import replace

import pytest
import torch
from toy_backbone import AnyWidthBackbone
from tuning_problem import batch_of, encode, problem_of

from clipcal import PromptTunedCLIPClassifier
from clipcal.backbones import open_backbone
from clipcal.methods import CoOp, KgCoOp, zero_shot_features
from clipcal.regularizers import (
    AnchorRegularizer,
    DynamicOutlierRegularizer,
    rank_outliers,
)
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
