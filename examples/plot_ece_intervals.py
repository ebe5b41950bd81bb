"""
How sure is this ECE?
=====================

An expected calibration error (ECE) that is computed on a few test images is an estimate, and it is biased
upwards: even a perfectly calibrated classifier has an ECE above 0. Three numbers put it in relation.
:func:`~clipcal.metrics.calibration_error_floor` is the ECE that a calibrated classifier would show on
average, :func:`~clipcal.metrics.calibration_interval` is a confidence interval for the true error, and
:func:`~clipcal.metrics.calibration_test` tests whether the classifier is calibrated. This example computes
them for the same two classifiers on more and more test images. :doc:`/method/metrics` has the definitions.
"""

# %%
# A tuned classifier, before and after calibration
# ------------------------------------------------
# CoOp is tuned on eight images of each of 24 shapes, and matrix scaling is fitted on validation images.
# Images are encoded once; from then on, the embeddings are used.

import matplotlib.pyplot as plt
import numpy as np

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, make_shapes
from clipcal.calibration import CalibratedCLIPClassifier
from clipcal.metrics import calibration_error_floor, calibration_interval, calibration_test

encoder = CLIPImageEncoder("mini")


def shapes(subset, n_per_class):
    data = make_shapes("shapes", subset=subset, n_per_class=n_per_class, random_state=0)
    return encoder.fit_transform(data.images), data.target


X_train, y_train = shapes("train", 8)
X_val, y_val = shapes("validation", 40)
X_test, y_test = shapes("test", 150)

tuned = PromptTunedCLIPClassifier("mini", max_epochs=10, random_state=0)
tuned = tuned.fit(X_train, y_train)
calibrated = CalibratedCLIPClassifier(tuned, method="matrix", cv="prefit").fit(X_val, y_val)

# %%
# More and more test images
# -------------------------
# The rows of the test set are in random order, so the first ones are a random sample.


sizes = [50, 100, 200, 400, 800, 1600, len(y_test)]
models = {"Tuned": tuned, "Tuned and calibrated": calibrated}
results = {}
print("images    ECE  interval        floor  p-value")
for name, model in models.items():
    print(name)
    y_prob = model.predict_proba(X_test)
    rows = []
    for n in sizes:
        given = y_test[:n], y_prob[:n]
        options = {"labels": model.classes_, "random_state": 0}
        interval = calibration_interval(*given, **options)
        floor = calibration_error_floor(y_prob[:n])
        pvalue = calibration_test(*given, **options).pvalue
        rows.append((*interval, floor, pvalue))
        ends = f"{interval.low:.3f} to {interval.high:.3f}"
        print(f"{n:6d}  {interval.estimate:.3f}  {ends}  {floor:.3f}  {pvalue:.3f}")
    results[name] = rows

# %%
# The figure
# ----------
# Points are the ECE with its 95 % interval. A filled point means that the test rejects calibration at a level
# of 5 %.


figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), sharey=True, layout="constrained")
colors = ["#D55E00", "#0072B2"]
for ax, (name, rows), color in zip(axes, results.items(), colors, strict=True):
    ece, low, high, floor, pvalue = np.array(rows).T
    rejected = pvalue < 0.05
    ax.plot(sizes, floor, "--", color="#2B2F36", label="floor: a calibrated classifier")
    ax.vlines(sizes, low, high, color=color, linewidth=2, label="95 % interval")
    point = {"color": color, "markersize": 7}
    ax.plot(sizes, ece, "o", markerfacecolor="white", label="ECE, not rejected", **point)
    ax.plot(np.array(sizes)[rejected], ece[rejected], "o", label="ECE, rejected", **point)
    ax.set_xscale("log")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ax.set(title=name, xlabel="Number of test images")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
axes[0].set(ylabel="ECE", ylim=(0, None))
plt.show()

# %%
# The interval becomes narrower and the floor falls as images are added, and the ECE falls with its floor
# although the classifier is the same. On the smallest test sets, both intervals reach 0 and the test rejects
# neither classifier: that does not prove calibration. On the whole test set, the error of the tuned
# classifier is significant, and that of the calibrated one is close to its floor. Compare values of ECE only
# for equal numbers of images, and report the floor or the interval with them. Each test has a probability of
# 5 % to reject a calibrated classifier, so a single rejection that is not confirmed on more images means
# little. :func:`~clipcal.metrics.compare_calibration` compares two classifiers on the same images.
