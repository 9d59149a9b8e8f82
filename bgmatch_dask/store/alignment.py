"""Writes that cover whole write granules: Zarr does not look after that."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from bgmatch_dask.errors import StoreError

__all__ = ("assert_aligned", "framed")


def assert_aligned(array: zarr.Array[Any], region: tuple[int | slice, ...]) -> None:
    """Refuse a write that does not cover whole write granules (shards, else chunks).

    Zarr itself reads, changes and writes back a granule that is covered in part, without a
    lock: two tasks that share one lose half of the data in silence.

    Raises
    ------
    StoreError
        ``write-misaligned``.
    """
    granules = array.shards or array.chunks
    for axis, (part, granule, size) in enumerate(zip(region, granules, array.shape, strict=True)):
        start, stop = (part, part + 1) if isinstance(part, int) else (part.start, part.stop)
        inside = 0 <= start < stop <= size
        if not inside or start % granule or (stop % granule and stop != size):
            raise StoreError(
                "write-misaligned",
                f"Axis {axis}: {start}:{stop} does not cover whole granules of {granule}",
                where=array.path,
                fix="One task must own whole shards; this is a fault of the program.",
            )


def framed(
    values: NDArray[Any], window: tuple[slice, slice], array: zarr.Array[Any]
) -> NDArray[Any]:
    """Return a whole plane of an array: values in a window of it, around them the fill value."""
    full = np.full(array.shape[-2:], array.fill_value, array.dtype)
    full[window] = values
    return full
