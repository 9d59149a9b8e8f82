"""Compiled clipping of the pixels of one bin, behind `bgmatch_dask.numerics.superpixels`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics._bin_quantiles import BLOCK
from bgmatch_dask.numerics.compiling import inner
from bgmatch_dask.numerics.statistics import IQR_TO_SIGMA

__all__ = ("clip", "upper_limit")

_N_FLOATS = int(np.finfo(np.float32).max.view(np.int32))

_Floats = NDArray[np.float32]


@inner()
def _nth_float(n: int) -> np.float32:
    """Return the ``n``-th float32 above zero, or below it for negative ``n``."""
    size = np.int32(abs(n)).view(np.float32)
    return size if n >= 0 else -size


@inner()
def upper_limit(centre: float, half: float) -> np.float32:
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


@inner(fastmath={"reassoc", "nsz", "contract", "arcp"})
def _block_sums(
    values: _Floats, low: np.float32, high: np.float32, pivot: float
) -> tuple[int, float, float]:
    n, s1, s2 = 0, 0.0, 0.0
    for i in range(BLOCK):
        inside = (values[i] >= low) & (values[i] <= high)
        delta = float(values[i]) - pivot if inside else 0.0
        n += 1 if inside else 0
        s1 += delta
        s2 += delta * delta
    return n, s1, s2


@inner()
def clip(
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
        low, high = -upper_limit(-centre, half), upper_limit(centre, half)
        n, s1, s2 = 0, 0.0, 0.0
        for at in range(0, values.size, BLOCK):
            part = _block_sums(values[at : at + BLOCK], low, high, centre)
            n, s1, s2 = n + part[0], s1 + part[1], s2 + part[2]
        mean, variance = _mean_variance(n, s1, s2, centre)
    return n, mean, variance


@inner()
def _mean_variance(n: int, s1: float, s2: float, pivot: float) -> tuple[float, float]:
    if n == 0:
        return np.nan, np.nan
    mean = s1 / n
    if n == 1:
        return mean + pivot, np.nan
    size = float(n)
    variance = (s2 / size - mean * mean) * (size * size / (size * size - size))
    return mean + pivot, max(variance, 0.0)
