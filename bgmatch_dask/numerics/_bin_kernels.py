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

__all__ = ("IQR_TO_SIGMA", "Plane", "moments_of_bins", "statistics_of_bins")

IQR_TO_SIGMA = 0.741301109252802
"""Standard deviation of a Gaussian over its interquartile range, as rounded by afw."""

_BLOCK = 512
_LARGEST = np.float32(np.finfo(np.float32).max)
_BAD = np.float32(np.inf)

_Floats = NDArray[np.float32]
_Bits = NDArray[np.int32]
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
def _copy_row(to: _Floats, a: _Floats, b: _Floats) -> None:
    """Copy ``a``, or ``a - b`` when there is a ``b``; what is not finite becomes `_BAD`.

    Infinity marks a pixel left out: no finite clip limit admits it, no good pixel equals it.
    """
    if b.size == 0:
        for j in range(to.size):
            value = a[j]
            to[j] = value if abs(value) <= _LARGEST else _BAD
    else:
        for j in range(to.size):
            value = a[j] - b[j]
            to[j] = value if abs(value) <= _LARGEST else _BAD


@nb.njit(cache=True, nogil=True)
def _blank_row(to: _Floats, mask: _Bits, bits: np.int32) -> None:
    for j in range(to.size):
        to[j] = to[j] if (mask[j] & bits) == 0 else _BAD


@nb.njit(cache=True, nogil=True)
def _load_row(
    to: _Floats,
    start: int,
    row: int,
    a: Plane,
    b: Plane,
) -> None:
    """Load one row of a bin, from column ``start`` of row ``row``."""
    width = to.size
    at_a, at_b = row * a.pitch + start, row * b.pitch + start
    _copy_row(to, a.image[at_a : at_a + width], b.image[at_b : at_b + width])
    if a.mask.size:
        at = row * a.mask_pitch + start
        _blank_row(to, a.mask[at : at + width], a.bits)
    if b.mask.size:
        at = row * b.mask_pitch + start
        _blank_row(to, b.mask[at : at + width], b.bits)


@nb.njit(cache=True, nogil=True)
def _compact(values: _Floats, kept: _Floats) -> int:
    n = 0
    for i in range(values.size):
        kept[n] = values[i]
        n += 1 if values[i] < _BAD else 0
    return n


@nb.njit(cache=True, nogil=True)
def _select(values: _Floats, first: int, last: int, k: int) -> None:
    """Put the order statistic ``k`` at its place between ``first`` and ``last`` (inclusive).

    Smaller values end up before it and larger ones after it (quickselect, Hoare partition).
    """
    while first < last:
        pivot = values[(first + last) >> 1]
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
        if k <= j:
            last = j
        elif k >= i:
            first = i
        else:
            return


@nb.njit(cache=True, nogil=True)
def _quantile(values: _Floats, n: int, first: int, fraction: float) -> float:
    """Return a quantile by linear interpolation; everything before ``first`` is smaller."""
    position = fraction * (n - 1)
    k = int(position)
    _select(values, first, n - 1, k)
    if n == 1:
        return float(values[0])
    following = values[k + 1]
    for i in range(k + 2, n):
        following = min(following, values[i])
    return (k + 1 - position) * float(values[k]) + (position - k) * float(following)


