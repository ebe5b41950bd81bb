"""Classifiers and calibrators for the entries of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sklearn.base import BaseEstimator, clone

from clipcal._compat import validate_parameters
from clipcal.benchmark._plan import NONE, ZERO_SHOT, Entry, Plan, model_name
from clipcal.calibration import CALIBRATORS, Calibrator
from clipcal.classifiers import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.exceptions import PlanError
from clipcal.text import DEFAULT_TEMPLATE

__all__ = [
    "check_components",
    "compares_with_zero_shot",
    "is_trained",
    "make_calibrator",
    "make_classifier",
    "needs_pixels",
    "transfers",
    "with_precision",
]

# The value of a parameter that stands for the template of the data set.
_OF_DATASET = "dataset"


def make_classifier(
    plan: Plan,
    method: Entry,
    regularizer: Entry,
    *,
    template: str = DEFAULT_TEMPLATE,
    seed: int = 0,
    class_names: Mapping[Any, str] | None = None,
) -> BaseEstimator:
    """Return the unfitted classifier for a method and a regularizer.

    Zero-shot features of class names use the template of the data set, unless the plan sets the parameter.

    Parameters
    ----------
    plan : Plan
        The plan, for the backbone and the parameters of all classifiers.
    method, regularizer : Entry
        Entries of the plan.
    template : str
        Template of the data set.
    seed : int
        Seed of the training.
    class_names : mapping of label to str
        Names of the classes.

    Returns
    -------
    classifier : PromptTunedCLIPClassifier or ZeroShotCLIPClassifier

    Raises
    ------
    PlanError
        If a component or a parameter is unknown.
    """
    # Equal names are part of the published settings of ImageNet.
    shared: dict[str, Any] = {"class_names": class_names, "allow_duplicate_names": True}
    if method.component == ZERO_SHOT:
        params = {"template": template, **device_and_precision(plan), **_filled(method.params, template)}
        return _with_params(method.name, ZeroShotCLIPClassifier(plan.backbone, **shared), params)
    given = {**plan.classifier, **method.params, **regularizer.params}
    classifier = PromptTunedCLIPClassifier(plan.backbone, random_state=seed, **shared)
    classifier.method = method.component
    if regularizer.component != NONE:
        classifier.regularizer = regularizer.component
    classifier = _with_params(model_name(method, regularizer), classifier, _filled(given, template))
    return _with_template(classifier, template, given)


def device_and_precision(plan: Plan) -> dict[str, Any]:
    """Return the parameters ``device`` and ``precision`` of the classifiers of a plan."""
    return {key: plan.classifier.get(key, "auto") for key in ("device", "precision")}


def backbone_of(plan: Plan) -> Any:
    """Return the opened backbone of a plan."""
    from clipcal.backbones import open_backbone

    return open_backbone(plan.backbone, **device_and_precision(plan))


def with_precision(plan: Plan) -> Plan:
    """Return the plan with the precision of this machine, for others that would choose another one."""
    from clipcal.backbones import precision_of

    if not isinstance(plan.backbone, str):
        return plan
    return replace(plan, classifier={**plan.classifier, "precision": precision_of(backbone_of(plan))})


def make_calibrator(entry: Entry, *, template: str = DEFAULT_TEMPLATE) -> Calibrator:
    """Return the unfitted calibrator of an entry that is not ``"none"``.

    Zero-shot features use the template of the data set, unless the plan sets the parameter.
    """
    component = entry.component
    if isinstance(component, str):
        if component not in CALIBRATORS:
            raise PlanError(f"calibrator {component!r} is unknown; choose among {_listed(CALIBRATORS)}.")
        component = CALIBRATORS[component]
    _check_instance("calibrator", component, "calibrate")
    calibrator = _with_params(entry.name, clone(component), _filled(entry.params, template))
    if "template" not in entry.params and calibrator.get_params(deep=False).get("template", "") is None:
        calibrator.set_params(template=template)
    return calibrator


def transfers(calibrator: Entry) -> bool:
    """Whether a calibrator can be used for other classes than those it was fitted on."""
    return calibrator.component == NONE or make_calibrator(calibrator).class_agnostic


def compares_with_zero_shot(calibrator: Entry) -> bool:
    """Whether a calibrator compares a tuned classifier with the zero-shot classifier."""
    if calibrator.component == NONE:
        return False
    return bool({"text_features", "zero_shot_logits"} & set(make_calibrator(calibrator).side_inputs))


def is_trained(method: Entry) -> bool:
    """Whether a method is trained, so that loss terms have an effect."""
    return method.component != ZERO_SHOT and not _method(method.component).training_free


def needs_pixels(plan: Plan, method: Entry, regularizer: Entry) -> bool:
    """Whether a method needs images instead of embeddings."""
    if method.component == ZERO_SHOT:
        return False
    return bool(_method(make_classifier(plan, method, regularizer).method).needs_pixels)


def lexicon_of(plan: Plan, method: Entry, regularizer: Entry) -> Any:
    """Return the dynamic outlier regularizer of a fit, whose nouns take long to encode, or None."""
    if method.component == ZERO_SHOT:
        return None
    terms = _terms(make_classifier(plan, method, regularizer).regularizer)
    return next((term for term in terms if term.name == "dor"), None)


def check_components(plan: Plan) -> None:
    """Raise PlanError if a component is unknown, or a parameter is unknown or invalid."""
    for method in plan.methods:
        for regularizer in plan.regularizers:
            if regularizer.component == NONE or is_trained(method):
                _check_classifier(plan, method, regularizer)
    for calibrator in plan.calibrators:
        if calibrator.component != NONE:
            made = make_calibrator(calibrator)
            with _told(calibrator.name):
                _validate(made)


def _check_classifier(plan: Plan, method: Entry, regularizer: Entry) -> None:
    """Check what ``fit`` would check only when the fits before are done."""
    classifier = make_classifier(plan, method, regularizer)
    with _told(model_name(method, regularizer)):
        _validate(classifier)
        if method.component == ZERO_SHOT:
            return
        tuning = _method(classifier.method)
        for component in (tuning, *_terms(classifier.regularizer)):
            _validate(component)
        recipes = ("auto", *tuning.recipes)
        if classifier.recipe not in recipes:
            raise ValueError(f"recipe {classifier.recipe!r} is unknown; choose among {_listed(recipes)}.")


def _method(component: Any) -> Any:
    from clipcal.methods import METHODS

    return _found("method", component, METHODS)


def _regularizer(component: Any) -> Any:
    from clipcal.regularizers import REGULARIZERS

    return _found("regularizer", component, REGULARIZERS)


def _found(kind: str, component: Any, known: Mapping[str, Callable[[], Any]]) -> Any:
    if not isinstance(component, str):
        _check_instance(kind, component, "learner" if kind == "method" else "prepare")
        return component
    if component not in known:
        extra = [ZERO_SHOT] if kind == "method" else []
        raise PlanError(f"{kind} {component!r} is unknown; choose among {_listed([*extra, *known])}.")
    return known[component]()


def _terms(given: Any) -> list[Any]:
    """Return the loss terms for the parameter ``regularizer``."""
    items: Sequence[Any] = given if isinstance(given, (list, tuple)) else [given]
    return [_regularizer(item) for item in items if item is not None]


def _validate(component: Any) -> None:
    # A component of the user may declare no constraints.
    if hasattr(component, "_parameter_constraints"):
        validate_parameters(component)


def _check_instance(kind: str, component: Any, needed: str) -> None:
    if isinstance(component, type) or not hasattr(component, needed):
        raise PlanError(f"A {kind} must be a name or an instance, got {component!r}.")


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Name the entry of the plan in errors."""
    try:
        yield
    except ValueError as error:
        raise PlanError(f"The entry {name!r} of the plan: {error}") from error


