"""A quadratic surface through a map of cells that outliers do not bend."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner, kernel
from bgmatch_dask.numerics.median import median

__all__ = ("quadratic_moments", "quadratic_trend")

_ROUNDS = 4
_MAD_TO_SIGMA = 1.482602218505602
_X, _Y = (0, 1, 0, 2, 1, 0), (0, 0, 1, 0, 1, 2)
"""Powers of x and y in the terms of a quadratic surface."""

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


def quadratic_trend(values: Array, seen: Bools, origin: tuple[int, int], scale: float) -> Array:
    """Return the quadratic surface through the cells that are within three sigma of it.

    Parameters
    ----------
    values
        Values, shape ``(ny, nx)``.
    seen
        Cells whose values count, at least one; NaN on all others is no harm.
    origin
        Row and column of the first cell in the map that this is a part of.
    scale
        Number of cells along the longer side of that map.

    Returns
    -------
    ndarray
        The surface in all cells, shape ``(ny, nx)``.
    """
    level = median(values[seen])
    flat = np.where(seen, values - level, 0.0)
    c, kept = np.zeros(6), np.zeros(values.shape, bool)
    residuals = np.empty(np.count_nonzero(seen))
    for _ in range(_ROUNDS):
        _residuals(flat, seen, c, origin, scale, residuals)
        limit = 3.0 * (_MAD_TO_SIGMA * median(residuals))
        if not _keep(residuals, seen, limit, kept):
            break
        moments = quadratic_moments(flat, kept, origin, scale)
        c = np.asarray(np.linalg.lstsq(*moments, rcond=None)[0], np.float64)
    surface = np.empty(values.shape)
    _evaluate(c, origin, scale, surface)
    return level + surface


@kernel()
def _evaluate(c: Array, origin: tuple[int, int], scale: float, out: Array) -> None:
    for row in range(out.shape[0]):
        y = (origin[0] + row) / scale - 0.5
        for column in range(out.shape[1]):
            x = (origin[1] + column) / scale - 0.5
            out[row, column] = (c[0] + (c[1] + c[3] * x) * x) + (c[2] + c[4] * x + c[5] * y) * y


@kernel()
def _residuals(
    flat: Array, seen: Bools, c: Array, origin: tuple[int, int], scale: float, out: Array
) -> None:
    """List the distances of the cells that are seen from the surface, row by row."""
    n, surface = 0, np.empty((1, flat.shape[1]))
    for row in range(flat.shape[0]):
        _evaluate(c, (origin[0] + row, origin[1]), scale, surface)
        for column in range(flat.shape[1]):
            if seen[row, column]:
                out[n] = abs(flat[row, column] - surface[0, column])
                n += 1


@kernel()
def _keep(residuals: Array, seen: Bools, limit: float, kept: Bools) -> bool:
    """Say which cells are kept, and whether they are others than before."""
    n, changed = 0, False
    for row in range(seen.shape[0]):
        for column in range(seen.shape[1]):
            if seen[row, column]:
                keep = residuals[n] <= limit
                changed |= keep != kept[row, column]
                kept[row, column] = keep
                n += 1
    return changed


@kernel()
def quadratic_moments(
    values: Array, kept: Bools, origin: tuple[int, int], scale: float
) -> tuple[Array, Array]:
    """Return the normal equations of a quadratic surface through some cells.

    Parameters
    ----------
    values
        Values, shape ``(ny, nx)``.
    kept
        Cells to fit.
    origin, scale
        Positions are ``(origin + index) / scale − 1/2``.

    Returns
    -------
    tuple
        Matrix ``(6, 6)`` and right-hand side ``(6,)`` of the terms 1, x, y, x², xy, y².
    """
    matrix, right = np.zeros((6, 6)), np.zeros(6)
    # A row has sums of the powers of x; those of y are the same for all its cells.
    powers, with_value = np.empty(5), np.empty(3)
    for row in range(values.shape[0]):
        y = (origin[0] + row) / scale - 0.5
        _row_moments(values[row], kept[row], origin[1], scale, powers, with_value)
        for i in range(6):
            right[i] += with_value[_X[i]] * y ** _Y[i]
            for j in range(6):
                matrix[i, j] += powers[_X[i] + _X[j]] * y ** (_Y[i] + _Y[j])
    return matrix, right


@inner()
def _row_moments(
    values: Array, kept: Bools, first: int, scale: float, powers: Array, with_value: Array
) -> None:
    s0, s1, s2, s3, s4, v0, v1, v2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for column in range(values.size):
        if kept[column]:
            x = (first + column) / scale - 0.5
            square, value = x * x, values[column]
            s0 += 1.0
            s1 += x
            s2 += square
            s3 += square * x
            s4 += square * square
            v0 += value
            v1 += x * value
            v2 += square * value
    powers[0], powers[1], powers[2], powers[3], powers[4] = s0, s1, s2, s3, s4
    with_value[0], with_value[1], with_value[2] = v0, v1, v2
