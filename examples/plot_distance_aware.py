"""
Does distance-aware calibration correct the confidence on new classes?
======================================================================

Distance-aware calibration (DAC) needs no images of new classes. It compares the text features of each new
class before and after tuning: if tuning moved the class away from the training classes, its logits are made
smaller, and if it moved closer, they are made larger. It was proposed for CLIP models whose new classes
become overconfident. This example shows the scales that it computes for two kinds of tuning, and what they
change.
"""

# %%
# Data
# ----
#
# The classifiers are tuned on the first 15 of 30 colors, and used for the other 15.

import matplotlib.pyplot as plt
import numpy as np

from clipcal import (
    CalibratedCLIPClassifier,
    CLIPImageEncoder,
    CoOp,
    PromptTunedCLIPClassifier,
    make_shapes,
)
from clipcal.metrics import expected_calibration_error, mean_confidence_gap

N_SEEDS = 3
names = make_shapes("colors", n_per_class=1).class_names
base, new = names[: len(names) // 2], names[len(names) // 2 :]
encoder = CLIPImageEncoder("mini")


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
    return {
        "CoOp": PromptTunedCLIPClassifier("mini", method=coop, **settings),
        "KgCoOp": PromptTunedCLIPClassifier("mini", method="kgcoop", **settings),
    }


# %%
# Scales and errors
# -----------------
#
# ``cv="prefit"`` keeps the tuned classifier. DAC itself does not fit anything to the rows of ``fit``. The
# scales of the logits are computed by ``with_classes``, from the names of the new classes.

scales = {name: [] for name in make_classifiers(0)}
errors = {name: [] for name in make_classifiers(0)}
gaps = {name: [] for name in make_classifiers(0)}
for seed in range(N_SEEDS):
    X, y = load("train", 16, seed)
    X_test, y_test = load("validation", 50, seed)
    is_base, is_new = np.isin(y, base), np.isin(y_test, new)
    for name, clf in make_classifiers(seed).items():
        clf.fit(X[is_base], y[is_base])
        dac = CalibratedCLIPClassifier(clf, method="dac", cv="prefit").fit(
            X[is_base],
            y[is_base],
        )
        pair = clf.with_classes(new), dac.with_classes(new)
        y_prob = [model.predict_proba(X_test[is_new]) for model in pair]
        labels = pair[0].classes_
        scales[name].append(pair[1].calibrator_.scales_)
        errors[name].append(
            [expected_calibration_error(y_test[is_new], prob, labels=labels) for prob in y_prob],
        )
        gaps[name].append(
            [mean_confidence_gap(y_test[is_new], prob, labels=labels) for prob in y_prob],
        )

# %%
# Figure
# ------
#
# Each point of the left panel is a new class in one repetition, each line of the other panels a repetition.

fig, axes = plt.subplots(1, 3, figsize=(10, 4), layout="constrained")
rng = np.random.default_rng(0)
for position, (name, color) in enumerate({"CoOp": "#d55e00", "KgCoOp": "#0072b2"}.items()):
    values = np.concatenate(scales[name])
    axes[0].plot(
        position + rng.uniform(-0.15, 0.15, values.size),
        values,
        "o",
        color=color,
        alpha=0.6,
    )
    ends = 4 * position, 4 * position + 2
    for ax, pairs in zip(axes[1:], (gaps[name], errors[name]), strict=True):
        ax.plot(ends, np.transpose(pairs), "o-", color=color, alpha=0.7)
axes[0].set(xlim=(-0.6, 1.6), ylabel="scale of the logits of a new class")
axes[0].set_xticks([0, 1], ["CoOp", "KgCoOp"])
axes[1].set_ylabel("confidence minus accuracy, new classes")
axes[2].set_ylabel("ECE, new classes")
axes[0].axhline(1, color="0.4", linestyle="--", linewidth=1)
axes[1].axhline(0, color="0.4", linestyle="--", linewidth=1)
for ax in axes[1:]:
    ax.set_xlim(-0.8, 6.8)
    ax.set_xticks([0, 2, 4, 6], ["CoOp", "+ DAC", "KgCoOp", "+ DAC"])
plt.show()

# %%
# Means over the repetitions:

for name in scales:
    gap, error = np.mean(gaps[name], axis=0), np.mean(errors[name], axis=0)
    print(
        f"{name:7} mean scale {np.mean(scales[name]):.3f}, gap {gap[0]:+.3f} to {gap[1]:+.3f}, "
        f"ECE {error[0]:.3f} to {error[1]:.3f}",
    )

# %%
# CoOp moves all new classes away from the training classes, so their logits become smaller, and so does the
# confidence. As CoOp is overconfident on new classes here, this reduces the ECE in each repetition. If
# there is little overconfidence, the new classes can become underconfident instead: the scales depend on
# text features only, and not on the accuracy.
#
# KgCoOp keeps the text features where they were, so the scales are nearly 1 and DAC has little effect. It
# does not correct the underconfidence either, which zero-shot CLIP already had. :doc:`/results/methods`
# compares more tasks and methods. On average over those tasks, DAC does not change the ECE of CoOp on new
# classes.
