"""ProDA, compared with prompts encoded one at a time and one covariance matrix per feature."""

import numpy as np
import pytest
import torch
from plain_prompts import encode, plain_features, plain_rows
from torch.nn.functional import cross_entropy, normalize
from toy_backbone import AnyWidthBackbone
from training_steps import assert_steps_agree, cross_entropy_of, weighted_data
from tuning_problem import batch_of, problem_of
from tuning_problem import encode as features_of

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier
from clipcal.exceptions import ClassNameError
from clipcal.methods import METHODS, ProDA
from clipcal.methods._proda import difference_variances
from clipcal.regularizers import AnchorRegularizer, DynamicOutlierRegularizer
from clipcal.training import torch_generator

# The last token of the last name includes the full stop.
NAMES = ["dog", "golden retriever puppy", "crane (bird)"]
NOUNS = ["denim", "violin", "old lantern", "granite"]
SMALL = {"n_prompts": 8, "n_context": 4, "n_active": 4}
POSITIONS = ["front"] * 2 + ["middle"] * 2 + ["end"] * 4


def learner_of(backbone, names=NAMES, **params):
    return ProDA(**{**SMALL, **params}).learner(problem_of(backbone, names, method="proda"))


def texts_of(backbone, context, names, numbers, positions=POSITIONS):
    """Encode each name in each of some prompts on its own."""
    return torch.stack(
        [
            torch.stack(
                [
                    plain_features(backbone, plain_rows(backbone, context[p], name, positions[p]))
                    for name in names
                ]
            )
            for p in numbers
        ]
    )


def variances_of(image, target, features):
    """Return R_yy + R_cc - 2 R_yc, with the covariance matrix of the classes for each entry."""
    n_active, n_classes, width = features.shape
    deviations = features - features.mean(dim=0)
    total = torch.zeros(n_classes, n_classes)
    for j in range(width):
        matrix = deviations[:, :, j].T @ deviations[:, :, j] / (n_active + 1)
        total = total + image[j] ** 2 * matrix
    return torch.stack([total[target, target] + total[c, c] - 2 * total[target, c] for c in range(n_classes)])


def overlap_of(backbone, context):
    """Return the mean absolute inner product of different prompts without names."""
    table = backbone.model.token_embedding.weight
    stop = table[encode(backbone, "X.")[1:]]
    rows = [torch.cat([table[[49406]], vectors, stop, table[[49407]]]) for vectors in context]
    features = [plain_features(backbone, row) for row in rows]
    n = len(features)
    each = [abs(features[p] @ features[q]) for p in range(n) for q in range(n) if p != q]
    return sum(each) / (n * (n - 1))


@pytest.mark.parametrize("with_dor", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        {"n_active": 4},
        {"n_active": 8, "orthogonality_weight": 0.5, "text_chunk_size": 2},
        {"n_active": 2, "n_context": 3},
    ],
)
def test_three_steps_equal_those_of_single_prompts(tiny_backbone, with_dor, params):
    backbone, params = tiny_backbone, {**SMALL, **params}
    data = weighted_data(len(NAMES), 64, n_samples=4)
    problem = problem_of(backbone, NAMES, method="proda", regularizers=("dor",), data=data, seed=7)
    learner = ProDA(**params).learner(problem)
    with torch.no_grad():
        learner.context.mul_(25)  # to the norm of word embeddings, so that the prompts differ
    dor = DynamicOutlierRegularizer(lexicon=NOUNS, batch_size=2)
    term = dor.prepare(problem, learner) if with_dor else None
    # The generator of the problem draws the contexts, then one permutation after another.
    generator = torch_generator(7)
    torch.randn((8, params["n_context"], 64), generator=generator)
    order = [number for _ in range(3) for number in torch.randperm(8, generator=generator).tolist()]
    words = backbone.embed_tokens(backbone.tokenize(["a photo of a"]))[0, 1:5]
    increases = []

    def reference(parameters, batch, nouns):
        active, order[: params["n_active"]] = order[: params["n_active"]], []
        features = texts_of(backbone, parameters["context"], [*NAMES, *nouns], active)
        classes = features[:, : len(NAMES)]
        scale, mean = backbone.logit_scale, classes.mean(dim=0)
        logits = torch.stack([scale * mean @ image for image in batch.embeddings])
        raised = logits + torch.stack(
            [
                scale**2 / 2 * variances_of(image, target, classes)
                for image, target in zip(batch.embeddings, batch.targets, strict=True)
            ]
        )
        losses = {"cross_entropy": cross_entropy_of(batch, logits)}
        losses["covariance"] = cross_entropy_of(batch, raised) - losses["cross_entropy"]
        weight = params.get("orthogonality_weight", 0.1)
        losses["orthogonality"] = weight * overlap_of(backbone, parameters["context"])
        increases.append(losses["covariance"].item())
        if nouns:
            targets = [plain_features(backbone, plain_rows(backbone, words, noun, "end")) for noun in nouns]
            means = [normalize(row, dim=0) for row in features[:, len(NAMES) :].mean(dim=0)]
            losses["dor"] = 2.0 * (1 - sum(w @ w0 for w, w0 in zip(means, targets, strict=True)) / 2)
        return logits, losses, None

    assert_steps_agree(learner, NAMES, data, reference, term=term)
    assert min(increases) > 1e-2


