"""Checks of a running cluster: workers, clocks, memory, rights, dashboard."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import Any

from distributed import Client

from bgmatch_dask.config import RunConfig
from bgmatch_dask.errors import BgmatchError, ClusterError
from bgmatch_dask.pipeline.plan import TractPlan
from bgmatch_dask.service.doctor.here import compare_memory, needs, probe_store
from bgmatch_dask.service.versions import address_of
from bgmatch_dask.store import Location

__all__ = (
    "check_clocks",
    "check_dashboard",
    "check_memory",
    "check_worker_rights",
    "check_workers",
)

SKEW_SECONDS = 5.0
"""Clocks may differ by this much; signs of life and file times are compared across machines."""


def check_workers(client: Client) -> str:
    """Look whether there are workers, with one thread each.

    Raises
    ------
    ClusterError
        ``no-workers`` or ``worker-threads``.
    """
    threads = client.nthreads()
    if not threads:
        raise ClusterError(
            "no-workers",
            "The scheduler has no worker",
            where=address_of(client),
            fix=f"Start workers with `dask worker {address_of(client)} --nthreads 1`.",
        )
    many = sorted(address for address, number in threads.items() if number > 1)
    if many:
        raise ClusterError(
            "worker-threads",
            f"{len(many)} worker(s) have more than one thread, first {many[0]}",
            fix="Start them again with --nthreads 1, and --nworkers for more processes.",
        )
    return f"{len(threads)} workers with one thread each"


def check_clocks(client: Client) -> str:
    """Look whether the clocks of scheduler and workers agree with this one.

    Raises
    ------
    ClusterError
        ``clock-skew``.
    """
    asked = time.time()
    found: Any = client.run(time.time)
    there: Any = client.run_on_scheduler(time.time)
    answered = time.time()
    worst, where = 0.0, ""
    for place, clock in {**found, "the scheduler": there}.items():
        # Within the time that the answer took, every reading is right.
        skew = max(asked - clock, clock - answered, 0.0)
        if skew > worst:
            worst, where = skew, place
    if worst > SKEW_SECONDS:
        raise ClusterError(
            "clock-skew",
            f"The clock differs from this one by {worst:.0f} s",
            where=where,
            fix="Set the clock there by NTP (e.g. `timedatectl set-ntp true`), then start its "
            "processes again.",
        )
    return f"clocks agree to {max(worst, answered - asked):.1f} s"


def check_memory(client: Client, plan: TractPlan | None) -> str:
    """Look whether every worker has the memory that the plan needs.

    Raises
    ------
    ClusterError
        ``memory-short``.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [int(w["memory_limit"]) for w in workers if w["memory_limit"]]
    if not limits:
        return f"workers have no limit{needs(plan)}"
    compare_memory(min(limits), plan)
    return f"the smallest worker has {min(limits) / 1e9:.2f} GB{needs(plan)}"


def check_worker_rights(client: Client, config: RunConfig) -> str:
    """Look whether every worker can write the store, and read the inputs.

    Raises
    ------
    BgmatchError
        What the first worker that cannot says.
    """
    paths = config.inputs.paths
    location = Location.of(config.store.url, config.store.options)
    answers: Any = client.run(_probe, location.url, paths)
    for place, answer in answers.items():
        if answer is not None:
            code, what, fix = answer
            raise ClusterError(code, what, where=f"worker {place}", fix=fix)
    return "all workers can write the store" + (" and see the inputs" if paths else "")


def check_dashboard(client: Client) -> str:
    """Look whether the dashboard answers, and return its link and that of the board.

    Raises
    ------
    ClusterError
        ``dashboard-unreachable``.
    """
    from bgmatch_dask.service.board.plugin import board_link

    link = str(client.dashboard_link)
    health = link.removesuffix("/status") + "/health"
    try:
        with urllib.request.urlopen(health, timeout=10) as answer:  # noqa: S310  (http, from Dask)
            answer.read()
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise ClusterError(
            "dashboard-unreachable",
            f"The dashboard does not answer: {error}",
            where=link,
            fix="Forward its port to this machine, e.g. with `ssh -L`, or set "
            "distributed.dashboard.link in Dask's configuration to the address of your proxy.",
        ) from error
    board = board_link(client)
    return f"{link}, board at {board}" + ("" if _answers(board) else " from the first run on")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):  # noqa: S310  (http, from Dask)
            return True
    except (OSError, ValueError):
        return False


def _probe(url: str, paths: tuple[str, ...]) -> tuple[str, str, str] | None:
    """Try on a worker; return code, finding and advice where something is wrong."""
    import glob
    from pathlib import Path

    try:
        probe_store(Location.of(url))
    except BgmatchError as error:
        return error.code, error.what, error.fix
    for path in paths:
        if "://" not in path and not (Path(path).exists() or glob.glob(path, recursive=True)):
            fix = "Mount the inputs under the same path on every worker."
            return "path-unreadable", f"The input {path} is not there", fix
    return None
