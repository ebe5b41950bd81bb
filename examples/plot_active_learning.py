"""
Which images should be labelled next?
=====================================

If labels are expensive, the classifier itself can choose the images: *uncertainty sampling* asks for the
labels of the images of which it is least sure. The package `scikit-activeml
<https://scikit-activeml.github.io>`_ has many such strategies for classifiers of scikit-learn. This example
compares uncertainty sampling with a random choice for CoOp on the embedded CLIP, over several seeds, and
reports the differences with their standard errors.
"""

# %%
# A pool of unlabelled images
# ---------------------------
# The pool has 20 images of each of 24 shapes, of which two per class are labelled at the start. Images are
# encoded once.

import matplotlib.pyplot as plt
import numpy as np
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import RandomSampling, UncertaintySampling
from skactiveml.utils import MISSING_LABEL

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, make_shapes
from clipcal.metrics import negative_log_likelihood

encoder = CLIPImageEncoder("mini")
test = make_shapes("shapes", subset="test", n_per_class=30, random_state=0)
X_test = encoder.fit_transform(test.images)
classes = np.unique(test.target)

# %%
# Label, tune, choose, repeat
# ---------------------------
# Classifiers and strategies of scikit-activeml take labels that are partly missing. ``SklearnClassifier``
# fits the classifier of this package on the labelled rows only. The labels are the positions of the classes,
# as missing labels are NaN, and ``class_names`` gives the names.

names = dict(enumerate(classes.tolist()))
y_test = np.searchsorted(classes, test.target)
n_rounds, n_queries, n_seeds = 5, 24, 5
strategies = {
    "random": lambda seed: RandomSampling(random_state=seed),
    "uncertain": lambda seed: UncertaintySampling("margin_sampling", random_state=seed),
}


def learn(strategy, X, y_pool, seed):
    first = np.concatenate([np.flatnonzero(y_pool == label)[:2] for label in names])
    y = np.full(len(X), MISSING_LABEL)
    y[first] = y_pool[first]
    settings = {"max_epochs": 10, "class_names": names, "random_state": seed}
    tuned = PromptTunedCLIPClassifier("mini", **settings)
    clf = SklearnClassifier(tuned, classes=list(names), random_state=seed)
    scores = []
    for _ in range(n_rounds):
        clf.fit(X, y)
        y_prob = clf.predict_proba(X_test)
        accuracy = np.mean(clf.predict(X_test) == y_test)
        loss = negative_log_likelihood(y_test, y_prob, labels=list(names))
        scores.append((accuracy, loss))
        is_uncertainty = isinstance(strategy, UncertaintySampling)
        query = {"clf": clf, "fit_clf": False} if is_uncertainty else {}
        chosen = strategy.query(X, y, batch_size=n_queries, **query)
        y[chosen] = y_pool[chosen]
    return scores


scores = {name: [] for name in strategies}
for seed in range(n_seeds):
    pool = make_shapes("shapes", n_per_class=20, random_state=seed)
    X, y_pool = encoder.transform(pool.images), np.searchsorted(classes, pool.target)
    for name, make in strategies.items():
        scores[name].append(learn(make(seed), X, y_pool, seed))
scores = {name: np.array(values) for name, values in scores.items()}

# %%
# The difference between the strategies
# -------------------------------------
# Both start from the same images of the same pool, so differences are taken for each seed.

n_labels = 2 * len(classes) + n_queries * np.arange(n_rounds)
difference = scores["uncertain"] - scores["random"]
error = difference.std(axis=0, ddof=1) / np.sqrt(n_seeds)
print("labels  accuracy, uncertain - random  log loss, uncertain - random")
for n, mean, sem in zip(n_labels, difference.mean(axis=0), error, strict=True):
    print(f"{n:6d}  {mean[0]:+16.3f} +- {sem[0]:.3f}  {mean[1]:+23.3f} +- {sem[1]:.3f}")

# %%
# The figure
# ----------
# Thin lines are seeds, thick lines their means.

figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
styles = {"random": ("#6F7680", "o-"), "uncertain": ("#D55E00", "s--")}
for column, (ax, label) in enumerate(zip(axes, ["Accuracy", "Log loss"], strict=True)):
    for name, (color, style) in styles.items():
        values = scores[name][:, :, column]
        ax.plot(n_labels, values.T, color=color, linewidth=0.8, alpha=0.4)
        ax.plot(n_labels, values.mean(axis=0), style, color=color, linewidth=2, label=name)
    ax.set(xlabel="Number of labelled images", ylabel=f"{label} on test images")
    ax.set_xticks(n_labels)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].legend(frameon=False)
plt.show()

# %%
# More labels help a little with either strategy, but the difference between the two is of the size of its
# standard error: uncertainty sampling shows no clear advantage here. A tuned CLIP starts from text features
# that already know the classes by name, and few-shot tuning learns a context that all classes share, so it
# matters little which images are labelled. Run a comparison like this one before relying on a strategy.
