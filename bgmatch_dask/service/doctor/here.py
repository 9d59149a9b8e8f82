"""Checks of this machine: the store as seen from here, ports and memory."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping

import psutil
from dask.utils import parse_bytes

from bgmatch_dask.config import ClusterConfig
from bgmatch_dask.errors import ClusterError, StoreError
from bgmatch_dask.pipeline.plan import TractPlan
from bgmatch_dask.store import Location, read_spec

__all__ = ("check_port", "check_store", "local_memory", "probe_store")


def check_store(url: str, options: Mapping[str, str]) -> str:
    """Look whether the store can be written and is of this program's schema.

    Raises
    ------
    StoreError
        When it is not.
    """
    location = Location.of(url, options)
    probe_store(location)
    try:
        spec = read_spec(location)
    except StoreError as error:
        if error.code in {"store-missing", "store-incomplete"}:
            return f"{location.url} can be written; there is no tract in it yet"
        raise
    return f"{location.url} can be written; it holds {len(spec.visits)} visits"


def probe_store(location: Location) -> None:
    """Write, read and delete a small object.

    Raises
    ------
    StoreError
        When the store refuses one of them.
    """
    name, data = f"doctor/{secrets.token_hex(8)}", b"bgmatch"
    path = location.local_path
    fresh = path is not None and not path.exists()
    location.write_bytes(name, data)
    try:
        if location.read_bytes(name) != data:
            raise StoreError(
                "store-read",
                "The store does not give back what was written",
                where=location.url,
                fix="Check the disk or the object store.",
            )
    finally:
        location.delete(name)
        _remove_empty(location, fresh=fresh)


def _remove_empty(location: Location, *, fresh: bool) -> None:
    """Leave no folder behind where there was none."""
    path = location.local_path
    if path is None:
        return
    for folder in (path / "doctor", *([path] if fresh else [])):
        try:
            folder.rmdir()
        except OSError:
            return


def check_port(address: str) -> str:
    """Look whether the dashboard can have its port.

    Raises
    ------
    ClusterError
        ``port-taken``.
    """
    host, _, port = address.rpartition(":")
    number = int(port) if port.isdecimal() else 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host or "127.0.0.1", number))
        except OSError as error:
            raise ClusterError(
                "port-taken",
                f"The dashboard cannot listen on {address}: {error.strerror}",
                fix="Set cluster.dashboard to 127.0.0.1:0, which takes a free port, or end the "
                "process that has the port.",
            ) from error
    return f"the dashboard can listen on {address}" + (" (a free port)" if not number else "")


def local_memory(cluster: ClusterConfig, plan: TractPlan | None) -> str:
    """Look whether this machine has the memory that the plan needs.

    Raises
    ------
    ClusterError
        ``memory-short``.
    """
    total = psutil.virtual_memory().total
    workers = cluster.max_workers or cluster.workers
    each = total // workers
    if cluster.memory_limit not in {"auto", "0"}:
        each = int(parse_bytes(cluster.memory_limit))
    compare_memory(each, plan)
    if workers * each > total:
        raise ClusterError(
            "memory-short",
            f"{workers} workers of {each / 1e9:.2f} GB are more than the {total / 1e9:.2f} GB here",
            fix="Set cluster.workers lower, or cluster.memory_limit to auto.",
        )
    return f"{each / 1e9:.2f} GB for each of {workers} workers{needs(plan)}"


def compare_memory(limit: int, plan: TractPlan | None) -> None:
    """Refuse workers that are too small for a plan.

    Raises
    ------
    ClusterError
        ``memory-short``.
    """
    if plan is not None and plan.worker_bytes > limit:
        raise ClusterError(
            "memory-short",
            f"A unit needs about {plan.worker_bytes / 1e9:.2f} GB, the smallest worker has "
            f"{limit / 1e9:.2f} GB",
            fix="Start workers with more memory (cluster.memory_limit, or --memory-limit of "
            "`dask worker`), or make patches smaller (tract.patch_inner).",
        )


def needs(plan: TractPlan | None) -> str:
    """Return what a unit of a plan needs, as the end of a sentence."""
    return "" if plan is None else f"; a unit needs about {plan.worker_bytes / 1e9:.2f} GB"
