"""One pass over the pixels of some warps that are added to a weighted mean.

The rows of some warps are shifted and added in turn while the sums of the row stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics._stack_rows import (
    Factor,
    Row,
    add_four,
    add_four_plain,
    mean_of_four,
    mean_row,
    plain_row,
)
from bgmatch_dask.numerics.called_code import CALLED
from bgmatch_dask.numerics.compiling import inner, kernel
from bgmatch_dask.numerics.row_polynomials import RowPolynomials, render_row

__all__ = ("TOGETHER", "PlainSums", "Shift", "Sums", "WeightedWarp", "add_weighted", "empty_sums")

Floats = NDArray[np.float32]
Bits = NDArray[np.int32]
Bools = NDArray[np.bool_]
Array = NDArray[np.float64]
Sums = tuple[Array, Array, Array, Bits, Bits]
"""Σ w, Σ w · image, Σ w² · variance, number of warps, OR of the masks; ``(y, x)``."""
PlainSums = tuple[Array, Array]
"""Σ w and Σ w · image of the warps without their shifts."""
Planes = tuple[Floats, Floats, Bits, Bits]
"""Image, variance, mask and number of the mean."""

Out = tuple[Floats, Floats, Bits, Bits, Floats]
"""`Planes`, and the mean of the plain sums."""

Shift: TypeAlias = tuple[RowPolynomials, RowPolynomials] | tuple[Floats, Floats]
"""What is added to image and variance: as surfaces, or drawn on their pixels in C order."""

TOGETHER = 4
"""Warps whose rows are added in turn, so that the sums of a row stay in the cache."""
_BAND = 8
"""Rows whose offsets are drawn together."""
_LARGEST = np.float32(np.finfo(np.float32).max)
_NONE, _PLANES, _ROWS = 0, 1, 2
_NO_FLOATS = np.empty((0, 0), np.float32)
_NO_BITS = np.empty((0, 0), np.int32)
_NO_BOOLS = np.empty((0, 0), bool)
_NO_SUMS = np.empty((0, 0))
_NO_PLANES = (_NO_FLOATS, _NO_FLOATS, _NO_BITS, _NO_BITS)
_NO_ROWS = (np.empty((0, 0, 0)), np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True, slots=True, eq=False)
class WeightedWarp:
    """A warp on its way into a mean; planes in C order."""

    image: Floats
    """Pixels, shape (y, x)."""
    variance: Floats
    """Their variances, unit squared."""
    mask: Bits
    """Their mask bits."""
    weight: float
    """Inverse sky variance; a warp whose weight is not positive and finite adds nothing."""
    shift: Shift | None = None
    """What is added to image and variance before they are used; float32 as they are."""
    outliers: Bools | None = None
    """Pixels that are left out, and marked in the mask of the mean."""
    left_out: bool = False
    """Whether the warp counts in the plain sums alone."""

    def rows(self, part: slice) -> WeightedWarp:
        """Return some rows of the warp, which share its memory."""
        shift, outliers = self.shift, self.outliers
        if shift is not None:
            image, variance = shift
            shift = (_rows(image, part), _rows(variance, part))  # type: ignore[assignment]
        planes = (self.image[part], self.variance[part], self.mask[part])
        outliers = None if outliers is None else outliers[part]
        return WeightedWarp(*planes, self.weight, shift, outliers, self.left_out)


def _rows(drawn: RowPolynomials | Floats, part: slice) -> RowPolynomials | Floats:
    if isinstance(drawn, RowPolynomials):
        return RowPolynomials(drawn.terms[part], drawn.starts, drawn.places)
    return drawn[part]


def empty_sums(shape: tuple[int, int]) -> Sums:
    """Return memory for sums; the first call of `add_weighted` sets them to zero."""
    floats = (np.empty(shape), np.empty(shape), np.empty(shape))
    return (*floats, np.empty(shape, np.int32), np.empty(shape, np.int32))


def add_weighted(
    warps: Sequence[WeightedWarp],
    bad_bits: int,
    sums: Sums,
    *,
    outlier_bits: int = 0,
    plain: PlainSums | None = None,
    fresh: bool = False,
    mean: tuple[Planes, Floats, int] | None = None,
) -> None:
    """Add the good pixels of some warps to running sums, and take their mean.

    Parameters
    ----------
    warps
        The warps, added in their order, whatever the number in one call; at most `TOGETHER`.
    bad_bits
        Pixels with these bits are left out, as are pixels that are not finite.
    sums
        Running sums, changed in place; of the shape of the warps, or of some rows when all warps
        come at once (``fresh`` and ``mean``).
    outlier_bits
        Bits that the mask of the mean gets where a good pixel is an outlier.
    plain
        Running sums of all warps without shifts and outliers.
    fresh
        Whether the sums begin with these warps.
    mean
        Where the mean of all warps so far goes, that of the plain sums, and the mask of pixels
        without data.
    """
    if len(warps) > TOGETHER:
        raise ValueError(f"{len(warps)} warps at once; at most {TOGETHER}")
    at_once = fresh and mean is not None
    if warps and not at_once and sums[0].shape != warps[0].image.shape:
        raise ValueError(f"sums of {sums[0].shape} for warps of {warps[0].image.shape}")
    # The compiled loop takes four: the first stands for those that there are not, of which no pixel
    # is small enough to be good.
    blank = WeightedWarp(_NO_FLOATS, _NO_FLOATS, _NO_BITS, 0.0)
    n, first = len(warps), warps[0] if warps else blank
    four = [*warps, *(TOGETHER - n) * [first]]
    limits = [_LARGEST if k < n else np.float32(-1.0) for k in range(TOGETHER)]
    planes, plain_image, empty = mean or (_NO_PLANES, _NO_FLOATS, 0)
    _stack(
        tuple((w.image, w.variance, w.mask) for w in four),
        tuple(_shift(w) for w in four),
        tuple(_NO_BOOLS if w.outliers is None else w.outliers for w in four),
        tuple((float(w.weight), np.int32(bad_bits), m) for w, m in zip(four, limits, strict=True)),
        np.array([w.left_out for w in warps], bool),
        (np.int32(bad_bits), np.int32(outlier_bits), np.int32(empty)),
        sums,
        (_NO_SUMS, _NO_SUMS) if plain is None else plain,
        (*planes, plain_image),
        fresh,
        mean is not None,
    )


def _shift(warp: WeightedWarp) -> tuple[Any, ...]:
    """Return the kind of a shift, its planes and its rows, for the compiled loop."""
    if warp.shift is None:
        return _NONE, _NO_FLOATS, _NO_FLOATS, _NO_ROWS, _NO_ROWS
    image, variance = warp.shift
    if isinstance(image, RowPolynomials) and isinstance(variance, RowPolynomials):
        rows = tuple((p.terms, p.starts, p.places) for p in (image, variance))
        return _ROWS, _NO_FLOATS, _NO_FLOATS, *rows
    return _PLANES, image, variance, _NO_ROWS, _NO_ROWS


@kernel(error_model="numpy")
def _stack(
    warps: tuple[tuple[Floats, Floats, Bits], ...],
    shifts: tuple[Any, ...],
    outliers: tuple[Bools, ...],
    factors: tuple[Factor, ...],
    left_out: Bools,
    bits: tuple[np.int32, np.int32, np.int32],
    sums: Sums,
    plain: PlainSums,
    out: Out,
    fresh: bool,
    finish: bool,
    called: int = CALLED,  # noqa: ARG001
) -> None:
    height, width = out[0].shape if finish else sums[0].shape
    n, spare = left_out.size, np.empty(width, np.float32)
    at_once = fresh and finish and n > 0
    drawn, marks = (
        np.zeros((TOGETHER, 2, _BAND, width), np.float32),
        np.empty((_BAND, width), np.int32),
    )
    for y in range(height):
        row = y % _BAND
        if row == 0:
            marks[:] = 0
            end = min(y + _BAND, height)
            _draw_all(warps, shifts, outliers, left_out, bits, y, end, drawn, marks)
        if at_once:
            a, b = _row(warps[0], drawn[0], y, row), _row(warps[1], drawn[1], y, row)
            c, d = _row(warps[2], drawn[2], y, row), _row(warps[3], drawn[3], y, row)
            bare = out[4][y] if plain[0].size else spare
            to = (out[0][y], out[1][y], out[2][y], out[3][y])
            mean_of_four(a, b, c, d, factors, marks[row], bare, *to, bits[2])
            continue
        s = y % sums[0].shape[0]
        if fresh:
            _clear(sums, plain, s)
        if n > 0:
            a, b = _row(warps[0], drawn[0], y, row), _row(warps[1], drawn[1], y, row)
            c, d = _row(warps[2], drawn[2], y, row), _row(warps[3], drawn[3], y, row)
            into = (sums[0][s], sums[1][s], sums[2][s], sums[3][s], sums[4][s])
            _mark(sums[4][s], marks[row])
            add_four(a, b, c, d, factors, *into)
            if plain[0].size:
                add_four_plain(a, b, c, d, factors, plain[0][s], plain[1][s])
        if finish:
            _finish(sums, plain, s, out, y, bits[2])


@inner()
def _draw_all(
    warps: tuple[tuple[Floats, Floats, Bits], ...],
    shifts: tuple[Any, ...],
    outliers: tuple[Bools, ...],
    left_out: Bools,
    bits: tuple[np.int32, np.int32, np.int32],
    y: int,
    end: int,
    drawn: Floats,
    marks: Bits,
) -> None:
    # Constant places: otherwise the compiler writes a branch for each warp.
    if left_out.size > 0:
        _draw(warps[0], shifts[0], outliers[0], left_out[0], bits, y, end, drawn[0], marks)
    if left_out.size > 1:
        _draw(warps[1], shifts[1], outliers[1], left_out[1], bits, y, end, drawn[1], marks)
    if left_out.size > 2:
        _draw(warps[2], shifts[2], outliers[2], left_out[2], bits, y, end, drawn[2], marks)
    if left_out.size > 3:
        _draw(warps[3], shifts[3], outliers[3], left_out[3], bits, y, end, drawn[3], marks)


@inner()
def _draw(
    warp: tuple[Floats, Floats, Bits],
    shift: tuple[Any, ...],
    outliers: Bools,
    left_out: bool,
    bits: tuple[np.int32, np.int32, np.int32],
    top: int,
    end: int,
    drawn: Floats,
    marks: Bits,
) -> None:
    """Draw what is added to a band of a warp: not a number where a pixel is not to count."""
    if left_out:
        drawn[0] = np.nan
        return
    _shift_band(shift, top, end, drawn[0], drawn[1])
    for y in range(top, end if outliers.size else top):
        row = y - top
        _leave_out(outliers[y], warp[0][y], warp[2][y], bits[0], bits[1], drawn[0, row], marks[row])


@inner()
def _row(warp: tuple[Floats, Floats, Bits], drawn: Floats, y: int, row: int) -> Row:
    return warp[0][y], warp[1][y], warp[2][y], drawn[0, row], drawn[1, row]


@inner()
def _clear(sums: Sums, plain: PlainSums, s: int) -> None:
    sums[0][s], sums[1][s], sums[2][s], sums[3][s], sums[4][s] = 0.0, 0.0, 0.0, 0, 0
    if plain[0].size:
        plain[0][s], plain[1][s] = 0.0, 0.0


@inner()
def _mark(bits: Bits, marks: Bits) -> None:
    for x in range(bits.size):
        bits[x] |= marks[x]


@inner()
def _finish(sums: Sums, plain: PlainSums, s: int, out: Out, y: int, empty: np.int32) -> None:
    row = (sums[0][s], sums[1][s], sums[2][s], sums[3][s], sums[4][s])
    mean_row(*row, out[0][y], out[1][y], out[2][y], out[3][y], empty)
    if plain[0].size:
        plain_row(plain[0][s], plain[1][s], out[4][y])


@inner()
def _shift_band(shifts: tuple[Any, ...], top: int, end: int, shift: Floats, noise: Floats) -> None:
    kind, image, variance, image_rows, variance_rows = shifts
    if kind == _ROWS:
        for y in range(top, end):
            render_row(image_rows[0][y], image_rows[1], image_rows[2], shift[y - top])
            render_row(variance_rows[0][y], variance_rows[1], variance_rows[2], noise[y - top])
    elif kind == _PLANES:
        for y in range(top, end):
            _copy(image[y], shift[y - top])
            _copy(variance[y], noise[y - top])
    else:
        shift[:], noise[:] = 0.0, 0.0


@inner()
def _copy(row: Floats, to: Floats) -> None:
    # Not by slices: what numba compiles to tell of shapes that differ takes seconds.
    for x in range(row.size):
        to[x] = row[x]


@inner()
def _leave_out(
    outliers: Bools,
    image: Floats,
    mask: Bits,
    bad: np.int32,
    outlier_bits: np.int32,
    shift: Floats,
    bits: Bits,
) -> None:
    """Take outliers out by a shift that is not finite, and mark those of good pixels."""
    for x in range(image.size):
        if outliers[x]:
            if abs(image[x] + shift[x]) <= _LARGEST and (mask[x] & bad) == 0:
                bits[x] |= outlier_bits
            shift[x] = np.nan
