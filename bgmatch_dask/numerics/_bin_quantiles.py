"""Compiled quantiles of the pixels of one bin, behind `bgmatch_dask.numerics.superpixels`.

A histogram says in which of its cells a quantile is; only the pixels of those are put in order.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner
from bgmatch_dask.numerics.median import select

__all__ = ("BAD", "BLOCK", "N_CELLS", "dense", "quantiles")

BAD = np.float32(np.inf)
"""Stands for a pixel that is not used."""
BLOCK = 512
"""Pixels of a bin come in whole blocks of so many, filled up with `BAD`."""
N_CELLS = 1024
"""Cells of a histogram."""
_STRIP = 32
_SAMPLE = 64
_FEW = 256
"""Pixels that are put in order sooner than counted."""
_LARGEST = np.float32(np.finfo(np.float32).max)

_Floats = NDArray[np.float32]
_Cell: TypeAlias = np.unsignedinteger[Any]
_Cells = NDArray[np.uint16]
_Counts = NDArray[np.int32]


@inner()
def _compact(values: _Floats, kept: _Floats) -> int:
    n = 0
    for i in range(values.size):
        kept[n] = values[i]
        n += 1 if values[i] < BAD else 0
    return n


@inner()
def dense(values: _Floats, kept: _Floats) -> _Floats:
    """Return whole blocks that hold the good pixels."""
    n = _compact(values, kept)
    whole = -(-n // BLOCK) * BLOCK
    kept[n:whole] = BAD
    return kept[:whole]


@inner()
def _all_equal(values: _Floats, n: int) -> bool:
    i = 1
    while i < n and values[i] == values[0]:
        i += 1
    return i >= n


@inner()
def _interpolate(values: _Floats, n: int, k: int, weight: float) -> float:
    """Interpolate order statistics ``k`` and ``k + 1`` of the first ``n`` values."""
    if _all_equal(values, n):
        return float(values[0])
    select(values[:n], k)
    following = values[min(k + 1, n - 1)]
    for i in range(k + 2, n):
        following = min(following, values[i])
    return (1.0 - weight) * float(values[k]) + weight * float(following)


@inner()
def _sample_range(values: _Floats, scratch: _Floats) -> tuple[np.float32, np.float32]:
    """Guess, from a few pixels, a range that holds the quartiles; empty when it cannot."""
    n, step = 0, values.size // _SAMPLE
    for i in range(_SAMPLE if step else 0):
        # Equal steps would often stay in one column, which a gap may leave out.
        value = values[i * step + (37 * i) % step]
        if value < BAD:
            j = n
            while j > 0 and scratch[j - 1] > value:
                scratch[j] = scratch[j - 1]
                j -= 1
            scratch[j] = value
            n += 1
    if n < _SAMPLE // 4:
        return BAD, BAD
    lower, upper = scratch[n // 4], scratch[(3 * n) // 4]
    margin = np.float32(0.75) * (upper - lower)
    return lower - margin, upper + margin


@inner()
def _assign_cells(values: _Floats, cells: _Cells, low: np.float32, scale: np.float32) -> None:
    """Give each pixel of a block its histogram cell.

    The cell never decreases with the value, rounding included, so cells part the pixels by
    rank. The first and the last take what lies outside, the last also the bad pixels.
    """
    top = np.float32(N_CELLS - 1)
    for i in range(BLOCK):
        place = max((values[i] - low) * scale, np.float32(0.0))
        cells[i] = np.uint16(np.int32(min(place, top)))


@inner()
def _count_cells(cells: _Cells, counts: _Counts) -> None:
    # Four tables, so that neighbours of one value do not wait for each other's store.
    for i in range(0, BLOCK, 4):
        counts[cells[i]] += 1
        counts[cells[i + 1] + N_CELLS] += 1
        counts[cells[i + 2] + 2 * N_CELLS] += 1
        counts[cells[i + 3] + 3 * N_CELLS] += 1


@inner()
def _add_tables(counts: _Counts) -> None:
    n = np.uint64(N_CELLS)
    for i in range(n):
        counts[i] += counts[i + n] + counts[i + np.uint64(2) * n] + counts[i + np.uint64(3) * n]


@inner()
def _nearest_above(cells: _Cells, at: int, first: _Cells) -> tuple[_Cell, _Cell, _Cell]:
    """Return how far the cells of a strip are above three others, at least.

    Unsigned: what is below is further away than any cell above.
    """
    a, b, c = first[0], first[1], first[2]
    to_a, to_b, to_c = np.uint16(65535), np.uint16(65535), np.uint16(65535)
    for i in range(np.uint64(at), np.uint64(at + _STRIP)):
        x, y, z = np.uint16(cells[i] - a), np.uint16(cells[i] - b), np.uint16(cells[i] - c)
        to_a = min(to_a, x)
        to_b = min(to_b, y)
        to_c = min(to_c, z)
    return to_a, to_b, to_c


@inner()
def _take(
    values: _Floats, cells: _Cells, at: int, first: _Cell, span: _Cell, kept: _Floats, n: int
) -> int:
    for i in range(np.uint64(at), np.uint64(at + _STRIP)):
        # Without a branch, which would be guessed wrongly once per strip.
        kept[n] = values[i]
        n += 1 if np.uint16(cells[i] - first) <= span else 0
    return n


@inner()
def _gather(values: _Floats, cells: _Cells, first: _Cells, span: _Cells, kept: _Floats) -> None:
    """Copy the pixels of three ranges of cells into one row of ``kept`` each."""
    n0, n1, n2 = 0, 0, 0
    for at in range(0, cells.size, _STRIP):
        to = _nearest_above(cells, at, first)
        if to[0] <= span[0]:
            n0 = _take(values, cells, at, first[0], span[0], kept[0], n0)
        if to[1] <= span[1]:
            n1 = _take(values, cells, at, first[1], span[1], kept[1], n1)
        if to[2] <= span[2]:
            n2 = _take(values, cells, at, first[2], span[2], kept[2], n2)


@inner()
def _cells_around(counts: _Counts, k: int, cell: int, below: int) -> tuple[int, int, int, int]:
    """Find the cells of order statistics ``k`` and ``k + 1``, from ``cell`` on.

    Return the first and the last of them, the pixels below the first, and those in all of them.
    """
    while below + counts[cell] <= k:
        below += counts[cell]
        cell += 1
    last, seen = cell, below + counts[cell]
    while seen <= k + 1 and last < N_CELLS - 1:
        last += 1
        seen += counts[last]
    return cell, last, below, seen - below


@inner()
def quantiles(
    values: _Floats, n: int, cells: _Cells, counts: _Counts, kept: _Floats
) -> tuple[float, float]:
    """Return median and interquartile range of the ``n`` good pixels."""
    low, high = _sample_range(values, kept[0]) if n > _FEW else (BAD, BAD)
    if not np.float32(N_CELLS) / _LARGEST < high - low <= _LARGEST:
        return _sorted_quantiles(values, kept[0])
    scale = np.float32(N_CELLS) / (high - low)
    counts[:] = 0
    for at in range(0, values.size, BLOCK):
        _assign_cells(values[at : at + BLOCK], cells[at : at + BLOCK], low, scale)
        _count_cells(cells[at : at + BLOCK], counts)
    _add_tables(counts)
    # Only the pixels of the cells that hold a quantile are put in order: it is found exactly.
    first, span = np.empty(3, np.uint16), np.empty(3, np.uint16)
    below, sizes, found = np.empty(3, np.int64), np.empty(3, np.int64), np.empty(3)
    cell, under = 0, 0
    for q in range(3):
        k = int(0.25 * (q + 1) * (n - 1))
        cell, last, under, sizes[q] = _cells_around(counts, k, cell, under)
        first[q], span[q], below[q] = cell, last - cell, under
    _gather(values, cells[: values.size], first, span, kept)
    for q in range(3):
        position = 0.25 * (q + 1) * (n - 1)
        k = int(position)
        found[q] = _interpolate(kept[q], sizes[q], k - below[q], position - k)
    return found[1], found[2] - found[0]


@inner()
def _sorted_quantiles(values: _Floats, kept: _Floats) -> tuple[float, float]:
    """Do the same for few pixels, or many equal ones, which histograms do not part."""
    n = _compact(values, kept)
    if n == 0:
        return np.nan, np.nan
    last = n - 1
    lower = _interpolate(kept, n, int(0.25 * last), 0.25 * last - int(0.25 * last))
    median = _interpolate(kept, n, int(0.5 * last), 0.5 * last - int(0.5 * last))
    upper = _interpolate(kept, n, int(0.75 * last), 0.75 * last - int(0.75 * last))
    return median, upper - lower