class TestVariances:
    def test_have_the_hand_computed_values(self):
        # Two prompts, two classes, two entries: the differences of the deviations are (2, 0) and (-2, -4).
        deviations = torch.tensor([[[1.0, 2.0], [-1.0, 2.0]], [[-1.0, -2.0], [1.0, 2.0]]])
        images = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
        found = difference_variances(images, deviations, torch.tensor([0, 1]))
        expected = [[0.0, (0.36 * (4 + 4) + 0.64 * 16) / 3], [(4 + 4) / 3, 0.0]]
        torch.testing.assert_close(found, torch.tensor(expected))

    @pytest.mark.parametrize("n_active", [1, 2, 5])
    def test_equal_those_of_covariance_matrices(self, n_active):
        generator = torch_generator(n_active)
        features = normalize(torch.randn(n_active, 4, 6, generator=generator), dim=-1)
        images = normalize(torch.randn(3, 6, generator=generator), dim=-1)
        targets = torch.tensor([2, 0, 2])
        found = difference_variances(images, features - features.mean(dim=0), targets)
        pairs = zip(images, targets, strict=True)
        expected = torch.stack([variances_of(image, target, features) for image, target in pairs])
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        assert (found.gather(1, targets[:, None]) == 0).all()
        others = found[torch.arange(4) != targets[:, None]]
        assert (others > 1e-3).all() if n_active > 1 else (others == 0).all()

    def test_one_active_prompt_gives_the_cross_entropy(self, tiny_backbone):
        learner = learner_of(tiny_backbone, n_active=1).train()
        batch = next(weighted_data(3, 64).in_order())
        out, _ = learner(batch, learner.prompts(NAMES), 3)
        assert learner.losses(out, batch)["covariance"].item() == 0


