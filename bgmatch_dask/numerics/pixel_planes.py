"""One pass over the planes of a warp as a file holds them: mask bits re-mapped, bad pixels out."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ("clean_planes",)

_LARGEST = np.float32(np.finfo(np.float32).max)


def clean_planes(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.integer],
    tables: NDArray[np.int32],
    no_data: int,
) -> tuple[NDArray[np.int32], int]:
    """Re-map the bits of a mask, and blank the pixels that have no data.

    Parameters
    ----------
    image, variance
        Planes of one shape, changed in place: NaN and +inf where the image is not finite, the
        variance is not positive and finite, or the mask says so.
    mask
        Bit field of the same shape, of at most four bytes.
    tables
        Bits of the result for each value of each byte of the mask, the least first, ``(4, 256)``.
    no_data
        Bit of the result that says so.

    Returns
    -------
    bits : ndarray of int32
        The mask in the bits of the result.
    good : int
        Number of pixels that have data.
    """
    native = np.ascontiguousarray(mask, mask.dtype.newbyteorder("="))
    bits = native.view(f"u{native.itemsize}").astype(np.uint32, copy=False)
    out = np.empty(mask.shape, np.int32)
    return out, _clean(image, variance, bits, tables, np.int32(no_data), out)


@numba.njit(cache=True, nogil=True)
def _clean(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.uint32],
    tables: NDArray[np.int32],
    no_data: np.int32,
    out: NDArray[np.int32],
) -> int:
    n_good = 0
    # Masks come in runs: most pixels have the bits of the one before.
    last, bits = np.uint32(0), _mapped(np.uint32(0), tables)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if mask[y, x] != last:
                last = mask[y, x]
                bits = _mapped(last, tables)
            value, noise = image[y, x], variance[y, x]
            # Not "noise <= 0", which a NaN would pass.
            good = (abs(value) <= _LARGEST) & (noise > 0) & (noise <= _LARGEST)
            if good and (bits & no_data) == 0:
                out[y, x] = bits
                n_good += 1
            else:
                image[y, x], variance[y, x] = np.nan, np.inf
                out[y, x] = bits | no_data
    return n_good


@numba.njit(cache=True, nogil=True)
def _mapped(value: np.uint32, tables: NDArray[np.int32]) -> np.int32:
    bits = np.int32(0)
    for index in range(4):
        bits |= tables[index, (value >> np.uint32(8 * index)) & np.uint32(255)]
    return bits
