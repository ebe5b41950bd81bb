"""Parameters of ``Learner.finish``, which callbacks and the choice of the number of epochs see."""

import numpy as np
import pytest
import torch
from sklearn.callback import ScoringMonitor
from toy_backbone import AnyWidthBackbone
from tuning_problem import problem_of

from clipcal import CoOp, PromptTunedCLIPClassifier
from clipcal.classifiers import EarlyStopping
from clipcal.methods._coop import ContextLearner
from clipcal.metrics import nll_scorer
from clipcal.training import finished

NAMES = ["cat", "dog", "red panda", "old hammer"]
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 16)), np.array(NAMES * 10)
X_VAL, Y_VAL = RNG.normal(size=(12, 16)), np.array(NAMES * 3)
N_EPOCHS = 5


class MeanLearner(ContextLearner):
    """Learner whose result is the mean of the contexts after all epochs."""

    def end_epoch(self, epoch, n_epochs):
        self.past = [*getattr(self, "past", []), self.context.detach().clone()]

    @torch.no_grad()
    def finish(self):
        if hasattr(self, "past"):
            self.context.copy_(torch.stack(self.past).mean(dim=0))


class MeanCoOp(CoOp):
    """CoOp whose result is the mean of the contexts after all epochs."""

    name = "mean"

    def learner(self, problem):
        learner = super().learner(problem)
        learner.__class__ = MeanLearner
        return learner


class StopAfter:
    """Callback that stops training after some epochs."""

    def __init__(self, n_epochs):
        self.n_left = n_epochs

    def setup(self, estimator, context):
        """Do nothing."""

    def on_fit_task_begin(self, estimator, context):
        """Do nothing."""

    def on_fit_task_end(self, estimator, context):
        self.n_left -= context.task_name == "epoch"
        return self.n_left <= 0

    def teardown(self, estimator, context):
        """Do nothing."""


def make(method=None, **params):
    params = {"max_epochs": N_EPOCHS, "batch_size": 8, "random_state": 0, "learning_rate": 0.5, **params}
    return PromptTunedCLIPClassifier(AnyWidthBackbone(16), method=method or MeanCoOp(), **params)


class TestFinished:
    def trained(self):
        learner = MeanCoOp().learner(problem_of(AnyWidthBackbone(16), NAMES))
        for epoch in range(3):
            learner.end_epoch(epoch, 3)
            learner.context.data += 1
        return learner

    def test_gives_the_result_and_takes_it_back(self):
        learner = self.trained()
        parameter, before = learner.context, learner.context.detach().clone()
        storage = parameter.data_ptr()
        with finished(learner):
            # The mean of the start, the start + 1 and the start + 2; the parameters are the start + 3.
            torch.testing.assert_close(learner.context.detach(), before - 2)
        assert torch.equal(learner.context, before)
        # The optimizer has the same tensor.
        assert learner.context is parameter and parameter.data_ptr() == storage and parameter.requires_grad

    def test_takes_it_back_after_an_error(self):
        learner = self.trained()
        before = learner.context.detach().clone()
        with pytest.raises(KeyError), finished(learner):
            raise KeyError
        assert torch.equal(learner.context, before)

    def test_nested(self):
        learner = self.trained()
        before = learner.context.detach().clone()
        with finished(learner), finished(learner):
            torch.testing.assert_close(learner.context.detach(), before - 2)
        assert torch.equal(learner.context, before)

    def test_learners_without_a_finish_are_left_alone(self):
        learner = CoOp().learner(problem_of(AnyWidthBackbone(16), NAMES))
        with finished(learner):
            learner.context.data += 1
            changed = learner.context.detach().clone()
        assert torch.equal(learner.context, changed)


class TestFit:
    def test_result_is_finished(self):
        """The contexts of plain CoOp after each epoch are averaged."""
        plain = [make(CoOp()).set_callbacks(StopAfter(n)).fit(X, Y) for n in range(1, N_EPOCHS + 1)]
        expected = np.mean([clf.learned_["context"] for clf in plain], axis=0)
        found = make().fit(X, Y).learned_["context"]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert np.abs(found - plain[-1].learned_["context"]).max() > 1e-2

    def test_callbacks_see_the_result_of_fits_that_stop_there(self):
        stopping, monitor = EarlyStopping(X_VAL, Y_VAL, patience=N_EPOCHS), ScoringMonitor(scoring=nll_scorer)
        clf = make().set_callbacks(stopping, monitor).fit(X, Y)
        shorter = [make().set_callbacks(StopAfter(n)).fit(X, Y) for n in range(1, N_EPOCHS + 1)]
        scores = [nll_scorer(other, X_VAL, Y_VAL) for other in shorter]
        np.testing.assert_allclose(stopping.scores_, scores, rtol=1e-6)
        assert len(np.unique(scores)) == N_EPOCHS
        best = shorter[int(np.argmax(scores))]
        np.testing.assert_allclose(
            stopping.best_estimator_.learned_["context"], best.learned_["context"], atol=1e-7
        )
        np.testing.assert_allclose(
            stopping.best_estimator_.predict_proba(X_VAL), best.predict_proba(X_VAL), rtol=1e-6
        )
        # Training goes on with the parameters of the optimizer.
        alone = make().fit(X, Y)
        np.testing.assert_array_equal(clf.learned_["context"], alone.learned_["context"])
        assert clf.history_ == alone.history_

    def test_choice_of_the_number_of_epochs(self, monkeypatch):
        """The log losses after each epoch are those of the result of training until then."""
        from clipcal import training

        n_seen, log_loss = {}, training.log_loss

        def spied(learner, *args, **params):
            if hasattr(learner, "past"):
                torch.testing.assert_close(learner.context.detach(), torch.stack(learner.past).mean(dim=0))
                n_seen[learner] = len(learner.past)
            return log_loss(learner, *args, **params)

        monkeypatch.setattr(training, "log_loss", spied)
        clf = make(early_stopping=True, learning_rate=0.05).fit(X, Y)
        # Four splits, each with the losses after every epoch.
        assert list(n_seen.values()) == [len(clf.validation_history_) - 1] * 4
        assert len(clf.validation_history_) > 2
