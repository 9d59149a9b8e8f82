"""Batch jobs that end before their workers come: the queue is asked, because nobody tells."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from tornado.ioloop import IOLoop, PeriodicCallback

__all__ = ("watch_queue",)

_LOOK_SECONDS = 60.0
"""How often the queue is asked; once a minute is what sites ask of their users."""
_QUEUE = ("squeue", "--noheader", "--me", "--format=%A")
"""Lists the identifiers of this user's jobs that wait or run."""


@contextmanager
def watch_queue(cluster: Any) -> Iterator[None]:  # noqa: ANN401
    """Forget jobs that have left the queue without a worker, so that the next scaling asks anew.

    A cluster hears of workers that leave, and not of jobs that are cancelled while they wait or
    whose node fails before a worker is there; it would wait for them for ever.

    Parameters
    ----------
    cluster
        A cluster of ``dask_jobqueue``.
    """
    watch = PeriodicCallback(_Watch(cluster).look, _LOOK_SECONDS * 1000)
    loop = cast("IOLoop", cluster.loop)
    loop.add_callback(watch.start)
    try:
        yield
    finally:
        loop.add_callback(watch.stop)


class _Watch:
    """Remembers which jobs were missing at the last look; a fresh one may not yet be listed."""

    def __init__(self, cluster: Any) -> None:  # noqa: ANN401
        self._cluster = cluster
        self._missing: set[str] = set()

    async def look(self) -> None:
        """Forget the jobs that are missing for the second time."""
        silent = _without_worker(self._cluster)
        listed = await _listed() if silent else None
        if listed is None:
            return
        missing = {job.job_id for job in silent.values() if job.job_id not in listed}
        for name, job in silent.items():
            if job.job_id in missing & self._missing and self._cluster.workers.get(name) is job:
                del self._cluster.workers[name]
                await job.close()
        self._missing = missing


def _without_worker(cluster: Any) -> Mapping[Any, Any]:  # noqa: ANN401
    """Return the jobs that were accepted and none of whose workers is connected."""
    connected = {str(w["name"]) for w in cluster.scheduler_info["workers"].values()}
    # A job of several workers adds their numbers to its name.
    connected |= {name.rpartition("-")[0] for name in connected}
    jobs = cluster.workers.items()
    return {name: job for name, job in jobs if job.job_id and str(name) not in connected}


async def _listed() -> frozenset[str] | None:
    """Return the jobs that wait or run; None when the queue does not answer."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(*_QUEUE, stdout=pipe, stderr=null)
    except OSError:
        return None
    answer, _ = await process.communicate()
    return None if process.returncode else frozenset(answer.decode().split())
