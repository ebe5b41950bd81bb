"""How the metrics of cells are named and shown."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["METRICS", "TABLE_METRICS", "Metric"]


class Metric(NamedTuple):
    """Label, explanation, scale and number of decimals of a metric, and whether higher is better."""

    label: str
    about: str
    scale: float = 100.0
    digits: int = 2
    higher_is_better: bool | None = False


METRICS = {
    "accuracy": Metric("accuracy", "Accuracy is top-1, over images, in percent.", higher_is_better=True),
    "ece": Metric(
        "ECE", "ECE is the expected calibration error with {n_bins} bins of equal width, in percent."
    ),
    "confidence": Metric("confidence", "Mean of the highest probability, in percent.", higher_is_better=None),
    "ace": Metric("ACE", "ACE is the calibration error with {n_bins} bins of equal counts, in percent."),
    "mce": Metric("MCE", "MCE is the largest gap of {n_bins} bins of equal width, in percent."),
    "smooth_ece": Metric("smooth ECE", "Smooth calibration error, in percent."),
    "brier": Metric("Brier score", "Brier score, summed over classes.", 1.0, 4),
    "log_loss": Metric("log loss", "Log loss in nats.", 1.0, 4),
}
# The metrics of tables; the page can show all.
TABLE_METRICS = ("accuracy", "ece")
