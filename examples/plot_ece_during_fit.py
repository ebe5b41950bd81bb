"""
Is the best epoch the one with the lowest ECE?
==============================================

Not necessarily. The callbacks of scikit-learn show how scores change during ``fit``:
:class:`sklearn.callback.ScoringMonitor` records them after each epoch, and
:class:`~clipcal.classifiers.EarlyStopping` stops training when a score on validation images no longer
improves, and keeps the best classifier. This example watches the expected calibration error (ECE) of training
and validation images while CoOp is tuned on few images, and compares it with the log loss.
:class:`~clipcal.plots.TrainingHistoryDisplay` draws the loss of the training images.
"""

# %%
# Data
# ----
# Four images of each of 24 shapes are used for tuning, 30 of each for validation.

import matplotlib.pyplot as plt
from sklearn.callback import ScoringMonitor

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, ece_scorer, make_shapes
from clipcal.classifiers import EarlyStopping
from clipcal.metrics import nll_scorer
from clipcal.plots import TrainingHistoryDisplay

encoder = CLIPImageEncoder("mini")


def shapes(subset, n_per_class):
    data = make_shapes("shapes", subset=subset, n_per_class=n_per_class, random_state=0)
    return encoder.fit_transform(data.images), data.target


X_train, y_train = shapes("train", 4)
X_val, y_val = shapes("validation", 30)

# %%
# Two callbacks
# -------------
# ``ScoringMonitor`` passes the training data to its scorer. The scorer here also scores the validation
# images, and returns several values by name. Scorers return negated errors, as higher is better in
# scikit-learn.
#
# ``EarlyStopping`` uses the log loss by default, which needs fewer images than an ECE. Its patience is longer
# than the training here, so that the curves show what would happen without it; with ``patience=10``, training
# ends ten epochs after the best one.


def scores(clf, X, y):
    return {
        "training ECE": -ece_scorer(clf, X, y),
        "validation ECE": -ece_scorer(clf, X_val, y_val),
        "validation log loss": -nll_scorer(clf, X_val, y_val),
    }


n_epochs = 60
monitor = ScoringMonitor(scoring=scores)
stopping = EarlyStopping(X_val, y_val, patience=n_epochs)
clf = PromptTunedCLIPClassifier("mini", max_epochs=n_epochs, random_state=0)
clf = clf.set_callbacks(monitor, stopping).fit(X_train, y_train)

records = [record for record in monitor.get_logs().data if record["task_name"] == "epoch"]
best = stopping.best_epoch_
print("epoch  training loss  validation log loss  training ECE  validation ECE")
for epoch in (0, best, n_epochs - 1):
    record, loss = records[epoch], clf.history_[epoch]["loss"]
    print(
        f"{epoch:5d}  {loss:13.3f}  {record['validation log loss']:19.3f}"
        f"  {record['training ECE']:12.3f}  {record['validation ECE']:14.3f}"
    )

# %%
# The best classifier is ``stopping.best_estimator_``; ``clf`` is that of the last epoch.

for name, model in {"best epoch": stopping.best_estimator_, "last epoch": clf}.items():
    accuracy, ece = model.score(X_val, y_val), -ece_scorer(model, X_val, y_val)
    print(f"{name}: accuracy {accuracy:.3f}, ECE {ece:.3f}")

# %%
# The figure
# ----------


figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
display = TrainingHistoryDisplay.from_estimator(
    clf, terms=["loss"], name="", show_learning_rate=False, ax=axes[0]
)
display.lines_["loss"].set_label("loss, training")
epochs = range(n_epochs)
log_losses = [record["validation log loss"] for record in records]
axes[0].plot(epochs, log_losses, "--", color="#D55E00", label="loss, validation")
styles = {"training ECE": ("-", "#0072B2"), "validation ECE": ("--", "#D55E00")}
for key, (style, color) in styles.items():
    axes[1].plot(epochs, [record[key] for record in records], style, color=color, label=key)
axes[1].set(xlabel="Epoch", ylabel="ECE", ylim=(0, None))
axes[1].spines[["top", "right"]].set_visible(False)
for ax in axes:
    ax.axvline(best, color="#6F7680", linewidth=1, linestyle=":", label="best log loss")
    ax.legend(frameon=False)
plt.show()

# %%
# The log loss of the validation images is lowest early and then rises: tuning overfits, and accuracy falls
# with it. Their ECE keeps falling, since the classifier was not sure enough at first and becomes more
# confident as training goes on. The ECE is not a proper score: watch it, but stop by log loss. The ECE of the
# training images is noisy, as there are few of them, and says little about that of other images.