class TestPrompts:
    def test_quarter_of_the_names_is_first_and_a_quarter_in_the_middle(self, tiny_backbone):
        learner = ProDA().learner(problem_of(tiny_backbone, NAMES))
        assert learner.first_positions == [0] * 8 + [8] * 8 + [16] * 16
        assert learner_of(tiny_backbone, n_prompts=3, n_active=1).first_positions == [4, 4, 4]

    def test_features_are_those_of_single_prompts(self, tiny_backbone):
        learner = learner_of(tiny_backbone)
        with torch.no_grad():
            learner.context.mul_(25)
        features = learner.encode_each(learner.prompts(NAMES), range(8))
        expected = texts_of(tiny_backbone, learner.context, NAMES, range(8))
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
        # Each position of the name gives other features.
        swapped = texts_of(tiny_backbone, learner.context, NAMES, range(8), POSITIONS[::-1])
        assert (features - swapped).abs().amax(dim=(1, 2)).min() > 1e-2

    def test_the_prefix_is_as_long_as_the_context_before_the_name(self, tiny_backbone, monkeypatch):
        learner = learner_of(tiny_backbone)
        seen = []
        monkeypatch.setattr(learner, "encoder", Recorder(learner.encoder, seen))
        learner.encode_each(learner.prompts(NAMES), [7, 0, 2, 3])
        assert seen == [(5, 1), (1, 1), (3, 2)]

    def test_every_prompt_is_used_once_before_the_order_is_drawn_again(self, tiny_backbone):
        learner = learner_of(tiny_backbone, n_active=2)
        steps = [learner._next_active() for _ in range(12)]
        cycles = [[number for step in steps[i : i + 4] for number in step] for i in (0, 4, 8)]
        assert [sorted(cycle) for cycle in cycles] == [list(range(8))] * 3
        assert cycles[0] != cycles[1] and cycles[1] != cycles[2]

    def test_evaluation_uses_all_prompts_and_keeps_the_order(self, tiny_backbone):
        learner = learner_of(tiny_backbone).eval()
        state = learner.generator.get_state()
        batch = next(weighted_data(3, 64).in_order())
        out, _ = learner(batch, learner.prompts(NAMES), 3)
        assert out.extra["deviations"].shape == (8, 3, 64)
        texts = features_of(learner, learner.prompts(NAMES))
        torch.testing.assert_close(out.logits, learner.logits(batch.embeddings, texts))
        assert torch.equal(learner.generator.get_state(), state)
        learner.train()(batch, learner.prompts(NAMES), 3)
        assert not torch.equal(learner.generator.get_state(), state)

    def test_number_of_parameters_for_vit_b_16(self):
        class Wide(AnyWidthBackbone):
            token_dim = 512

            def embed_tokens(self, tokens):
                return torch.zeros((*tokens.shape, 512))

        learner = ProDA().learner(problem_of(Wide(512), NAMES))
        assert sum(value.numel() for value in learner.parameters()) == 262_144
        assert list(learner.arrays()) == ["context"]
        assert learner.context.std().item() == pytest.approx(0.02, rel=0.01)


class Recorder:
    """Encoder that records the length of the prefix and the number of contexts."""

    def __init__(self, encoder, seen):
        self.backbone, self.encoder, self.seen = encoder.backbone, encoder, seen

    def __call__(self, prompts, context):
        self.seen.append((prompts.n_shared, len(context)))
        return self.encoder(prompts, context)


