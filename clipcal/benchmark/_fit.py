"""Run one fit of a plan, and measure its cells."""

from __future__ import annotations

import copy
import io
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcal.benchmark._cells import Cell, Fit
from clipcal.benchmark._components import (
    backbone_of,
    lexicon_of,
    make_calibrator,
    make_classifier,
    needs_pixels,
)
from clipcal.benchmark._data import digest_of, embedded, forget_data, load_part
from clipcal.benchmark._identity import described, identify
from clipcal.benchmark._plan import NONE, ZERO_SHOT, Plan
from clipcal.caching import FeatureCache
from clipcal.calibration import CalibratedCLIPClassifier
from clipcal.metrics import (
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    smooth_calibration_error,
)
from clipcal.text import load_nouns

__all__ = ["Outcome", "encode_nouns", "lost", "measure", "run_fit", "threads_of"]


@dataclass(frozen=True)
class Outcome:
    """The result of one cell.

    Parameters
    ----------
    key : str
        Key of the cell.
    record : dict
        What determines the cell, and its metrics or its ``error`` and ``traceback``.
    predictions : bytes or None
        Content of the file of predictions; None if the cell failed.
    run : dict
        Seconds of the fit and of the evaluation, and the device.
    """

    key: str
    record: dict[str, Any]
    predictions: bytes | None = None
    run: dict[str, Any] = field(default_factory=dict)


def run_fit(
    plan: Plan, fit: Fit, identities: Sequence[Mapping[str, Any]], memory: str, verbose: int = 0
) -> list[Outcome]:
    """Train, calibrate and evaluate. Errors become outcomes, so that other fits go on.

    Parameters
    ----------
    plan : Plan
        The plan.
    fit : Fit
        The fit.
    identities : sequence of mapping
        One for each cell of the fit.
    memory : str
        Folder of the cache of features.
    verbose : int, default=0
        If at least 1, progress bars are shown.

    Returns
    -------
    outcomes : list of Outcome
        One for each cell.
    """
    with threads_of(plan.n_threads):
        start = time.perf_counter()
        try:
            _check_identities(plan, fit, identities)
            classifier = _train(plan, fit, memory, verbose)
        except Exception as error:
            return lost(identities, error)
        run = {"fit_seconds": time.perf_counter() - start, "device": _device(classifier)}
        used = _used(classifier)
        outcomes, calibrated = [], {NONE: classifier}
        for cell, identity in zip(fit.cells, identities, strict=True):
            start = time.perf_counter()
            try:
                if cell.calibrator not in calibrated:
                    calibrated[cell.calibrator] = _calibrate(plan, fit, cell, classifier, memory)
                predictions = _predict(plan, fit, cell, calibrated[cell.calibrator], memory)
                metrics = measure(**predictions, n_bins=plan.n_bins)
            except Exception as error:
                outcomes.append(_failed(identity, error))
                continue
            timed = {**run, "evaluation_seconds": time.perf_counter() - start}
            outcomes.append(
                Outcome(
                    identity["key"],
                    {**identity, "used": used, "metrics": metrics},
                    _packed(predictions),
                    timed,
                )
            )
        return outcomes