def _with_params(name: str, estimator: Any, params: Mapping[str, Any]) -> Any:
    with _told(name):
        return estimator.set_params(**params)


def _filled(params: Mapping[str, Any], template: str) -> dict[str, Any]:
    return {
        key: template if key.endswith("template") and value == _OF_DATASET else value
        for key, value in params.items()
    }


def _with_template(
    classifier: PromptTunedCLIPClassifier, template: str, given: Mapping[str, Any]
) -> PromptTunedCLIPClassifier:
    """Set the template of zero-shot features of classes, in the method and in regularizers."""
    method = _method(classifier.method)
    terms = _terms(classifier.regularizer)
    if template == DEFAULT_TEMPLATE:
        return classifier
    for name in ("template", "zero_shot_template"):
        parameter = f"method__{name}"
        if parameter not in given and method.get_params(deep=False).get(name) == DEFAULT_TEMPLATE:
            classifier.set_params(**{parameter: template})
    names = {term.name for term in terms}
    # The terms of the method come first, as in the classifier; those of the plan replace them.
    own = [clone(term) for term in _method(classifier.method).regularizers() if term.name not in names]
    changed = [_of_classes(term, template) for term in own]
    if "regularizer__template" not in given:
        terms = [_of_classes(term, template) for term in terms]
    classifier.regularizer = [*changed, *terms] or None
    return classifier


def _of_classes(term: Any, template: str) -> Any:
    """Set the template of a loss term, unless it is that of other nouns than the classes."""
    if term.name != "dor" and getattr(term, "template", None) == DEFAULT_TEMPLATE:
        term = clone(term).set_params(template=template)
    return term


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))
