"""Rendering of offsets on pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.layout import GUARD
from bgmatch_dask.background.solution import Offset
from bgmatch_dask.geometry import Box, SuperpixelGrid
from bgmatch_dask.numerics.keys import TAPS, keys_averages, keys_render, linear_render

__all__ = ("at_superpixels", "render", "render_flags", "render_variance")

Array = NDArray[np.float64]


def render(offset: Offset, box: Box) -> NDArray[np.float32]:
    """Render an offset on a box of tract pixels.

    Parameters
    ----------
    offset
        Offset of one visit.
    box
        Any box; beyond the tract the offset soon becomes constant.

    Returns
    -------
    ndarray of float32
        Shape ``box.shape``, unit of the image; to be *added* to the visit. A pixel's value
        depends on its place in the tract alone, so that two boxes agree bitwise where they
        overlap.
    """
    y, x = _positions(offset.grid, box)
    return keys_render(offset.nodes, x / offset.pitch + GUARD, y / offset.pitch + GUARD)


def render_variance(offset: Offset, box: Box) -> NDArray[np.float32]:
    """Render the variance of an offset on a box of tract pixels.

    Returns
    -------
    ndarray of float32
        Shape ``box.shape``, unit of the image squared, interpolated between superpixels
        without undershoot; bitwise equal in overlaps as in `render`.
    """
    y, x = _positions(offset.grid, box)
    return linear_render(offset.variance, x, y)


def at_superpixels(offset: Offset) -> Array:
    """Return the offset averaged over every full superpixel, float64 ``(sy, sx)``."""
    lines = []
    for n_superpixels, n_nodes in zip(offset.grid.shape, offset.nodes.shape, strict=True):
        place = np.arange(n_superpixels, dtype=np.float64)
        ends = [(place + half) / offset.pitch + GUARD for half in (-0.5, 0.5)]
        limits = (np.zeros(n_superpixels, np.int64), np.full(n_superpixels, n_nodes - 1))
        base, weights = keys_averages(ends[0], ends[1], *limits)
        matrix = np.zeros((n_superpixels, n_nodes))
        np.put_along_axis(matrix, base[:, np.newaxis] + np.arange(TAPS), weights, axis=1)
        lines.append(matrix)
    out: Array = lines[0] @ offset.nodes @ lines[1].T
    return out


def render_flags(offset: Offset, box: Box) -> NDArray[np.uint8]:
    """Return the `Flag` bits of every pixel of a box: those of the nearest superpixel."""
    y, x = _positions(offset.grid, box)
    ny, nx = offset.flags.shape
    rows = np.clip(np.floor(y + 0.5).astype(np.int64), 0, ny - 1)
    columns = np.clip(np.floor(x + 0.5).astype(np.int64), 0, nx - 1)
    return offset.flags[rows[:, np.newaxis], columns]


def _positions(grid: SuperpixelGrid, box: Box) -> tuple[Array, Array]:
    """Return rows and columns in superpixels from the centre of the first one."""
    rows = np.arange(box.y0, box.y1, dtype=np.float64)
    columns = np.arange(box.x0, box.x1, dtype=np.float64)
    return (
        (rows - grid.y_centres[0]) / grid.bin_y,
        (columns - grid.x_centres[0]) / grid.bin_x,
    )
