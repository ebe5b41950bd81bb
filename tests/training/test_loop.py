"""Training loop, compared with a loop written out in the test."""

import numpy as np
import pytest
import torch
from toy_backbone import AnyWidthBackbone
from tuning_problem import encode, problem_of

from clipcal.methods import CoOp, zero_shot_features
from clipcal.regularizers import AnchorRegularizer, DynamicOutlierRegularizer
from clipcal.training import EmbeddedData, LossTerm, Recipe, cosine_with_warmup, torch_generator, tune

NAMES = ["dog", "river", "hammer"]
NOUNS = ["denim", "violin", "twilight", "granite", "lantern"]


class Spy(AnyWidthBackbone):
    """Backbone that records the number of prompts of each text pass."""

    def __init__(self, embedding_dim=32):
        super().__init__(embedding_dim)
        self.passes = []

    def encode_text(self, token_embeddings, tokens):
        self.passes.append(len(tokens))
        return super().encode_text(token_embeddings, tokens)


def make_data(n_samples=7, n_views=1, dim=32, weights=None, seed=0):
    rng = np.random.default_rng(seed)
    embeddings = torch.from_numpy(rng.normal(size=(n_samples, n_views, dim)).astype(np.float32))
    return EmbeddedData.from_raw(
        embeddings,
        targets=torch.from_numpy(np.arange(n_samples) % len(NAMES)),
        weights=torch.ones(n_samples) if weights is None else torch.tensor(weights, dtype=torch.float32),
    )


def make_learner(backbone=None):
    return CoOp().learner(problem_of(backbone or AnyWidthBackbone(), NAMES))


def term_of(regularizer, learner):
    return regularizer.prepare(problem_of(learner.backbone, NAMES, seed=2), learner)


def run(learner, data, terms=(), *, on_epoch_end=None, **settings):
    # With a scale as high as CLIP's the loss would be zero from the start.
    learner.logit_scale = 20.0
    return tune(
        learner,
        learner.prompts(NAMES),
        data,
        terms,
        recipe=Recipe(**{"max_epochs": 2, "learning_rate": 0.05, "batch_size": 3, **settings}),
        data_generator=torch_generator(0),
        term_generator=torch_generator(1),
        on_epoch_end=on_epoch_end,
    )


class TestBatches:
    @pytest.mark.parametrize(
        ("n_samples", "batch_size", "sizes"),
        [(7, 3, [3, 3]), (6, 3, [3, 3]), (7, 7, [7]), (7, 32, [7]), (2, 1, [1, 1]), (1, 4, [1])],
    )
    def test_incomplete_last_batch_is_dropped(self, n_samples, batch_size, sizes):
        batches = list(make_data(n_samples).batches(batch_size, torch_generator(0)))
        assert [len(batch.targets) for batch in batches] == sizes

    def test_incomplete_last_batch_is_kept_without_drop_last(self):
        batches = list(make_data(7).batches(3, torch_generator(0), drop_last=False))
        assert [len(batch.targets) for batch in batches] == [3, 3, 1]
        assert len(torch.cat([batch.embeddings for batch in batches]).unique(dim=0)) == 7

    def test_raw_embeddings_and_weighted_means(self):
        raw = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]])
        data = EmbeddedData.from_raw(raw[:, None], torch.arange(3), torch.tensor([1.0, 2.0, 5.0]))
        (batch,) = data.batches(3, torch_generator(0))
        torch.testing.assert_close(batch.raw_embeddings, raw[batch.targets])
        torch.testing.assert_close(batch.embeddings.norm(dim=1), (batch.targets != 1).float())
        # (1 * 0 + 2 * 1 + 5 * 2) / 8
        torch.testing.assert_close(batch.mean(batch.targets.float()), torch.tensor(1.5))

    def test_batches_shuffle_samples_and_draw_views_in_each_epoch(self):
        n_samples = 12
        data = EmbeddedData(
            targets=torch.arange(n_samples),
            weights=torch.arange(n_samples) / 5.5,
            embeddings=torch.arange(n_samples)[:, None, None] + 0.25 * torch.arange(4)[None, :, None],
            norms=torch.arange(n_samples)[:, None] + 0.25 * torch.arange(4)[None, :],
        )
        generator = torch_generator(0)
        orders, views = [], []
        for _ in range(50):
            batches = list(data.batches(4, generator))
            embeddings = torch.cat([batch.embeddings for batch in batches])
            targets = torch.cat([batch.targets for batch in batches])
            weights = torch.cat([batch.weights for batch in batches])
            assert torch.equal(torch.cat([batch.norms for batch in batches]), embeddings[:, 0])
            torch.testing.assert_close(weights, targets / 5.5)
            assert torch.equal(embeddings[:, 0].floor().long(), targets)
            assert sorted(targets.tolist()) == list(range(n_samples))
            orders.append(tuple(targets.tolist()))
            views += (4 * (embeddings[:, 0] % 1)).tolist()
        assert len(set(orders)) == 50
        counts = np.bincount(np.array(views, dtype=int), minlength=4)
        assert len(counts) == 4
        assert counts.min() > 100  # of 600, 150 expected


