"""A small plan on a task of the embedded model, for tests of its runs."""

import os
import signal

from clipcal.benchmark import Plan

NOUNS = ["anchor", "basket", "candle", "denim", "engine", "feather", "guitar", "helmet", "island", "jacket"]
PLAN = {
    "name": "trial",
    "backbone": "mini",
    "datasets": ["mini/shapes-studio"],
    "methods": ["zero-shot", {"name": "CoOp", "method": "coop", "recipe": "original", "max_epochs": 2}],
    "regularizers": ["none", {"name": "DOR", "regularizer": "dor", "regularizer__lexicon": NOUNS}],
    "calibrators": ["none", "temperature"],
    "n_shots": [4],
    "seeds": [1],
    "n_threads": 1,
}


def plan(**changes):
    """Return the plan with changes."""
    return Plan.from_dict({**PLAN, **changes})


def content_of(results):
    """Return all files that tables are made from."""
    return {
        path.relative_to(results).as_posix(): path.read_bytes()
        for path in [results / "plan.json", *sorted((results / "cells").iterdir())]
    }


def kill_or_double(number):
    """Kill the process for 0, otherwise return the double of the number."""
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number
