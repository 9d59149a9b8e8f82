"""Compiled loops behind `bgmatch_dask.numerics.superpixels`: pixels of bins, and their places."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics._bin_clip import clip
from bgmatch_dask.numerics._bin_quantiles import BAD, BLOCK, N_CELLS, dense, quantiles
from bgmatch_dask.numerics.called_code import CALLED
from bgmatch_dask.numerics.cell_maps import CELL
from bgmatch_dask.numerics.compiling import inner, kernel

__all__ = ("Plane", "Planes", "moments_of_bins", "statistics_of_bins")

_LARGEST = np.float32(np.finfo(np.float32).max)

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


class Planes(NamedTuple):
    """What is measured: one image, or the difference of two."""

    a: Plane
    """The image, or what is subtracted from."""
    b: Plane
    """What is subtracted, or no image."""
    left_out: NDArray[np.bool_]
    """Cells of `CELL`² pixels that are not used, from the first pixel on; empty for none."""


@inner()
def _copy(to: _Floats, at: int, image: _Floats, start: int, width: int) -> None:
    """Copy a piece of a row; a pixel that is not finite becomes `BAD`."""
    # Unsigned positions spare the test for negative ones, and the loop becomes vector code.
    t, i = np.uint64(at), np.uint64(start)
    for j in range(np.uint64(width)):
        value = image[i + j]
        to[t + j] = value if abs(value) <= _LARGEST else BAD


@inner()
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
        to[t + j] = value if good else BAD


@inner()
def _subtract(
    to: _Floats, at: int, a: _Floats, first: int, b: _Floats, second: int, width: int
) -> None:
    t, i, k = np.uint64(at), np.uint64(first), np.uint64(second)
    for j in range(np.uint64(width)):
        value = a[i + j] - b[k + j]
        to[t + j] = value if abs(value) <= _LARGEST else BAD


@inner()
def _subtract_masked(
    to: _Floats,
    at: int,
    a: _Floats,
    first: int,
    b: _Floats,
    second: int,
    width: int,
    a_mask: _Bits,
    a_m: int,
    a_bits: np.int32,
    b_mask: _Bits,
    b_m: int,
    b_bits: np.int32,
) -> None:
    t, i, k = np.uint64(at), np.uint64(first), np.uint64(second)
    m, n = np.uint64(a_m), np.uint64(b_m)
    for j in range(np.uint64(width)):
        value = a[i + j] - b[k + j]
        bad = (a_mask[m + j] & a_bits) | (b_mask[n + j] & b_bits)
        to[t + j] = value if (abs(value) <= _LARGEST) & (bad == 0) else BAD


@inner()
def _load(
    to: _Floats, at: int, pitch: int, x0: int, x1: int, y0: int, y1: int, planes: Planes
) -> None:
    """Load a part of ``a``, or of ``a - b`` when there is a ``b``, to rows from ``at`` on."""
    a, b, width = planes.a, planes.b, x1 - x0
    # Taken out of their tuples before the loop: each time counts a reference.
    a_image, a_mask, b_image, b_mask = a.image, a.mask, b.image, b.mask
    a_bits, b_bits, a_pitch, b_pitch = a.bits, b.bits, a.mask_pitch, b.mask_pitch
    # A mask that is missing is the other one, of which no bit is bad.
    if not a_mask.size:
        a_mask, a_bits, a_pitch = b_mask, np.int32(0), b_pitch
    if not b_mask.size:
        b_mask, b_bits, b_pitch = a_mask, np.int32(0), a_pitch
    for y in range(y0, y1):
        t, i, k = at + (y - y0) * pitch, y * a.pitch + x0, y * b.pitch + x0
        m, n = y * a_pitch + x0, y * b_pitch + x0
        if b_image.size and a_mask.size:
            _subtract_masked(
                to, t, a_image, i, b_image, k, width, a_mask, m, a_bits, b_mask, n, b_bits
            )
        elif b_image.size:
            _subtract(to, t, a_image, i, b_image, k, width)
        elif a_mask.size:
            _copy_masked(to, t, a_image, i, width, a_mask, m, a_bits)
        else:
            _copy(to, t, a_image, i, width)


@inner()
def _fill(to: _Floats, at: int, pitch: int, width: int, height: int) -> None:
    for row in range(height):
        for j in range(width):
            to[at + row * pitch + j] = BAD


@inner()
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


@inner()
def _any_used(left_out: NDArray[np.bool_], x0: int, x1: int, y0: int, y1: int) -> bool:
    if x0 < x1:
        for row in range(y0 // CELL, -(-y1 // CELL)):
            for column in range(x0 // CELL, -(-x1 // CELL)):
                if not left_out[row, column]:
                    return True
    return False


@inner()
def _end_of_run(left_out: NDArray[np.bool_], row: int, x: int, end: int) -> int:
    """Return the first pixel after ``x`` in a cell that is left out when that of ``x`` is not."""
    column = x // CELL
    state = left_out[row, column]
    while column * CELL < end and left_out[row, column] == state:
        column += 1
    return min(column * CELL, end)


@kernel()
def statistics_of_bins(
    planes: Planes,
    x_edges: _Edges,
    y_edges: _Edges,
    n_sigma: float,
    n_iter: int,
    counts: NDArray[np.int64],
    results: NDArray[np.float64],
    moments: NDArray[np.float64],
    called: int = CALLED,  # noqa: ARG001
) -> None:
    """Fill ``counts`` (kept, good) and ``results`` (mean, variance, median), ``[k, ny, nx]``.

    ``moments`` is filled as by `moments_of_bins`, unless it is empty.
    """
    widest = _largest_step(x_edges)
    buffer = np.empty((widest * _largest_step(y_edges) // BLOCK + 1) * BLOCK, np.float32)
    kept = np.empty((4, buffer.size + 1), np.float32)
    cells, table = np.empty(buffer.size, np.uint16), np.empty(4 * N_CELLS, np.int32)
    columns = np.empty(widest, np.float32)
    for iy in range(y_edges.size - 1):
        y0, y1 = y_edges[iy], y_edges[iy + 1]
        for ix in range(x_edges.size - 1):
            x0, x1 = x_edges[ix], x_edges[ix + 1]
            size = _load_bin(buffer, x0, x1, y0, y1, planes)
            if moments.size:
                n = _moments(buffer[:size], x0, y0, columns[: x1 - x0], moments[:, iy, ix])
            else:
                n = _count(buffer[:size])
            whole = -(-size // BLOCK) * BLOCK
            buffer[size:whole] = BAD
            pixels = buffer[:whole] if 2 * n > whole else dense(buffer[:whole], kept[3])
            median, iqr = quantiles(pixels, n, cells, table, kept)
            n_kept, mean, variance = clip(buffer[:whole], n, median, iqr, n_sigma, n_iter)
            counts[0, iy, ix], counts[1, iy, ix] = n_kept, n
            results[0, iy, ix], results[1, iy, ix], results[2, iy, ix] = mean, variance, median


@inner()
def _largest_step(edges: _Edges) -> int:
    # What numba makes of numpy's functions takes ten times as long to compile.
    widest = 0
    for k in range(edges.size - 1):
        widest = max(widest, edges[k + 1] - edges[k])
    return widest


@kernel()
def moments_of_bins(
    planes: Planes, x_edges: _Edges, y_edges: _Edges, moments: NDArray[np.float64]
) -> None:
    """Fill ``moments`` (mean x, mean y, variance x, variance y), ``[4, ny, nx]``."""
    widest = _largest_step(x_edges)
    buffer = np.empty(widest * _largest_step(y_edges), np.float32)
    columns = np.empty(widest, np.float32)
    for iy in range(y_edges.size - 1):
        y0, y1 = y_edges[iy], y_edges[iy + 1]
        for ix in range(x_edges.size - 1):
            x0, x1 = x_edges[ix], x_edges[ix + 1]
            size = _load_bin(buffer, x0, x1, y0, y1, planes)
            _moments(buffer[:size], x0, y0, columns[: x1 - x0], moments[:, iy, ix])


@inner()
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


@inner(fastmath={"reassoc"})
def _count_row(values: _Floats, columns: _Floats) -> int:
    """Add the good pixels of a row to its columns, and return how many they are."""
    # Whole numbers in float32 lanes: int64 counters would be four times as wide as the data.
    n = np.float32(0.0)
    for i in range(values.size):
        good = np.float32(1.0) if values[i] < BAD else np.float32(0.0)
        columns[i] += good
        n += good
    return int(n)


@inner()
def _count(values: _Floats) -> int:
    n = 0
    for at in range(0, values.size, BLOCK):
        n += _count_block(values[at : at + BLOCK])
    return n


@inner(fastmath={"reassoc"})
def _count_block(values: _Floats) -> int:
    n = np.float32(0.0)
    for i in range(values.size):
        n += np.float32(1.0) if values[i] < BAD else np.float32(0.0)
    return int(n)
