"""Filling of unknown values of a grid from the known ones: along rows first, then along columns.

Source: ``interpolate1D`` and ``interpolateBadPixels`` of the LSST ``pipe_tasks`` background module.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bgmatch_dask.errors import ConfigError, MatchError
from bgmatch_dask.numerics.interpolation import InterpStyle, interpolate_or_reduce

__all__ = ("fill_gaps",)


def fill_gaps(
    values: ArrayLike,
    bad: ArrayLike,
    style: InterpStyle = InterpStyle.AKIMA_SPLINE,
    *,
    upstream: bool = False,
) -> NDArray[np.float64]:
    """Replace bad values by interpolation, and by extrapolation up to the edges.

    First the bad values of every row that has a good one are interpolated along the row, then what
    is still unknown is interpolated along the columns. Where a row or column has too few good
    values for ``style``, the best style that they allow is used.

    Parameters
    ----------
    values
        Grid, shape ``(ny, nx)``.
    bad
        True where the value is not to be used, shape ``(ny, nx)``. NaN values are bad in any case.
    style
        See `bgmatch_dask.numerics.interpolation`; the continuation beyond the last good value is
        quadratic for AKIMA, linear for the natural spline and LINEAR, level for CONSTANT.
    upstream
        Do as LSST: in a row without any good value, bad values that are finite are kept and used as
        good ones along the columns (fault F-20), and the styles behave as upstream.

    Returns
    -------
    ndarray of float64
        New array, shape ``(ny, nx)``, finite wherever the good values are.

    Raises
    ------
    MatchError
        ``gaps-only`` when nothing is good.
    ConfigError
        ``gaps-shape`` when ``values`` and ``bad`` are not grids of one shape.
    """
    grid = np.array(values, np.float64)
    flags = np.asarray(bad, np.bool_)
    if grid.ndim != 2 or grid.shape != flags.shape:
        raise ConfigError(
            "gaps-shape", f"Values {grid.shape} and flags {flags.shape} are not grids of one shape"
        )
    unknown = flags | np.isnan(grid)
    if unknown.all():
        raise MatchError(
            "gaps-only",
            "There is no good value to fill the grid from",
            fix="Leave this visit out, or lower the coverage that a superpixel needs.",
        )
    _fill_lines(grid, unknown, style, upstream=upstream)
    if not upstream:
        grid[unknown.all(axis=1)] = np.nan
    _fill_lines(grid.T, np.isnan(grid).T, style, upstream=upstream)
    return grid


def _fill_lines(
    grid: NDArray[np.float64],
    unknown: NDArray[np.bool_],
    style: InterpStyle,
    *,
    upstream: bool,
) -> None:
    """Fill, in place, every row that has both known and unknown values."""
    x = np.arange(grid.shape[1], dtype=np.float64)
    for line, gaps in zip(grid, unknown, strict=True):
        if gaps.any() and not gaps.all():
            line[gaps] = interpolate_or_reduce(
                x[~gaps], line[~gaps], x[gaps], style, upstream=upstream
            )
