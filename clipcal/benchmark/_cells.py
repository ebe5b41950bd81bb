"""Expansion of a plan to fits, and to the cells that each fit fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from clipcal.benchmark._components import (
    check_components,
    compares_with_zero_shot,
    is_trained,
    transfers,
)
from clipcal.benchmark._plan import (
    BASE_TO_NEW,
    CROSS_DATASET,
    DOMAIN_GENERALIZATION,
    FEW_SHOT,
    NONE,
    ZERO_SHOT,
    Entry,
    Plan,
    model_name,
)
from clipcal.exceptions import PlanError

__all__ = ["Cell", "Fit", "expand", "where"]


@dataclass(frozen=True)
class Cell:
    """One entry of the results: a model, evaluated on the test images of some classes of a data set.

    Parameters
    ----------
    protocol : str
        One of the protocols of :class:`Plan`.
    train_dataset : str
        Data set of the training images.
    dataset : str
        Data set of the test images.
    classes : {"all", "base", "new"}
        The classes of the test images.
    method, regularizer, calibrator : str
        Names in the plan; ``"none"`` for no regularizer or calibrator.
    n_shots : int
        Number of training images per class; 0 if no training image is used.
    seed : int
        The seed; 0 if nothing is drawn.

    Examples
    --------
    >>> from clipcal.benchmark import Plan, expand
    >>> content = {"name": "a", "backbone": "mini", "datasets": ["mini/shapes-studio"], "methods": ["coop"]}
    >>> cell = expand(Plan.from_dict(content))[0].cells[0]
    >>> cell.protocol, cell.dataset, cell.classes, cell.method
    ('base-to-new', 'mini/shapes-studio', 'base', 'coop')
    """

    protocol: str
    train_dataset: str
    dataset: str
    classes: str
    method: str
    regularizer: str
    calibrator: str
    n_shots: int
    seed: int


@dataclass(frozen=True)
class Fit:
    """One training run, and the cells that are evaluated with it.

    Parameters
    ----------
    train_dataset : str
        Data set of the training images.
    classes : {"all", "base", "new"}
        The training classes.
    method, regularizer : Entry
        Method and regularizer of the plan.
    n_shots, seed : int
        As in :class:`Cell`.
    cells : tuple of Cell
        The cells.

    Examples
    --------
    >>> from clipcal.benchmark import Plan, expand
    >>> content = {"name": "a", "backbone": "mini", "datasets": ["mini/shapes-studio"], "methods": ["coop"]}
    >>> fit = expand(Plan.from_dict(content))[0]
    >>> fit.classes, [cell.classes for cell in fit.cells]
    ('base', ['base', 'new'])
    """

    train_dataset: str
    classes: str
    method: Entry
    regularizer: Entry
    n_shots: int
    seed: int
    cells: tuple[Cell, ...] = ()

    def __str__(self) -> str:
        drawn = f", {self.n_shots} shots, seed {self.seed}" if self.n_shots else ""
        return f"{self.model} on {self.train_dataset} ({self.classes}{drawn})"

    @property
    def model(self) -> str:
        """Name of the method, with that of the regularizer."""
        return model_name(self.method, self.regularizer)


def expand(plan: Plan) -> list[Fit]:
    """Return the fits of a plan, in its order, each with its cells.

    Combinations without a meaning are left out: loss terms of methods without training, calibrators with
    parameters for each class on other classes than those of the training, and calibrators that compare a
    tuned classifier with the zero-shot classifier for the latter.

    Parameters
    ----------
    plan : Plan
        The plan.

    Returns
    -------
    fits : list of Fit

    Raises
    ------
    PlanError
        If a component is unknown, an entry of ``plan.exclude`` matches no cell, or nothing remains after it.

    Examples
    --------
    >>> from clipcal.benchmark import Plan, expand
    >>> content = {"name": "trial", "datasets": ["dtd"], "methods": ["zero-shot", "coop"], "seeds": [1]}
    >>> [str(fit) for fit in expand(Plan.from_dict(content))]
    ['zero-shot on dtd (base)', 'zero-shot on dtd (new)', 'coop on dtd (base, 16 shots, seed 1)']
    """
    check_components(plan)
    fits: dict[tuple[Any, ...], tuple[Fit, list[Cell]]] = {}
    used: set[int] = set()
    for fit, cell in _pairs(plan):
        excluding = [i for i, rule in enumerate(plan.exclude) if _matches(cell, rule)]
        used.update(excluding)
        if not excluding:
            names = (fit.method.name, fit.regularizer.name)
            same = (*names, fit.train_dataset, fit.classes, fit.n_shots, fit.seed)
            fits.setdefault(same, (fit, []))[1].append(cell)
    for i, rule in enumerate(plan.exclude):
        if i not in used:
            raise PlanError(f"exclude: {dict(rule)!r} matches no cell of the plan; correct or remove it.")
    if not fits:
        raise PlanError("The plan has no cells: exclude drops all of them.")
    return [replace(fit, cells=tuple(cells)) for fit, cells in fits.values()]


def where(fits: Sequence[Fit], conditions: Mapping[str, Sequence[str]]) -> list[Fit]:
    """Return the fits with only those cells that meet all conditions.

    Parameters
    ----------
    fits : sequence of Fit
        The fits.
    conditions : mapping of str to sequence of str
        Accepted values for fields of a cell. A value that no cell has is split at its commas.

    Returns
    -------
    fits : list of Fit
        Without fits that have no cells left.

    Raises
    ------
    PlanError
        If a field or a value does not occur in the cells.
    """
    cells = [asdict(cell) for fit in fits for cell in fit.cells]
    rule = {}
    for name, values in conditions.items():
        if name not in cells[0]:
            raise PlanError(f"Cells have no field {name!r}; choose among {', '.join(cells[0])}.")
        found = sorted({str(cell[name]) for cell in cells})
        # Names of the plan may contain commas.
        rule[name] = [part for value in values for part in ([value] if value in found else value.split(","))]
        for value in rule[name]:
            if value not in found:
                raise PlanError(f"No cell has {name}={value}; choose among {', '.join(map(repr, found))}.")
    kept = [
        replace(fit, cells=tuple(cell for cell in fit.cells if _matches(cell, rule, of=str))) for fit in fits
    ]
    return [fit for fit in kept if fit.cells]


def _matches(cell: Cell, rule: Mapping[str, Any], of: Callable[[Any], Any] = lambda value: value) -> bool:
    values = asdict(cell)
    unknown = [name for name in rule if name not in values]
    if unknown:
        raise PlanError(f"Cells have no field {unknown[0]!r}; choose among {', '.join(values)}.")
    return all(
        of(values[name]) in (wanted if isinstance(wanted, (list, tuple)) else [wanted])
        for name, wanted in rule.items()
    )


def _pairs(plan: Plan) -> Iterator[tuple[Fit, Cell]]:
    """Yield each cell with its fit."""
    for method in plan.methods:
        for regularizer in plan.regularizers:
            if regularizer.component != NONE and not is_trained(method):
                continue
            for protocol in plan.protocols:
                for train, tests in _parts(plan, protocol):
                    for calibrator in plan.calibrators:
                        yield from _of_part(plan, method, regularizer, calibrator, protocol, train, tests)


def _of_part(
    plan: Plan,
    method: Entry,
    regularizer: Entry,
    calibrator: Entry,
    protocol: str,
    train: tuple[str, str],
    tests: Sequence[tuple[str, str]],
) -> Iterator[tuple[Fit, Cell]]:
    if method.component == ZERO_SHOT and compares_with_zero_shot(calibrator):
        return
    drawn = method.component != ZERO_SHOT or calibrator.component != NONE
    pairs = [(n, seed) for n in plan.n_shots for seed in plan.seeds] if drawn else [(0, 0)]
    for n_shots, seed in pairs:
        for test in tests:
            if test != train and not transfers(calibrator):
                continue
            cell = Cell(
                protocol, train[0], *test, method.name, regularizer.name, calibrator.name, n_shots, seed
            )
            # Without training and calibration, the training classes do not matter.
            dataset, classes = train if drawn else test
            yield Fit(dataset, classes, method, regularizer, n_shots, seed), cell


def _parts(plan: Plan, protocol: str) -> Iterator[tuple[tuple[str, str], list[tuple[str, str]]]]:
    """Yield data set and classes of the training, and those of the tests."""
    if protocol == BASE_TO_NEW:
        for name in plan.datasets:
            yield (name, "base"), [(name, "base"), (name, "new")]
    elif protocol == FEW_SHOT:
        for name in plan.datasets:
            yield (name, "all"), [(name, "all")]
    else:
        assert protocol in (CROSS_DATASET, DOMAIN_GENERALIZATION) and plan.source is not None
        others = plan.targets if protocol == CROSS_DATASET else plan.shifts
        names = [plan.source, *(name for name in others if name != plan.source)]
        yield (plan.source, "all"), [(name, "all") for name in names]