@pytest.mark.parametrize("weights", [None, [1, 2, 0.5, 3, 1, 10, 0.1]])
def test_equals_a_loop_written_out(weights):
    data = make_data(7, n_views=2, weights=weights)
    learner = make_learner()
    anchors = zero_shot_features(learner.backbone, NAMES, "{} texture.")
    history = run(
        learner, data, [term_of(AnchorRegularizer(3.0, template="{} texture."), learner)], max_epochs=4
    )

    other = make_learner()
    prompts = other.prompts(NAMES)
    context, velocity = other.context, None
    generator, n_steps = torch_generator(0), 0
    for epoch, rate in enumerate(cosine_with_warmup(4, 0.05)):
        losses, entropies, hits = [], [], []
        for batch in data.batches(3, generator):
            targets, batch_weights = batch.targets, batch.weights
            features = encode(other, prompts)
            log_p = (20.0 * batch.embeddings @ features.T).log_softmax(dim=1)
            entropy = -sum(w * row[t] for w, row, t in zip(batch_weights, log_p, targets, strict=True)) / 3
            loss = entropy + 3.0 * (1 - torch.cosine_similarity(features, anchors).mean())
            (gradient,) = torch.autograd.grad(loss, context)
            gradient = gradient + 5e-4 * context.detach()
            velocity = gradient if velocity is None else 0.9 * velocity + gradient
            with torch.no_grad():
                context -= rate * velocity
            losses.append(loss.item())
            entropies.append(entropy.item())
            hits.append((log_p.argmax(dim=1) == targets).float().mean().item())
            n_steps += 1
        record = history[epoch]
        assert record["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
        assert record["cross_entropy"] == pytest.approx(np.mean(entropies), rel=1e-4)
        assert record["kg"] == pytest.approx(np.mean(losses) - np.mean(entropies), abs=1e-4)
        assert record["accuracy"] == pytest.approx(np.mean(hits))
    assert n_steps == 8
    moved = (learner.context - make_learner().context).abs().max()
    assert moved > 1e-2
    torch.testing.assert_close(learner.context, context, atol=1e-5, rtol=1e-4)


def test_history_has_one_record_per_epoch():
    learner = make_learner()
    terms = [
        term_of(regularizer, learner)
        for regularizer in (AnchorRegularizer(), DynamicOutlierRegularizer(lexicon=NOUNS))
    ]
    history = run(learner, make_data(), terms, max_epochs=3, learning_rate=0.004)
    columns = ["epoch", "learning_rate", "loss", "cross_entropy", "accuracy", "kg", "dor"]
    assert [list(record) for record in history] == [columns] * 3
    assert [record["epoch"] for record in history] == [0, 1, 2]
    assert [record["learning_rate"] for record in history] == cosine_with_warmup(3, 0.004)
    for record in history:
        assert all(type(value) in (int, float) for value in record.values())
        total = record["cross_entropy"] + record["kg"] + record["dor"]
        assert record["loss"] == pytest.approx(total, abs=1e-5)


def test_training_reduces_the_loss():
    data = make_data(6)
    learner = make_learner()
    history = run(learner, data, max_epochs=30, learning_rate=0.05)
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]


def test_each_step_has_one_text_pass():
    backbone = Spy()
    learner = make_learner(backbone)
    terms = [
        term_of(AnchorRegularizer(), learner),
        term_of(DynamicOutlierRegularizer(lexicon=NOUNS, batch_size=4), learner),
    ]
    backbone.passes.clear()
    run(learner, make_data(7), terms, max_epochs=2, batch_size=3)
    assert backbone.passes == [len(NAMES) + 4] * 4


def test_each_term_gets_the_features_of_its_prompts(tiny_backbone):
    """Three terms draw two prompts, none and one."""
    learner = make_learner(tiny_backbone)
    checked = []

    class Checked(LossTerm):
        def __init__(self, names):
            self.name = f"of {len(names)}"
            self.prompts = learner.prompts(names) if names else None
            self.expected = encode(learner, self.prompts).detach() if names else None

        def draw(self, generator):
            return self.prompts

        def __call__(self, out, batch, drawn):
            # Drawn prompts are longer than the class prompts, so that joining them needs padding.
            torch.testing.assert_close(out.texts.detach(), classes, atol=1e-5, rtol=0)
            if self.expected is None:
                assert drawn is None
            else:
                torch.testing.assert_close(drawn.detach(), self.expected, atol=1e-5, rtol=0)
            checked.append(self.name)
            return out.texts.sum() * 0

    classes = encode(learner, learner.prompts(NAMES)).detach()
    terms = [Checked(["x", "a rather long name of many words"]), Checked([]), Checked(["violin"])]
    run(learner, make_data(3, dim=64), terms, max_epochs=1)
    assert checked == ["of 2", "of 0", "of 1"]


def test_outliers_do_not_depend_on_the_number_of_samples():
    drawn = []
    for n_samples in (3, 9):
        learner = make_learner()
        term = term_of(DynamicOutlierRegularizer(lexicon=NOUNS), learner)
        run(learner, make_data(n_samples), [term], max_epochs=1, batch_size=n_samples)
        drawn.append(term.drawn.tolist())
    assert drawn[0] == drawn[1]


def test_callback_can_stop_training():
    records = []
    history = run(
        make_learner(),
        make_data(),
        max_epochs=9,
        on_epoch_end=lambda r: records.append(r) or len(records) == 3,
    )
    assert history == records
    assert len(history) == 3


def test_zero_epochs_change_nothing():
    learner = make_learner()
    assert run(learner, make_data(), max_epochs=0) == []
    assert torch.equal(learner.context, make_learner().context)


def test_divergence_error_suggests_a_lower_learning_rate():
    with pytest.raises(
        FloatingPointError, match=r"loss is nan in epoch \d; lower learning_rate \(now 1e\+38\)"
    ):
        run(make_learner(), make_data(), max_epochs=5, learning_rate=1e38)


def test_scale_of_sample_weights_does_not_matter():
    learners = []
    for factor in (1.0, 1000.0):
        learners.append(make_learner())
        run(learners[-1], make_data(6, weights=[factor * w for w in (1, 2, 3, 4, 5, 6)]))
    torch.testing.assert_close(learners[0].context, learners[1].context, atol=1e-5, rtol=1e-4)
