"""Means of cells, their errors, and how far they are from what is around them, cell by cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import kernel

__all__ = ("error_of_mean", "mean_and_spread", "scaled_deviations")

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


def mean_and_spread(
    count: Array, total: Array, squares: Array, least: float
) -> tuple[Array, Array]:
    """Return the mean of each cell, and the variances of the pixels of all that have one.

    Parameters
    ----------
    count, total, squares
        Number, sum and sum of squares of the pixels of each cell, shape ``(ny, nx)``.
    least
        Pixels that a mean needs; NaN where they are fewer.
    """
    mean, spread = np.empty(count.shape), np.empty(count.size)
    n = _mean_and_spread(count, total, squares, least, mean, spread)
    return mean, spread[:n]


@kernel(error_model="numpy")
def _mean_and_spread(
    count: Array, total: Array, squares: Array, least: float, mean: Array, spread: Array
) -> int:
    k = 0
    for y in range(count.shape[0]):
        for x in range(count.shape[1]):
            n, middle = count[y, x], np.nan
            if n >= least:
                middle = total[y, x] / n
                spread[k] = squares[y, x] / n - middle * middle
                k += 1
            mean[y, x] = middle
    return k


def error_of_mean(count: Array, mean: Array, sigma: float) -> Array:
    """Return ``sigma / √count`` of each cell, NaN where it has no mean."""
    out = np.empty(mean.shape)
    _error_of_mean(count, mean, sigma, out)
    return out


@kernel(error_model="numpy")
def _error_of_mean(count: Array, mean: Array, sigma: float, out: Array) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            error = sigma / np.sqrt(count[y, x])
            out[y, x] = np.nan if np.isnan(mean[y, x]) else error


def scaled_deviations(
    values: Array, around: Array, error: Array, seen: Bools
) -> tuple[Array, Array]:
    """Return how many errors each value is from what is around it.

    Parameters
    ----------
    values, around, error
        Values of the cells, what they are compared with and their errors, shape ``(ny, nx)``.
    seen
        Cells that count.

    Returns
    -------
    tuple
        Deviations of all cells, not negative, 0 where they do not count; and those of the cells
        that do, row by row.
    """
    out, of_seen = np.empty(values.shape), np.empty(values.size)
    n = _scaled_deviations(values, around, error, seen, out, of_seen)
    return out, of_seen[:n]


@kernel(error_model="numpy")
def _scaled_deviations(
    values: Array, around: Array, error: Array, seen: Bools, out: Array, of_seen: Array
) -> int:
    k = 0
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            scaled = abs(values[y, x] - around[y, x]) / error[y, x]
            out[y, x] = scaled if seen[y, x] else 0.0
            of_seen[k] = scaled
            k += 1 if seen[y, x] else 0
    return k
