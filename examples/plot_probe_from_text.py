"""
Why is logistic regression on embeddings of CLIP underconfident?
================================================================

Logistic regression on image embeddings is the common baseline for few-shot classification with CLIP.
Embeddings have unit length, and those of different classes are similar, so logits of useful size need large
weights. The default penalty of scikit-learn, ``C=1``, does not allow such weights with a few images per
class: all probabilities are nearly equal, also if the prediction is right. The linear probe of clipcal
multiplies cosines by the scale of CLIP and starts from the text features of the class names. What does this
change, and is a larger ``C`` enough?
"""

# %%
# Data
# ----
#
# The classes are 24 shapes, whose colors and textures vary. There are 2 to 16 training images per class.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, make_shapes
from clipcal.metrics import mean_confidence_gap

SHOTS = [2, 4, 8, 16]
N_SEEDS = 3
encoder = CLIPImageEncoder("mini")


def load(subset, n_per_class, seed):
    images, y = make_shapes(
        "shapes",
        subset=subset,
        n_per_class=n_per_class,
        random_state=seed,
        return_X_y=True,
    )
    return encoder.transform(images), y


def make_classifiers(seed):
    return {
        "logistic regression, C=1": LogisticRegression(max_iter=2000),
        "logistic regression, C=1000": LogisticRegression(C=1000, max_iter=2000),
        "linear probe from text": PromptTunedCLIPClassifier(
            "mini",
            method="linear-probe",
            random_state=seed,
        ),
    }


# %%
# Accuracy, confidence, and the size of the logits
# ------------------------------------------------
#
# The confidence is determined by the differences between the logits of an image. Their size is measured by
# the standard deviation over the classes.

results = {name: np.empty((3, N_SEEDS, len(SHOTS))) for name in make_classifiers(0)}
for seed in range(N_SEEDS):
    X_test, y_test = load("validation", 20, seed)
    for column, shots in enumerate(SHOTS):
        X, y = load("train", shots, seed)
        for name, clf in make_classifiers(seed).items():
            clf.fit(X, y)
            accuracy = clf.score(X_test, y_test)
            gap = mean_confidence_gap(
                y_test,
                clf.predict_proba(X_test),
                labels=clf.classes_,
            )
            spread = clf.decision_function(X_test).std(axis=1).mean()
            results[name][:, seed, column] = accuracy, gap, spread

# %%
# Figure
# ------
#
# Lines are means over the repetitions, and bands range from the smallest to the largest value.

fig, axes = plt.subplots(1, 3, figsize=(10, 4), layout="constrained")
titles = ["accuracy", "confidence minus accuracy", "standard deviation of the logits"]
colors = ["#d55e00", "#e69f00", "#0072b2"]
for ax, title, position in zip(axes, titles, range(3), strict=True):
    for (name, values), color, marker in zip(results.items(), colors, "so^", strict=True):
        runs = values[position]
        ax.plot(SHOTS, runs.mean(axis=0), color=color, marker=marker, label=name)
        ax.fill_between(
            SHOTS,
            runs.min(axis=0),
            runs.max(axis=0),
            color=color,
            alpha=0.2,
            linewidth=0,
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(SHOTS, SHOTS)
    ax.set(xlabel="images per class", ylabel=title)
axes[1].axhline(0, color="0.4", linestyle="--", linewidth=1)
axes[2].set_yscale("log")
fig.legend(
    *axes[0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=3,
    frameon=False,
)
plt.show()

# %%
# Means over the repetitions, for two and for sixteen images per class:

for name, values in results.items():
    for column in (0, -1):
        accuracy, gap, spread = values[:, :, column].mean(axis=1)
        scores = f"accuracy {accuracy:.2f}, gap {gap:+.2f}, standard deviation {spread:.2f}"
        print(f"{name:28} {SHOTS[column]:2} images: {scores}")

# %%
# With ``C=1``, the logits are small and the confidence is far below the accuracy. The gap grows with the
# number of images, since the accuracy increases more than the confidence. ``C=1000`` allows larger logits,
# but then they are too large: the classifier is overconfident, so ``C`` has to be selected. The logits of
# the linear probe have nearly the same size for all numbers of images, since its scale is that of CLIP. It
# is nearest to calibration, and more accurate, since the class names contain information that few images do
# not.
#
# A temperature also corrects the confidence of a fitted logistic regression, with held-out images
# (:doc:`/guide/calibrators`). :doc:`/results/methods` has the same comparison on embeddings of OpenAI's
# models.
