"""Covariances of surfaces on whole grids of superpixels.

A mode is a product of a line along y and one along x. Where superpixels form a grid, sums over
modes are therefore done axis by axis: that takes as long as a few products of matrices, not as
long as a quadratic form for each superpixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ("GridLines", "covariance_on_grid")

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class GridLines:
    """Modes of a surface on the rows and columns of a grid."""

    y: Array
    """Every vibration along y, averaged over each row, ``(ny, …)``."""
    x: Array
    """Every vibration along x, averaged over each column, ``(nx, …)``."""
    along_y: Index
    """Vibration along y of each mode."""
    along_x: Index
    """Vibration along x of each mode."""


def covariance_on_grid(one: GridLines, other: GridLines, between: Array) -> Array:
    """Return the covariance of two surfaces on every superpixel of a grid.

    Parameters
    ----------
    one, other
        The modes of both; variances are covariances of a surface with itself.
    between
        Covariance between their modes, ``(n_modes, n_other_modes)``.

    Returns
    -------
    ndarray of float64
        ``Σ_kl (y_k x_k)(y'_l x'_l) C_kl``, ``(ny, nx)``.
    """
    (order, first, columns), (order_2, first_2, columns_2) = _by_column(one), _by_column(other)
    if not (len(order) and len(order_2)):
        return np.zeros((len(one.y), len(one.x)))
    matrix = between[np.ix_(order, order_2)]
    y, y_2 = one.y[:, one.along_y[order]], other.y[:, other.along_y[order_2]]
    sums = np.empty((len(columns), len(y), len(columns_2)))
    for k, (start, end) in enumerate(zip(first, [*first[1:], len(order)], strict=True)):
        part = y[:, start:end] @ matrix[start:end]
        part *= y_2
        sums[k] = np.add.reduceat(part, first_2, axis=1)
    lines = sums @ other.x[:, columns_2].T
    out: Array = (lines * one.x[:, columns].T[:, np.newaxis, :]).sum(axis=0)
    return out


def _by_column(lines: GridLines) -> tuple[Index, Index, Index]:
    """Return the modes by their vibration along x, the first of each, and the vibrations."""
    order = np.argsort(lines.along_x, kind="stable")
    columns, first = np.unique(lines.along_x[order], return_index=True)
    return order, first.astype(np.int64), columns
