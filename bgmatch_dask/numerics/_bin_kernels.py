"""Compiled loops behind `bgmatch_dask.numerics.superpixels`.

All compiled code of the superpixels is in this one file, because numba's cache only looks at
the file of the function that is called.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.statistics import IQR_TO_SIGMA

__all__ = ("Plane", "moments_of_bins", "statistics_of_bins")

_BLOCK = 512
_STRIP = 64
_SAMPLE = 64
_CELLS = 1024
_LARGEST = np.float32(np.finfo(np.float32).max)
_BAD = np.float32(np.inf)
_N_FLOATS = int(_LARGEST.view(np.int32))

_Floats = NDArray[np.float32]
_Bits = NDArray[np.int32]
_Cells = NDArray[np.uint16]
_Counts = NDArray[np.int32]
_Edges = NDArray[np.int64]


class Plane(NamedTuple):
    """An image and its mask as flat rows; without pixels it stands for "no image"."""

    image: _Floats
    """Pixels from the first to the last, gaps between rows included."""
    pitch: int
    """Elements from one row to the next."""
    mask: _Bits
    """Bit field in the same manner, or empty when nothing is masked."""
    mask_pitch: int
    """Elements from one row of the mask to the next."""
    bits: np.int32
    """Bits that leave a pixel out."""


@nb.njit(cache=True, nogil=True)
def _copy(to: _Floats, at: int, image: _Floats, start: int, width: int) -> None:
    """Copy a piece of a row; a pixel that is not finite becomes `_BAD`."""
    # Unsigned positions spare the test for negative ones, and the loop becomes vector code.
    t, i = np.uint64(at), np.uint64(start)
    for j in range(np.uint64(width)):
        value = image[i + j]
        to[t + j] = value if abs(value) <= _LARGEST else _BAD


@nb.njit(cache=True, nogil=True)
def _copy_masked(
    to: _Floats,
    at: int,
    image: _Floats,
    start: int,
    width: int,
    mask: _Bits,
    m: int,
    bits: np.int32,
) -> None:
    t, i, k = np.uint64(at), np.uint64(start), np.uint64(m)
    for j in range(np.uint64(width)):
        value = image[i + j]
        good = (abs(value) <= _LARGEST) & ((mask[k + j] & bits) == 0)
        to[t + j] = value if good else _BAD


@nb.njit(cache=True, nogil=True)
def _subtract(to: _Floats, at: int, image: _Floats, start: int, width: int) -> None:
    t, i = np.uint64(at), np.uint64(start)
    for j in range(np.uint64(width)):
        value = to[t + j] - image[i + j]
        to[t + j] = value if abs(value) <= _LARGEST else _BAD


@nb.njit(cache=True, nogil=True)
def _subtract_masked(
    to: _Floats,
    at: int,
    image: _Floats,
    start: int,
    width: int,
    mask: _Bits,
    m: int,
    bits: np.int32,
) -> None:
    t, i, k = np.uint64(at), np.uint64(start), np.uint64(m)
    for j in range(np.uint64(width)):
        value = to[t + j] - image[i + j]
        good = (abs(value) <= _LARGEST) & ((mask[k + j] & bits) == 0)
        to[t + j] = value if good else _BAD


@nb.njit(cache=True, nogil=True)
def _load_bin(to: _Floats, x0: int, x1: int, y0: int, y1: int, a: Plane, b: Plane) -> int:
    """Load ``a``, or ``a - b`` when there is a ``b``; return the number of pixels."""
    image, mask, width, at = a.image, a.mask, x1 - x0, 0
    for y in range(y0, y1):
        start, m = y * a.pitch + x0, y * a.mask_pitch + x0
        if mask.size:
            _copy_masked(to, at, image, start, width, mask, m, a.bits)
        else:
            _copy(to, at, image, start, width)
        at += width
    if b.image.size:
        _subtract_bin(to, x0, x1, y0, y1, b)
    return at


@nb.njit(cache=True, nogil=True)
def _subtract_bin(to: _Floats, x0: int, x1: int, y0: int, y1: int, b: Plane) -> None:
    image, mask, width, at = b.image, b.mask, x1 - x0, 0
    for y in range(y0, y1):
        start, m = y * b.pitch + x0, y * b.mask_pitch + x0
        if mask.size:
            _subtract_masked(to, at, image, start, width, mask, m, b.bits)
        else:
            _subtract(to, at, image, start, width)
        at += width


@nb.njit(cache=True, nogil=True)
def _compact(values: _Floats, kept: _Floats) -> int:
    n = 0
    for i in range(values.size):
        kept[n] = values[i]
        n += 1 if values[i] < _BAD else 0
    return n


@nb.njit(cache=True, nogil=True)
def _select(values: _Floats, n: int, k: int) -> None:
    """Put order statistic ``k`` of the first ``n`` at its place, smaller ones before it."""
    first, last = 0, n - 1
    while first < last:
        a, b, c = values[first], values[(first + last) >> 1], values[last]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if j < k < i:
            return
        first, last = (first, j) if k <= j else (i, last)


@nb.njit(cache=True, nogil=True)
def _all_equal(values: _Floats, n: int) -> bool:
    i = 1
    while i < n and values[i] == values[0]:
        i += 1
    return i >= n


@nb.njit(cache=True, nogil=True)
def _interpolate(values: _Floats, n: int, k: int, weight: float) -> float:
    """Interpolate order statistics ``k`` and ``k + 1`` of the first ``n`` values."""
    if _all_equal(values, n):
        return float(values[0])
    _select(values, n, k)
    following = values[min(k + 1, n - 1)]
    for i in range(k + 2, n):
        following = min(following, values[i])
    return (1.0 - weight) * float(values[k]) + weight * float(following)


@nb.njit(cache=True, nogil=True)
def _sample_range(values: _Floats, scratch: _Floats) -> tuple[np.float32, np.float32]:
    """Guess, from a few pixels, a range that holds the quartiles; empty when it cannot."""
    n = 0
    for i in range(_SAMPLE if values.size else 0):
        value = values[(i * values.size) // _SAMPLE]
        if value < _BAD:
            j = n
            while j > 0 and scratch[j - 1] > value:
                scratch[j] = scratch[j - 1]
                j -= 1
            scratch[j] = value
            n += 1
    if n < _SAMPLE // 4:
        return _BAD, _BAD
    lower, upper = scratch[n // 4], scratch[(3 * n) // 4]
    margin = np.float32(0.75) * (upper - lower)
    return lower - margin, upper + margin


@nb.njit(cache=True, nogil=True)
def _assign_cells(values: _Floats, cells: _Cells, low: np.float32, scale: np.float32) -> None:
    """Give each pixel of a block its histogram cell.

    The cell never decreases with the value, rounding included, so cells part the pixels by
    rank. The first and the last take what lies outside, the last also the bad pixels.
    """
    top = np.float32(_CELLS - 1)
    for i in range(_BLOCK):
        place = max((values[i] - low) * scale, np.float32(0.0))
        cells[i] = np.uint16(np.int32(min(place, top)))


@nb.njit(cache=True, nogil=True, fastmath={"reassoc"})
def _count_good(values: _Floats) -> int:
    # Whole numbers in float32 lanes: int64 counters would be four times as wide as the data.
    n = np.float32(0.0)
    for i in range(_BLOCK):
        n += np.float32(1.0) if values[i] < _BAD else np.float32(0.0)
    return int(n)


@nb.njit(cache=True, nogil=True)
def _count_cells(cells: _Cells, counts: _Counts) -> None:
    # Four tables, so that neighbours of one value do not wait for each other's store.
    for i in range(0, _BLOCK, 4):
        counts[cells[i]] += 1
        counts[cells[i + 1] + _CELLS] += 1
        counts[cells[i + 2] + 2 * _CELLS] += 1
        counts[cells[i + 3] + 3 * _CELLS] += 1


@nb.njit(cache=True, nogil=True)
def _any_between(cells: _Cells, first: np.uint16, last: np.uint16) -> bool:
    hit = False
    for i in range(_STRIP):
        hit |= (cells[i] >= first) & (cells[i] <= last)
    return hit


@nb.njit(cache=True, nogil=True)
def _gather(values: _Floats, cells: _Cells, first: int, last: int, kept: _Floats) -> int:
    """Copy the pixels of the cells from ``first`` to ``last`` and return how many they are."""
    n, low, high = 0, np.uint16(first), np.uint16(last)
    for at in range(0, cells.size, _STRIP):
        if _any_between(cells[at : at + _STRIP], low, high):
            for i in range(at, at + _STRIP):
                if first <= cells[i] <= last:
                    kept[n] = values[i]
                    n += 1
    return n


@nb.njit(cache=True, nogil=True)
def _histogram_quantile(
    values: _Floats, cells: _Cells, counts: _Counts, position: float, kept: _Floats
) -> float:
    """Find a quantile exactly: order the pixels of the cells that hold it."""
    k, cell, below = int(position), 0, 0
    while below + counts[cell] <= k:
        below += counts[cell]
        cell += 1
    last, seen = cell, below + counts[cell]
    while seen <= k + 1 and last < _CELLS - 1:
        last += 1
        seen += counts[last]
    n = _gather(values, cells, cell, last, kept)
    return _interpolate(kept, n, k - below, position - k)


@nb.njit(cache=True, nogil=True)
def _quantiles(
    values: _Floats, cells: _Cells, counts: _Counts, kept: _Floats
) -> tuple[int, float, float]:
    """Return number, median and interquartile range of the good pixels."""
    low, high = _sample_range(values, kept)
    if not np.float32(_CELLS) / _LARGEST < high - low <= _LARGEST:
        return _sorted_quantiles(values, kept)
    n, scale = 0, np.float32(_CELLS) / (high - low)
    counts[:] = 0
    for at in range(0, values.size, _BLOCK):
        n += _count_good(values[at : at + _BLOCK])
        _assign_cells(values[at : at + _BLOCK], cells[at : at + _BLOCK], low, scale)
        _count_cells(cells[at : at + _BLOCK], counts)
    for i in range(_CELLS):
        counts[i] += counts[i + _CELLS] + counts[i + 2 * _CELLS] + counts[i + 3 * _CELLS]
    cells = cells[: values.size]
    lower = _histogram_quantile(values, cells, counts, 0.25 * (n - 1), kept)
    median = _histogram_quantile(values, cells, counts, 0.5 * (n - 1), kept)
    upper = _histogram_quantile(values, cells, counts, 0.75 * (n - 1), kept)
    return n, median, upper - lower


@nb.njit(cache=True, nogil=True)
def _sorted_quantiles(values: _Floats, kept: _Floats) -> tuple[int, float, float]:
    """Do the same for few pixels, or many equal ones, which histograms do not part."""
    n = _compact(values, kept)
    if n == 0:
        return 0, np.nan, np.nan
    last = n - 1
    lower = _interpolate(kept, n, int(0.25 * last), 0.25 * last - int(0.25 * last))
    median = _interpolate(kept, n, int(0.5 * last), 0.5 * last - int(0.5 * last))
    upper = _interpolate(kept, n, int(0.75 * last), 0.75 * last - int(0.75 * last))
    return n, median, upper - lower


@nb.njit(cache=True, nogil=True)
def _nth_float(n: int) -> np.float32:
    """Return the ``n``-th float32 above zero, or below it for negative ``n``."""
    size = np.int32(abs(n)).view(np.float32)
    return size if n >= 0 else -size


@nb.njit(cache=True, nogil=True)
def _upper_limit(centre: float, half: float) -> np.float32:
    """Return the largest float32 ``x`` with ``x - centre <= half``, as float64 rounds it.

    The search is by bisection: next to zero, millions of float32 numbers may lie within one
    rounding error of the limit.
    """
    first, last = -_N_FLOATS, _N_FLOATS
    while first < last:
        middle = (first + last + 1) >> 1
        if float(_nth_float(middle)) - centre <= half:
            first = middle
        else:
            last = middle - 1
    return _nth_float(first)


@nb.njit(cache=True, nogil=True, fastmath={"reassoc", "nsz", "contract", "arcp"})
def _block_sums(
    values: _Floats, low: np.float32, high: np.float32, pivot: float
) -> tuple[int, float, float]:
    n, s1, s2 = 0, 0.0, 0.0
    for i in range(_BLOCK):
        inside = (values[i] >= low) & (values[i] <= high)
        delta = float(values[i]) - pivot if inside else 0.0
        n += 1 if inside else 0
        s1 += delta
        s2 += delta * delta
    return n, s1, s2


@nb.njit(cache=True, nogil=True)
def _clip(
    values: _Floats, n_good: int, median: float, iqr: float, n_sigma: float, n_iter: int
) -> tuple[int, float, float]:
    """Return count, mean and variance after all clips; ``values`` is whole blocks."""
    n, mean, variance = 0, np.nan, np.nan
    for iteration in range(n_iter):
        centre = mean if iteration else median
        seeded = iteration > 0 and n_good > 1
        half = n_sigma * (math.sqrt(variance) if seeded else IQR_TO_SIGMA * iqr)
        if not math.isfinite(centre) or math.isnan(half):
            return 0, np.nan, np.nan
        low, high = -_upper_limit(-centre, half), _upper_limit(centre, half)
        n, s1, s2 = 0, 0.0, 0.0
        for at in range(0, values.size, _BLOCK):
            part = _block_sums(values[at : at + _BLOCK], low, high, centre)
            n, s1, s2 = n + part[0], s1 + part[1], s2 + part[2]
        mean, variance = _mean_variance(n, s1, s2, centre)
    return n, mean, variance


@nb.njit(cache=True, nogil=True)
def _mean_variance(n: int, s1: float, s2: float, pivot: float) -> tuple[float, float]:
    if n == 0:
        return np.nan, np.nan
    mean = s1 / n
    if n == 1:
        return mean + pivot, np.nan
    size = float(n)
    variance = (s2 / size - mean * mean) * (size * size / (size * size - size))
    return mean + pivot, max(variance, 0.0)


@nb.njit(cache=True, nogil=True)
def statistics_of_bins(
    a: Plane,
    b: Plane,
    x_edges: _Edges,
    y_edges: _Edges,
    n_sigma: float,
    n_iter: int,
    counts: NDArray[np.int64],
    results: NDArray[np.float64],
    moments: NDArray[np.float64],
) -> None:
    """Fill ``counts`` (kept, good) and ``results`` (mean, variance, median), ``[k, ny, nx]``.

    ``moments`` is filled as by `moments_of_bins`, unless it is empty.
    """
    largest = np.max(np.diff(x_edges)) * np.max(np.diff(y_edges))
    buffer = np.empty((largest // _BLOCK + 1) * _BLOCK, np.float32)
    kept = np.empty(buffer.size + 1, np.float32)
    cells = np.empty(buffer.size, np.uint16)
    table = np.empty(4 * _CELLS, np.int32)
    for iy in range(y_edges.size - 1):
        for ix in range(x_edges.size - 1):
            size = _load_bin(
                buffer, x_edges[ix], x_edges[ix + 1], y_edges[iy], y_edges[iy + 1], a, b
            )
            if moments.size:
                _moments(
                    buffer[:size], x_edges[ix], x_edges[ix + 1], y_edges[iy], moments[:, iy, ix]
                )
            whole = -(-size // _BLOCK) * _BLOCK
            buffer[size:whole] = _BAD
            values = buffer[:whole]
            n, median, iqr = _quantiles(values, cells, table, kept)
            n_kept, mean, variance = _clip(values, n, median, iqr, n_sigma, n_iter)
            counts[0, iy, ix], counts[1, iy, ix] = n_kept, n
            results[0, iy, ix], results[1, iy, ix], results[2, iy, ix] = mean, variance, median


@nb.njit(cache=True, nogil=True)
def moments_of_bins(
    a: Plane,
    b: Plane,
    x_edges: _Edges,
    y_edges: _Edges,
    moments: NDArray[np.float64],
) -> None:
    """Fill ``moments`` (mean x, mean y, variance x, variance y), ``[4, ny, nx]``."""
    buffer = np.empty(np.max(np.diff(x_edges)) * np.max(np.diff(y_edges)), np.float32)
    for iy in range(y_edges.size - 1):
        for ix in range(x_edges.size - 1):
            size = _load_bin(
                buffer, x_edges[ix], x_edges[ix + 1], y_edges[iy], y_edges[iy + 1], a, b
            )
            _moments(buffer[:size], x_edges[ix], x_edges[ix + 1], y_edges[iy], moments[:, iy, ix])


@nb.njit(cache=True, nogil=True)
def _moments(values: _Floats, x0: int, x1: int, y0: int, out: NDArray[np.float64]) -> None:
    width = x1 - x0
    height = values.size // width if width else 0
    middle_x, middle_y = x0 + 0.5 * (width - 1), y0 + 0.5 * (height - 1)
    n, x, xx, y, yy = 0, 0.0, 0.0, 0.0, 0.0
    for row in range(height):
        part = _row_moments(values[row * width : (row + 1) * width], x0 - middle_x)
        place = y0 + row - middle_y
        n, x, xx = n + part[0], x + part[1], xx + part[2]
        y, yy = y + part[0] * place, yy + part[0] * place * place
    good = n or np.nan
    out[0], out[1] = middle_x + x / good, middle_y + y / good
    out[2] = max(xx / good - (x / good) ** 2, 0.0) if n else np.nan
    out[3] = max(yy / good - (y / good) ** 2, 0.0) if n else np.nan


@nb.njit(cache=True, nogil=True, fastmath={"reassoc", "nsz", "contract"})
def _row_moments(values: _Floats, first: float) -> tuple[int, float, float]:
    n, x1, x2 = 0, 0.0, 0.0
    for i in range(values.size):
        x = first + i if values[i] < _BAD else 0.0
        n += 1 if values[i] < _BAD else 0
        x1 += x
        x2 += x * x
    return n, x1, x2
