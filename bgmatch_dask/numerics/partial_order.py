"""Quartiles of values among which there are NaN, as a C++ partial sort leaves them.

With NaN, "smaller than" is no order, and what ``std::nth_element`` puts at a place depends on
how it goes about it. Only `bgmatch_dask.numerics.statistics` asks for this, when it is to
reproduce afw on pixels that were promised to be free of NaN and are not. The way followed is
introselect (Musser 1997): partition about the median of three, insertion sort at the end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner, kernel

__all__ = ("partially_ordered_quartiles",)

_Values = NDArray[np.float64]


def partially_ordered_quartiles(values: _Values) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile; interpolated between neighbours.

    Parameters
    ----------
    values
        Two values or more, flat, in their original order. Left as they are.

    Returns
    -------
    tuple of float
        The quartiles, in the unit of the values. Without NaN they are the usual ones.
    """
    x, n = values.copy(), values.size
    positions = [fraction * (n - 1) for fraction in (0.25, 0.5, 0.75)]
    lower, median, upper = (int(position) for position in positions)
    pieces = [(0, median, n), (median, upper, n), (0, lower, median)]
    pieces += [(median, median + 1, upper), (lower, lower + 1, median), (upper, upper + 1, n)]
    for first, k, last in pieces:
        _place(x, first, k, last)
    a, b, c = (
        float((k + 1 - position) * x[k] + (position - k) * x[k + 1])
        for k, position in zip((lower, median, upper), positions, strict=True)
    )
    return a, b, c


@kernel()
def _place(x: _Values, first: int, k: int, last: int) -> None:
    """Put order statistic ``k`` of the half-open range at its place, as far as there is one."""
    if first == last or k == last:
        return
    while last - first > 3:
        cut = _partition(x, first, last)
        if cut <= k:
            first = cut
        elif cut < last:
            last = cut
        else:
            return
    for i in range(first + 1, last):
        value, j = x[i], i
        while (j > first and value < x[first]) or (j > first and value < x[j - 1]):
            x[j] = x[j - 1]
            j -= 1
        x[j] = value


@inner()
def _partition(x: _Values, first: int, last: int) -> int:
    """Part a range about the median of three, and return where the upper part begins."""
    middle = _median_of_three(x, first + 1, first + (last - first) // 2, last - 1)
    x[first], x[middle] = x[middle], x[first]
    pivot, i, j = x[first], first + 1, last - 1
    while True:
        while i < last and x[i] < pivot:
            i += 1
        while pivot < x[j]:
            j -= 1
        if i >= j:
            return i
        x[i], x[j] = x[j], x[i]
        i += 1
        j -= 1


@inner()
def _median_of_three(x: _Values, a: int, b: int, c: int) -> int:
    if x[a] < x[b]:
        if x[b] < x[c]:
            return b
        return c if x[a] < x[c] else a
    if x[a] < x[c]:
        return a
    return c if x[b] < x[c] else b