@nb.njit(cache=True, nogil=True)
def _limits(centre: float, half: float) -> tuple[np.float32, np.float32]:
    """Return the float32 numbers that bound ``|x - centre| <= half`` as float64 decides it."""
    up, down = np.float32(np.inf), np.float32(-np.inf)
    high = np.float32(min(max(centre + half, -float(_LARGEST)), float(_LARGEST)))
    while float(high) - centre > half:
        high = np.nextafter(high, down)
    while high < _LARGEST and float(np.nextafter(high, up)) - centre <= half:
        high = np.nextafter(high, up)
    low = np.float32(min(max(centre - half, -float(_LARGEST)), float(_LARGEST)))
    while centre - float(low) > half:
        low = np.nextafter(low, up)
    while low > -_LARGEST and centre - float(np.nextafter(low, down)) <= half:
        low = np.nextafter(low, down)
    return low, high


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
        variance = max(variance, 0.0) if variance == variance else variance
        centre = mean if iteration else median
        seeded = iteration > 0 and n_good > 1
        half = n_sigma * (math.sqrt(variance) if seeded else IQR_TO_SIGMA * iqr)
        if not math.isfinite(centre) or math.isnan(half):
            return 0, np.nan, np.nan
        low, high = _limits(centre, half)
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
    return mean + pivot, (s2 / size - mean * mean) * (size * size / (size * size - size))


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
) -> None:
    """Fill ``counts`` (kept, good) and ``results`` (mean, variance, median), ``[k, ny, nx]``."""
    largest = np.max(np.diff(x_edges)) * np.max(np.diff(y_edges))
    buffer = np.empty((largest // _BLOCK + 1) * _BLOCK, np.float32)
    kept = np.empty(buffer.size + 1, np.float32)
    for iy in range(y_edges.size - 1):
        for ix in range(x_edges.size - 1):
            at, start, width = 0, x_edges[ix], x_edges[ix + 1] - x_edges[ix]
            for row in range(y_edges[iy], y_edges[iy + 1]):
                _load_row(buffer[at : at + width], start, row, a, b)
                at += width
            size = -(-at // _BLOCK) * _BLOCK
            buffer[at:size] = _BAD
            n = _compact(buffer[:at], kept)
            median, iqr = np.nan, np.nan
            if n:
                median = _quantile(kept, n, 0, 0.5)
                upper = _quantile(kept, n, int(0.5 * (n - 1)), 0.75)
                iqr = upper - _quantile(kept, n, 0, 0.25)
            clipped = _clip(buffer[:size], n, median, iqr, n_sigma, n_iter)
            counts[0, iy, ix], counts[1, iy, ix] = clipped[0], n
            results[0, iy, ix], results[1, iy, ix] = clipped[1], clipped[2]
            results[2, iy, ix] = median


@nb.njit(cache=True, nogil=True)
def moments_of_bins(
    a: Plane,
    b: Plane,
    x_edges: _Edges,
    y_edges: _Edges,
    moments: NDArray[np.float64],
) -> None:
    """Fill ``moments`` (mean x, mean y, variance x, variance y), ``[4, ny, nx]``."""
    buffer = np.empty(np.max(np.diff(x_edges)), np.float32)
    for iy in range(y_edges.size - 1):
        for ix in range(x_edges.size - 1):
            start, width = x_edges[ix], x_edges[ix + 1] - x_edges[ix]
            middle_x = start + 0.5 * (width - 1)
            middle_y = 0.5 * (y_edges[iy] + y_edges[iy + 1] - 1)
            n, x1, x2, y1, y2 = 0, 0.0, 0.0, 0.0, 0.0
            for row in range(y_edges[iy], y_edges[iy + 1]):
                _load_row(buffer[:width], start, row, a, b)
                in_row, row_x1, row_x2 = _row_moments(buffer[:width], start - middle_x)
                y = row - middle_y
                n, x1, x2 = n + in_row, x1 + row_x1, x2 + row_x2
                y1, y2 = y1 + in_row * y, y2 + in_row * y * y
            good = n or np.nan
            moments[0, iy, ix] = middle_x + x1 / good
            moments[1, iy, ix] = middle_y + y1 / good
            moments[2, iy, ix] = max(x2 / good - (x1 / good) ** 2, 0.0) if n else np.nan
            moments[3, iy, ix] = max(y2 / good - (y1 / good) ** 2, 0.0) if n else np.nan


@nb.njit(cache=True, nogil=True, fastmath={"reassoc", "nsz", "contract"})
def _row_moments(values: _Floats, first: float) -> tuple[int, float, float]:
    n, x1, x2 = 0, 0.0, 0.0
    for i in range(values.size):
        x = first + i if values[i] < _BAD else 0.0
        n += 1 if values[i] < _BAD else 0
        x1 += x
        x2 += x * x
    return n, x1, x2
