"""One pass over the pixels of some warps that are added to a weighted mean.

The rows of some warps are shifted and added in turn while the sums of the row stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

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

Shift: TypeAlias = tuple[RowPolynomials, RowPolynomials] | tuple[Floats, Floats]
"""What is added to image and variance: as surfaces, or drawn on their pixels in C order."""

TOGETHER = 4
"""Warps whose rows are added in turn, so that the sums of a row stay in the cache."""
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
        Running sums, changed in place; of the shape of the warps, or of one row when all warps
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
    # The compiled loop takes four; those beyond the number are not looked at.
    blank = WeightedWarp(_NO_FLOATS, _NO_FLOATS, _NO_BITS, 0.0)
    padded = [*warps, *(TOGETHER - len(warps)) * [blank]]
    planes, plain_image, empty = mean or (_NO_PLANES, _NO_FLOATS, 0)
    _stack(
        tuple((w.image, w.variance, w.mask) for w in padded),
        np.array([w.weight for w in warps], np.float64),
        np.array([w.left_out for w in warps], bool),
        tuple(_shift(w) for w in padded),
        tuple(_NO_BOOLS if w.outliers is None else w.outliers for w in padded),
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _stack(
    warps: tuple[tuple[Floats, Floats, Bits], ...],
    weights: Array,
    left_out: Bools,
    shifts: tuple[Any, ...],
    outliers: tuple[Bools, ...],
    bits: tuple[np.int32, np.int32, np.int32],
    sums: Sums,
    plain: PlainSums,
    out: tuple[Floats, Floats, Bits, Bits, Floats],
    fresh: bool,
    finish: bool,
) -> None:
    bad, outlier_bits, empty = bits
    height, width = out[0].shape if finish else sums[0].shape
    shift, noise = np.empty(width, np.float32), np.empty(width, np.float32)
    one_row = sums[0].shape[0] == 1
    for y in range(height):
        s = 0 if one_row else y
        row = (sums[0][s], sums[1][s], sums[2][s], sums[3][s], sums[4][s])
        if fresh:
            row[0][:], row[1][:], row[2][:], row[3][:], row[4][:] = 0.0, 0.0, 0.0, 0, 0
            if plain[0].size:
                plain[0][s], plain[1][s] = 0.0, 0.0
        for k in range(weights.size):
            image, variance, mask = warps[k][0][y], warps[k][1][y], warps[k][2][y]
            if plain[0].size:
                _add_plain(image, variance, mask, weights[k], bad, plain[0][s], plain[1][s])
            if not left_out[k]:
                _shift_row(shifts[k], y, shift, noise)
                if outliers[k].size:
                    _leave_out(outliers[k][y], image, mask, bad, outlier_bits, shift, row[4])
                _add_row(image, variance, mask, shift, noise, weights[k], bad, *row)
        if finish:
            _mean_row(*row, out[0][y], out[1][y], out[2][y], empty)
            out[3][y] = row[3]
            if plain[0].size:
                _plain_row(plain[0][s], plain[1][s], out[4][y])


@numba.njit(cache=True, nogil=True)
def _shift_row(shifts: tuple[Any, ...], y: int, shift: Floats, noise: Floats) -> None:
    kind, image, variance, image_rows, variance_rows = shifts
    if kind == _ROWS:
        render_row(image_rows[0][y], image_rows[1], image_rows[2], shift)
        render_row(variance_rows[0][y], variance_rows[1], variance_rows[2], noise)
    elif kind == _PLANES:
        shift[:] = image[y]
        noise[:] = variance[y]
    else:
        shift[:] = 0.0
        noise[:] = 0.0


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def _add_row(
    image: Floats,
    variance: Floats,
    mask: Bits,
    shift: Floats,
    noise: Floats,
    weight: float,
    bad: np.int32,
    sum_weight: Array,
    sum_image: Array,
    sum_variance: Array,
    count: Bits,
    bits: Bits,
) -> None:
    squared = weight**2
    # Without branches the compiler does several pixels at a time.
    for x in range(image.size):
        value, spread, flags = image[x] + shift[x], variance[x] + noise[x], mask[x]
        good = (abs(value) <= _LARGEST) & (abs(spread) <= _LARGEST) & ((flags & bad) == 0)
        sum_weight[x] += weight if good else 0.0
        sum_image[x] += weight * np.float64(value) if good else 0.0
        sum_variance[x] += squared * np.float64(spread) if good else 0.0
        count[x] += np.int32(1) if good else np.int32(0)
        bits[x] |= flags if good else np.int32(0)


@numba.njit(cache=True, nogil=True)
def _add_plain(
    image: Floats,
    variance: Floats,
    mask: Bits,
    weight: float,
    bad: np.int32,
    sum_weight: Array,
    sum_image: Array,
) -> None:
    for x in range(image.size):
        value = image[x]
        good = (abs(value) <= _LARGEST) & (abs(variance[x]) <= _LARGEST) & ((mask[x] & bad) == 0)
        sum_weight[x] += weight if good else 0.0
        sum_image[x] += weight * np.float64(value) if good else 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _mean_row(
    sum_weight: Array,
    sum_image: Array,
    sum_variance: Array,
    count: Bits,
    bits: Bits,
    image: Floats,
    variance: Floats,
    mask: Bits,
    empty_bits: np.int32,
) -> None:
    for x in range(count.size):
        filled = count[x] > 0
        weight = sum_weight[x] if filled else np.nan
        image[x] = np.float32(sum_image[x] / weight)
        variance[x] = np.float32(sum_variance[x] / (weight * weight))
        mask[x] = bits[x] if filled else empty_bits


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _plain_row(sum_weight: Array, sum_image: Array, image: Floats) -> None:
    for x in range(image.size):
        weight = sum_weight[x] if sum_weight[x] > 0.0 else np.nan
        image[x] = np.float32(sum_image[x] / weight)
