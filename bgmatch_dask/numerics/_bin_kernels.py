"""Compiled loops behind `bgmatch_dask.numerics.superpixels`.

All compiled code of the superpixels is in this one file, because numba's cache only looks at
the file of the function that is called.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numba as nb
import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.cell_maps import CELL
from bgmatch_dask.numerics.statistics import IQR_TO_SIGMA

__all__ = ("Plane", "Planes", "moments_of_bins", "statistics_of_bins")

_BLOCK = 512
_STRIP = 32
_SAMPLE = 64
_CELLS = 1024
_LARGEST = np.float32(np.finfo(np.float32).max)
_BAD = np.float32(np.inf)
_N_FLOATS = int(_LARGEST.view(np.int32))

_Floats = NDArray[np.float32]
_Bits = NDArray[np.int32]
_Cell: TypeAlias = np.unsignedinteger[Any]
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


class Planes(NamedTuple):
    """What is measured: one image, or the difference of two."""

    a: Plane
    """The image, or what is subtracted from."""
    b: Plane
    """What is subtracted, or no image."""
    left_out: NDArray[np.bool_]
    """Cells of `CELL`² pixels that are not used, from the first pixel on; empty for none."""


@nb.njit(cache=True, nogil=True)
def _copy(to: _Floats, at: int, image: _Floats, start: int, width: int) -> None:
    """Copy a piece of a row; a pixel that is not finite becomes `_BAD`."""
    # Unsigned positions spare the test for negative ones, and the loop becomes vector code.
    t, i = np.uint64(at), np.uint64(start)
    for j in range(np.uint64(width)):
        value = image[i + j]
        to[t + j] = value if abs(value) <= _LARGEST else _BAD


@nb.njit(cache=True, nogil=True)
def _subtract(
    to: _Floats, at: int, a: _Floats, first: int, b: _Floats, second: int, width: int
) -> None:
    t, i, k = np.uint64(at), np.uint64(first), np.uint64(second)
    for j in range(np.uint64(width)):
        value = a[i + j] - b[k + j]
        to[t + j] = value if abs(value) <= _LARGEST else _BAD


@nb.njit(cache=True, nogil=True)
def _blank(to: _Floats, at: int, mask: _Bits, start: int, width: int, bits: np.int32) -> None:
    t, k = np.uint64(at), np.uint64(start)
    for j in range(np.uint64(width)):
        to[t + j] = to[t + j] if (mask[k + j] & bits) == 0 else _BAD


@nb.njit(cache=True, nogil=True)
def _load(
    to: _Floats, at: int, pitch: int, x0: int, x1: int, y0: int, y1: int, planes: Planes
) -> None:
    """Load a part of ``a``, or of ``a - b`` when there is a ``b``, to rows from ``at`` on."""
    a, b, width = planes.a, planes.b, x1 - x0
    # Taken out of their tuples before the loop: each time counts a reference.
    image, subtracted, a_mask, b_mask = a.image, b.image, a.mask, b.mask
    for y in range(y0, y1):
        t = at + (y - y0) * pitch
        if subtracted.size:
            _subtract(to, t, image, y * a.pitch + x0, subtracted, y * b.pitch + x0, width)
        else:
            _copy(to, t, image, y * a.pitch + x0, width)
        if a_mask.size:
            _blank(to, t, a_mask, y * a.mask_pitch + x0, width, a.bits)
        if b_mask.size:
            _blank(to, t, b_mask, y * b.mask_pitch + x0, width, b.bits)


@nb.njit(cache=True, nogil=True)
def _fill(to: _Floats, at: int, pitch: int, width: int, height: int) -> None:
    for row in range(height):
        for j in range(width):
            to[at + row * pitch + j] = _BAD


@nb.njit(cache=True, nogil=True)
def _load_bin(to: _Floats, x0: int, x1: int, y0: int, y1: int, planes: Planes) -> int:
    """Load the pixels of a bin and return how many they are, 0 if all are left out."""
    width, left_out = x1 - x0, planes.left_out
    if not left_out.size:
        _load(to, 0, width, x0, x1, y0, y1, planes)
        return width * (y1 - y0)
    if not _any_used(left_out, x0, x1, y0, y1):
        return 0
    y, below = y0, y0
    while below < y1:
        y, row = below, below // CELL
        below, x, end = min((row + 1) * CELL, y1), x0, x0
        while end < x1:
            x, end = end, _end_of_run(left_out, row, end, x1)
            at = (y - y0) * width + x - x0
            if left_out[row, x // CELL]:
                _fill(to, at, width, end - x, below - y)
            else:
                _load(to, at, width, x, end, y, below, planes)
    return width * (y1 - y0)


@nb.njit(cache=True, nogil=True)
def _any_used(left_out: NDArray[np.bool_], x0: int, x1: int, y0: int, y1: int) -> bool:
    if x0 < x1:
        for row in range(y0 // CELL, -(-y1 // CELL)):
            for column in range(x0 // CELL, -(-x1 // CELL)):
                if not left_out[row, column]:
                    return True
    return False


@nb.njit(cache=True, nogil=True)
def _end_of_run(left_out: NDArray[np.bool_], row: int, x: int, end: int) -> int:
    """Return the first pixel after ``x`` in a cell that is left out when that of ``x`` is not."""
    column = x // CELL
    state = left_out[row, column]
    while column * CELL < end and left_out[row, column] == state:
        column += 1
    return min(column * CELL, end)


@nb.njit(cache=True, nogil=True)
def _compact(values: _Floats, kept: _Floats) -> int:
    n = 0
    for i in range(values.size):
        kept[n] = values[i]
        n += 1 if values[i] < _BAD else 0
    return n


@nb.njit(cache=True, nogil=True)
def _dense(values: _Floats, kept: _Floats) -> _Floats:
    """Return whole blocks that hold the good pixels."""
    n = _compact(values, kept)
    whole = -(-n // _BLOCK) * _BLOCK
    kept[n:whole] = _BAD
    return kept[:whole]


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
    n, step = 0, values.size // _SAMPLE
    for i in range(_SAMPLE if step else 0):
        # Equal steps would often stay in one column, which a gap may leave out.
        value = values[i * step + (37 * i) % step]
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


@nb.njit(cache=True, nogil=True)
def _count_cells(cells: _Cells, counts: _Counts) -> None:
    # Four tables, so that neighbours of one value do not wait for each other's store.
    for i in range(0, _BLOCK, 4):
        counts[cells[i]] += 1
        counts[cells[i + 1] + _CELLS] += 1
        counts[cells[i + 2] + 2 * _CELLS] += 1
        counts[cells[i + 3] + 3 * _CELLS] += 1


@nb.njit(cache=True, nogil=True)
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


@nb.njit(cache=True, nogil=True)
def _take(
    values: _Floats, cells: _Cells, at: int, first: _Cell, span: _Cell, kept: _Floats, n: int
) -> int:
    for i in range(np.uint64(at), np.uint64(at + _STRIP)):
        if np.uint16(cells[i] - first) <= span:
            kept[n] = values[i]
            n += 1
    return n


@nb.njit(cache=True, nogil=True)
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


@nb.njit(cache=True, nogil=True)
def _cells_around(counts: _Counts, k: int, cell: int, below: int) -> tuple[int, int, int, int]:
    """Find the cells of order statistics ``k`` and ``k + 1``, from ``cell`` on.

    Return the first and the last of them, the pixels below the first, and those in all of them.
    """
    while below + counts[cell] <= k:
        below += counts[cell]
        cell += 1
    last, seen = cell, below + counts[cell]
    while seen <= k + 1 and last < _CELLS - 1:
        last += 1
        seen += counts[last]
    return cell, last, below, seen - below


@nb.njit(cache=True, nogil=True)
def _quantiles(
    values: _Floats, n: int, cells: _Cells, counts: _Counts, kept: _Floats
) -> tuple[float, float]:
    """Return median and interquartile range of the ``n`` good pixels."""
    low, high = _sample_range(values, kept[0])
    if not np.float32(_CELLS) / _LARGEST < high - low <= _LARGEST:
        return _sorted_quantiles(values, kept[0])
    scale = np.float32(_CELLS) / (high - low)
    counts[:] = 0
    for at in range(0, values.size, _BLOCK):
        _assign_cells(values[at : at + _BLOCK], cells[at : at + _BLOCK], low, scale)
        _count_cells(cells[at : at + _BLOCK], counts)
    for i in range(_CELLS):
        counts[i] += counts[i + _CELLS] + counts[i + 2 * _CELLS] + counts[i + 3 * _CELLS]
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


@nb.njit(cache=True, nogil=True)
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
    planes: Planes,
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
    widest = np.max(np.diff(x_edges))
    buffer = np.empty((widest * np.max(np.diff(y_edges)) // _BLOCK + 1) * _BLOCK, np.float32)
    kept = np.empty((4, buffer.size + 1), np.float32)
    cells, table = np.empty(buffer.size, np.uint16), np.empty(4 * _CELLS, np.int32)
    columns, places = np.empty(widest, np.float32), np.empty(4)
    for iy in range(y_edges.size - 1):
        y0, y1 = y_edges[iy], y_edges[iy + 1]
        for ix in range(x_edges.size - 1):
            x0, x1 = x_edges[ix], x_edges[ix + 1]
            size = _load_bin(buffer, x0, x1, y0, y1, planes)
            n = _moments(buffer[:size], x0, y0, columns[: x1 - x0], places)
            if moments.size:
                moments[:, iy, ix] = places
            whole = -(-size // _BLOCK) * _BLOCK
            buffer[size:whole] = _BAD
            pixels = buffer[:whole] if 2 * n > whole else _dense(buffer[:whole], kept[3])
            median, iqr = _quantiles(pixels, n, cells, table, kept)
            n_kept, mean, variance = _clip(buffer[:whole], n, median, iqr, n_sigma, n_iter)
            counts[0, iy, ix], counts[1, iy, ix] = n_kept, n
            results[0, iy, ix], results[1, iy, ix], results[2, iy, ix] = mean, variance, median


@nb.njit(cache=True, nogil=True)
def moments_of_bins(
    planes: Planes, x_edges: _Edges, y_edges: _Edges, moments: NDArray[np.float64]
) -> None:
    """Fill ``moments`` (mean x, mean y, variance x, variance y), ``[4, ny, nx]``."""
    widest = np.max(np.diff(x_edges))
    buffer = np.empty(widest * np.max(np.diff(y_edges)), np.float32)
    columns = np.empty(widest, np.float32)
    for iy in range(y_edges.size - 1):
        y0, y1 = y_edges[iy], y_edges[iy + 1]
        for ix in range(x_edges.size - 1):
            x0, x1 = x_edges[ix], x_edges[ix + 1]
            size = _load_bin(buffer, x0, x1, y0, y1, planes)
            _moments(buffer[:size], x0, y0, columns[: x1 - x0], moments[:, iy, ix])


@nb.njit(cache=True, nogil=True)
def _moments(values: _Floats, x0: int, y0: int, columns: _Floats, out: NDArray[np.float64]) -> int:
    """Measure where the good pixels of a bin lie, and return how many they are.

    All sums are of whole numbers and halves of them: none is rounded.
    """
    width = columns.size
    height = values.size // width if width else 0
    middle_x, middle_y = x0 + 0.5 * (width - 1), y0 + 0.5 * (height - 1)
    n, x, xx, y, yy = 0, 0.0, 0.0, 0.0, 0.0
    columns[:] = 0.0
    for row in range(height):
        part = _count_row(values[row * width : (row + 1) * width], columns)
        place = y0 + row - middle_y
        n, y, yy = n + part, y + part * place, yy + part * place * place
    for column in range(width):
        number, place = float(columns[column]), x0 + column - middle_x
        x, xx = x + number * place, xx + number * place * place
    good = n or np.nan
    out[0], out[1] = middle_x + x / good, middle_y + y / good
    out[2] = max(xx / good - (x / good) ** 2, 0.0) if n else np.nan
    out[3] = max(yy / good - (y / good) ** 2, 0.0) if n else np.nan
    return n


@nb.njit(cache=True, nogil=True, fastmath={"reassoc"})
def _count_row(values: _Floats, columns: _Floats) -> int:
    """Add the good pixels of a row to its columns, and return how many they are."""
    # Whole numbers in float32 lanes: int64 counters would be four times as wide as the data.
    n = np.float32(0.0)
    for i in range(values.size):
        good = np.float32(1.0) if values[i] < _BAD else np.float32(0.0)
        columns[i] += good
        n += good
    return int(n)
