"""
Can any scikit-learn classifier be calibrated?
==============================================

Yes: :class:`~clipcal.calibration.CalibratedCLIPClassifier` takes any classifier of scikit-learn, and no CLIP
model is loaded for it. It fits the calibrator on held-out rows, as
:class:`sklearn.calibration.CalibratedClassifierCV` does, but fits one calibrator for all classes together and
keeps one classifier. This example calibrates three classifiers of handwritten digits with three methods.
:doc:`/guide/calibrators` says which method to choose.
"""

# %%
# Classifiers and methods
# -----------------------
# Naive Bayes is too sure of its predictions, the forest is not sure enough, and logistic regression is nearly
# calibrated. With ``cv=5``, the calibrator is fitted on out-of-fold logits of the training rows, so all rows
# are used for both. ``var_smoothing`` is needed for pixels that are constant within a class.

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clipcal.calibration import CalibratedCLIPClassifier
from clipcal.metrics import expected_calibration_error, negative_log_likelihood

X, y = load_digits(return_X_y=True)
split = {"train_size": 600, "stratify": y, "random_state": 0}
X_train, X_test, y_train, y_test = train_test_split(X, y, **split)

linear = LogisticRegression(max_iter=500)
classifiers = {
    "Naive Bayes": GaussianNB(var_smoothing=1e-3),
    "Random forest": RandomForestClassifier(100, random_state=0),
    "Logistic regression": make_pipeline(StandardScaler(), linear),
}
methods = ["temperature", "matrix", "isotonic"]

# %%
# Calibrate and measure
# ---------------------
# The log loss rewards accuracy and calibration of the probabilities of all classes; the expected calibration
# error (ECE) is about the confidence in the predicted class only.


results = {}
print("classifier           method       accuracy  log loss    ECE")
for name, classifier in classifiers.items():
    fitted = {"not calibrated": classifier.fit(X_train, y_train)}
    for method in methods:
        calibrated = CalibratedCLIPClassifier(classifier, method=method, cv=5)
        fitted[method] = calibrated.fit(X_train, y_train)
    for method, model in fitted.items():
        y_prob = model.predict_proba(X_test)
        loss = negative_log_likelihood(y_test, y_prob)
        ece = expected_calibration_error(y_test, y_prob)
        accuracy = model.score(X_test, y_test)
        results[name, method] = accuracy, loss, ece
        print(f"{name:19}  {method:14}  {accuracy:.3f}     {loss:.3f}  {ece:.3f}")

# %%
# The figure
# ----------
# Each row is a classifier. Grey crosses are the classifier as it is, coloured points are calibrated.


figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, layout="constrained")
styles = {
    "not calibrated": ("X", "#6F7680"),
    "temperature": ("o", "#0072B2"),
    "matrix": ("s", "#D55E00"),
    "isotonic": ("^", "#009E73"),
}
for column, (ax, label) in enumerate(zip(axes, ["Log loss", "ECE"], strict=True), start=1):
    for place, (method, (marker, color)) in enumerate(styles.items()):
        values = [results[name, method][column] for name in classifiers]
        heights = [row + 0.12 * (place - 1.5) for row in range(len(classifiers))]
        ax.plot(values, heights, marker, color=color, markersize=8, label=method)
    ax.set(xlabel=f"{label} on test rows (lower is better)", xscale="log")
    ax.xaxis.set_major_locator(LogLocator(subs=[1, 2, 5]))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.grid(axis="x", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_yticks(range(len(classifiers)), classifiers)
axes[0].invert_yaxis()
points = axes[0].get_legend_handles_labels()
figure.legend(*points, loc="outside upper center", ncols=4, frameon=False)
plt.show()

# %%
# All three methods lower the log loss of naive Bayes and of the forest; logistic regression has little to
# gain. The ECE of the forest falls as well. For naive Bayes the two measures disagree: a temperature lowers
# the log loss most of the way, but hardly lowers the ECE, and may increase it on other splits, while isotonic
# regression has the lowest ECE but a high log loss. It changes the confidence in the predicted class and
# keeps the ratios of the other classes, many of which have a probability of almost 0. Choose a method by log
# loss. Matrix scaling may change predictions, so its accuracy can differ from that of the classifier.
