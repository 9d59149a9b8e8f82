"""Cells without data take the value of the nearest cell that has some."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import kernel

__all__ = ("fill_from_nearest",)

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


def fill_from_nearest(values: Array, seen: Bools, reach: int) -> Array:
    """Return values with those of unseen cells taken from the nearest cell that is seen.

    Parameters
    ----------
    values
        Values of the cells, shape ``(ny, nx)``.
    seen
        Cells that have one.
    reach
        Rows and columns that are looked at around a cell; 0 beyond them, at most 100.

    Returns
    -------
    ndarray
        As with the indices of ``scipy.ndimage.distance_transform_edt(~seen)``, for cells that
        have a seen one within ``reach``: of several at the same distance it takes the one in the
        first column, and there the one in the first row.
    """
    above, below = np.empty(seen.shape, np.int8), np.empty(seen.shape, np.int8)
    out = np.empty(values.shape)
    _rows_to_seen(seen, reach, above, below)
    _fill(values, seen, reach, above, below, out)
    return out


@kernel()
def _rows_to_seen(
    seen: Bools, reach: int, above: NDArray[np.int8], below: NDArray[np.int8]
) -> None:
    """Count the rows to the next seen cell of the column: ``reach + 1`` where it is too far."""
    height, width = seen.shape
    far = np.int8(reach + 1)
    for y in range(height):
        for x in range(width):
            before = above[y - 1, x] if y else far
            above[y, x] = np.int8(0) if seen[y, x] else min(np.int8(before + 1), far)
    for y in range(height - 1, -1, -1):
        for x in range(width):
            before = below[y + 1, x] if y < height - 1 else far
            below[y, x] = np.int8(0) if seen[y, x] else min(np.int8(before + 1), far)


@kernel()
def _fill(
    values: Array,
    seen: Bools,
    reach: int,
    above: NDArray[np.int8],
    below: NDArray[np.int8],
    out: Array,
) -> None:
    width = seen.shape[1]
    for y in range(seen.shape[0]):
        for x in range(width):
            if seen[y, x]:
                out[y, x] = values[y, x]
                continue
            least, column = 2 * (reach + 1) ** 2, -1
            for c in range(max(x - reach, 0), min(x + reach + 1, width)):
                rows = int(min(above[y, c], below[y, c]))
                square = rows * rows + (c - x) * (c - x)
                if rows <= reach and square < least:
                    least, column = square, c
            out[y, x] = 0.0
            if column >= 0:
                up, down = int(above[y, column]), int(below[y, column])
                out[y, x] = values[y - up if up <= down else y + down, column]
