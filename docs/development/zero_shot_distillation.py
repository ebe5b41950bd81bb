"""Example of a loss term: the divergence of the predictions from those of zero-shot CLIP."""

from torch.nn.functional import kl_div

from clipcal.regularizers import Regularizer
from clipcal.training import LossTerm


class DistillationTerm(LossTerm):
    """The loss term of one fit."""

    name = "distillation"

    def __init__(self, weight, zero_shot, logit_scale):
        self.weight = weight
        self.zero_shot = zero_shot
        self.logit_scale = logit_scale

    def __call__(self, out, batch, drawn):
        """Return the weighted loss of one step, a scalar."""
        target = (self.logit_scale * batch.embeddings @ self.zero_shot.T).log_softmax(dim=1)
        tuned = out.logits.log_softmax(dim=1)
        divergence = kl_div(tuned, target, reduction="none", log_target=True).sum(dim=1)
        return self.weight * batch.mean(divergence)


class DistillationRegularizer(Regularizer):
    """Add ``weight * mean_i KL(p0_i || p_i)``, where ``p0_i`` are the zero-shot probabilities of image i."""

    name = "distillation"

    def __init__(self, weight=1.0, *, template="a photo of a {}."):
        self.weight = weight
        self.template = template

    def prepare(self, problem, learner):
        """Return the loss term; called once per fit."""
        zero_shot = problem.zero_shot(problem.names, self.template)
        return DistillationTerm(self.weight, zero_shot, problem.backbone.logit_scale)
