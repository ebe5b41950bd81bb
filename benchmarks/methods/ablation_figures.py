"""Figures of the results of ablations.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ablation_claims import titled
from ablation_plan import ANCHOR, COOP, DOR, HALVES, KGCOOP, ZERO_SHOT, Measured, Variant
from numpy.typing import NDArray
from runs import mean_and_half
from spread import SPREADS, expected_confidence

# The colours of Okabe and Ito, and markers that differ without colours.
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.45"
QUANTITIES = ("accuracy", "ece", "log_loss")


def draw(results: dict[str, Any], folder: Path) -> None:
    """Write all figures."""
    from matplotlib import rc_context

    measured = Measured(results)
    with rc_context({"svg.hashsalt": "clipcal"}):
        figures = {"ece": of_ece(measured), "lengths": of_lengths(measured), "weights": of_weights(measured)}
        for name, figure in figures.items():
            figure.savefig(folder / f"outliers_{name}.svg", metadata={"Date": None})
    # Hundreds of points are smaller as pixels.
    of_spread(measured).savefig(folder / "outliers_spread.png", dpi=110)


def subplots(*args: Any, figsize: tuple[float, float], **kwargs: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    # Without pyplot, whose backend and open figures belong to the process.
    figure = Figure(figsize=figsize, layout="constrained")
    axes = figure.subplots(*args, **kwargs)
    for ax in np.ravel(axes):
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def centered(values: Any) -> NDArray[np.float64]:
    """Remove the mean of each run over all points of a panel, and add the mean over all runs.

    Runs differ more than settings, so intervals of the values as they are would hide differences of settings.
    The shape is (n_curves, n_points, n_runs).
    """
    values = np.asarray(values)
    return values - values.mean(axis=(0, 1)) + values.mean()


def curves(ax: Any, x: Any, values: Any, styles: list[dict[str, Any]]) -> None:
    """Draw means over runs as lines, and intervals of the centered values as bands."""
    for of_curve, style in zip(centered(values), styles, strict=True):
        mean, half = np.transpose([mean_and_half(list(runs)) for runs in of_curve])
        ax.plot(x, mean, **style)
        ax.fill_between(x, mean - half, mean + half, color=style["color"], alpha=0.15, linewidth=0)


def marked(label: str, color: str, marker: str) -> dict[str, Any]:
    """Return the style of a line with markers."""
    return {"label": label, "color": color, "marker": marker, "markersize": 4}


def over_lengths(ax: Any, measured: Measured, quantity: str) -> None:
    """Draw a quantity of CoOp and CoOp + DOR against the number of epochs."""
    lengths = measured.plan.lengths
    values = [[measured.of(Variant(COOP, n, term), quantity) for n in lengths] for term in ("", DOR)]
    curves(ax, lengths, values, [marked("CoOp", VERMILLION, "o"), marked("CoOp + DOR", BLUE, "s")])
    ax.axhline(measured.of(Variant(ZERO_SHOT), quantity).mean(), color=GREY, linestyle=":", label="zero-shot")
    ax.set_title(titled(quantity), fontsize="medium")
    ax.set_xscale("log")
    ax.set_xticks(lengths, map(str, lengths))
    ax.minorticks_off()


def of_lengths(measured: Measured) -> Any:
    figure, axes = subplots(2, 3, figsize=(8.5, 5), sharex=True)
    for row, half in zip(axes, HALVES, strict=True):
        for ax, name in zip(row, QUANTITIES, strict=True):
            over_lengths(ax, measured, f"{half} {name}")
    for ax in axes[1]:
        ax.set_xlabel("epochs")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def of_ece(measured: Measured) -> Any:
    """Draw the calibration errors alone, as the shortest summary."""
    figure, axes = subplots(1, 2, figsize=(7.5, 3), sharey=True)
    for ax, half, classes in zip(axes, HALVES, ("trained", "new"), strict=True):
        over_lengths(ax, measured, f"{half} ece")
        ax.set_title(f"{classes} classes", fontsize="medium")
        ax.set_xlabel("epochs")
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("expected calibration error")
    axes[1].legend(loc="upper left", frameon=False)
    return figure


def of_weights(measured: Measured) -> Any:
    plan = measured.plan
    # Weights differ by constant factors, so they are evenly spaced; the first is 0.
    weights = (0.0, *plan.weights)
    figure, axes = subplots(1, 3, figsize=(8.5, 3.1))
    for ax, quantity in zip(axes, ("base accuracy", "base ece", "new ece"), strict=True):
        values = [
            [measured.of(plan.weighted(*kind, weight), quantity) for weight in weights]
            for kind in ((COOP, DOR), (COOP, ANCHOR), (KGCOOP, ANCHOR))
        ]
        styles = [("CoOp + DOR", BLUE, "s"), ("CoOp + anchor", VERMILLION, "o"), ("KgCoOp", GREEN, "^")]
        curves(ax, range(len(weights)), values, [marked(*style) for style in styles])
        ax.set_title(titled(quantity), fontsize="medium")
        ax.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
        ax.set_xlabel("weight")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def of_spread(measured: Measured) -> Any:
    """Draw confidence against the spread of logits, with normal logits, and against the divergence."""
    figure, axes = subplots(1, 2, figsize=(8.5, 3.6), sharey=True)
    for half, color, marker in (("base", BLUE, "s"), ("new", VERMILLION, "o")):
        for ax, name in zip(axes, ("spread", "divergence"), strict=True):
            points = [
                (measured.of_name(variant, f"{half} {name}"), measured.of_name(variant, f"{half} confidence"))
                for variant in measured.trained()
            ]
            x, y = np.concatenate(points, axis=1)
            ax.plot(
                x,
                y,
                marker,
                color=color,
                markersize=2.5,
                alpha=0.5,
                linestyle="none",
                label=f"{half} classes",
            )
    ends = axes[0].get_xlim()
    grid = np.linspace(min(ends[0], min(SPREADS)), ends[1], 40)
    n_classes = measured.results["setup"]["n_classes"]
    expected = [expected_confidence(spread, n_classes)[0] for spread in grid]
    axes[0].plot(grid, expected, color=GREY, label=f"normal logits of {n_classes} classes")
    axes[0].set_xlabel("spread of the logits")
    axes[1].set_xlabel("feature divergence")
    axes[0].set_ylabel("confidence")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure
