"""
Can a set of classes replace one uncertain prediction?
======================================================

A *prediction set* holds one class if the classifier is sure and several if it is not, such that the true
class is in it for a chosen fraction of the images, here 90 %. The package `MAPIE
<https://mapie.readthedocs.io>`_ computes such sets for any fitted classifier of scikit-learn by split
conformal prediction, and so for a tuned CLIP. The guarantee holds for images that are exchangeable with those
used to choose the threshold: same classes, same conditions. This example measures what is left of it on new
classes.
"""

# %%
# A tuned classifier
# ------------------
# CoOp is tuned on 16 images of each of the first 12 shapes. The other 12 shapes are the new classes. The
# embeddings of the images are the ``X`` of all classifiers here.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from mapie.classification import SplitConformalClassifier
from sklearn.model_selection import train_test_split

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, make_shapes

# MAPIE calls ``predict`` on a row of zeros to see whether a classifier is fitted.
warnings.filterwarnings("ignore", message=".*embeddings are zero")

encoder = CLIPImageEncoder("mini")
base = make_shapes("shapes", n_per_class=1).class_names[:12]


def shapes(subset, n_per_class):
    data = make_shapes("shapes", subset=subset, n_per_class=n_per_class, random_state=0)
    embeddings, is_base = encoder.fit_transform(data.images), np.isin(data.target, base)
    y = data.target
    return embeddings[is_base], y[is_base], embeddings[~is_base], y[~is_base]


X_train, y_train, *_ = shapes("train", 16)
X_base, y_base, X_new, y_new = shapes("test", 80)

clf = PromptTunedCLIPClassifier("mini", max_epochs=10, random_state=0).fit(X_train, y_train)
clf_new = clf.with_classes(np.unique(y_new).tolist())

# %%
# Prediction sets
# ---------------
# Half of the other images choose the threshold, one for each confidence level, and the other half are tested.
# The rows of ``sets`` are images, its columns ``clf.classes_``.

levels = [0.6, 0.7, 0.8, 0.9, 0.95]


def conformal(model, X, y):
    split = SplitConformalClassifier(model, confidence_level=levels, prefit=True)
    return split.conformalize(X, y)


def halves(X, y, seed):
    return train_test_split(X, y, test_size=0.5, random_state=seed)


X_val, X_test, y_val, y_test = halves(X_base, y_base, 0)
_, sets = conformal(clf, X_val, y_val).predict_set(X_test)
print("images, classes, levels:", sets.shape)

# %%
# Two ways to new classes
# -----------------------
# The sets of ``clf`` never hold the class of an image of a new class, since they hold trained classes only.
# With ``with_classes``, there are two possibilities. A threshold of the trained classes can be *carried
# over*: MAPIE keeps a class if 1 minus its probability is at most a quantile of this score for the true
# classes of the validation images, which is computed here by hand. With labelled images of the new classes, a
# threshold can be chosen *anew*.


def carry_over(model, X, X_val, y_val):
    true_column = np.searchsorted(clf.classes_, y_val)
    scores = np.sort(1 - clf.predict_proba(X_val)[np.arange(len(y_val)), true_column])
    ranks = np.ceil((len(scores) + 1) * np.array(levels)).astype(int)
    return (1 - model.predict_proba(X))[:, :, None] <= scores[ranks - 1] + 1e-8


def coverage_and_size(model, sets, y):
    true_column = np.searchsorted(model.classes_, y)
    return sets[np.arange(len(y)), true_column].mean(axis=0), sets.sum(axis=1).mean(axis=0)


print("same sets by hand:", np.array_equal(carry_over(clf, X_test, X_val, y_val), sets))

# %%
# Coverage and size of the sets
# -----------------------------
# The guarantee is about the average over draws of the validation images, so the halves are drawn 20 times.
# The numbers printed are those of the level of 90 %.

names = ["trained classes", "new classes, carried over", "new classes, chosen anew"]
results = {name: [] for name in names}
for seed in range(20):
    X_val, X_test, y_val, y_test = halves(X_base, y_base, seed)
    X_other, X_test_new, y_other, y_test_new = halves(X_new, y_new, seed)
    anew = conformal(clf_new, X_other, y_other)
    tested = [
        (clf, conformal(clf, X_val, y_val).predict_set(X_test)[1], y_test),
        (clf_new, carry_over(clf_new, X_test_new, X_val, y_val), y_test_new),
        (clf_new, anew.predict_set(X_test_new)[1], y_test_new),
    ]
    for rows, test in zip(results.values(), tested, strict=True):
        rows.append(coverage_and_size(*test))

for name, rows in results.items():
    coverage, size = np.mean(rows, axis=0)[:, levels.index(0.9)]
    spread = np.std(rows, axis=0)[0, levels.index(0.9)]
    print(f"{name}: coverage {coverage:.3f} +- {spread:.3f}, {size:.2f} classes per set")

# %%
# The figure
# ----------
# Means over the draws; bars are standard deviations of the coverage.


figure, axes = plt.subplots(1, 2, figsize=(9, 4.7), layout="constrained")
styles = [("o-", "#0072B2"), ("s--", "#D55E00"), ("^:", "#009E73")]
for (name, rows), (style, color) in zip(results.items(), styles, strict=True):
    (coverage, size), (spread, _) = np.mean(rows, axis=0), np.std(rows, axis=0)
    line = {"fmt": style, "color": color, "capsize": 3, "label": name}
    axes[0].errorbar(levels, coverage, spread, **line)
    axes[1].plot(levels, size, style, color=color)
axes[0].plot([0.55, 1], [0.55, 1], color="#6F7680", linewidth=1, label="coverage = level")
axes[0].set(ylabel="Fraction of sets with the true class")
axes[1].set(ylabel="Classes per set", ylim=(0, None))
for ax in axes:
    ax.set(xlabel="Confidence level")
    ax.spines[["top", "right"]].set_visible(False)
figure.legend(loc="outside upper center", ncols=4, frameon=False)
plt.show()

# %%
# On the trained classes, the average coverage is the confidence level. The coverage of a single draw deviates
# by its standard deviation, and that of a single class may be lower. On new classes, the threshold of the
# trained classes does not have the chosen coverage: here it is too high, as the classifier is less confident
# of them than it could be, and the sets are larger than necessary; with overconfident classes it would be too
# low. With a threshold chosen anew, the guarantee holds again, at the price of labelled images. At low
# levels, some sets are empty.
