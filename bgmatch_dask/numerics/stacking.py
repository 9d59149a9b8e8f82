"""One pass over the pixels of some warps that are added to a weighted mean."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ("TOGETHER", "add_weighted", "weighted_mean")

Floats = NDArray[np.float32]
Bits = NDArray[np.int32]
Array = NDArray[np.float64]

TOGETHER = 4
"""Warps whose rows are added in turn, so that the sums of a row stay in the cache."""
_LARGEST = np.float32(np.finfo(np.float32).max)


def add_weighted(
    warps: Sequence[tuple[Floats, Floats, Bits]],
    weights: Sequence[float],
    bad_bits: int,
    sums: tuple[Array, Array, Array, Bits, Bits],
) -> None:
    """Add ``w``, ``w · image`` and ``w² · variance`` of the good pixels to running sums.

    Parameters
    ----------
    warps
        Image, variance and mask of each, shape (y, x), in C order.
    weights
        Weight ``w`` of each warp.
    bad_bits
        Pixels with these bits are left out, as are pixels that are not finite.
    sums
        Running sums of the three, number of warps, and OR of the masks, shape (y, x); changed in
        place. The warps are added in their order, whatever the number in one call.
    """
    for first in range(0, len(warps), TOGETHER):
        some = warps[first : first + TOGETHER]
        # The compiled loop takes four; those beyond the number are not looked at.
        padded = [*some, *(TOGETHER - len(some)) * [some[0]]]
        images = tuple(np.ascontiguousarray(w[0]) for w in padded)
        variances = tuple(np.ascontiguousarray(w[1]) for w in padded)
        masks = tuple(np.ascontiguousarray(w[2]) for w in padded)
        factors = np.array(weights[first : first + TOGETHER])
        _add_rows(images, variances, masks, factors, bad_bits, *sums)


@numba.njit(cache=True, nogil=True)
def _add_rows(
    images: tuple[Floats, ...],
    variances: tuple[Floats, ...],
    masks: tuple[Bits, ...],
    weights: Array,
    bad_bits: int,
    sum_weight: Array,
    sum_image: Array,
    sum_variance: Array,
    count: Bits,
    bits: Bits,
) -> None:
    for y in range(count.shape[0]):
        for k in range(weights.size):
            _add_row(
                images[k][y],
                variances[k][y],
                masks[k][y],
                weights[k],
                np.int32(bad_bits),
                sum_weight[y],
                sum_image[y],
                sum_variance[y],
                count[y],
                bits[y],
            )


@numba.njit(cache=True, nogil=True)
def _add_row(
    image: Floats,
    variance: Floats,
    mask: Bits,
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
        value, noise, flags = image[x], variance[x], mask[x]
        good = (abs(value) <= _LARGEST) & (abs(noise) <= _LARGEST) & ((flags & bad) == 0)
        sum_weight[x] += weight if good else 0.0
        sum_image[x] += weight * np.float64(value) if good else 0.0
        sum_variance[x] += squared * np.float64(noise) if good else 0.0
        count[x] += np.int32(1) if good else np.int32(0)
        bits[x] |= flags if good else np.int32(0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def weighted_mean(
    sum_weight: Array,
    sum_image: Array,
    sum_variance: Array,
    count: Bits,
    bits: Bits,
    empty_bits: int,
) -> tuple[Floats, Floats, Bits]:
    """Return image, variance and mask of the mean; NaN and ``empty_bits`` where it is empty."""
    image = np.empty(count.shape, np.float32)
    variance = np.empty(count.shape, np.float32)
    mask = np.empty(count.shape, np.int32)
    for y in range(count.shape[0]):
        for x in range(count.shape[1]):
            filled = count[y, x] > 0
            weight = sum_weight[y, x] if filled else np.nan
            image[y, x] = np.float32(sum_image[y, x] / weight)
            variance[y, x] = np.float32(sum_variance[y, x] / (weight * weight))
            mask[y, x] = bits[y, x] if filled else np.int32(empty_bits)
    return image, variance, mask
