r"""Compare zero-shot, calibrated and trained classifiers on precomputed features of real CLIP models.

    python benchmarks/methods/real_features.py FEATURES.npz --jobs 2 --text-norm 10 \
        --template "a satellite photo of a {}." --data WHU-RS19
    python benchmarks/methods/real_features.py --table
    python benchmarks/methods/real_features.py --page docs/results/methods.rst

FEATURES.npz holds the embeddings of a labeled data set by one or several CLIP models, and those of its class
names in one or several templates. Authors of methods for CLIP publish such arrays; the stored results are of
WHU-RS19, 1005 aerial images of 19 classes, by ViT-B/32 and RN50 with OpenAI's weights, in the arrays that the
public repository RS-TransCLIP computes. To make a file of your own images:

    import numpy as np
    from clipcal import CLIPImageEncoder
    from clipcal.backbones import open_backbone
    from clipcal.methods import zero_shot_features

    names = ["beach", "forest", "park", "port"]
    templates = ["a satellite photo of a {}.", "an aerial photo of a {}."]
    backbone = open_backbone("ViT-B-32/openai")
    texts = [zero_shot_features(backbone, names, template, normalize=False).cpu() for template in templates]
    images = CLIPImageEncoder("ViT-B-32/openai").transform(paths)  # paths of your images
    arrays = {"images_ViT-B-32": images, "texts_ViT-B-32": np.stack(texts)}
    np.savez("features.npz", class_names=names, templates=templates, labels=labels, **arrays)

`labels` are indices of `names`. Other models are added as images_MODEL and texts_MODEL. Templates without {}
are completed as in "a_photo_of_a" -> "a photo of a {}."; the entry "averageprompt" is not a template, and is
dropped. --scale is the scale of the logits, 100 for OpenAI's models.

Published arrays often hold text features of unit length, but some methods start from unnormalized ones, and
train faster the shorter these are. --text-norm gives all text features another norm; it should be near that
of the text encoder. The rows "unit texts" start from unit length for comparison.

For each seed, 16 images of each class are drawn for training, and all others are test images. Fits on fewer
shots use the first of the 16, so that all fits of a seed have the same test images. Calibrators of zero-shot
predictions are fitted on the training images; those of trained classifiers, and the C of logistic regression,
by cross-validation on the training images. All methods have their default parameters and original recipes.
No fit uses test images. With --shots below 16, as many images are drawn as the largest needs.

In the second protocol, the first half of the classes is trained and tested among its own names (base), and
the classifier is then given the names of the other half and tested on its images (new).
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import ZERO_SHOT, Options, contenders
from feature_backbone import Features, read_features
from joblib import Parallel, delayed
from real_tables import tables
from runs import LEVEL, N_BINS, QUANTITIES, kept, mean_and_half, measure, show_tables, write_json
from threadpoolctl import threadpool_limits

from clipcal import ZeroShotCLIPClassifier

RESULTS = Path(__file__).parent / "results" / "real_features.json"
SHOTS = (1, 2, 4, 8, 16)
N_SEEDS = 10
COMPARISONS = (
    ("linear-probe", "LogisticRegression"),
    ("linear-probe", "LogisticRegression, C by CV"),
    ("linear-probe", "clip-adapter"),
    ("linear-probe", "taskres"),
    ("linear-probe", "tip-adapter-f"),
    ("linear-probe", "lp++"),
    ("linear-probe, clap", "linear-probe"),
    ("linear-probe + temperature", "linear-probe"),
    ("taskres + temperature", "taskres"),
    ("linear-probe + label-smoothing", "linear-probe"),
    ("linear-probe + mbls", "linear-probe"),
    ("linear-probe + zs-norm", "linear-probe"),
    ("linear-probe + tcpt", "linear-probe"),
)

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("features", type=Path, nargs="?", help="the .npz file")
    parser.add_argument("--data", help="name of the data set in the results, by default that of the file")
    parser.add_argument("--template", default="a photo of a {}.", help="for all but the ensembles")
    parser.add_argument("--scale", type=float, default=100.0)
    parser.add_argument("--text-norm", type=float, help="norm of all text features, by default as stored")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--seeds", type=int, default=N_SEEDS)
    parser.add_argument("--epochs", type=int, help="a limit for all methods, for a quick look")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cells", type=Path, help="folder of finished fits, to continue an earlier run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the tables of the stored results")
    parser.add_argument("--page", type=Path, help="replace the tables of a page by those of the results")
    args = parser.parse_args()
    if args.features is not None:
        run_all(args)
    elif not (args.table or args.page):
        parser.error("pass a file of features, or --table or --page for the stored results")
    found = tables(json.loads(args.out.read_text(encoding="utf-8")))
    show_tables(found, args.page)


def run_all(args: argparse.Namespace) -> None:
    options = Options(args.template, args.scale, args.text_norm, args.epochs)
    models = list(read_features(args.features))
    if args.cells is not None:
        args.cells.mkdir(parents=True, exist_ok=True)
    in_protocol = {"all": args.shots, "base-to-new": [max(args.shots)]}
    jobs = [
        delayed(run)(features, protocol, n_shots, max(args.shots), seed, options, args.cells)
        # The longest first, so that no process ends with a long job while the others are idle.
        for n_shots in sorted(args.shots, reverse=True)
        for protocol, protocol_shots in in_protocol.items()
        if n_shots in protocol_shots
        for features in models
        for seed in range(args.seeds)
    ]
    records = [record for part in Parallel(n_jobs=args.jobs)(jobs) for record in part]
    setup = {
        "data": args.data or args.features.stem,
        "n_images": len(models[0].images),
        "n_classes": len(models[0].class_names),
        "n_base": n_base(models[0]),
        "models": [features.model for features in models],
        "template": args.template,
        "logit_scale": args.scale,
        "text_norm": args.text_norm,
        "n_seeds": args.seeds,
        "max_epochs": args.epochs,
        "n_bins": N_BINS,
        "level": LEVEL,
    }
    columns = ["model", "classes", "shots", "method", "runs", *QUANTITIES]
    meaning = "of each quantity: mean, half width of its interval, and both of the difference to zero-shot"
    parts: dict[str, Any] = {
        "setup": setup,
        "templates": [r for f in models for r in of_templates(f, options)],
    }
    parts |= {"comparisons": compare(records), "columns": columns, "values": meaning}
    write_json(args.out, {**parts, "table": summarize(records)})


def run(
    features: Features,
    protocol: str,
    n_shots: int,
    n_drawn: int,
    seed: int,
    options: Options,
    cells: Path | None,
) -> list[Record]:
    """Return one record for each classifier and each group of test classes."""
    labels = features.labels
    pool, test = split(features.target, n_drawn, seed)
    train = pool[:, :n_shots].ravel()
    names = {"all": features.class_names}
    if protocol != "all":
        half = n_base(features)
        names = {"base": features.class_names[:half], "new": features.class_names[half:]}
    train = train[np.isin(labels[train], next(iter(names.values())))]
    records = []
    torch.set_num_threads(1)
    with threadpool_limits(1), warnings.catch_warnings():
        # Calibrators warn of few rows, and the solver of scikit-learn of C = 1e5.
        warnings.simplefilter("ignore")
        complete = n_shots == n_drawn
        for method, fit in contenders(features, options, n_shots, seed, complete=complete).items():

            def compute(method: str = method, fit: Any = fit) -> list[Record]:
                classifier = fit(features.images[train], labels[train])
                found = []
                for classes, wanted in names.items():
                    of_classes = classifier if classes != "new" else for_new(classifier, wanted)
                    if of_classes is not None:
                        rows = test[np.isin(labels[test], wanted)]
                        y_prob = of_classes.predict_proba(features.images[rows])
                        numbers = measure(labels[rows], y_prob, of_classes.classes_)
                        of_run = {"model": features.model, "shots": n_shots, "seed": seed}
                        found.append({**of_run, "method": method, "classes": classes, **numbers})
                return found

            key = f"{features.model} {protocol} {n_shots} {n_drawn} {seed} {method} {options}"
            records += kept(cells, key, compute)
    return records


def split(target: np.ndarray, n_drawn: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return training images, shape (n_classes, n_drawn), and test images, as row numbers."""
    rng = np.random.RandomState(seed)
    pool = np.array([rng.permutation(np.flatnonzero(target == c))[:n_drawn] for c in range(target.max() + 1)])
    return pool, np.setdiff1d(np.arange(len(target)), pool)


