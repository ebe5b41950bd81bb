"""
How does tuning move the text features, and is confidence related to it?
========================================================================

The feature divergence is the mean distance from the text feature of a class to those of its nearest other
classes. If it is large, the logits of an image differ more, and the confidence is higher. CoOp is free to
move the text features of all classes apart. KgCoOp and dynamic outlier regularization (DOR) keep them near
the zero-shot features: KgCoOp those of the base classes, which are used in training, and DOR those of other
nouns. The divergence needs no images, so it can be computed for new classes, which are not used in
training. Does it tell how tuning changes their confidence?
"""

# %%
# Four classifiers
# ----------------
#
# The task has 30 colors, of which the first 15 are base classes. DOR draws its nouns from a random sample
# of 2,000 of the 117,798 nouns of WordNet, to save time.

import matplotlib.pyplot as plt
import numpy as np

from clipcal import (
    CLIPImageEncoder,
    CoOp,
    DynamicOutlierRegularizer,
    PromptTunedCLIPClassifier,
    ZeroShotCLIPClassifier,
    make_shapes,
)
from clipcal.metrics import feature_divergence
from clipcal.plots import FeatureDivergenceDisplay
from clipcal.text import load_nouns

N_SEEDS = 2
names = make_shapes("colors", n_per_class=1).class_names
halves = {"base": names[: len(names) // 2], "new": names[len(names) // 2 :]}
encoder = CLIPImageEncoder("mini")
rng = np.random.default_rng(0)
nouns = rng.choice(load_nouns(), size=2000, replace=False).tolist()


def load(subset, n_per_class, seed):
    images, y = make_shapes(
        "colors",
        subset=subset,
        n_per_class=n_per_class,
        random_state=seed,
        return_X_y=True,
    )
    return encoder.transform(images), y


def make_classifiers(seed):
    settings = {
        "recipe": "original",
        "max_epochs": 30,
        "batch_size": 32,
        "random_state": seed,
    }
    coop = CoOp(context_init=None, n_context=16)
    dor = DynamicOutlierRegularizer(lexicon=nouns)
    return {
        "zero-shot": ZeroShotCLIPClassifier("mini"),
        "CoOp": PromptTunedCLIPClassifier("mini", method=coop, **settings),
        "KgCoOp": PromptTunedCLIPClassifier("mini", method="kgcoop", **settings),
        "CoOp + DOR": PromptTunedCLIPClassifier(
            "mini",
            method=coop,
            regularizer=dor,
            **settings,
        ),
    }


# %%
# Divergence and confidence
# -------------------------
#
# Text features do not depend on images. The confidence is the mean over test images of the classes.

records, features = [], {}
for seed in range(N_SEEDS):
    X, y = load("train", 16, seed)
    X_test, y_test = load("test", 30, seed)
    is_base = np.isin(y, halves["base"])
    for method, clf in make_classifiers(seed).items():
        clf.fit(X[is_base], y[is_base])
        among = {half: clf.with_classes(classes) for half, classes in halves.items()}
        text = {half: model.text_features_ for half, model in among.items()}
        if seed == 0:
            features[method] = text
        for half, model in among.items():
            y_prob = model.predict_proba(X_test[np.isin(y_test, halves[half])])
            divergence = feature_divergence(text[half])
            records.append((method, half, divergence, y_prob.max(axis=1).mean()))

# %%
# Figure
# ------
#
# The left panel shows how tuning moves the divergence of both halves in the first repetition, from the
# hollow to the filled markers. The right panel shows the confidence of all repetitions.

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.5), layout="constrained")
before = features.pop("zero-shot")
FeatureDivergenceDisplay.from_text_features(before, features, ax=left)

colors = dict(
    zip(make_classifiers(0), ["0.4", "#d55e00", "#e69f00", "#0072b2"], strict=True),
)
for half, marker in {"base": "o", "new": "s"}.items():
    for method, color in colors.items():
        points = [record[2:] for record in records if record[:2] == (method, half)]
        right.plot(*np.transpose(points), marker, color=color, label=f"{method}, {half}")
right.set(xlabel="Feature divergence", ylabel="Mean confidence")
right.spines[["top", "right"]].set_visible(False)
fig.legend(*right.get_legend_handles_labels(), loc="outside right", frameon=False)
plt.show()

# %%
# Means over the repetitions, and the correlation over all methods, halves and repetitions:

for method in colors:
    for half in halves:
        points = [record[2:] for record in records if record[:2] == (method, half)]
        divergence, confidence = np.mean(points, axis=0)
        print(
            f"{method:10}  {half:4}  divergence {divergence:.3f}  confidence {confidence:.3f}",
        )

divergence, confidence = np.transpose([record[2:] for record in records])
print(f"correlation: {np.corrcoef(divergence, confidence)[0, 1]:.2f}")

# %%
# CoOp increases the divergence of both halves most, although it is trained on one half only, and it also
# increases the confidence most. DOR reduces both increases. KgCoOp hardly changes the divergence or the
# confidence. Over all points, the two are strongly correlated.
#
# The divergence does not determine the confidence: at the same divergence, the confidence differs between
# base and new classes. It also does not say whether a confidence is right, which depends on the accuracy.
# :func:`clipcal.metrics.feature_divergence` has the definition, and :doc:`/method/dor` the reasons.
