"""Observations and footprints on coarser cells: what a draft of a wide tract is solved from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.layout import GUARD
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.keys import keys_weights

__all__ = ("coarse_grid", "coarse_plane", "coarsen", "refine_nodes", "refine_plane")

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Plane = NDArray[np.bool_]


def coarse_grid(grid: SuperpixelGrid, factor: int) -> SuperpixelGrid:
    """Return the grid whose cells are ``factor × factor`` superpixels."""
    return SuperpixelGrid(grid.box, grid.bin_x * factor, grid.bin_y * factor)


def coarse_plane(plane: Plane, factor: int) -> Plane:
    """Return the cells that hold any of some superpixels."""
    rows = np.logical_or.reduceat(plane, np.arange(0, plane.shape[0], factor), axis=0)
    out: Plane = np.logical_or.reduceat(rows, np.arange(0, plane.shape[1], factor), axis=1)
    return out


def coarsen(observations: Observations, grid: SuperpixelGrid, factor: int) -> Observations:
    """Average the observations of every pair over coarser cells.

    Parameters
    ----------
    observations
        Observations on the superpixels of ``grid``, by pair.
    grid
        The superpixels.
    factor
        Superpixels per cell and axis.

    Returns
    -------
    Observations
        On `coarse_grid`: means weighted with inverse variances, with centroid and variance of
        the area behind them, so that slopes and curvatures do not leak however ragged the
        edges are.
    """
    data, ncx = observations, coarse_grid(grid, factor).shape[1]
    n_cells = ncx * coarse_grid(grid, factor).shape[0]
    key = data.pair * n_cells + (data.sy // factor) * ncx + data.sx // factor
    n_keys = len(data.pairs) * n_cells
    weight = 1.0 / data.variance
    total = np.bincount(key, weight, n_keys)
    kept = np.flatnonzero(total > 0)

    def mean(values: Array) -> Array:
        out: Array = np.bincount(key, weight * values, n_keys)[kept] / total[kept]
        return out

    first = np.zeros(n_keys, np.int64)
    first[key[::-1]] = np.arange(len(key))[::-1]
    first = first[kept]
    boxes = [_cell_boxes(lo, hi, factor, mean) for lo, hi in zip(data.low, data.high, strict=True)]
    variance = 1.0 / total[kept]
    unit = float(np.median(variance)) if variance.size else 1.0
    return Observations(
        pairs=data.pairs,
        pair=data.pair[first],
        hub=data.hub[first],
        visit=data.visit[first],
        sy=data.sy[first] // factor,
        sx=data.sx[first] // factor,
        value=mean(data.value),
        photon=variance,
        variance=variance,
        weight=unit / variance,
        unit=unit,
        low=(boxes[0][0], boxes[1][0]),
        high=(boxes[0][1], boxes[1][1]),
    )


def _cell_boxes(
    low: Array, high: Array, factor: int, mean: Callable[[Array], Array]
) -> tuple[Array, Array]:
    centre = 0.5 * (low + high)
    middle = mean(centre)
    spread = np.maximum(mean((high - low) ** 2 / 12.0 + centre**2) - middle**2, 0.0)
    half = 0.5 * np.sqrt(12.0 * spread) / factor
    # Superpixel s has the coordinate (s + ½) / factor − ½ in cells.
    at = (middle + 0.5) / factor - 0.5
    return at - half, at + half


def refine_nodes(
    nodes: Array, first: tuple[int, int], factor: int, window: tuple[int, int, int, int]
) -> Array:
    """Return a surface of coarse nodes at the nodes of the superpixels.

    Parameters
    ----------
    nodes
        Values on the nodes of the cells, ``[y, x]``.
    first
        Row and column of their first node.
    factor
        Superpixels per cell.
    window
        ``(y0, ny, x0, nx)`` of the wanted nodes.
    """
    out = nodes
    for axis in (0, 1):
        start, count = window[2 * axis], window[2 * axis + 1]
        place = (np.arange(start, start + count) - GUARD + 0.5) / factor - 0.5
        base, weights = keys_weights(place + GUARD - first[axis], nodes.shape[axis])
        matrix = np.zeros((count, nodes.shape[axis]))
        np.put_along_axis(matrix, base[:, np.newaxis] + np.arange(4), weights, axis=1)
        out = matrix @ out if axis == 0 else out @ matrix.T
    return out


def refine_plane(plane: Array, factor: int, shape: tuple[int, int]) -> Array:
    """Return values of cells at the superpixels, linear between centres."""
    out = plane
    for axis in (0, 1):
        place = (np.arange(shape[axis]) + 0.5) / factor - 0.5
        place = np.clip(place, 0.0, plane.shape[axis] - 1.0)
        low = np.minimum(place.astype(np.int64), max(plane.shape[axis] - 2, 0))
        high = np.minimum(low + 1, plane.shape[axis] - 1)
        share = place - low
        share = share[:, np.newaxis] if axis == 0 else share
        a, b = np.take(out, low, axis), np.take(out, high, axis)
        out = a + share * (b - a)
    return out
