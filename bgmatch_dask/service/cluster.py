"""Where the work runs: a local cluster of processes, or a scheduler that is already there."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster, WorkerPlugin

from bgmatch_dask.config import ClusterConfig
from bgmatch_dask.errors import ClusterError

__all__ = ("THREAD_CAPS", "ThreadCaps", "connect")

THREAD_CAPS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "BLOSC_NTHREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
"""Environment of a worker: one thread each, because there is one worker process per core."""


class ThreadCaps(WorkerPlugin):
    """Caps the threads of libraries in workers that someone else started."""

    name = "bgmatch-thread-caps"

    def setup(self, worker: object) -> None:
        """Cap BLAS, Blosc and Zarr in the worker's process."""
        del worker
        import numcodecs.blosc
        import threadpoolctl
        import zarr

        threadpoolctl.threadpool_limits(1)
        numcodecs.blosc.use_threads = False
        zarr.config.set({"async.concurrency": 4, "threading.max_workers": 2})


@contextmanager
def connect(config: ClusterConfig) -> Iterator[Client]:
    """Yield a client of the configured cluster; a local one ends with the context.

    Raises
    ------
    ClusterError
        ``scheduler-unreachable`` or ``no-workers``.
    """
    if config.scheduler is None:
        with _local(config) as cluster, Client(cluster) as client:
            client.register_plugin(ThreadCaps())
            yield client
        return
    try:
        client = Client(config.scheduler, timeout="10s")
    except (OSError, TimeoutError) as error:
        raise ClusterError(
            "scheduler-unreachable",
            f"No Dask scheduler answers: {error}",
            where=config.scheduler,
            fix="Start one with `dask scheduler`, or leave --scheduler out.",
        ) from error
    with client:
        _await_workers(client, config.scheduler)
        client.register_plugin(ThreadCaps())
        yield client


@contextmanager
def _local(config: ClusterConfig) -> Iterator[LocalCluster]:
    with dask.config.set({"distributed.nanny.pre-spawn-environ": THREAD_CAPS}):
        with _deaf_to_interrupts():
            cluster = LocalCluster(
                n_workers=config.workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=config.memory_limit,
                host="127.0.0.1",
                dashboard_address=config.dashboard,
                silence_logs=50,
            )
        with cluster:
            yield cluster


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let processes that start here ignore Ctrl-C, which is for this process to answer.

    A terminal sends the signal to all processes; workers would die with tracebacks before this
    one has written down what they finished.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _await_workers(client: Client, address: str) -> None:
    seconds = float(os.environ.get("BGMATCH_WORKER_TIMEOUT", "60"))
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise ClusterError(
            "no-workers",
            f"The scheduler has had no worker for {seconds:g} s",
            where=address,
            fix="Start workers with `dask worker ADDRESS --nthreads 1`.",
        ) from error
