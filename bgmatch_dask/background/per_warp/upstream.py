"""What upstream does otherwise, kept for comparison with its numbers.

Diagnostics on a grid that is not the grid of the fit (fault L-4), read half a pixel off (L-5), and
the rules for too few cells (L-1 to L-3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.per_warp.config import PerWarpConfig
from bgmatch_dask.background.per_warp.difference import Difference
from bgmatch_dask.errors import InputError
from bgmatch_dask.numerics.cells import CellGrid, measure_cells
from bgmatch_dask.numerics.rendering import UndersampleStyle

__all__ = ("rebinned_samples", "upstream_grid", "upstream_order", "upstream_residuals")

Array = NDArray[np.float64]


def upstream_grid(difference: Difference, config: PerWarpConfig) -> tuple[CellGrid, Array, Array]:
    """Return bins of exactly ``bin_size`` pixels (the last ones cut), their values and errors.

    Returns
    -------
    grid : CellGrid
        The bins.
    values, errors : ndarray of float64
        Shape ``(ny, nx)``; NaN in bins with fewer than two good pixels.
    """
    height, width = difference.box.shape
    x, y = (
        np.append(np.arange(0, size, config.bin_size, dtype=np.int64), size)
        for size in (width, height)
    )
    grid = CellGrid(x, y)
    values, errors = measure_cells(
        difference.image,
        difference.mask,
        difference.variance,
        grid,
        config.statistic,
        config.statistics,
        upstream=True,
    )
    good = difference.good(config.statistics).astype(np.int64)
    count = np.add.reduceat(np.add.reduceat(good, y[:-1], axis=0), x[:-1], axis=1)
    few = count < 2
    values[few] = errors[few] = np.nan
    return grid, values, errors


def upstream_residuals(
    difference: Difference, model: NDArray[np.float32], config: PerWarpConfig
) -> tuple[CellGrid, Array]:
    """Return the bins, and their values minus the model at one pixel near their centres."""
    grid, values, _ = upstream_grid(difference, config)
    y = (grid.y_edges[:-1] + grid.y_edges[1:]) // 2
    x = (grid.x_edges[:-1] + grid.x_edges[1:]) // 2
    return grid, values - model[np.ix_(y, x)]


def upstream_order(difference: Difference, config: PerWarpConfig) -> tuple[int, int | None, bool]:
    """Check and adapt the order of a polynomial as upstream does.

    Returns
    -------
    order : int
        Order to fit.
    bin_size : int or None
        A new size of cells, where they are to grow more numerous.
    uniform : bool
        No bin has an error above the epsilon: weights are switched off.

    Raises
    ------
    InputError
        ``per-warp-bin-too-large``, ``per-warp-undersampled``.
    """
    shorter = min(difference.box.shape)
    if shorter < config.bin_size:
        raise InputError(
            "per-warp-bin-too-large",
            f"Cells of {config.bin_size} pixels are larger than the image, {difference.box.shape}",
        )
    _, values, errors = upstream_grid(difference, config)
    filled = np.isfinite(values)
    found = int(min(filled.any(axis=0).sum(), filled.any(axis=1).sum()))
    uniform = not bool((errors > config.error_epsilon).any())
    enough = config.order <= -(-shorter // config.bin_size) - 1
    throws = config.undersample is UndersampleStyle.THROW_EXCEPTION
    if not enough or found == 0 or (throws and found <= config.order):
        raise InputError(
            "per-warp-undersampled",
            f"{found} bins along an axis do not determine a polynomial of order {config.order}",
        )
    if found > config.order:
        return config.order, None, uniform
    if config.undersample is UndersampleStyle.REDUCE_INTERP_ORDER:
        return found - 1, None, uniform
    return config.order, found * config.bin_size // (config.order + 1), uniform


def rebinned_samples(difference: Difference, bin_size: int) -> tuple[int, int]:
    """Return the number of cells upstream uses for a new size: that size itself (fault L-1)."""
    height, width = difference.box.shape
    return min(bin_size, width), min(bin_size, height)
