"""Python's search for garbage in cycles, kept from what stays anyway.

A process that has loaded Dask, Zarr, astropy and numba holds a quarter of a million objects. The
collector looks at all of them now and then, which stops the process for a third of a second, as
long as ten units of a small tract take. None of them is garbage.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("keep_loaded", "loaded_kept")

_SEEN: set[str] = set()


def keep_loaded(stage: str) -> None:
    """Keep the collector of this worker from what it holds now, once in its life for each stage.

    What is garbage already is then never collected: nothing of size is in a worker that has done
    its first unit of a stage, and loaded what the stage needs.
    """
    if stage not in _SEEN:
        _SEEN.add(stage)
        gc.freeze()


@contextmanager
def loaded_kept() -> Iterator[None]:
    """Keep the collector from what this process holds at the beginning, until the end."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
