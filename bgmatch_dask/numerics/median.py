"""Medians: of many numbers, found among the few that a sample says it may be, and of groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner, kernel

__all__ = ("group_medians", "median", "select")

_SAMPLE = 1024
_MARGIN = 64
"""Places in the sample around its middle: four standard deviations of the median's own place."""
_FEW = 4 * _SAMPLE

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def median(values: Array) -> float:
    """Return what ``numpy.median`` does for finite numbers, in a third of its time.

    Parameters
    ----------
    values
        At least one number, shape ``(n,)``, none of them NaN.
    """
    n = values.size
    return float(0.5 * sum(_middle(np.ascontiguousarray(values), np.empty(n), (n - 1) // 2)))


@kernel()
def _middle(values: Array, kept: Array, k: int) -> tuple[float, float]:
    """Return the order statistics in the middle: ``k`` and, of an even number, ``k + 1``."""
    n, below, inside = values.size, 0, 0
    if n > _FEW:
        low, high = _range_of_sample(values, kept)
        below, inside = _gather(values, low, high, kept)
    if not below <= k < below + inside - 1:
        for i in range(n):
            kept[i] = values[i]
        below, inside = 0, n
    return _two_from(kept[:inside], k - below, n % 2 == 0)


@inner()
def _two_from(values: Array, k: int, two: bool) -> tuple[float, float]:
    """Return order statistics ``k`` and, for two, ``k + 1``; the values change places."""
    select(values, k)
    first = values[k]
    second = values[k + 1] if two else first
    for i in range(k + 2, values.size if two else 0):
        second = min(second, values[i])
    return first, second


@inner()
def _range_of_sample(values: Array, kept: Array) -> tuple[float, float]:
    for i in range(_SAMPLE):
        # Equal steps could follow the rows of a map.
        step = values.size // _SAMPLE
        kept[i] = values[i * step + (37 * i) % step]
    first, last = _SAMPLE // 2 - _MARGIN, _SAMPLE // 2 + _MARGIN
    select(kept[:_SAMPLE], first)
    select(kept[first:_SAMPLE], last - first)
    return kept[first], kept[last]


@inner()
def _gather(values: Array, low: float, high: float, kept: Array) -> tuple[int, int]:
    """Copy the values of a range; return how many are below it, and how many are in it."""
    below, n = 0, 0
    for value in values:
        kept[n] = value
        below += 1 if value < low else 0
        n += 1 if (value >= low) & (value <= high) else 0
    return below, n


@inner()
def select(values: NDArray[np.floating[Any]], k: int) -> None:
    """Put order statistic ``k`` at its place, smaller ones before it (Hoare's quickselect)."""
    first, last = 0, values.size - 1
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


@kernel()
def group_medians(values: Array, group: Index, n_groups: int) -> Array:
    """Return the median of every group of numbers.

    Parameters
    ----------
    values
        float64 ``(n,)``, finite.
    group
        Group of each value; each has one at least.
    n_groups
        Number of groups.

    Returns
    -------
    ndarray of float64
        ``(n_groups,)``; of an even number the mean of the middle two.
    """
    first = np.zeros(n_groups + 1, np.int64)
    for k in group:
        first[k + 1] += 1
    for k in range(n_groups):
        first[k + 1] += first[k]
    filled, grouped = first[:-1].copy(), np.empty(values.size)
    for e in range(values.size):
        grouped[filled[group[e]]] = values[e]
        filled[group[e]] += 1
    out = np.empty(n_groups)
    for k in range(n_groups):
        own = grouped[first[k] : first[k + 1]]
        lower, upper = _two_from(own, (own.size - 1) // 2, own.size % 2 == 0)
        out[k] = 0.5 * (lower + upper)
    return out