def fitted(backbone, X, y, **params):
    params = {"method": ProDA(**SMALL), "max_epochs": 2, "learning_rate": 0.02, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(backbone, **params).fit(X, y)


def test_predictions_use_the_mean_without_normalization(tiny_backbone):
    X = np.random.default_rng(0).normal(size=(6, 64))
    clf = fitted(tiny_backbone, X, NAMES * 2)
    context = torch.from_numpy(clf.learned_["context"])
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    for names, found in (
        (sorted(NAMES), clf),
        (["bee", "violin", "zebra"], clf.with_classes(["violin", "bee", "zebra"])),
    ):
        mean = texts_of(tiny_backbone, context, names, range(8)).mean(dim=0)
        np.testing.assert_allclose(found.text_features_, mean, atol=1e-5)
        lengths = np.linalg.norm(found.text_features_, axis=1)
        np.testing.assert_allclose(lengths, mean.norm(dim=1), rtol=1e-5)
        assert (lengths < 0.999).all()
        expected = found.logit_scale_ * unit @ found.text_features_.T.astype(np.float64)
        np.testing.assert_allclose(found.decision_function(X), expected, atol=1e-9)


def test_random_state_decides_contexts_and_the_order_of_prompts():
    X = np.random.default_rng(0).normal(size=(12, 16))

    def learned(**params):
        clf = fitted(AnyWidthBackbone(), X, NAMES * 4, batch_size=4, **params)
        return clf.learned_["context"]

    np.testing.assert_array_equal(learned(), learned())
    start = learned(max_epochs=0)
    assert np.abs(learned(random_state=1, max_epochs=0) - start).max() > 1e-3
    # One step of two active prompts changes the others by the orthogonality only.
    settings = {"weight_decay": 0.0, "warmup_epochs": 0, "max_epochs": 1, "batch_size": 12}
    method = ProDA(8, n_context=4, n_active=2, orthogonality_weight=0.0)
    clf = fitted(AnyWidthBackbone(), X, NAMES * 4, method=method, **settings)
    moved = np.abs(clf.learned_["context"] - start).max(axis=(1, 2)) > 0
    generator = torch_generator(np.random.RandomState(0))
    torch.randn((8, 4, 16), generator=generator)
    assert sorted(np.flatnonzero(moved)) == sorted(torch.randperm(8, generator=generator)[:2].tolist())


def test_terms_that_replace_the_cross_entropy_keep_the_other_parts():
    X = np.random.default_rng(0).normal(size=(12, 16))
    settings = {"max_epochs": 1, "batch_size": 12}
    plain = fitted(AnyWidthBackbone(), X, NAMES * 4, **settings).history_[0]
    smooth = fitted(AnyWidthBackbone(), X, NAMES * 4, regularizer="label-smoothing", **settings).history_[0]
    assert plain["covariance"] > 0 and plain["orthogonality"] > 0
    assert plain.keys() - smooth.keys() == {"cross_entropy"}
    for name in ("covariance", "orthogonality"):
        assert smooth[name] == pytest.approx(plain[name], rel=1e-5)


def test_regularizers_compare_the_direction_of_the_mean(tiny_backbone):
    problem = problem_of(tiny_backbone, NAMES, method="proda")
    learner = learner_of(tiny_backbone).train()
    with torch.no_grad():
        learner.context.mul_(25)
    term = AnchorRegularizer(1.0).prepare(problem, learner)
    batch = batch_of(torch.randn(2, 64, generator=torch_generator(0)))
    out, _ = learner(batch, learner.prompts([*NAMES, *NOUNS]), 3)
    assert (out.texts.norm(dim=1) < 0.999).all()
    cosines = torch.cosine_similarity(out.texts, term.anchors)
    torch.testing.assert_close(term(out, batch, None), 1 - cosines.mean())


def test_images_and_embeddings_give_the_same_classifier():
    images = np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    rows = CLIPImageEncoder(AnyWidthBackbone()).transform(images)
    first, second = (fitted(AnyWidthBackbone(), X, NAMES * 4) for X in (images, rows))
    np.testing.assert_allclose(first.learned_["context"], second.learned_["context"], atol=1e-6)
    np.testing.assert_allclose(first.predict_proba(images), second.predict_proba(rows), atol=1e-5)


def test_the_bound_is_above_the_expected_cross_entropy():
    """By Jensen's inequality, for a normal distribution with the covariances of the bound."""
    generator = torch_generator(0)
    deviations = 0.03 * torch.randn(6, 4, 5, generator=generator)
    deviations -= deviations.mean(dim=0)
    image = normalize(torch.randn(1, 5, generator=generator), dim=1)
    mean, target, scale = 0.1 * torch.randn(4, 5, generator=generator), torch.tensor([1]), 20.0
    noise = torch.randn(20_000, 6, 5, generator=generator)
    drawn = mean + torch.einsum("sqj,qcj->scj", noise, deviations) / 7**0.5
    expected = cross_entropy(scale * drawn @ image[0], target.expand(len(drawn)))
    logits = scale * image @ mean.T
    raised = logits + scale**2 / 2 * difference_variances(image, deviations, target)
    bound, plain = cross_entropy(raised, target), cross_entropy(logits, target)
    assert plain + 0.01 < expected < bound - 0.01


def test_recipes_and_flags():
    for recipe in METHODS["proda"].recipes.values():
        assert (recipe.max_epochs, recipe.batch_size, recipe.learning_rate) == (100, 4, 0.001)
    assert ProDA.linear and not ProDA.text_depends_on_image and not ProDA.needs_pixels


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"n_prompts": 6}, ValueError, "n_prompts=6 is not a multiple of n_active=4; use n_prompts=8"),
        ({"n_active": 0}, ValueError, "'n_active' parameter of ProDA.*Got 0"),
        ({"orthogonality_weight": -1}, ValueError, "'orthogonality_weight' parameter.*Got -1"),
        ({"n_context": 74}, ClassNameError, "74 tokens leaves"),
    ],
)
def test_invalid_parameters_raise(params, error, words):
    with pytest.raises(error, match=words):
        learner_of(AnyWidthBackbone(), **params)
