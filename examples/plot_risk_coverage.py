"""
When should a classifier abstain?
=================================

A classifier that may leave some images to a person makes fewer errors on the others. If its confidence ranks
right predictions before wrong ones, the error rate (*risk*) falls as the fraction of images that it answers
(*coverage*) falls. This example chooses a threshold of the confidence for a risk of at most 20 % on
validation images, and checks it on test images: of the classes that CoOp was tuned on, and of new classes.
"""

# %%
# Data and classifier
# -------------------
# CoOp is tuned on 16 images of each of the first 15 colours. The other 15 colours are the new classes.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import beta

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, make_shapes
from clipcal.metrics import area_under_risk_coverage, risk_coverage_curve
from clipcal.plots import RiskCoverageDisplay

encoder = CLIPImageEncoder("mini")
base = make_shapes("colors", n_per_class=1).class_names[:15]


def colors(subset, n_per_class):
    options = {"domain": "street", "random_state": 0}
    data = make_shapes("colors", subset=subset, n_per_class=n_per_class, **options)
    embeddings, is_base = encoder.fit_transform(data.images), np.isin(data.target, base)
    y = data.target
    return embeddings[is_base], y[is_base], embeddings[~is_base], y[~is_base]


X_train, y_train, _, new_labels = colors("train", 16)
X_val, y_val, *_ = colors("validation", 40)
X_test, y_test, X_new, y_new = colors("test", 60)

clf = PromptTunedCLIPClassifier("mini", max_epochs=10, random_state=0).fit(X_train, y_train)
clf_new = clf.with_classes(np.unique(new_labels).tolist())

# %%
# A threshold for a risk of 20 %
# ------------------------------
# The risk at each threshold of the validation images is an estimate. A threshold at which this estimate is
# just below the target often misses it on other images, so an upper confidence bound of the risk, by Clopper
# and Pearson, is used instead. The threshold is the lowest one whose bound is at most the target.

target = 0.2
y_prob = clf.predict_proba(X_val)
curve = risk_coverage_curve(y_val, y_prob, labels=clf.classes_)
n_answered = np.rint(curve.coverage * len(y_val))
n_wrong = np.rint(curve.risk * n_answered)
bound = beta.ppf(0.9, n_wrong + 1, n_answered - n_wrong)
threshold = curve.threshold[bound <= target].min()
print(f"answer if the confidence is at least {threshold:.3f}")

tests = {"trained classes": (clf, X_test, y_test), "new classes": (clf_new, X_new, y_new)}
points = {}
for name, (model, X, y) in tests.items():
    y_prob = model.predict_proba(X)
    answered = y_prob.max(axis=1) >= threshold
    wrong = model.predict(X) != y
    points[name] = answered.mean(), wrong[answered].mean()
    area = area_under_risk_coverage(y, y_prob, labels=model.classes_)
    answers, risk = points[name]
    print(f"{name}: {wrong.mean():.1%} wrong")
    print(f"  {answers:.0%} answered, of which {risk:.1%} wrong")
    print(f"  area under the curve {area:.3f}, in random order {wrong.mean():.3f}")

# %%
# The figure
# ----------
# :class:`~clipcal.plots.RiskCoverageDisplay` draws the curves. Large points are the chosen threshold.


figure, ax = plt.subplots(figsize=(7, 4.8), layout="constrained")
for name, (model, X, y) in tests.items():
    display = RiskCoverageDisplay.from_estimator(model, X, y, name=name, ax=ax)
    ax.plot(*points[name], "o", color=display.line_.get_color(), markersize=10, zorder=4)
ax.axhline(target, color="#2B2F36", linewidth=1)
ax.annotate("target", (0.01, target), xytext=(0, 3), textcoords="offset points")
plt.show()

# %%
# Confidence ranks the images well: both curves are below the error rate of a random order, also on new
# classes. The threshold of the trained classes is not a guarantee there, as the new classes have a higher
# error rate and a higher risk at the same confidence.
