"""One pass over the planes of a warp as a file holds them: mask bits re-mapped, bad pixels out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner, kernel

__all__ = ("blank_infinite", "clean_planes", "count_finite")

_LARGEST = np.float32(np.finfo(np.float32).max)


def clean_planes(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.integer],
    tables: NDArray[np.int32],
    no_data: int,
    *,
    in_place: bool = False,
) -> tuple[NDArray[np.int32], int]:
    """Re-map the bits of a mask, and blank the pixels that have no data.

    Parameters
    ----------
    image, variance
        Planes of one shape, changed in place: NaN and +inf where the image is not finite, the
        variance is not positive and finite, or the mask says so.
    mask
        Bit field of the same shape, of at most four bytes.
    tables
        Bits of the result for each value of each byte of the mask, the least first, ``(4, 256)``.
    no_data
        Bit of the result that says so.
    in_place
        The memory of the mask may serve for the result.

    Returns
    -------
    bits : ndarray of int32
        The mask in the bits of the result.
    good : int
        Number of pixels that have data.
    """
    native = np.ascontiguousarray(mask, mask.dtype.newbyteorder("="))
    bits = native.view(f"u{native.itemsize}").astype(np.uint32, copy=False)
    reuse = in_place and bits.flags.writeable
    out = bits.view(np.int32) if reuse else np.empty(mask.shape, np.int32)
    return out, _clean(image, variance, bits, tables, np.int32(no_data), out)


def blank_infinite(values: NDArray[np.float32]) -> None:
    """Put NaN where ``values``, shape (y, x), are infinite, in place."""
    _blank_infinite(values)


def count_finite(values: NDArray[np.float32]) -> int:
    """Return how many of ``values``, shape (y, x), are finite."""
    return int(_count_finite(values))


@kernel()
def _blank_infinite(values: NDArray[np.float32]) -> None:
    for y in range(values.shape[0]):
        row = values[y]
        if _count_infinite(row):
            for x in range(row.size):
                row[x] = np.float32(np.nan) if abs(row[x]) > _LARGEST else row[x]


@inner()
def _count_infinite(row: NDArray[np.float32]) -> int:
    n = np.int32(0)
    for x in range(row.size):
        n = np.int32(n + (np.int32(1) if abs(row[x]) > _LARGEST else np.int32(0)))
    return int(n)


@kernel()
def _count_finite(values: NDArray[np.float32]) -> int:
    total = 0
    for y in range(values.shape[0]):
        row, n = values[y], np.int32(0)
        for x in range(row.size):
            # Of four bytes, as the pixels are.
            n = np.int32(n + (np.int32(1) if abs(row[x]) <= _LARGEST else np.int32(0)))
        total += int(n)
    return total


@kernel()
def _clean(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.uint32],
    tables: NDArray[np.int32],
    no_data: np.int32,
    out: NDArray[np.int32],
) -> int:
    n_good = 0
    low, high = _of_two_bytes(tables[0], tables[1]), _of_two_bytes(tables[2], tables[3])
    for y in range(image.shape[0]):
        _map_bits(mask[y], low, high, out[y])
        n_good += _blank_row(image[y], variance[y], out[y], no_data)
    return n_good


@inner()
def _of_two_bytes(low: NDArray[np.int32], high: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return a table of 256 KB, of which a mask uses a few lines: half the work of two tables."""
    table = np.empty((256, 256), np.int32)
    for i in range(256):
        for j in range(256):
            table[i, j] = high[i] | low[j]
    return table.reshape(-1)


@inner()
def _map_bits(
    flags: NDArray[np.uint32],
    low: NDArray[np.int32],
    high: NDArray[np.int32],
    out: NDArray[np.int32],
) -> None:
    for i in range(np.uint64(flags.size)):
        out[i] = low[flags[i] & np.uint32(0xFFFF)] | high[flags[i] >> np.uint32(16)]


@inner()
def _blank_row(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    bits: NDArray[np.int32],
    no_data: np.int32,
) -> int:
    """Blank the pixels of a row that have no data, and return how many have; without branches."""
    n = np.int32(0)
    for i in range(np.uint64(image.size)):
        value, noise, flags = image[i], variance[i], bits[i]
        # Not "noise <= 0", which a NaN would pass.
        good = (abs(value) <= _LARGEST) & (noise > 0) & (noise <= _LARGEST)
        good &= (flags & no_data) == 0
        image[i] = value if good else np.float32(np.nan)
        variance[i] = noise if good else np.float32(np.inf)
        bits[i] = flags if good else flags | no_data
        n = np.int32(n + (np.int32(1) if good else np.int32(0)))
    return int(n)
