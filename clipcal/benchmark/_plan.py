"""Plans: which methods, loss terms and calibrators a benchmark compares, on which data sets and protocols."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from numbers import Integral
from pathlib import Path
from typing import Any, Self

from clipcal.exceptions import PlanError
from clipcal.text import find_templates

__all__ = ["NONE", "PROTOCOLS", "ZERO_SHOT", "Entry", "Plan", "load_plan", "model_name"]

BASE_TO_NEW, FEW_SHOT = "base-to-new", "few-shot"
CROSS_DATASET, DOMAIN_GENERALIZATION = "cross-dataset", "domain-generalization"
PROTOCOLS = (BASE_TO_NEW, FEW_SHOT, CROSS_DATASET, DOMAIN_GENERALIZATION)
ZERO_SHOT, NONE = "zero-shot", "none"
_DRAWS = ("stable", "dassl")
_COMPONENTS = ("methods", "regularizers", "calibrators")
# Parameters of classifiers that follow from the rest of the plan, or from the run.
_GIVEN = ("backbone", "class_names", "allow_duplicate_names", "random_state", "memory", "verbose")
# Those that all classifiers share with the backbone that encodes test images.
_SHARED = ("device", "precision")
_ELSEWHERE = {
    "backbone": ", but the plan does",
    "random_state": "; list seeds in the plan",
    "method": "; list methods in the plan",
    "regularizer": "; list regularizers in the plan",
    "device": "; set it in [classifier]",
    "precision": "; set it in [classifier]",
}
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Entry:
    """A method, a regularizer or a calibrator of a plan.

    Parameters
    ----------
    name : str
        Name in tables.
    component : object
        Name of the component, such as ``"coop"``, ``"zero-shot"`` or ``"none"``, or the component itself.
    params : mapping of str to object
        Parameters to set. For methods and regularizers they are parameters of
        :class:`~clipcal.PromptTunedCLIPClassifier`, such as ``max_epochs`` or ``method__n_context``, for
        calibrators those of the calibrator.

    Examples
    --------
    >>> from clipcal.benchmark import Entry
    >>> entry = Entry("CoOp, 8 vectors", "coop", {"method__n_context": 8, "method__context_init": None})
    >>> entry.name
    'CoOp, 8 vectors'
    """

    name: str
    component: Any
    params: Mapping[str, Any] = field(default_factory=dict)


def model_name(method: Entry, regularizer: Entry) -> str:
    """Return the name of a method with a loss term, without a regularizer that is ``"none"``."""
    return " + ".join(entry.name for entry in (method, regularizer) if entry.component != NONE)


@dataclass(frozen=True)
class Plan:
    """A grid of data sets, methods, regularizers, calibrators, protocols and seeds.

    Parameters
    ----------
    name : str
        Title of the report.
    methods : sequence of Entry
        Tuning methods; ``"zero-shot"`` is the classifier without training.
    datasets : sequence of str, default=()
        Data sets of the protocols ``"base-to-new"`` and ``"few-shot"``; see
        :func:`clipcal.datasets.list_benchmarks`. ``"own:"`` and a path are one's own images.
    protocols : sequence of str, default=("base-to-new",)
        ``"base-to-new"``: train on the first half of the classes, evaluate on both halves. ``"few-shot"``:
        train and evaluate on all classes. ``"cross-dataset"``: train on all classes of `source`, evaluate on
        `source` and `targets`. ``"domain-generalization"``: the same with `shifts`.
    backbone : str or Backbone, default="ViT-B-16/openai"
        The frozen CLIP; see :func:`clipcal.backbones.open_backbone`.
    regularizers : sequence of Entry, default=("none",)
        Loss terms, each combined with all methods that are trained.
    calibrators : sequence of Entry, default=("none",)
        Calibrators, each fitted on the validation images of the training classes.
    n_shots : sequence of int, default=(16,)
        Numbers of training images per class.
    seeds : sequence of int, default=(1, 2, 3)
        Seeds of the draw of training images and of the training.
    draw : {"stable", "dassl"}, default="stable"
        How training images are drawn; see :func:`clipcal.datasets.load_benchmark`.
    source : str or None, default=None
        Training data set of the protocols ``"cross-dataset"`` and ``"domain-generalization"``.
    targets, shifts : sequence of str, default=()
        Data sets to which the model trained on `source` is transferred, by protocol.
    templates : mapping of str to str, default={}
        Prompt templates of data sets, in place of their own.
    classifier : mapping, default={}
        Parameters of all tuned classifiers, such as ``{"n_views": 10}``.
    n_bins : int, default=15
        Number of bins of the calibration errors.
    root : str or None, default=None
        Folder with the data sets. If None, the environment variable ``CLIPCAL_DATA``.
    n_threads : int or None, default=None
        Number of threads of each fit on a CPU. If None, it is not changed. With a fixed number, results have
        the same bytes for any number of processes.
    exclude : sequence of mapping, default=()
        Combinations that are not run: each is a mapping of fields of a :class:`Cell` to values, such as
        ``{"method": "cocoop", "dataset": "imagenet"}``.
    paper : sequence of mapping, default=()
        Published figures, which reports show beside those of the plan.

    Raises
    ------
    PlanError
        If a value is unknown, missing or contradicts another one.

    See Also
    --------
    load_plan : Read a plan from a TOML file.

    Examples
    --------
    >>> from clipcal.benchmark import Plan
    >>> plan = Plan.from_dict(
    ...     {
    ...         "name": "colours",
    ...         "backbone": "mini",
    ...         "datasets": ["mini/colors-street"],
    ...         "methods": ["zero-shot", {"name": "CoOp", "method": "coop", "max_epochs": 5}],
    ...         "regularizers": ["none", {"name": "DOR", "regularizer": "dor"}],
    ...         "seeds": [1],
    ...     }
    ... )
    >>> [entry.name for entry in plan.methods]
    ['zero-shot', 'CoOp']
    """

    name: str
    methods: Sequence[Entry]
    datasets: Sequence[str] = ()
    protocols: Sequence[str] = (BASE_TO_NEW,)
    backbone: Any = "ViT-B-16/openai"
    regularizers: Sequence[Entry] = (Entry(NONE, NONE),)
    calibrators: Sequence[Entry] = (Entry(NONE, NONE),)
    n_shots: Sequence[int] = (16,)
    seeds: Sequence[int] = (1, 2, 3)
    draw: str = "stable"
    source: str | None = None
    targets: Sequence[str] = ()
    shifts: Sequence[str] = ()
    templates: Mapping[str, str] = field(default_factory=dict)
    classifier: Mapping[str, Any] = field(default_factory=dict)
    n_bins: int = 15
    root: str | None = None
    n_threads: int | None = None
    exclude: Sequence[Mapping[str, Any]] = ()
    paper: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        self._check_types()
        _check_choices("protocols", self.protocols, PROTOCOLS)
        _check_choices("draw", [self.draw], _DRAWS)
        for key in ("n_shots", "seeds"):
            _check_integers(key, getattr(self, key), lowest=1 if key == "n_shots" else 0)
        if max(self.seeds) > _MAX_SEED:
            raise PlanError(f"seeds must be integers of at most {_MAX_SEED}, got {max(self.seeds)}.")
        _check_integers("n_bins", [self.n_bins], lowest=1)
        _check_integers("n_threads", [] if self.n_threads is None else [self.n_threads], lowest=1, empty=True)
        for key in _COMPONENTS:
            _check_names(key, [entry.name for entry in getattr(self, key)])
        for key in ("datasets", "targets", "shifts", "seeds", "n_shots", "protocols"):
            _check_names(key, getattr(self, key), empty=True)
        self._check_parameters()
        self._check_data_sets()
        self._check_templates()

    def _check_types(self) -> None:
        if not isinstance(self.name, str):
            raise PlanError(f"name must be a string, got {self.name!r}.")
        if not isinstance(self.root, (str, os.PathLike, type(None))):
            raise PlanError(f"root must be the path of a folder, got {self.root!r}.")
        for key in ("templates", "classifier"):
            if not isinstance(getattr(self, key), Mapping):
                raise PlanError(f"{key} must be a table, such as [{key}]; got {getattr(self, key)!r}.")
        for key in ("exclude", "paper"):
            rules = getattr(self, key)
            if not _is_list(rules) or not all(isinstance(rule, Mapping) for rule in rules):
                raise PlanError(f"{key} must be a list of tables, such as [[{key}]]; got {rules!r}.")
        for key in _COMPONENTS:
            entries = getattr(self, key)
            if not _is_list(entries) or not all(isinstance(entry, Entry) for entry in entries):
                raise PlanError(f"{key} must be a list of entries, got {entries!r}; see Plan.from_dict.")

    def _check_parameters(self) -> None:
        _check_parameters("[classifier]", self.classifier, (*_GIVEN, "method", "regularizer"))
        for entry in self.methods:
            _check_parameters(f"The method {entry.name!r}", entry.params, (*_GIVEN, *_SHARED))
        for entry in self.regularizers:
            given = (*_GIVEN, *_SHARED, "method")
            _check_parameters(f"The regularizer {entry.name!r}", entry.params, given)
        own = [entry.name for entry in self.methods if "regularizer" in entry.params]
        if own and any(not _is_none(entry.component) for entry in self.regularizers):
            raise PlanError(
                f"The method {own[0]!r} has a regularizer of its own, so those of the plan cannot be added; "
                'list all of them in regularizers, or use regularizers = ["none"].'
            )
        for key in ("regularizers", "calibrators"):
            for entry in getattr(self, key):
                if _is_none(entry.component) != (entry.name == NONE):
                    raise PlanError(
                        f"{key}: only the entry without a component may and must have the name {NONE!r}, got "
                        f"{entry.name!r} for {entry.component!r}."
                    )

    def _check_templates(self) -> None:
        used = {*self.datasets, *self.targets, *self.shifts, self.source}
        for name, template in self.templates.items():
            if name not in used:
                raise PlanError(f"templates: the plan has no data set {name!r}.")
            if not isinstance(template, str):
                raise PlanError(f"templates: the template of {name!r} must be a string, got {template!r}.")
            find_templates(template)

    def _check_data_sets(self) -> None:
        needed = {BASE_TO_NEW: "datasets", FEW_SHOT: "datasets"}
        needed |= {CROSS_DATASET: "targets", DOMAIN_GENERALIZATION: "shifts"}
        for protocol in self.protocols:
            if not getattr(self, needed[protocol]):
                raise PlanError(
                    f"The protocol {protocol!r} needs {needed[protocol]}; add a line such as "
                    f'{needed[protocol]} = ["dtd", "eurosat"].'
                )
            if protocol in (CROSS_DATASET, DOMAIN_GENERALIZATION) and not self.source:
                raise PlanError(f'The protocol {protocol!r} needs source, such as source = "imagenet".')

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the plan for plain content, as in a TOML file.

        Parameters
        ----------
        content : mapping
            The parameters of :class:`Plan`. Entries of ``methods``, ``regularizers`` and ``calibrators`` are
            names of components, or mappings with a ``name`` for tables, the component under ``method``,
            ``regularizer`` or ``calibrator``, and any parameters. As TOML has no null value, ``none``
            lists parameters that are set to None.

        Returns
        -------
        plan : Plan

        Raises
        ------
        PlanError
            If a key is unknown, or a value is invalid.
        """
        known = [item.name for item in fields(cls)]
        for key in content:
            if key not in known:
                close = get_close_matches(key, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}."
                raise PlanError(f"The plan has the unknown key {key!r}; {hint}")
        for key in ("name", "methods"):
            if key not in content:
                raise PlanError(f"The plan has no {key!r}.")
        values = dict(content)
        for key in _COMPONENTS:
            if key in values:
                if not _is_list(values[key]):
                    raise PlanError(f"{key} must be a list of names and tables, got {values[key]!r}.")
                values[key] = tuple(_entry(key, item) for item in values[key])
        return cls(**values)


