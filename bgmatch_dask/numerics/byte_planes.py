"""Numbers whose bytes were stored plane by plane, most significant first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner, kernel

__all__ = ("join_bytes",)


def join_bytes(planes: NDArray[np.uint8], out: NDArray[np.uint32]) -> None:
    """Put numbers of four bytes together, row by row.

    Parameters
    ----------
    planes
        Shape ``(rows, 4, n)``: of each row all first (most significant) bytes, then all second
        ones, and so on.
    out
        Shape ``(rows, n)``; written.
    """
    _join_rows(planes, out)


@kernel()
def _join_rows(planes: NDArray[np.uint8], out: NDArray[np.uint32]) -> None:
    for row in range(out.shape[0]):
        _join_four(planes[row, 0], planes[row, 1], planes[row, 2], planes[row, 3], out[row])


@inner()
def _join_four(
    a: NDArray[np.uint8],
    b: NDArray[np.uint8],
    c: NDArray[np.uint8],
    d: NDArray[np.uint8],
    out: NDArray[np.uint32],
) -> None:
    for i in range(out.size):
        out[i] = (
            (np.uint32(a[i]) << np.uint32(24))
            | (np.uint32(b[i]) << np.uint32(16))
            | (np.uint32(c[i]) << np.uint32(8))
            | np.uint32(d[i])
        )
