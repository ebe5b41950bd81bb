"""Labeled images: the user's own, published data sets on disk, and generated ones."""

from clipcal.datasets._benchmarks import load_benchmark
from clipcal.datasets._catalog import list_benchmarks
from clipcal.datasets._check import BenchmarkCheck, check_benchmark
from clipcal.datasets._fetch import fetch_benchmark
from clipcal.datasets._few_shot import base_new_classes, draw_few_shot
from clipcal.datasets._load_images import load_images
from clipcal.datasets._shapes import DOMAINS, TASKS, make_shapes

__all__ = [
    "DOMAINS",
    "TASKS",
    "BenchmarkCheck",
    "base_new_classes",
    "check_benchmark",
    "draw_few_shot",
    "fetch_benchmark",
    "list_benchmarks",
    "load_benchmark",
    "load_images",
    "make_shapes",
]
