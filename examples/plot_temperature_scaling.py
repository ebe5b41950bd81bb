"""
How does temperature scaling change a reliability diagram?
==========================================================

A reliability diagram groups images by confidence and compares the confidence of each group with the share
of correct predictions. A calibrated classifier has its bars on the diagonal. Temperature scaling divides
all logits by one number, the temperature, which is fitted on images that were not used in training.
Predictions do not change, so the accuracy does not change either.
"""

# %%
# A classifier to calibrate
# -------------------------
#
# CoOp is tuned with eight images per class. The classes are 24 shapes, and the domain ``"street"`` has all
# kinds of light and weather, so many predictions are wrong.

import matplotlib.pyplot as plt
import numpy as np

from clipcal import (
    CalibratedCLIPClassifier,
    CLIPImageEncoder,
    PromptTunedCLIPClassifier,
    make_shapes,
)
from clipcal.metrics import expected_calibration_error
from clipcal.plots import ReliabilityGridDisplay

encoder = CLIPImageEncoder("mini")


def load(subset, n_per_class, seed):
    images, y = make_shapes(
        "shapes",
        domain="street",
        subset=subset,
        n_per_class=n_per_class,
        random_state=seed,
        return_X_y=True,
    )
    return encoder.transform(images), y


X, y = load("train", 8, seed=0)
X_held_out, y_held_out = load("validation", 4, seed=0)
X_test, y_test = load("test", 60, seed=0)

clf = PromptTunedCLIPClassifier("mini", recipe="original", max_epochs=60, random_state=0)
clf.fit(X, y)

# %%
# One temperature
# ---------------
#
# ``cv="prefit"`` keeps the fitted classifier and uses all rows that are passed to ``fit`` for the
# calibrator.

scaled = CalibratedCLIPClassifier(clf, method="temperature", cv="prefit")
scaled.fit(X_held_out, y_held_out)
print(f"temperature: {scaled.calibrator_.temperature_:.2f}")

unchanged = np.array_equal(clf.predict(X_test), scaled.predict(X_test))
print(f"same predictions: {unchanged}")

# %%
# Figure
# ------
#
# The band contains 95 % of the accuracies that a calibrated classifier would have with as many images in
# each bin.

models = {"before": clf, "after temperature scaling": scaled}
fig = plt.figure(figsize=(9, 4.8), layout="constrained")
ReliabilityGridDisplay.from_estimators(
    models,
    X_test,
    y_test,
    n_bins=10,
    band=0.95,
    figure=fig,
)
plt.show()

# %%
# The same comparison for three other training sets, with a temperature for each:

for seed in range(1, 4):
    X, y = load("train", 8, seed)
    X_held_out, y_held_out = load("validation", 4, seed)
    X_test, y_test = load("test", 60, seed)
    clf.set_params(random_state=seed).fit(X, y)
    scaled.fit(X_held_out, y_held_out)
    errors = [
        expected_calibration_error(
            y_test,
            model.predict_proba(X_test),
            labels=model.classes_,
        )
        for model in (clf, scaled)
    ]
    print(f"ECE before {errors[0]:.3f}, after {errors[1]:.3f}")

# %%
# Before, the accuracy is above the confidence in most bins: the classifier is underconfident. The
# temperature is therefore below 1, which increases all confidences. Afterwards the bars are near the
# diagonal, and the ECE is lower for each training set. An overconfident classifier has bars below the
# diagonal, and gets a temperature above 1.
#
# One number cannot correct bins in opposite directions. :doc:`/guide/calibrators` shows which calibrators
# can, and how many images they need.
