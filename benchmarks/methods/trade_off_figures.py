"""Figures and tables of the results of trade_off.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ablation_figures import BLUE, GREEN, GREY, VERMILLION, curves, subplots
from ablation_plan import HALVES
from numpy.typing import NDArray
from runs import mean_and_half, shown, simple_table

from clipcal.demo import COOP, COOP_DOR, KGCOOP, ZERO_SHOT

COLORS = {ZERO_SHOT: GREY, COOP: VERMILLION, KGCOOP: GREEN, COOP_DOR: BLUE}
MARKERS = {ZERO_SHOT: "D", COOP: "o", KGCOOP: "^", COOP_DOR: "s"}
TRAINED = (COOP, KGCOOP, COOP_DOR)
QUANTITIES = {
    "accuracy": "accuracy",
    "gap": "conf. - acc.",
    "ece": "ECE",
    "divergence": "FD",
}


class Measured:
    """Numbers of all runs."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.epochs: int = results["setup"]["epochs"]
        self._quantities: list[str] = results["quantities"]
        self._runs: list[list[Any]] = results["runs"]

    def of(self, method: str, quantity: str, epoch: int | None = None) -> NDArray[np.float64]:
        """Return one value for each task and seed, by default after the last epoch.

        ``gap`` is confidence minus accuracy. Zero-shot predictions have no epochs.
        """
        half, name = quantity.split()
        if name == "gap":
            return self.of(method, f"{half} confidence", epoch) - self.of(method, f"{half} accuracy", epoch)
        epoch = 0 if method == ZERO_SHOT else epoch or self.epochs
        at = 5 + self._quantities.index(quantity)
        return np.array([run[at] for run in self._runs if run[0] == method and run[4] == epoch])


def tables(measured: Measured) -> dict[str, str]:
    """Return all tables."""
    after = []
    for method in COLORS:
        for half in HALVES:
            cells = [mean_and_half(list(measured.of(method, f"{half} {name}"))) for name in QUANTITIES]
            numbers = [shown(*cell, sign=name == "gap") for cell, name in zip(cells, QUANTITIES, strict=True)]
            after.append([method, half, *numbers])
    changes = []
    for to, since in ((COOP, ZERO_SHOT), (KGCOOP, ZERO_SHOT), (COOP_DOR, COOP)):
        for half in HALVES:
            row = [f"{to} minus {since}", half]
            for name in QUANTITIES:
                change = measured.of(to, f"{half} {name}") - measured.of(since, f"{half} {name}")
                row.append(shown(*mean_and_half(list(change)), sign=True))
            changes.append(row)
    names = ["half", *QUANTITIES.values()]
    return {
        "trade-off": simple_table(["method", *names], after),
        "trade-off changes": simple_table(["change", *names], changes),
    }


def draw(measured: Measured, folder: Path) -> None:
    """Write all figures."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "clipcal"}):
        for name, figure in [("trade_off", of_methods(measured)), ("training", of_training(measured))]:
            figure.savefig(folder / f"dor_{name}.svg", metadata={"Date": None})


def of_methods(measured: Measured) -> Any:
    """Draw confidence against accuracy, and the ECE, of each method after training."""
    figure, (points, bars) = subplots(1, 2, figsize=(8.5, 3.9))
    for method, color in COLORS.items():
        for half, face in (("base", color), ("new", "white")):
            x, y = (measured.of(method, f"{half} {name}").mean() for name in ("accuracy", "confidence"))
            points.plot(x, y, MARKERS[method], color=color, markerfacecolor=face, markersize=8)
    low, high = 0.5, 0.7
    points.plot([low, high], [low, high], color=GREY, linewidth=1, zorder=0)
    points.text(0.515, 0.64, "overconfident", color=GREY)
    points.text(0.62, 0.54, "underconfident", color=GREY)
    points.set(xlabel="accuracy", ylabel="confidence", xlim=(low, high), ylim=(low, high))
    points.set(xticks=np.linspace(low, high, 5), yticks=np.linspace(low, high, 5))
    for i, (method, color) in enumerate(COLORS.items()):
        for at, (half, face) in enumerate((("base", color), ("new", "white"))):
            mean, error = mean_and_half(list(measured.of(method, f"{half} ece")))
            x = i + 0.4 * (at - 0.5)
            bars.bar(x, mean, 0.36, color=face, edgecolor=color)
            bars.errorbar(x, mean, error, color="black", linewidth=1, capsize=2)
    bars.set_xticks(range(len(COLORS)), COLORS)
    bars.set_ylabel("ECE")
    _legend(figure, list(COLORS), filled="base classes", empty="new classes")
    return figure


def of_training(measured: Measured) -> Any:
    """Draw the divergence of text features, and confidence minus accuracy, in each epoch."""
    epochs = range(1, measured.epochs + 1)
    figure, axes = subplots(2, 2, figsize=(8.5, 5), sharex=True, sharey="row")
    titles = {"divergence": "feature divergence", "gap": "confidence - accuracy"}
    for row, (name, title) in zip(axes, titles.items(), strict=True):
        for ax, half in zip(row, HALVES, strict=True):
            values = [[measured.of(m, f"{half} {name}", epoch) for epoch in epochs] for m in TRAINED]
            curves(ax, epochs, values, [{"color": COLORS[m], "linestyle": _line(m)} for m in TRAINED])
            level = measured.of(ZERO_SHOT, f"{half} {name}").mean()
            ax.axhline(level, color=GREY, linestyle=":")
            ax.set_title(f"{title}, {half} classes", fontsize="medium")
    for ax in axes[1]:
        ax.axhline(0, color="black", linewidth=0.6)
        ax.set_xlabel("epoch")
    _legend(figure, list(COLORS), lines=True)
    return figure


def _line(method: str) -> str:
    return {ZERO_SHOT: ":", KGCOOP: "--", COOP_DOR: "-."}.get(method, "-")


def _legend(
    figure: Any, methods: list[str], *, lines: bool = False, filled: str | None = None, empty: str = ""
) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for method in methods:
        style = {"linestyle": _line(method)} if lines else {"linestyle": "none", "marker": MARKERS[method]}
        handles.append(Line2D([], [], color=COLORS[method], label=method, **style))
    if filled is not None:
        for label, face in ((filled, "black"), (empty, "white")):
            style = {"linestyle": "none", "marker": "o", "markerfacecolor": face}
            handles.append(Line2D([], [], color="black", label=label, **style))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
