"""One pass over the pixels of a warp that is added to a weighted mean."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ("add_weighted",)


@numba.njit(cache=True, nogil=True)
def add_weighted(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.int32],
    weight: float,
    bad_bits: int,
    sum_weight: NDArray[np.float64],
    sum_image: NDArray[np.float64],
    sum_variance: NDArray[np.float64],
    count: NDArray[np.int32],
    bits: NDArray[np.int32],
) -> None:
    """Add ``w``, ``w · image`` and ``w² · variance`` of the good pixels to running sums.

    Parameters
    ----------
    image, variance, mask
        Planes of the warp, shape (y, x).
    weight
        Weight ``w`` of the warp.
    bad_bits
        Pixels with these bits are left out, as are pixels that are not finite.
    sum_weight, sum_image, sum_variance, count, bits
        Running sums, number of warps, and OR of the masks, shape (y, x); changed in place.
    """
    bad = np.int32(bad_bits)
    squared = weight**2
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            value, noise, flags = image[y, x], variance[y, x], mask[y, x]
            if math.isfinite(value) and math.isfinite(noise) and (flags & bad) == 0:
                sum_weight[y, x] += weight
                sum_image[y, x] += weight * np.float64(value)
                sum_variance[y, x] += squared * np.float64(noise)
                count[y, x] += 1
                bits[y, x] |= flags