def measure(
    y_true: NDArray[np.int64], y_prob: NDArray[np.float32], classes: NDArray[np.str_], n_bins: int
) -> dict[str, float]:
    """Return all metrics of the predictions of a cell.

    Parameters
    ----------
    y_true : ndarray of int64, shape (n_test,)
        Column of the true class of each image.
    y_prob : ndarray of float32, shape (n_test, n_classes)
        Probabilities.
    classes : ndarray of str, shape (n_classes,)
        Label of each column.
    n_bins : int
        Number of bins of the calibration errors.

    Returns
    -------
    metrics : dict of str to float
        Fractions, not percentages: ``accuracy``, ``confidence`` (mean of the highest probabilities), ``ece``,
        ``ace``, ``mce``, ``smooth_ece``, ``brier``, and ``log_loss`` in nats.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.benchmark import measure
    >>> y_prob = np.float32([[0.9, 0.1], [0.4, 0.6]])
    >>> metrics = measure(np.array([0, 1]), y_prob, np.array(["cat", "dog"]), n_bins=10)
    >>> metrics["accuracy"], round(metrics["confidence"], 2), round(metrics["ece"], 2)
    (1.0, 0.75, 0.25)
    """
    data: Any = (y_true, y_prob.astype(np.float64))
    labels = np.arange(len(classes))
    binned: dict[str, Any] = {"labels": labels, "n_bins": n_bins}
    with warnings.catch_warnings():
        # The adaptive error warns of few images, which would be repeated for each cell.
        warnings.simplefilter("ignore", UserWarning)
        return {
            "accuracy": float((y_prob.argmax(axis=1) == y_true).mean()),
            "confidence": float(y_prob.max(axis=1).mean(dtype=np.float64)),
            "ece": float(expected_calibration_error(*data, **binned)),
            "ace": float(adaptive_calibration_error(*data, **binned)),
            "mce": float(maximum_calibration_error(*data, **binned)),
            "smooth_ece": float(smooth_calibration_error(*data, labels=labels)),
            "brier": float(brier_score(*data, labels=labels)),
            "log_loss": float(negative_log_likelihood(*data, labels=labels)),
        }


def _check_identities(plan: Plan, fit: Fit, identities: Sequence[Mapping[str, Any]]) -> None:
    """Raise a RuntimeError if data, weights or versions of this process are not those of the keys."""
    found = identify(plan, fit)
    if [here["key"] for here in found] != [given["key"] for given in identities]:
        # This process may have read the files before they changed.
        forget_data()
        found = identify(plan, fit)
    for here, given in zip(found, identities, strict=True):
        differing = [name for name in here if name != "key" and here[name] != given[name]]
        if differing:
            told = "; ".join(f"{name}: {here[name]} instead of {given[name]}" for name in differing)
            raise RuntimeError(
                "The plan was started with other data or versions than those of this process, which may be "
                f"on another machine, or files have changed since. {told}"
            )


def _train(plan: Plan, fit: Fit, memory: str, verbose: int) -> Any:
    data = load_part(plan, fit.train_dataset, fit.classes, fit.n_shots, fit.seed)
    classifier = make_classifier(
        plan,
        fit.method,
        fit.regularizer,
        template=data.template,
        seed=fit.seed,
        class_names=data.class_names,
    )
    classifier.set_params(verbose=verbose)
    if fit.method.component == ZERO_SHOT:
        # Only the labels are used, and some data sets have no training images.
        width = backbone_of(plan).embedding_dim
        return classifier.fit(np.ones((len(data.class_ids), width)), data.class_ids)
    if (term := lexicon_of(plan, fit.method, fit.regularizer)) is not None:
        classifier.set_params(memory=encode_nouns(plan, term, memory))
    # Random crops are encoded in each fit, as they depend on its seed.
    as_images = _needs_pixels(plan, fit) or classifier.n_views != 1
    X = data.train.images if as_images else _embeddings(plan, fit, fit.train_dataset, "train", data, memory)
    return classifier.fit(X, data.train.target)


def encode_nouns(plan: Plan, term: Any, memory: str) -> FeatureCache:
    """Encode the candidates for outliers, and return a cache that contains nothing else.

    The cache is read-only, since features of texts that are encoded in other batches differ by rounding
    errors: with what earlier fits had added, results would depend on the order of fits.
    """
    from clipcal.methods import zero_shot_features

    nouns = load_nouns(term.lexicon)
    # Each lexicon has its own folder, as the batches of another one with some of the same nouns are others.
    name = digest_of([nouns, described(term.template)])[:16]
    cache = FeatureCache(Path(memory, "nouns", name))
    zero_shot_features(backbone_of(plan), nouns, term.template, skip_long=True, memory=cache)
    return FeatureCache(cache.location, read_only=True)


