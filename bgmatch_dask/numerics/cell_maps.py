"""Loops over the pixels of small square cells, and over maps of cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner, kernel

__all__ = (
    "CELL",
    "blank_bad_pixels",
    "cells_of",
    "difference_cells",
    "grow_cells",
    "sum_blocks",
    "take_good_pixels",
)

CELL = 8
"""Size of a cell [pixels]."""
_LARGEST = np.float32(np.finfo(np.float32).max)

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Bits = NDArray[np.int32]


def cells_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many cells of `CELL`² pixels an image has along y and x."""
    return -(-shape[0] // CELL), -(-shape[1] // CELL)


def blank_bad_pixels(
    image: Floats, mask: NDArray[np.int32] | None, bad_bits: int, seen: Bools
) -> None:
    """Make every pixel of an image that shall not be used NaN, in place.

    Parameters
    ----------
    image
        float32 ``[y, x]``, C order.
    mask
        Bit field of the same shape, or None.
    bad_bits
        Pixels with these bits are blanked, as are those that are not finite.
    seen
        Cells of `CELL`² pixels, from the first pixel on; those that hold a good one become True.
    """
    bits = np.zeros((0, 0), np.int32) if mask is None else np.ascontiguousarray(mask, np.int32)
    _blank(image, bits, np.int32(bad_bits), seen)


def take_good_pixels(
    part: tuple[Floats, Bits],
    first: tuple[int, int],
    bad_bits: int,
    window: tuple[slice, slice],
    out: Floats,
    seen: Bools,
) -> None:
    """Copy the pixels of a part of an image that shall be used; all others become NaN.

    Parameters
    ----------
    part
        Image and mask of the part, C order, of one shape.
    first
        Row and column of the first pixel of it that is wanted.
    bad_bits
        Pixels with these bits are not used, nor are those that are not finite.
    window
        Rows and columns of the whole image that the part is for.
    out
        The whole image, float32 ``[y, x]``.
    seen
        As for `blank_bad_pixels`.
    """
    rows, columns = window
    area = (rows.start, rows.stop, columns.start, columns.stop)
    _take(*part, *first, np.int32(bad_bits), area, out, seen)


@kernel()
def _take(
    image: Floats,
    mask: Bits,
    top: int,
    left: int,
    bad: np.int32,
    area: tuple[int, int, int, int],
    out: Floats,
    seen: Bools,
) -> None:
    y0, y1, x0, x1 = area
    line = np.empty(x1 - x0, np.int32)
    for row in range(y0 // CELL, -(-y1 // CELL)):
        line[:] = 0
        first, last = max(row * CELL, y0), min((row + 1) * CELL, y1)
        _take_rows(image, mask, first - y0 + top, left, bad, out, (first, last, x0, x1), line)
        _see(line, x0, row, seen)


@inner()
def _see(line: Bits, x0: int, row: int, seen: Bools) -> None:
    """Note the cells in which a line, which begins at column ``x0``, is not zero."""
    x, end = 0, line.size
    while x < end:
        cell = (x0 + x) // CELL
        last = min((cell + 1) * CELL - x0, end)
        any_seen = np.int32(0)
        while x < last:
            any_seen |= line[x]
            x += 1
        seen[row, cell] |= any_seen != 0


@inner()
def _take_rows(
    image: Floats,
    mask: Bits,
    top: int,
    left: int,
    bad: np.int32,
    out: Floats,
    area: tuple[int, int, int, int],
    line: Bits,
) -> None:
    # Not row by row as arrays of their own, each of which counts references. Unsigned positions
    # spare the test for negative ones.
    y0, x0, first, step = np.uint64(area[0]), np.uint64(area[2]), np.uint64(left), np.uint64(top)
    for k in range(np.uint64(area[1] - area[0])):
        for x in range(np.uint64(line.size)):
            value = image[step + k, first + x]
            good = (abs(value) <= _LARGEST) & ((mask[step + k, first + x] & bad) == 0)
            out[y0 + k, x0 + x] = value if good else np.float32(np.nan)
            line[x] |= np.int32(1) if good else np.int32(0)


@kernel()
def _blank(image: Floats, mask: Bits, bad: np.int32, seen: Bools) -> None:
    line, none = np.empty(image.shape[1], np.int32), np.zeros(image.shape[1], np.int32)
    for row in range(seen.shape[0]):
        line[:] = 0
        for y in range(row * CELL, min((row + 1) * CELL, image.shape[0])):
            _blank_row(image[y], mask[y] if mask.size else none, bad, line)
        _see(line, 0, row, seen)


@inner()
def _blank_row(image: Floats, mask: Bits, bad: np.int32, line: Bits) -> None:
    for x in range(image.size):
        value = image[x]
        good = (abs(value) <= _LARGEST) & ((mask[x] & bad) == 0)
        image[x] = value if good else np.float32(np.nan)
        line[x] |= np.int32(good)


@kernel()
def difference_cells(a: Floats, b: Floats, wanted: Bools) -> tuple[Array, Array, Array]:
    """Return number, sum and sum of squares of ``a − b`` over the good pixels of each cell.

    Parameters
    ----------
    a, b
        Images of one shape; pixels that are not finite in both are left out.
    wanted
        Cells of `CELL`² pixels to sum, shape ``(cy, cx)``. They begin at the first pixel, the last
        ones may be narrower. The pixels of the others are not read.

    Returns
    -------
    tuple
        Three arrays of shape ``(cy, cx)``; differences and sums are float64.
    """
    height, width = a.shape
    sums = np.zeros((3, *wanted.shape))
    # Columns are summed first: without branches several are done at a time.
    lines = np.empty((3, width))
    for row in range(wanted.shape[0]):
        y0, y1, last = row * CELL, min((row + 1) * CELL, height), 0
        while last < wanted.shape[1]:
            first, last = _next_run(wanted[row], last)
            x0, x1 = first * CELL, min(last * CELL, width)
            _sum_rows(a[y0:y1], b[y0:y1], x0, x1, lines)
            for k in range(3):
                _sum_columns(lines[k, x0:x1], sums[k, row, first:last])
    return sums[0], sums[1], sums[2]


@inner()
def _next_run(wanted: Bools, start: int) -> tuple[int, int]:
    """Return the first cell from ``start`` on that is wanted, and the next one that is not."""
    first = start
    while first < wanted.size and not wanted[first]:
        first += 1
    last = first
    while last < wanted.size and wanted[last]:
        last += 1
    return first, last


@inner()
def _sum_rows(a: Floats, b: Floats, x0: int, x1: int, lines: Array) -> None:
    if a.shape[0] == CELL:
        _sum_all_rows(a, b, x0, x1, lines[0], lines[1], lines[2])
        return
    lines[:, x0:x1] = 0.0
    for y in range(a.shape[0]):
        for x in range(x0, x1):
            delta = np.float64(a[y, x]) - np.float64(b[y, x])
            if abs(delta) < np.inf:
                lines[0, x] += 1.0
                lines[1, x] += delta
                lines[2, x] += delta * delta


@inner()
def _sum_all_rows(
    a: Floats, b: Floats, x0: int, x1: int, count: Array, total: Array, squares: Array
) -> None:
    # Unsigned positions spare the test for negative ones; sums stay in registers over the rows,
    # whose number is known when this is compiled.
    for x in range(np.uint64(x0), np.uint64(x1)):
        n, s1, s2 = 0.0, 0.0, 0.0
        for y in range(np.uint64(CELL)):
            difference = np.float64(a[y, x]) - np.float64(b[y, x])
            good = abs(difference) < np.inf
            delta: float = difference if good else 0.0
            n += 1.0 if good else 0.0
            s1 += delta
            s2 += delta * delta
        count[x], total[x], squares[x] = n, s1, s2


@inner()
def _sum_columns(columns: Array, out: Array) -> None:
    whole = columns.size // CELL
    for cell in range(whole):
        total = 0.0
        for x in range(CELL):
            total += columns[cell * CELL + x]
        out[cell] = total
    if whole < out.size:
        total = 0.0
        for x in range(whole * CELL, columns.size):
            total += columns[x]
        out[whole] = total


@kernel()
def grow_cells(seeds: Bools, allowed: Bools) -> Bools:
    """Return the seeds, the allowed cells that they reach, and the neighbours of all these.

    Parameters
    ----------
    seeds
        Cells to begin with, shape ``(ny, nx)``; all of them are allowed.
    allowed
        Cells that can be reached, over edges and corners.
    """
    height, width = seeds.shape
    reached, out = seeds.copy(), np.zeros(seeds.shape, np.bool_)
    places = np.empty(seeds.size, np.int64)
    n = 0
    for place in range(seeds.size):
        if seeds[place // width, place % width]:
            places[n] = place
            n += 1
    while n:
        n -= 1
        row, column = places[n] // width, places[n] % width
        for y in range(max(row - 1, 0), min(row + 2, height)):
            for x in range(max(column - 1, 0), min(column + 2, width)):
                out[y, x] = True
                if allowed[y, x] and not reached[y, x]:
                    reached[y, x] = True
                    places[n] = y * width + x
                    n += 1
    return out


def sum_blocks(
    plane: NDArray[np.generic], y_edges: NDArray[np.int64], x_edges: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Return the sum and the number of the pixels of each block that hold data.

    Parameters
    ----------
    plane
        Pixels; those that are not finite hold no data, of integers those that are 0.
    y_edges, x_edges
        Rows and columns at which blocks begin and end, inside the plane.

    Returns
    -------
    tuple
        Sum and number, float64, shape ``(ny, nx)``.
    """
    total = np.zeros((len(y_edges) - 1, len(x_edges) - 1))
    count = np.zeros_like(total)
    _sum_blocks(plane, y_edges, x_edges, plane.dtype.kind in "iu", total, count)
    return total, count


@kernel()
def _sum_blocks(
    plane: NDArray[np.generic],
    y_edges: NDArray[np.int64],
    x_edges: NDArray[np.int64],
    whole: bool,
    total: Array,
    count: Array,
) -> None:
    first, last = x_edges[0], x_edges[-1]
    # Columns first: a sum along a row would have to wait for every addition.
    sums, good = np.empty(last - first), np.empty(last - first, np.int32)
    for row in range(total.shape[0]):
        sums[:], good[:] = 0.0, 0
        for y in range(y_edges[row], y_edges[row + 1]):
            _add_pixels(plane[y, first:last], whole, sums, good)
        for column in range(total.shape[1]):
            for x in range(x_edges[column] - first, x_edges[column + 1] - first):
                total[row, column] += sums[x]
                count[row, column] += good[x]


@inner()
def _add_pixels(
    pixels: NDArray[np.generic], whole: bool, sums: Array, good: NDArray[np.int32]
) -> None:
    for x in range(pixels.size):
        value = np.float64(pixels[x])
        # What is not finite less itself is not a number.
        used = value != 0.0 if whole else value - value == 0.0
        sums[x] += value if used else 0.0
        good[x] += np.int32(1) if used else np.int32(0)
