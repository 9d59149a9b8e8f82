"""Sums of the words of a file, as the checksums of FITS take them."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ("add_words",)

_ALL_ONES = 0xFFFFFFFF


def add_words(data: NDArray[np.uint8], total: int = 0) -> int:
    """Add the 32-bit words of ``data`` to a sum in one's complement arithmetic.

    FITS Standard 4.0, appendix J.

    Parameters
    ----------
    data
        Contiguous bytes, a multiple of four; words are big-endian.
    total
        The sum of what came before.

    Returns
    -------
    int
        Below 2³²; zero only when all bytes so far are zero.
    """
    total += int(_sum_swapped(data.view(np.uint32)))
    while total > _ALL_ONES:
        total = (total & _ALL_ONES) + (total >> 32)
    return total


@numba.njit(cache=True, nogil=True)
def _sum_swapped(words: NDArray[np.uint32]) -> np.uint64:
    total = np.uint64(0)
    for word in words:
        swapped = (
            (word >> np.uint32(24))
            | ((word >> np.uint32(8)) & np.uint32(0xFF00))
            | ((word << np.uint32(8)) & np.uint32(0xFF0000))
            | (word << np.uint32(24))
        )
        total += np.uint64(swapped & np.uint32(0xFFFFFFFF))
    return total
