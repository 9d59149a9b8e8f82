"""How long it takes until work begins: imports, the command line, a local cluster."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from benchmarks.job import cluster
from benchmarks.measure import repeat, seconds, worker_environment
from benchmarks.results import Figure, Table, spread

__all__ = ("start_up",)

_PROGRAMS = {
    "an empty Python program": ("-c", ""),
    "bgmatch --help": ("-m", "bgmatch_dask", "--help"),
    "imports of a worker": ("-c", "import bgmatch_dask.pipeline.tasks, distributed"),
    "imports of a run": ("-c", "import bgmatch_dask.pipeline.run, bgmatch_dask.service.cluster"),
}


def start_up(workers: int, repeats: int) -> tuple[list[Figure], Table]:
    """Time fresh processes, and a local cluster from nothing to all workers up and down again."""
    times = {name: repeat(partial(_run, args), repeats) for name, args in _PROGRAMS.items()}
    times[f"local cluster of {workers} workers, up and down"] = [
        seconds(lambda: _up_and_down(workers)) for _ in range(repeats)
    ]
    figures = [
        spread(f"start.{key}", times[name], "s", "lower")
        for key, name in zip(("python", "help", "worker", "run", "cluster"), times, strict=True)
    ]
    rows = tuple((name, figure.value) for name, figure in zip(times, figures, strict=True))
    return figures, Table("Until work begins", ("", "s"), rows, "Files are in memory already.")


def _run(arguments: tuple[str, ...]) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        env=worker_environment(),
    )


def _up_and_down(workers: int) -> None:
    with cluster(workers):
        pass
