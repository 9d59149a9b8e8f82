"""Gaussian smoothing of a grid that has bad values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from bgmatch_dask.errors import ConfigError

__all__ = ("smooth_masked",)


def smooth_masked(
    values: ArrayLike, bad: ArrayLike, sigma: float, *, truncate: float = 4.0
) -> NDArray[np.float64]:
    """Smooth with a Gaussian that gives bad values, and the outside, no weight.

    Parameters
    ----------
    values
        Grid, shape ``(ny, nx)``.
    bad
        True where the value has no weight, shape ``(ny, nx)``. NaN values have none in any case.
    sigma
        Standard deviation of the Gaussian, in grid cells.
    truncate
        Radius of the kernel in units of ``sigma``.

    Returns
    -------
    ndarray of float64
        ``G(values * good) / G(good)``, shape ``(ny, nx)``; NaN where no good value is within reach.

    Raises
    ------
    ConfigError
        ``smooth-shape`` when the shapes differ; ``smooth-sigma`` when ``sigma`` is not positive.

    Notes
    -----
    Source: ``smoothArray`` of the LSST ``pipe_tasks`` background module, in float64 throughout.
    """
    grid = np.asarray(values, np.float64)
    flags = np.asarray(bad, np.bool_)
    if grid.shape != flags.shape:
        raise ConfigError("smooth-shape", f"Shapes differ: {grid.shape} and {flags.shape}")
    if not sigma > 0:
        raise ConfigError("smooth-sigma", f"The smoothing scale must be positive, not {sigma}")
    flags = flags | np.isnan(grid)
    weighted = gaussian_filter(
        np.where(flags, 0.0, grid), sigma, mode="constant", cval=0.0, truncate=truncate
    )
    weight = gaussian_filter(
        np.where(flags, 0.0, 1.0), sigma, mode="constant", cval=0.0, truncate=truncate
    )
    out = np.full(grid.shape, np.nan)
    np.divide(weighted, weight, out=out, where=weight > 0)
    return out
