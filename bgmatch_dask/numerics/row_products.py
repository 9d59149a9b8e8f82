"""Kernels for products of rows, with as few copies of the rows as can be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import kernel

__all__ = ("row_dots", "scaled_rows")

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@kernel(fastmath={"reassoc", "contract", "nsz"})
def row_dots(one: Array, at_one: Index, other: Array, at_other: Index) -> Array:
    """Return ``Σ_j one[at_one, j] · other[at_other, j]``.

    Parameters
    ----------
    one, other
        Rows, float64 ``(n, m)`` and ``(k, m)``.
    at_one, at_other
        Which rows meet, ``(p,)``.

    Returns
    -------
    ndarray of float64
        ``(p,)``.
    """
    out = np.empty(at_one.size)
    for i in range(at_one.size):
        a, b = one[at_one[i]], other[at_other[i]]
        total = 0.0
        for j in range(a.size):
            total += a[j] * b[j]
        out[i] = total
    return out


@kernel()
def scaled_rows(rows: Array, at: Index, scale: Array) -> Array:
    """Return ``scale[at] · rows[at]``.

    Parameters
    ----------
    rows
        float64 ``(n, m)``.
    at
        Which of them, ``(k,)``.
    scale
        Factor of every row, ``(n,)``.

    Returns
    -------
    ndarray of float64
        ``(k, m)``.
    """
    out = np.empty((at.size, rows.shape[1]))
    for i in range(at.size):
        line, row, factor = out[i], rows[at[i]], scale[at[i]]
        for j in range(row.size):
            line[j] = factor * row[j]
    return out
