"""Kernel for rows that average two surfaces: ``A c = average(visit) − average(hub)``.

Each row of the operator touches at most 5 × 5 nodes of each of two surfaces with separable
weights, so it is kept as ten weights instead of fifty matrix elements.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner, kernel
from bgmatch_dask.numerics.keys import TAPS

__all__ = ("TapRows", "apply")

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class TapRows(NamedTuple):
    """Rows of the operator, arrays of length ``n`` (weights ``(n, 5)``)."""

    visit_first: Index
    """Unknown of the first tap on the visit's surface, −1 for a surface that is zero."""
    visit_stride: Index
    """Unknowns per row of the visit's surface."""
    hub_first: Index
    """Unknown of the first tap on the hub's surface, −1 for a surface that is zero."""
    hub_stride: Index
    """Unknowns per row of the hub's surface."""
    x_weights: Array
    """Weights of the five node columns."""
    y_weights: Array
    """Weights of the five node rows."""


@inner()
def _average(surface: Array, first: int, stride: int, x_weights: Array, y_weights: Array) -> float:
    total = 0.0
    for j in range(TAPS):
        line = 0.0
        start = first + j * stride
        for i in range(TAPS):
            line += x_weights[i] * surface[start + i]
        total += y_weights[j] * line
    return total


@kernel()
def apply(rows: TapRows, surface: Array) -> Array:
    """Return ``A c`` for the unknowns ``c``."""
    n = len(rows.visit_first)
    out = np.zeros(n)
    for k in range(n):
        wx, wy = rows.x_weights[k], rows.y_weights[k]
        if rows.visit_first[k] >= 0:
            out[k] += _average(surface, rows.visit_first[k], rows.visit_stride[k], wx, wy)
        if rows.hub_first[k] >= 0:
            out[k] -= _average(surface, rows.hub_first[k], rows.hub_stride[k], wx, wy)
    return out
