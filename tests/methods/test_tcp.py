"""TCP, compared with prompts that are encoded one at a time, without shared parts."""

import numpy as np
import open_clip
import pytest
import torch
from plain_prompts import plain_features, plain_rows
from torch.nn.functional import normalize
from toy_backbone import AnyWidthBackbone, LayeredBackbone
from training_steps import assert_steps_agree, cross_entropy_of, weighted_data
from tuning_problem import batch_of, problem_of
from tuning_problem import encode as features_of

import clipcal
from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, make_shapes
from clipcal.backbones import OpenClipBackbone, open_backbone
from clipcal.classifiers._components import find_method
from clipcal.exceptions import BackboneError, ClassNameError
from clipcal.methods import METHODS, TCP, zero_shot_features
from clipcal.regularizers import AnchorRegularizer, DynamicOutlierRegularizer
from clipcal.training import Recipe, seeded, torch_generator, tune

NAMES = ["dog", "golden retriever puppy", "crane (bird)"]
NOUNS = ["denim", "violin", "old lantern", "granite"]
DEEP: dict[int, OpenClipBackbone] = {}


def clip_of(n_blocks):
    """Return a CLIP with random weights and the given number of blocks in the text tower."""
    if n_blocks not in DEEP:
        vision = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = open_clip.CLIP(64, vision, {"width": 64, "heads": 2, "layers": n_blocks}, quick_gelu=True)
        DEEP[n_blocks] = OpenClipBackbone(model, open_clip.SimpleTokenizer(), device="cpu")
    return DEEP[n_blocks]


def learner_for(problem, **params):
    # The meta-net draws its initial weights from torch's global generator.
    with seeded(problem.generator):
        return TCP(**params).learner(problem)


def learner_of(backbone, **params):
    return learner_for(problem_of(backbone, NAMES, method="tcp"), **params)


def tokens_of(parameters, zero_shot):
    """Apply the meta-net to one feature: (n_context, token_dim)."""
    hidden = parameters["meta_net.0.weight"] @ zero_shot + parameters["meta_net.0.bias"]
    hidden = hidden / (1 + torch.exp(-1.702 * hidden))
    out = parameters["meta_net.2.weight"] @ hidden + parameters["meta_net.2.bias"]
    return out.view(parameters["context"].shape)


def zero_shot_of(backbone, name, before="a photo of a"):
    words = backbone.embed_tokens(backbone.tokenize([before]))[0]
    words = words[1 : int(backbone.text_lengths(backbone.tokenize([before]))[0]) - 1]
    return plain_features(backbone, plain_rows(backbone, words, name, "end"))


def texts_of(backbone, parameters, names, *, block, after="", zero_shot_after="", before="a photo of a"):
    """Return the tuned and the zero-shot features of names, one name at a time."""
    tuned, fixed = [], []
    for name in names:
        fixed.append(zero_shot_of(backbone, name + zero_shot_after, before))
        rows = plain_rows(backbone, parameters["context"], name + after, "end")
        tuned.append(plain_features(backbone, rows, {block: tokens_of(parameters, fixed[-1])}))
    return torch.stack(tuned), torch.stack(fixed)


PET = ", a type of pet"
CASES = {
    "default": (2, {}, {"block": 1}),
    "as in the paper": (12, {}, {"block": 8}),
    "words, in chunks": (2, {"context_init": "a photo of a", "text_chunk_size": 2}, {"block": 1}),
    "other block": (3, {"n_context": 2, "block": 1}, {"block": 1}),
    "templates": (
        2,
        {"template": "{}, a type of pet.", "zero_shot_template": "an old {}.", "n_context": 3},
        {"block": 1, "after": PET, "before": "an old"},
    ),
    "same templates": (
        2,
        {"template": "{}, a type of pet.", "zero_shot_template": "oxford_pets"},
        {"block": 1, "after": PET, "zero_shot_after": PET},
    ),
}