def n_base(features: Features) -> int:
    return (len(features.class_names) + 1) // 2


def for_new(classifier: Any, names: list[str]) -> Any:
    """Return the classifier for new classes, or None if it is specific to the training classes."""
    calibrator = getattr(classifier, "calibrator_", None)
    if not hasattr(classifier, "with_classes") or not getattr(calibrator, "class_agnostic", True):
        return None
    return classifier.with_classes(names)


def summarize(records: list[Record]) -> list[list[Any]]:
    """Return means, and means of paired differences to zero-shot predictions on the same test images."""
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[tuple(record[key] for key in ("model", "classes", "shots", "method"))].append(record)
    table = []
    for (*place, method), runs in groups.items():
        zero_shot = {run["seed"]: run for run in groups[*place, ZERO_SHOT]}
        row = [*place, method, len(runs)]
        for name in QUANTITIES:
            differences = [run[name] - zero_shot[run["seed"]][name] for run in runs]
            values = [*mean_and_half([run[name] for run in runs]), *mean_and_half(differences)]
            row.append([None if np.isnan(value) else round(value, 4) for value in values])
        table.append(row)
    return table


def compare(records: list[Record]) -> list[Record]:
    """Return paired differences between some methods, on the same test images."""
    runs = {tuple(r[key] for key in ("method", "model", "classes", "shots", "seed")): r for r in records}
    rows = []
    for first, second in COMPARISONS:
        places = {key[1:4] for key in runs if key[0] == first}
        for place in sorted(places):
            pairs = [
                (run, runs[second, *key[1:]])
                for key, run in runs.items()
                if key[:4] == (first, *place) and (second, *key[1:]) in runs
            ]
            # Methods that give new classes the zero-shot predictions differ by rounding errors only.
            if any(abs(a[name] - b[name]) > 1e-4 for a, b in pairs for name in QUANTITIES):
                row = dict(
                    zip(
                        ("first", "second", "model", "classes", "shots"), (first, second, *place), strict=True
                    )
                )
                row["runs"] = len(pairs)
                for name in QUANTITIES:
                    values = mean_and_half([a[name] - b[name] for a, b in pairs])
                    row[name] = [None if np.isnan(value) else round(value, 4) for value in values]
                rows.append(row)
    return rows


def of_templates(features: Features, options: Options) -> list[Record]:
    """Return the quantities of zero-shot predictions on all images, by template and for the ensemble."""
    backbone = features.backbone(options.logit_scale)
    templates = {**{name: name for name in features.templates}, "all": features.templates}
    found = {}
    for name, template in templates.items():
        classifier = ZeroShotCLIPClassifier(backbone, template=template)
        y_prob = classifier.fit(features.images, features.labels).predict_proba(features.images)
        found[name] = measure(features.labels, y_prob, classifier.classes_)
    rows = []
    for name in QUANTITIES:
        single = [found[template][name] for template in features.templates]
        of_interest = {
            "lowest": min(single),
            "median": float(np.median(single)),
            "highest": max(single),
            "used": found[options.template][name],
            "ensemble": found["all"][name],
        }
        rounded = {key: round(value, 4) for key, value in of_interest.items()}
        rows.append({"model": features.model, "n_templates": len(single), "quantity": name, **rounded})
    return rows


if __name__ == "__main__":
    main()
