"""Command line interface."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

from clipcal import __version__

# Exit statuses, besides 0, and 2 for invalid options: of a command that could not run, of a benchmark with
# failed cells, and of a command that was interrupted.
FAULT, FAILED_CELLS, INTERRUPTED = 1, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="clipcal",
        description="Few-shot tuning of CLIP classifiers, and calibration of their probabilities.",
    )
    parser.add_argument("--version", action="version", version=f"clipcal {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for add_command in (_add_demo, _add_data, _add_evaluate, _add_bench, _add_report, _add_info):
        add_command(commands)
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        hint = getattr(options, "interrupted", "")
        sys.stderr.write(f"\nclipcal: interrupted. {hint}\n")
        return INTERRUPTED


# Each command has a function that adds its arguments, and one that runs it and returns the exit status. The
# latter imports what it needs, so that the help of the other commands is shown at once.


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="compare all methods on generated images, offline, in minutes",
        description="Tune each method on half of the classes of generated tasks, and measure accuracy and "
        "calibration on test images of both halves.",
    )
    demo.add_argument("--out", type=Path, default=Path("clipcal-demo"), help="folder for the results")
    demo.add_argument(
        "--n-jobs", type=_n_jobs, default=-1, help="number of processes; -1, the default, uses all cores"
    )
    demo.add_argument("--quick", action="store_true", help="run one task and one seed, in less than a minute")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from clipcal.demo import run_demo

    try:
        sys.stdout.write(run_demo(options.out, n_jobs=options.n_jobs, quick=options.quick))
    except ImportError as error:
        _fail(str(error))
    except OSError as error:
        _unwritable(error, options.out, "demo")
    return 0


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser(
        "bench",
        help="run a benchmark plan, or what is missing of it",
        description="Run the cells of a plan that are missing in the folder of results. A run may be "
        "interrupted at any moment; the same command goes on. The exit status is 0 if all cells are "
        f"complete or were left out by options, {FAILED_CELLS} if cells failed, and {FAULT} if the plan or "
        "the data are invalid.",
    )
    bench.add_argument("plan", type=Path, help="TOML file")
    bench.add_argument("--out", type=Path, help="folder of results; by default, results/NAME-OF-THE-PLAN")
    bench.add_argument("--root", help="folder of the data sets; by default, the variable CLIPCAL_DATA")
    bench.add_argument("--cache", help="folder of embeddings; by default, cache in the folder of results")
    bench.add_argument("--dry-run", action="store_true", help="show what would run, and for how long")
    bench.add_argument("--limit", type=_count, help="run at most this number of fits")
    bench.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FIELD=VALUE[,VALUE]",
        help="run only these cells, such as dataset=dtd,eurosat; may be given several times",
    )
    bench.add_argument("--n-jobs", type=_n_jobs, default=1, help="number of processes; -1 uses all cores")
    bench.add_argument("--backend", choices=["local", "dask"], default="local", help="where fits run")
    bench.add_argument("--scheduler", help="address of the dask scheduler, such as tcp://host:8786")
    bench.add_argument(
        "--resources",
        type=_resources,
        metavar="NAME=NUMBER",
        help="resources of a dask worker that each fit needs, such as GPU=1",
    )
    bench.add_argument("--verbose", "-v", action="count", default=1, help="show the progress of each fit")
    bench.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    bench.set_defaults(run=_bench, interrupted="The same command goes on with the missing cells.")


def _bench(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from clipcal.benchmark import estimate_cost, load_plan, run_plan

    out = options.out or Path("results", options.plan.stem)
    try:
        plan = load_plan(options.plan)
        if options.root is not None:
            plan = replace(plan, root=options.root)
        conditions = _conditions(options.where)
        if options.dry_run:
            sys.stdout.write(f"{estimate_cost(plan, out, conditions=conditions)}\n")
            return 0
        with closing(_engine(options)) as engine:
            summary = run_plan(
                plan,
                out,
                conditions=conditions,
                limit=options.limit,
                memory=options.cache,
                engine=engine,
                verbose=0 if options.quiet else options.verbose,
            )
    except (ValueError, ImportError, BrokenExecutor) as error:
        _fail(str(error))
    except OSError as error:
        _unwritable(error, out, f"bench {options.plan}")
    sys.stdout.write(f"{summary}\nResults: {out}\n")
    return FAILED_CELLS if summary.failed else 0


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="check or download the files of published data sets")
    actions = data.add_subparsers(dest="action", required=True)
    check = actions.add_parser(
        "check",
        help="show what is missing of a data set, and where it can be had",
        description="Look for the split file and the images of a data set. The exit status is 0 if all are "
        "there, and 1 otherwise.",
    )
    check.add_argument("name", help="name of the data set, such as oxford_pets")
    check.add_argument("--root", help="folder of the data sets; by default, the variable CLIPCAL_DATA")
    check.add_argument("--decode", action="store_true", help="decode all images, and list unreadable ones")
    check.set_defaults(run=_check_data)
    fetch = actions.add_parser(
        "fetch",
        help="download a data set, if it has an open mirror",
        description="Download the split file and the images of a data set, and check their hashes where they "
        "are known. An interrupted download goes on with the same command.",
    )
    fetch.add_argument("name", help="name of the data set, such as oxford_pets")
    fetch.add_argument("--root", help="folder of the data sets; by default, the variable CLIPCAL_DATA")
    fetch.add_argument("--quiet", "-q", action="store_true", help="show no addresses and no progress")
    fetch.set_defaults(run=_fetch_data, interrupted="The same command goes on with the download.")


def _check_data(options: argparse.Namespace) -> int:
    from clipcal.datasets import check_benchmark
    from clipcal.exceptions import DatasetError

    try:
        result = check_benchmark(
            options.name, root=options.root, check="decode" if options.decode else "exists"
        )
    except DatasetError as error:
        _fail(str(error))
    sys.stdout.write(f"{result}\n")
    return 0 if result.ok else FAULT


def _fetch_data(options: argparse.Namespace) -> int:
    import logging

    from clipcal.datasets import fetch_benchmark
    from clipcal.exceptions import DatasetError

    if not options.quiet:
        # Addresses and sizes are logged before a download starts.
        logging.basicConfig(format="%(message)s")
        logging.getLogger("clipcal").setLevel(logging.INFO)
    try:
        folder = fetch_benchmark(options.name, root=options.root, verbose=0 if options.quiet else 1)
    except DatasetError as error:
        _fail(str(error))
    sys.stdout.write(f"{folder}\n")
    return 0


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="tune and evaluate a method on your own images",
        description="Draw training images of each class, tune a method on them, and show accuracy and "
        "calibration on test images, beside those of zero-shot classification. Without folders train and "
        "test, the images of each class are split.",
    )
    evaluate.add_argument("images", help="folder with one folder per class, or a table of paths and labels")
    evaluate.add_argument("--backbone", default="ViT-B-16/openai", help="the CLIP model; mini for a trial")
    evaluate.add_argument("--method", default="coop", help="tuning method, such as coop or maple")
    evaluate.add_argument("--regularizer", help="loss term, such as dor")
    evaluate.add_argument("--calibrator", default="temperature", help="calibrator; none for no calibrator")
    evaluate.add_argument("--recipe", help="training settings, such as original")
    evaluate.add_argument("--n-shots", type=_count, default=16, help="training images per class")
    evaluate.add_argument("--n-seeds", type=_count, default=1, help="number of draws and training runs")
    evaluate.add_argument("--template", help='prompt template, such as "a photo of a {}, a type of pet."')
    evaluate.add_argument(
        "--new-classes", action="store_true", help="also train on half of the classes, and test on the others"
    )
    evaluate.add_argument("--device", help="device, such as cpu or cuda:0")
    evaluate.add_argument("--out", type=Path, help="folder of results; by default, results/NAME-OF-IMAGES")
    evaluate.add_argument("--n-jobs", type=_n_jobs, default=1, help="number of processes; -1 uses all cores")
    evaluate.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    evaluate.set_defaults(run=_evaluate, interrupted="The same command goes on with what is missing.")


def _evaluate(options: argparse.Namespace) -> int:
    from clipcal.benchmark import evaluation_plan, format_summaries, run_plan

    images = Path(options.images).resolve()
    out = options.out or Path("results", images.stem if images.is_file() else images.name)
    try:
        plan = evaluation_plan(
            options.images,
            backbone=options.backbone,
            method=options.method,
            regularizer=options.regularizer,
            calibrator=options.calibrator,
            n_shots=options.n_shots,
            seeds=range(1, options.n_seeds + 1),
            template=options.template,
            new_classes=options.new_classes,
            recipe=options.recipe,
            device=options.device,
        )
        summary = run_plan(plan, out, n_jobs=options.n_jobs, verbose=0 if options.quiet else 2)
        shown = format_summaries(out) if summary.n_finished + summary.n_done else ""
    except (ValueError, ImportError, BrokenExecutor) as error:
        _fail(str(error))
    except OSError as error:
        _unwritable(error, out, f"evaluate {options.images}")
    sys.stdout.write(f"{shown}\n{summary}\nResults: {out}; for a page with diagrams: clipcal report {out}\n")
    return FAILED_CELLS if summary.failed else 0


def _engine(options: argparse.Namespace) -> Any:
    """Return where the fits of ``bench`` run."""
    from clipcal.benchmark import DaskEngine, LocalEngine

    if options.backend == "dask":
        return DaskEngine.connect(options.scheduler, resources=options.resources)
    if options.scheduler or options.resources:
        _fail("--scheduler and --resources need --backend dask.")
    return LocalEngine(options.n_jobs)


def _unwritable(error: OSError, out: Path | None, command: str) -> NoReturn:
    """Tell that a folder cannot be written to, or what else happened to a file."""
    if error.errno is None:
        _fail(str(error))
    place = None if error.filename is None else Path(error.filename).absolute()
    if out is None:
        out = place
    # A full disk has no file name.
    elif place is not None and not (place.is_relative_to(out.absolute()) or place in out.absolute().parents):
        _fail(f"{error.filename}: {error.strerror}")
    _fail(
        f"results cannot be written to {str(out)!r} ({error.strerror}). "
        f"Use another folder: clipcal {command} --out FOLDER"
    )


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="write the tables of benchmark results, and a page for the browser",
        description="Write averages, comparisons and tables of all data sets as Markdown, CSV and LaTeX, and "
        "one HTML page with heat maps and reliability diagrams.",
    )
    report.add_argument("results", type=Path, help="folder of benchmark results")
    report.add_argument("--out", type=Path, help="folder for the report; by default, report in RESULTS")
    report.add_argument(
        "--spread",
        choices=("std", "ci95"),
        default="std",
        help="what follows ±: the population standard deviation over seeds, or 1.96 standard errors",
    )
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from clipcal.benchmark import write_report
    from clipcal.exceptions import ResultsError

    try:
        folder = write_report(options.results, options.out, spread=options.spread)
    except (ImportError, ResultsError) as error:
        _fail(str(error))
    except OSError as error:
        _unwritable(error, options.out, "report RESULTS")
    sys.stdout.write(f"{folder / 'report.html'}\n{folder / 'report.md'}\n")
    return 0


def _add_info(commands: Any) -> None:
    info = commands.add_parser(
        "info",
        help="show versions, devices and folders, for bug reports",
        description="Show the versions of clipcal and of its packages, the devices, the numbers of threads, "
        "and the folders of models and data sets.",
    )
    info.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> int:
    from clipcal._environment import describe_environment, format_environment

    sys.stdout.write(f"{format_environment(describe_environment())}\n")
    return 0


def _fail(message: str) -> NoReturn:
    """Write a message to standard error and exit with status 1."""
    sys.stderr.write(f"clipcal: {message}\n")
    raise SystemExit(FAULT)


def _n_jobs(text: str) -> int:
    number = int(text) if text.lstrip("-").isdigit() else 0
    if number < 1 and number != -1:
        raise argparse.ArgumentTypeError(
            f"expected a number of processes, 1, 2, ..., or -1 for all cores; got {text!r}"
        )
    return number


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number, 1, 2, ...; got {text!r}")
    return int(text)


def _resources(text: str) -> dict[str, float]:
    name, equals, number = text.partition("=")
    try:
        if name and equals:
            return {name: float(number)}
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected NAME=NUMBER, such as GPU=1; got {text!r}")


def _conditions(texts: Sequence[str]) -> dict[str, list[str]]:
    conditions: dict[str, list[str]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not name or not equals or not values:
            _fail(f"--where takes FIELD=VALUE, such as dataset=dtd; got {text!r}.")
        conditions.setdefault(name, []).append(values)
    return conditions