@pytest.mark.parametrize("with_dor", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_three_steps_equal_those_of_single_prompts(case, with_dor):
    n_blocks, params, layout = CASES[case]
    backbone, data = clip_of(n_blocks), weighted_data(len(NAMES), 64)
    problem = problem_of(backbone, NAMES, method="tcp", regularizers=("kg", "dor"), data=data)
    learner = learner_for(problem, **params)
    dor = DynamicOutlierRegularizer(lexicon=NOUNS, batch_size=2)
    term = dor.prepare(problem, learner) if with_dor else None

    def reference(parameters, batch, nouns):
        texts, _ = texts_of(backbone, parameters, [*NAMES, *nouns], **layout)
        logits = backbone.logit_scale * batch.embeddings @ texts[: len(NAMES)].T
        losses = {"cross_entropy": cross_entropy_of(batch, logits)}
        if nouns:
            # The target of an outlier has the template of the regularizer, its tokens that of the method.
            targets = [zero_shot_of(backbone, noun) for noun in nouns]
            cosines = [w @ w0 for w, w0 in zip(texts[len(NAMES) :], targets, strict=True)]
            losses["dor"] = 2.0 * (1 - sum(cosines) / 2)
        return logits, losses, None

    assert_steps_agree(learner, NAMES, data, reference, term=term)


def test_anchor_term_has_the_features_of_the_method():
    backbone = clip_of(2)
    method = TCP(zero_shot_template="an old {}.")
    (anchor,) = method.regularizers()
    problem = problem_of(backbone, NAMES, method="tcp", regularizers=("kg",))
    learner = learner_for(problem, zero_shot_template="an old {}.")
    term = anchor.prepare(problem, learner)
    batch = batch_of(torch.eye(3, 64))
    out, _ = learner(batch, learner.prompts(NAMES), 3)
    parameters = dict(learner.named_parameters())
    texts, fixed = texts_of(backbone, parameters, NAMES, block=1, before="an old")
    expected = 8 * (1 - (texts * fixed).sum(dim=1).mean())
    loss = term(out, batch, None)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    found, wanted = (torch.autograd.grad(value, list(parameters.values())) for value in (loss, expected))
    for ours, gradient in zip(found, wanted, strict=True):
        assert (ours - gradient).norm() < 1e-4 * gradient.norm()


def test_class_tokens_replace_the_context_in_whole():
    """After the replacement, only what the names have read from the context is left of it."""
    backbone = clip_of(3)
    learner = learner_of(backbone, block=2)
    prompts = learner.prompts(NAMES)
    before = features_of(learner, prompts)
    (gradient,) = torch.autograd.grad(before.sum(), learner.context)
    assert gradient.norm() > 1e-4
    # With block=0, which is no valid parameter, the context would have no effect.
    learner.block = 0
    (gradient,) = torch.autograd.grad(features_of(learner, prompts).sum(), learner.context)
    assert gradient.norm() == 0


@pytest.mark.parametrize(("n_blocks", "block"), [(2, 1), (3, 2), (4, 2), (8, 5), (9, 8), (12, 8), (24, 8)])
def test_default_block(n_blocks, block):
    class Deep(LayeredBackbone):
        n_text_blocks = n_blocks

    assert learner_of(Deep()).block == block


def test_default_block_of_the_embedded_model():
    assert learner_of(open_backbone("mini", device="cpu")).block == 2


def test_number_of_parameters_for_vit_b_16():
    class Wide(LayeredBackbone):
        token_dim = 512
        n_text_blocks = 12

        def embed_tokens(self, tokens):
            return torch.zeros((*tokens.shape, 512))

    learner = learner_of(Wide(512))
    shapes = {name: tuple(value.shape) for name, value in learner.named_parameters()}
    assert shapes == {
        "context": (4, 512),
        "meta_net.0.weight": (128, 512),
        "meta_net.0.bias": (128,),
        "meta_net.2.weight": (2048, 128),
        "meta_net.2.bias": (2048,),
    }
    assert sum(value.numel() for value in learner.parameters()) == 331_904
    assert learner.block == 8
    assert learner.context.std().item() == pytest.approx(0.02, rel=0.1)
    # Uniform on +-1 / sqrt(128).
    bias = learner.meta_net[2].bias
    assert bias.abs().max() <= 128**-0.5
    assert bias.std().item() == pytest.approx(128**-0.5 / 3**0.5, rel=0.1)


def test_hidden_layer_has_at_least_one_unit():
    assert learner_of(LayeredBackbone(3)).meta_net[0].out_features == 1


def test_outliers_have_tokens_of_their_own():
    backbone = clip_of(2)
    learner = learner_of(backbone)
    joined = learner.prompts(NAMES).joined(learner.prompts(NOUNS))
    parameters = dict(learner.named_parameters())
    texts, _ = texts_of(backbone, parameters, [*NAMES, *NOUNS], block=1)
    torch.testing.assert_close(features_of(learner, joined), texts, atol=1e-5, rtol=0)
    # With the tokens of another name, the feature differs.
    swapped = learner.prompts(NOUNS)
    swapped.extra["zero_shot"].copy_(swapped.extra["zero_shot"].flip(0))
    assert (features_of(learner, swapped) - texts[3:]).abs().max() > 1e-3


def test_predictions_equal_the_formula_also_for_new_classes(tmp_path):
    backbone = clip_of(3)
    X = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    params = {"max_epochs": 2, "learning_rate": 0.02, "random_state": 0}
    clf = PromptTunedCLIPClassifier(backbone, method=TCP(n_context=2), **params).fit(X, NAMES * 2)
    learned = {name: torch.from_numpy(values) for name, values in clf.learned_.items()}
    clipcal.save(clf, tmp_path / "model.clipcal")
    loaded = clipcal.load(tmp_path / "model.clipcal", backbone=backbone)
    new = ["bee", "violin"]
    for names, fitted in (
        (sorted(NAMES), clf),
        (new, clf.with_classes(new)),
        (new, loaded.with_classes(new)),
    ):
        with torch.no_grad():
            texts, _ = texts_of(backbone, learned, names, block=2)
            logits = clf.logit_scale_ * normalize(torch.from_numpy(X), dim=1) @ texts.T
        np.testing.assert_allclose(fitted.text_features_, texts.numpy(), atol=1e-5)
        np.testing.assert_allclose(fitted.predict_proba(X), logits.softmax(dim=1).numpy(), atol=1e-4)


def test_images_and_embeddings_give_equal_results():
    X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    params = {"method": "tcp", "max_epochs": 2, "random_state": 0, "device": "cpu"}
    of_images = PromptTunedCLIPClassifier("mini", **params).fit(X, y)
    rows = CLIPImageEncoder("mini", device="cpu").transform(X)
    of_rows = PromptTunedCLIPClassifier("mini", **params).fit(rows, y)
    np.testing.assert_allclose(of_images.predict_proba(X), of_rows.predict_proba(rows), atol=1e-5)
    assert list(of_images.history_[0])[-1] == "kg"


def test_seed_determines_context_and_meta_net():
    X = np.random.default_rng(0).normal(size=(6, 16))

    def learned(seed):
        clf = PromptTunedCLIPClassifier(LayeredBackbone(), method="tcp", random_state=seed, max_epochs=1)
        return clf.fit(X, NAMES * 2).learned_

    first, again, other = learned(0), learned(0), learned(1)
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        assert np.abs(values - other[name]).max() > 1e-3


def test_original_recipe_has_the_epsilon_of_the_authors():
    recipe = METHODS["tcp"].recipes["original"]
    assert (recipe.max_epochs, recipe.batch_size, recipe.learning_rate) == (50, 32, 0.002)
    assert recipe.weight_decay == 5e-4
    optimizer = recipe.make_optimizer([{"params": [torch.zeros(2, requires_grad=True)]}])
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["eps"] == 1e-3
    X = np.random.default_rng(0).normal(size=(6, 16))
    params = {"recipe": "original", "max_epochs": 1, "random_state": 0}
    clf = PromptTunedCLIPClassifier(LayeredBackbone(), method="tcp", **params).fit(X, NAMES * 2)
    assert clf.recipe_["optimizer_options"] == {"eps": 1e-3}
    clf = PromptTunedCLIPClassifier(LayeredBackbone(), method="tcp", optimizer="sgd", **params)
    assert "optimizer_options" not in clf.fit(X, NAMES * 2).recipe_


def test_users_anchor_replaces_that_of_the_method():
    X = np.random.default_rng(0).normal(size=(6, 16))
    params = {"method": "tcp", "max_epochs": 1, "random_state": 0}
    own = PromptTunedCLIPClassifier(LayeredBackbone(), **params).fit(X, NAMES * 2)
    half = PromptTunedCLIPClassifier(LayeredBackbone(), regularizer=AnchorRegularizer(4.0), **params)
    ratio = own.history_[0]["kg"] / half.fit(X, NAMES * 2).history_[0]["kg"]
    assert ratio == pytest.approx(2, rel=1e-5)


def test_ensemble_of_templates_is_the_input_of_the_meta_net():
    templates = ["oxford_pets", "an old {}."]
    learner = learner_of(clip_of(2), zero_shot_template=templates)
    expected = zero_shot_features(clip_of(2), NAMES, templates)
    torch.testing.assert_close(learner.prompts(NAMES).extra["zero_shot"], expected)


def test_work_counts_the_class_tokens():
    learner = learner_of(clip_of(2))
    prompts = learner.prompts(NAMES)
    assert learner.work(prompts, 1) > learner.encoder.work(prompts, learner.context)


def test_training_without_loss_terms():
    learner = learner_of(clip_of(2))
    recipe = Recipe(max_epochs=20, warmup_epochs=0, batch_size=6, optimizer="adam")
    generators = {"data_generator": torch_generator(0), "term_generator": torch_generator(1)}
    history = tune(learner, learner.prompts(NAMES), weighted_data(3, 64), [], recipe=recipe, **generators)
    assert history[-1]["cross_entropy"] < history[0]["cross_entropy"]


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"n_context": 0}, ValueError, "'n_context' parameter of TCP.*Got 0"),
        ({"block": 0}, ValueError, "'block' parameter of TCP.*Got 0"),
        (
            {"block": 3},
            ValueError,
            "block=3, but the text tower of .*'LayeredBackbone' has the blocks 0 to 2",
        ),
        ({"context_init": "a photo of a", "n_context": 16}, ValueError, "has 4 tokens, but n_context=16"),
        ({"n_context": 74}, ClassNameError, "74 tokens leaves"),
        ({"zero_shot_template": "a pet"}, ClassNameError, "exactly one"),
    ],
)
def test_invalid_parameters_raise(params, error, words):
    with pytest.raises(error, match=words):
        learner_of(LayeredBackbone(), **params).prompts(NAMES)


def test_backbones_without_deep_prompts_are_refused():
    class Flat(LayeredBackbone):
        n_text_blocks = 1

    with pytest.raises(BackboneError, match=r"'Flat' has 1; use another backbone"):
        learner_of(Flat())
    with pytest.raises(BackboneError, match=r"Deep prompts need .*'AnyWidthBackbone'.*without deep prompts"):
        learner_of(AnyWidthBackbone())


def test_template_is_checked_before_images_are_encoded():
    with pytest.raises(ClassNameError, match="exactly one"):
        find_method(TCP(zero_shot_template=["oxford_pets", "a pet"]))
