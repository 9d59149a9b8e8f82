"""Rendering of offsets on pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.layout import GUARD
from bgmatch_dask.background.solution import Offset
from bgmatch_dask.geometry import Box, SuperpixelGrid
from bgmatch_dask.numerics.keys import (
    TAPS,
    keys_at,
    keys_averages,
    keys_render,
    keys_rows,
    linear_at,
    linear_render,
    linear_rows,
)
from bgmatch_dask.numerics.row_polynomials import RowPolynomials

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = (
    "FrameOffset",
    "at_superpixels",
    "on_wcs",
    "render",
    "render_flags",
    "render_variance",
    "rows_of",
    "sample",
)

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


def rows_of(offset: Offset, box: Box) -> tuple[RowPolynomials, RowPolynomials]:
    """Return offset and variance on a box, to be rendered row by row.

    Rendered, they have the bits of `render` and `render_variance`.
    """
    y, x = _positions(offset.grid, box)
    surface = keys_rows(offset.nodes, x / offset.pitch + GUARD, y / offset.pitch + GUARD)
    return surface, linear_rows(offset.variance, x, y)


def sample(
    offset: Offset, y: Array, x: Array
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Return offset, variance and flags on the product of rows and columns of tract pixels.

    Positions may lie between pixels; on pixels the values are those of `render`,
    `render_variance` and `render_flags`.
    """
    y, x = _in_superpixels(offset.grid, y, x)
    rows, columns = _nearest(offset.flags.shape, y, x)
    return (
        keys_render(offset.nodes, x / offset.pitch + GUARD, y / offset.pitch + GUARD),
        linear_render(offset.variance, x, y),
        offset.flags[rows[:, np.newaxis], columns],
    )


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
    rows, columns = _nearest(offset.flags.shape, y, x)
    return offset.flags[rows[:, np.newaxis], columns]


def _nearest(shape: tuple[int, ...], y: Array, x: Array) -> tuple[NDArray[np.int64], ...]:
    return tuple(
        np.clip(np.floor(place + 0.5).astype(np.int64), 0, n - 1)
        for place, n in zip((y, x), shape, strict=True)
    )


def _positions(grid: SuperpixelGrid, box: Box) -> tuple[Array, Array]:
    """Return rows and columns in superpixels from the centre of the first one."""
    rows = np.arange(box.y0, box.y1, dtype=np.float64)
    columns = np.arange(box.x0, box.x1, dtype=np.float64)
    return _in_superpixels(grid, rows, columns)


def _in_superpixels(grid: SuperpixelGrid, y: Array, x: Array) -> tuple[Array, Array]:
    return (y - grid.y_centres[0]) / grid.bin_y, (x - grid.x_centres[0]) / grid.bin_x


@dataclass(frozen=True, slots=True, eq=False)
class FrameOffset:
    """An offset on the pixels of an image of any WCS."""

    image: NDArray[np.float32]
    """To be *added* to the image; NaN off the tract."""
    variance: NDArray[np.float32]
    """To be added to its variance; NaN off the tract."""
    flags: NDArray[np.uint8]
    """Bits of `Flag`, those of the nearest superpixel; 0 off the tract."""


def on_wcs(
    offset: Offset,
    wcs: WCS,
    shape: tuple[int, int],
    tract_wcs: WCS,
    *,
    flux_per_pixel: bool = True,
    rows: int = 128,
) -> FrameOffset:
    """Render an offset on an image of another WCS, such as one detector of the visit.

    Nothing is resampled: the surface is evaluated at the tract position of every pixel centre.

    Parameters
    ----------
    offset
        Offset of the visit.
    wcs
        Celestial WCS of the image, 0-based pixels.
    shape
        Its shape ``(ny, nx)``.
    tract_wcs
        WCS of the tract in tract pixels, `bgmatch_dask.geometry.TractGeometry.wcs`.
    flux_per_pixel
        Whether pixels hold flux, so that the offset of a pixel is that of the tract times the
        pixel's area in tract pixels (its variance times the square); otherwise they hold surface
        brightness.
    rows
        Rows handled at a time; the result does not depend on it.

    Returns
    -------
    FrameOffset
        Planes of ``shape``. On the tract's own pixels they agree with `render`,
        `render_variance` and `render_flags` as far as the WCS finds its own pixels again.
    """
    image = np.full(shape, np.nan, np.float32)
    out = FrameOffset(image, image.copy(), np.zeros(shape, np.uint8))
    for first in range(0, shape[0], rows):
        last = min(first + rows, shape[0])
        y, x, area = _tract_places(wcs, (first, last), shape[1], tract_wcs)
        tract = offset.grid.box
        inside = (np.abs(x - tract.x0 - 0.5 * (tract.width - 1)) <= 0.5 * tract.width) & (
            np.abs(y - tract.y0 - 0.5 * (tract.height - 1)) <= 0.5 * tract.height
        )
        scale = area[inside] if flux_per_pixel else 1.0
        y, x = _in_superpixels(offset.grid, y[inside], x[inside])
        places = x / offset.pitch + GUARD, y / offset.pitch + GUARD
        out.image[first:last][inside] = keys_at(offset.nodes, *places) * np.float32(scale)
        spread = linear_at(offset.variance, x, y)
        out.variance[first:last][inside] = spread * np.float32(scale) ** 2
        out.flags[first:last][inside] = offset.flags[_nearest(offset.flags.shape, y, x)]
    return out


def _tract_places(
    wcs: WCS, rows: tuple[int, int], width: int, tract_wcs: WCS
) -> tuple[Array, Array, Array]:
    """Return tract y, x and area [tract pixels] of pixels; NaN where the sky has no such place."""
    # One pixel more on each side, so that the area is a central difference everywhere.
    y, x = np.mgrid[rows[0] - 1 : rows[1] + 1, -1 : width + 1].astype(np.float64)
    sky = wcs.all_pix2world(x.ravel(), y.ravel(), 0)
    tx, ty = (np.reshape(v, x.shape) for v in tract_wcs.all_world2pix(*sky, 0, quiet=True))
    dx_dy, dx_dx = _slopes(tx)
    dy_dy, dy_dx = _slopes(ty)
    inner = (slice(1, -1), slice(1, -1))
    return ty[inner], tx[inner], np.abs(dx_dx * dy_dy - dx_dy * dy_dx)


def _slopes(values: Array) -> tuple[Array, Array]:
    by_row = 0.5 * (values[2:, 1:-1] - values[:-2, 1:-1])
    return by_row, 0.5 * (values[1:-1, 2:] - values[1:-1, :-2])
