"""Sums of the words of a file, as the checksums of FITS take them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner, kernel

__all__ = ("add_words", "take_words")

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
    return _folded(total + int(_sum_swapped(data.view(np.uint32))))


def take_words(data: NDArray[np.uint8], out: NDArray[np.uint32], total: int = 0) -> int:
    """Do the same, and write the words in the byte order of this machine to ``out``."""
    return _folded(total + int(_sum_and_swap(data.view(np.uint32), out)))


def _folded(total: int) -> int:
    while total > _ALL_ONES:
        total = (total & _ALL_ONES) + (total >> 32)
    return total


@kernel()
def _sum_swapped(words: NDArray[np.uint32]) -> np.uint64:
    total = np.uint64(0)
    for i in range(words.size):
        total += np.uint64(_swapped(words[i]))
    return total


@kernel()
def _sum_and_swap(words: NDArray[np.uint32], out: NDArray[np.uint32]) -> np.uint64:
    total = np.uint64(0)
    for i in range(words.size):
        word = _swapped(words[i])
        out[i] = word
        total += np.uint64(word)
    return total


@inner(inline="always")
def _swapped(word: np.uint32) -> np.uint32:
    return np.uint32(
        (word >> np.uint32(24))
        | ((word >> np.uint32(8)) & np.uint32(0xFF00))
        | ((word << np.uint32(8)) & np.uint32(0xFF0000))
        | (word << np.uint32(24))
    )