def load_plan(path: str | os.PathLike[str]) -> Plan:
    r"""Read a plan from a TOML file.

    Parameters
    ----------
    path : str or Path
        The file; see :meth:`Plan.from_dict` for its content.

    Returns
    -------
    plan : Plan

    Raises
    ------
    PlanError
        If the file is missing, is not TOML, or its content is not a plan.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from clipcal.benchmark import load_plan
    >>> path = Path(tempfile.mkdtemp()) / "plan.toml"
    >>> _ = path.write_text('name = "trial"\nmethods = ["zero-shot"]\ndatasets = ["dtd"]')
    >>> load_plan(path).backbone
    'ViT-B-16/openai'
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"The plan {os.fspath(path)!r} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"The plan {os.fspath(path)!r} is not a TOML file: {error}.") from error
    try:
        return Plan.from_dict(content)
    except PlanError as error:
        raise PlanError(f"{os.fspath(path)}: {error}") from None


def _entry(key: str, item: Any) -> Entry:
    kind = key.removesuffix("s")
    if isinstance(item, Entry):
        return item
    if isinstance(item, str):
        return Entry(item, item)
    if not isinstance(item, Mapping):
        raise PlanError(f"{key} must hold names or tables, got {item!r}.")
    params = dict(item)
    component = params.pop(kind, None)
    if component is None:
        raise PlanError(f'An entry of {key} has no {kind!r}: {dict(item)!r}; add {kind} = "...".')
    name = params.pop("name", component)
    if not isinstance(name, str) or not name:
        raise PlanError(f"An entry of {key} needs a name, a string; got {name!r}.")
    without = params.pop("none", ())
    if not _is_list(without):
        raise PlanError(f"none must be a list of parameters, got {without!r} in the entry {name!r} of {key}.")
    return Entry(name, component, {**params, **dict.fromkeys(without)})


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_none(component: Any) -> bool:
    return isinstance(component, str) and component == NONE


def _check_parameters(place: str, params: Mapping[str, Any], given: Sequence[str]) -> None:
    """Raise an error for parameters that must not be set in a place, where they would contradict the plan."""
    for name in given:
        if name in params:
            raise PlanError(f"{place} must not set {name!r}{_ELSEWHERE.get(name, '')}.")


def _check_choices(key: str, values: Sequence[Any], choices: Sequence[str]) -> None:
    if isinstance(values, str) or not values:
        raise PlanError(f"{key} must be a list with at least one entry, got {values!r}.")
    for value in values:
        if value not in choices:
            raise PlanError(f"{key}: {value!r} is unknown; choose among {', '.join(map(repr, choices))}.")


def _check_integers(key: str, values: Sequence[Any], *, lowest: int, empty: bool = False) -> None:
    if isinstance(values, (str, Integral)) or not (values or empty):
        raise PlanError(f"{key} must be a list of integers, got {values!r}.")
    for value in values:
        if not isinstance(value, Integral) or isinstance(value, bool) or value < lowest:
            raise PlanError(f"{key} must be an integer of at least {lowest}, got {value!r}.")


def _check_names(key: str, values: Sequence[Any], *, empty: bool = False) -> None:
    if isinstance(values, str) or not (values or empty):
        raise PlanError(f"{key} must be a list with at least one entry, got {values!r}.")
    repeated = [value for i, value in enumerate(values) if value in values[:i]]
    if repeated:
        raise PlanError(f"{key} has the entry {repeated[0]!r} twice; give each its own name.")
