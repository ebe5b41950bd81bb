"""scikit-learn's own checks, on the embedding route."""

import pytest
from sklearn.utils.estimator_checks import check_param_validation, parametrize_with_checks
from toy_backbone import AnyWidthBackbone

from clipcal import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.regularizers import DynamicOutlierRegularizer

TOY = AnyWidthBackbone()
NOUNS = ["dog", "river", "denim", "twilight", "hammer", "violin"]
# Two runs that differ in the order of float32 sums drift apart with every step; the low learning rate keeps
# the drift below the tolerance with which the checks compare weights and repetitions.
ESTIMATORS = [
    ZeroShotCLIPClassifier(backbone=TOY),
    PromptTunedCLIPClassifier(backbone=TOY, max_epochs=3, learning_rate=1e-4, batch_size=512, random_state=0),
    PromptTunedCLIPClassifier(
        backbone=TOY,
        max_epochs=2,
        learning_rate=1e-4,
        batch_size=512,
        random_state=0,
        regularizer=["kg", DynamicOutlierRegularizer(lexicon=NOUNS)],
    ),
]

# The checks' labels are numbers, which make poor prompts; that is said once per fit.
pytestmark = pytest.mark.filterwarnings("ignore:The labels are not strings")


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS[:2], ids=lambda e: type(e).__name__)
def test_parameters_are_validated(estimator):
    check_param_validation(type(estimator).__name__, estimator)
