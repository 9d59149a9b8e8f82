"""What every worker process is told before it works: one thread, and modest storage clients."""

from __future__ import annotations

from distributed import WorkerPlugin

__all__ = ("THREAD_CAPS", "WorkerSetup")

THREAD_CAPS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "BLOSC_NTHREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
"""Environment of a worker: one thread each, because there is one worker process per core."""


class WorkerSetup(WorkerPlugin):
    """Caps the threads of libraries and storage clients, in workers that someone else started."""

    name = "bgmatch-worker-setup"

    def setup(self, worker: object) -> None:
        """Cap BLAS, Blosc and Zarr in the worker's process."""
        del worker
        import numcodecs.blosc
        import threadpoolctl
        import zarr

        threadpoolctl.threadpool_limits(1)
        numcodecs.blosc.use_threads = False
        zarr.config.set({"async.concurrency": 4, "threading.max_workers": 2})
