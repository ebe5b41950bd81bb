"""Make the files of schema 1 that every later version must load.

It was run once for each version of the embedded CLIP model: ``python tests/data/saved_v1/make_file.py``. The
files must not be made again; their test checks the content. To add those of a new version of the model,
change ``MODEL_VERSION``.
"""

from pathlib import Path

import numpy as np

import clipcal
from clipcal import CalibratedCLIPClassifier, CLIPImageEncoder, DynamicOutlierRegularizer, make_shapes

FOLDER = Path(__file__).parent
MODEL_VERSION = 2
NAMES = ["checkered", "dotted", "plain", "striped", "wavy"]
NOUNS = ["brick", "curtain", "denim", "hammer", "marble", "river", "twilight", "violin"]


def main() -> None:
    """Fit a classifier, and write it with embeddings and its predictions for them."""
    X, y = make_shapes("textures", n_per_class=8, random_state=0, return_X_y=True)
    rows = np.isin(y, NAMES)
    embeddings = CLIPImageEncoder("mini", device="cpu").transform(X[rows])
    clf = clipcal.PromptTunedCLIPClassifier(
        "mini",
        regularizer=DynamicOutlierRegularizer(lexicon=NOUNS),
        max_epochs=5,
        random_state=0,
        device="cpu",
    )
    calibrated = CalibratedCLIPClassifier(clf, cv=3).fit(embeddings, y[rows])
    clipcal.save(calibrated, FOLDER / f"textures_mini_{MODEL_VERSION}.clipcal")
    shown = embeddings[::4]
    np.savez_compressed(
        FOLDER / f"expected_mini_{MODEL_VERSION}.npz",
        embeddings=shown,
        y_prob=calibrated.predict_proba(shown),
        other_y_prob=calibrated.with_classes(["ringed", "gridded", "plain"]).predict_proba(shown),
    )


if __name__ == "__main__":
    main()
