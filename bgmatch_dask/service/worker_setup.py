"""What every worker process is told before it works: one thread, and modest storage clients."""

from __future__ import annotations

import ctypes
import sys

from distributed import WorkerPlugin

__all__ = ("WorkerSetup",)


class WorkerSetup(WorkerPlugin):
    """Caps the threads of libraries and storage clients, in workers that someone else started."""

    name = "bgmatch-worker-setup"

    def setup(self, worker: object) -> None:
        """Cap BLAS, Blosc and Zarr in the worker's process."""
        import numcodecs.blosc
        import threadpoolctl
        import zarr

        threadpoolctl.threadpool_limits(1)
        _keep_memory()
        _sample_less(worker)
        numcodecs.blosc.use_threads = False
        zarr.config.set({"async.concurrency": 4, "threading.max_workers": 2})


_PROFILE_MS = 100.0
"""Between two looks of Dask's profiler at what a worker does."""


def _sample_less(worker: object) -> None:
    """Let Dask's profiler look ten times a second: a hundred times take 3 % of a short unit."""
    sampling = getattr(worker, "periodic_callbacks", {}).get("profile")
    if sampling is not None:
        sampling.callback_time = max(sampling.callback_time, _PROFILE_MS)


_KEPT = 2**31 - 1
_SETTINGS = {"M_MMAP_THRESHOLD": -3, "M_TRIM_THRESHOLD": -1, "M_ARENA_MAX": -8}


def _keep_memory() -> None:
    """Let the C library keep what arrays gave back, for the next arrays of the same sizes.

    Otherwise the kernel maps and clears every large array anew, which takes a third of the time of
    a unit. The peak of a worker stays what it is: all units of a stage are of one size.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # Other C libraries than glibc have none, or one that does nothing.
        mallopt(_SETTINGS["M_ARENA_MAX"], 1)
        mallopt(_SETTINGS["M_MMAP_THRESHOLD"], _KEPT)
        mallopt(_SETTINGS["M_TRIM_THRESHOLD"], _KEPT)
