"""How many threads the libraries of a worker may start."""

from __future__ import annotations

__all__ = ("THREAD_CAPS",)

THREAD_CAPS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "BLOSC_NTHREADS": "1",
}
"""Environment of a worker: one thread each, because there is one worker process per core."""