def _calibrate(plan: Plan, fit: Fit, cell: Cell, classifier: Any, memory: str) -> CalibratedCLIPClassifier:
    """Fit a calibrator on the validation images of the training classes, never on test images."""
    data = load_part(plan, fit.train_dataset, fit.classes, fit.n_shots, fit.seed)
    entry = next(entry for entry in plan.calibrators if entry.name == cell.calibrator)
    calibrator = make_calibrator(entry, template=data.template)
    calibrated = CalibratedCLIPClassifier(classifier, method=calibrator, cv="prefit")
    X = _embeddings(plan, fit, fit.train_dataset, "validation", data, memory)
    return calibrated.fit(X, data.validation.target)


def _predict(plan: Plan, fit: Fit, cell: Cell, classifier: Any, memory: str) -> dict[str, NDArray[Any]]:
    data = load_part(plan, cell.dataset, cell.classes, fit.n_shots, fit.seed)
    same = (cell.dataset, cell.classes) == (fit.train_dataset, fit.classes)
    # Some classes may have no training images.
    if not same or set(classifier.classes_) != set(data.class_ids):
        classifier = _for_classes(plan, fit, classifier, data)
    X = _embeddings(plan, fit, cell.dataset, "test", data, memory)
    y_prob = classifier.predict_proba(X).astype(np.float32)
    classes = np.asarray(classifier.classes_)
    return {"y_true": np.searchsorted(classes, data.test.target), "y_prob": y_prob, "classes": classes}


def _embeddings(plan: Plan, fit: Fit, name: str, subset: str, data: Any, memory: str) -> Any:
    """Return the embeddings of a subset, or its images if the method needs them."""
    if _needs_pixels(plan, fit):
        return data[subset].images
    embeddings, rows = embedded(plan, name, subset, n_shots=fit.n_shots, seed=fit.seed, memory=memory)
    return embeddings[[rows[path] for path in data[subset].paths]]


def _needs_pixels(plan: Plan, fit: Fit) -> bool:
    return needs_pixels(plan, fit.method, fit.regularizer)


def _for_classes(plan: Plan, fit: Fit, classifier: Any, data: Any) -> Any:
    """Return the classifier for the classes of other data; zero-shot prompts take their template."""
    if fit.method.component == ZERO_SHOT:
        template = make_classifier(plan, fit.method, fit.regularizer, template=data.template).template
        if hasattr(classifier, "estimator_"):
            classifier = copy.copy(classifier)
            classifier.estimator_ = copy.copy(classifier.estimator_).set_params(template=template)
        else:
            classifier = copy.copy(classifier).set_params(template=template)
    return classifier.with_classes({label: data.class_names[label] for label in data.class_ids})


def _used(classifier: Any) -> dict[str, Any]:
    """Return the settings that the classifier chose, such as those of its recipe."""
    return {
        "method": described(getattr(classifier, "method_", None)),
        "recipe": described(getattr(classifier, "recipe_", None)),
        "n_epochs": len(getattr(classifier, "history_", ())),
        "logit_scale": float(classifier.logit_scale_),
    }


def _packed(predictions: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a compressed file of arrays, with the same bytes for the same arrays."""
    file = io.BytesIO()
    arrays: dict[str, Any] = dict(predictions)
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def lost(identities: Sequence[Mapping[str, Any]], error: Exception) -> list[Outcome]:
    """Return the outcomes of a fit that ended without a result, for example as its process was killed."""
    return [_failed(identity, error) for identity in identities]


def _failed(identity: Mapping[str, Any], error: Exception) -> Outcome:
    told = {
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    kept = {name: identity[name] for name in ("format", "key", "cell")}
    return Outcome(identity["key"], {**kept, **told})


def _device(classifier: Any) -> str:
    return str(getattr(classifier, "device_", None) or classifier.device)


@contextmanager
def threads_of(n_threads: int | None) -> Iterator[None]:
    """Limit the number of threads of torch and of numerical libraries."""
    from threadpoolctl import threadpool_limits

    from clipcal.backbones import limit_threads

    if n_threads is None:
        yield
    else:
        with threadpool_limits(n_threads), limit_threads(n_threads):
            yield
