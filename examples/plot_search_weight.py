"""
How strongly should training be regularized for classes that are not in it?
===========================================================================

Dynamic outlier regularization (DOR) has one hyper-parameter, the weight of its loss term. Ordinary
cross-validation cannot select it for new classes, as its test folds have the classes of training.
``LeaveClassesOut`` leaves whole classes out, and ``open_vocabulary`` lets the classifier predict among
them. Both are passed to scikit-learn's ``GridSearchCV``. Which weights do the two kinds of folds prefer,
and which one is best on classes that were in neither?
"""

# %%
# Data
# ----
#
# The search uses images of the first 15 of 30 colors. The other 15 are new classes.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from clipcal import (
    CLIPImageEncoder,
    CoOp,
    DynamicOutlierRegularizer,
    LeaveClassesOut,
    PromptTunedCLIPClassifier,
    make_shapes,
    open_vocabulary,
)
from clipcal.metrics import nll_scorer
from clipcal.text import load_nouns

names = make_shapes("colors", n_per_class=1).class_names
base, new = names[: len(names) // 2], names[len(names) // 2 :]
encoder = CLIPImageEncoder("mini")


def load(subset, n_per_class):
    images, y = make_shapes(
        "colors",
        subset=subset,
        n_per_class=n_per_class,
        random_state=0,
        return_X_y=True,
    )
    return encoder.transform(images), y


X, y = load("train", 8)
X, y = X[np.isin(y, base)], y[np.isin(y, base)]
X_new, y_new = load("test", 30)
X_new, y_new = X_new[np.isin(y_new, new)], y_new[np.isin(y_new, new)]

# %%
# Two searches
# ------------
#
# The nouns are a random sample of 1,000 of those of WordNet, to save time. The log loss ranks models with
# left-out classes better than a calibration error does (:doc:`/guide/new_classes`).

rng = np.random.default_rng(0)
nouns = rng.choice(load_nouns(), size=1000, replace=False).tolist()
clf = PromptTunedCLIPClassifier(
    "mini",
    method=CoOp(context_init=None, n_context=16),
    regularizer=DynamicOutlierRegularizer(lexicon=nouns),
    recipe="original",
    max_epochs=30,
    random_state=0,
)
weights = [0.0, 2.0, 8.0, 32.0]
folds = {
    "ordinary folds": StratifiedKFold(3, shuffle=True, random_state=0),
    "left-out classes": LeaveClassesOut(3, random_state=0),
}
searches = {}
for name, cv in folds.items():
    search = GridSearchCV(
        clf,
        {"regularizer__weight": weights},
        cv=cv,
        scoring=open_vocabulary(nll_scorer),
        refit=False,
    )
    searches[name] = search.fit(X, y)
    print(f"{name}: best weight {search.best_params_['regularizer__weight']}")

# %%
# For comparison, one classifier for each weight is tuned on all base classes and evaluated on images of the
# new classes. These images are not available in practice.

actual = [
    -nll_scorer(
        clf.set_params(regularizer__weight=weight).fit(X, y).with_classes(new),
        X_new,
        y_new,
    )
    for weight in weights
]

# %%
# Figure
# ------
#
# Bars are standard errors over the folds, and the large marker is the selected weight.

curves = {
    name: (
        -search.cv_results_["mean_test_score"],
        search.cv_results_["std_test_score"] / np.sqrt(2),
    )
    for name, search in searches.items()
}
curves["new classes"] = (np.array(actual), None)
fig, axes = plt.subplots(1, 3, figsize=(10, 3.8), layout="constrained")
for ax, (name, (loss, error)), color in zip(
    axes,
    curves.items(),
    ["#e69f00", "#0072b2", "#009e73"],
    strict=True,
):
    ax.errorbar(range(len(weights)), loss, error, color=color, marker="o", capsize=3)
    ax.plot(np.argmin(loss), np.min(loss), "o", color=color, markersize=13)
    ax.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    ax.set(xlabel="weight of DOR", title=name)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("log loss")
plt.show()

# %%
# The panels have different scales, as the folds have other classes and numbers of images than the new
# classes. Only the order of the weights matters. With left-out classes, as with the new classes, the log
# loss decreases strongly with the weight, up to the largest one in the grid, so a larger grid would be
# useful. Ordinary folds show smaller differences, which are within the errors for the larger weights.
# Standard errors are large with three folds, so the result is one example, and not a comparison of the two
# kinds of folds: that is in :doc:`/results/new_classes`.
