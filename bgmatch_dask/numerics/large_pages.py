"""Arrays in large pages of memory, for buffers that a pass over pixels walks through many times.

numpy asks for large pages too, but what the C library kept of earlier arrays has small ones. With
a dozen planes read side by side, finding small pages takes as long as adding the pixels.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ("zeros_in_large_pages",)

_LARGE = 2 << 20
"""Bytes of a large page."""


def zeros_in_large_pages(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of zeros whose memory goes back to the system with it.

    Parameters
    ----------
    shape, dtype
        Of the array, C order. Small arrays, and those of systems without large pages, are those
        of ``numpy.zeros``.
    """
    kind = np.dtype(dtype)
    count = math.prod(shape)
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or count * kind.itemsize < _LARGE:
        return np.zeros(shape, kind)
    # Memory that processes could share has small pages.
    memory = mmap.mmap(-1, count * kind.itemsize + _LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
    try:
        memory.madvise(advice)
    except OSError:  # A kernel that was built without large pages.
        return np.zeros(shape, kind)
    # The first large page begins somewhere in the first two megabytes.
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % _LARGE
    return np.frombuffer(memory, kind, count, start).reshape(shape)
