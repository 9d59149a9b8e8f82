"""Pixels of a difference that are neither sky nor noise: trails, transients, star residuals.

Clipping pixel by pixel leaves the faint wings of a trail, which are below the noise of one pixel
but bias the mean of a superpixel by many times its error. Means of small cells find them. (LDM-151
§5.2.2, step 3: detect artifacts on the difference and keep only their footprints.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.cell_maps import CELL, cells_of, difference_cells, grow_cells
from bgmatch_dask.numerics.cell_noise import error_of_mean, mean_and_spread, scaled_deviations
from bgmatch_dask.numerics.local_median import SQUARE, local_median
from bgmatch_dask.numerics.median import median
from bgmatch_dask.numerics.nearest_cells import fill_from_nearest
from bgmatch_dask.numerics.quadratic_trend import quadratic_trend

__all__ = ("CELL", "outlier_cells", "outlier_footprints", "outliers_of_pixels")

_STEP = 3
"""Rows that share a local median, which hardly changes over a third of its square."""
_REACH = 6
"""Cells within which a cell that a median looks at has one with data: the median of a cell is
taken in its own row or the next, and looks at four cells on each side of it."""
_MAD_TO_SIGMA = 1.482602218505602
_FAINT = 0.5
"""Footprints grow into cells above this share of the threshold."""

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


def outlier_footprints(
    hub_image: NDArray[np.float32],
    image: NDArray[np.float32],
    good: Bools,
    *,
    n_sigma: float = 4.0,
) -> Bools:
    """Find the footprints of what differs between two visits on scales of 8 to 40 pixels.

    The means of cells of 8² pixels, less a quadratic surface through all of them, are compared
    with the median of the 9 × 9 cells around them, taken in every third row of cells.
    Cells beyond ``n_sigma`` robust standard deviations, of either sign, seed footprints that
    grow into neighbours beyond half of that and then by one cell more.

    Parameters
    ----------
    hub_image, image
        float32 ``[y, x]`` of the same box.
    good
        Pixels that may be used in both.
    n_sigma
        Threshold.

    Returns
    -------
    ndarray of bool
        True on pixels to leave out, shape of the images.
    """
    # What is left out of one image is left out of the difference.
    hub = np.where(good, hub_image, np.float32(np.nan))
    everywhere = np.ones(cells_of(good.shape), bool)
    cells, _ = outliers_of_pixels(hub, image, everywhere, n_sigma=n_sigma)
    return _to_pixels(cells, good.shape)


def outliers_of_pixels(
    hub_image: NDArray[np.float32],
    image: NDArray[np.float32],
    wanted: Bools,
    *,
    n_sigma: float = 4.0,
) -> tuple[Bools, Bools]:
    """Return the cells of `outlier_footprints`, and those that could be judged.

    Pixels that are not finite in both images are left out, as are all of cells that are not
    ``wanted``; cells begin at the first pixel.
    """
    mean, error = _cell_means(*difference_cells(hub_image, image, wanted))
    return outlier_cells(mean, error, n_sigma), np.isfinite(mean)


def outlier_cells(mean: Array, error: Array, n_sigma: float) -> Bools:
    """Find the cells that stand out of a difference, and grow them.

    Parameters
    ----------
    mean, error
        Mean of the difference in each cell and its standard error; NaN where unknown.
    n_sigma
        Threshold.

    Returns
    -------
    ndarray of bool
        True in cells to leave out.
    """
    seen = np.isfinite(mean)
    out = np.zeros(mean.shape, bool)
    if np.count_nonzero(seen) >= SQUARE:
        ys, xs = (_reach(np.asarray(seen.any(axis=axis))) for axis in (1, 0))
        part, errors = (np.ascontiguousarray(plane[ys, xs]) for plane in (mean, error))
        scale = float(max(*mean.shape, 2))
        out[ys, xs] = _outliers(part, errors, (ys.start, xs.start), scale, n_sigma)
    return out


def _reach(seen: Bools) -> slice:
    """Return the rows, or columns, that the cells which are seen have to do with."""
    first, last = np.flatnonzero(seen)[[0, -1]]
    # Whole steps, so that the same rows share a local median wherever the part begins.
    margin = SQUARE // 2 + _STEP
    return slice(max(int(first) - margin, 0) // _STEP * _STEP, int(last) + margin + 1)


def _outliers(
    mean: Array, error: Array, origin: tuple[int, int], scale: float, n_sigma: float
) -> Bools:
    seen = np.isfinite(mean)
    # A median has no inner side at an edge, where it would take any slope for an outlier.
    flat = mean - quadratic_trend(mean, seen, origin, scale)
    # A cell without data stands in with its nearest neighbour's.
    around = local_median(fill_from_nearest(flat, seen, _REACH), _STEP)
    scaled, of_seen = scaled_deviations(flat, around, error, seen)
    # Sky residuals and correlated noise widen the distribution: scale it by its own width.
    width = max(_MAD_TO_SIGMA * median(of_seen), 1.0)
    return grow_cells(scaled > n_sigma * width, scaled > _FAINT * n_sigma * width)


def _cell_means(count: Array, total: Array, squares: Array) -> tuple[Array, Array]:
    """Return mean and standard error of every cell, NaN where fewer than a quarter is good."""
    mean, spread = mean_and_spread(count, total, squares, CELL**2 / 4)
    # One noise for all cells: that of a single cell would be inflated by what is looked for.
    sigma = np.sqrt(median(spread)) if spread.size else np.nan
    return mean, error_of_mean(count, mean, float(sigma) if sigma > 0 else 1.0)


def _to_pixels(cells: Bools, shape: tuple[int, ...]) -> Bools:
    pixels = np.repeat(np.repeat(cells, CELL, axis=0), CELL, axis=1)
    return pixels[: shape[0], : shape[1]]
