"""Additive sums per superpixel, of one visit or of the difference of two visits.

The sums of two disjoint sets of pixels merge exactly (up to rounding), so that a superpixel
which straddles patches ends up as if it had been measured in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import MatchError
from bgmatch_dask.geometry import Box, SuperpixelGrid, SuperpixelWindow
from bgmatch_dask.numerics.superpixels import (
    BinMoments,
    BinStatistics,
    bin_measures,
)

__all__ = (
    "QUANTITIES",
    "SuperpixelSums",
    "empty_sums",
    "from_array",
    "measure_difference",
    "measure_visit",
    "measured",
    "merge",
    "to_array",
)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SuperpixelSums:
    """Additive sums per superpixel; float64 arrays of one shape ``(ny, nx)``.

    Positions are tract pixels relative to the centre of the *full* superpixel (also for the
    narrower superpixels at the end of a tract), so that the parts of one superpixel add up.
    """

    count: Array
    """Pixels kept by the clipping."""
    total: Array
    """Sum of the kept pixels, unit of the image."""
    squares: Array
    """Sum of squared deviations of the kept pixels from their mean, unit squared."""
    x: Array
    """Sum of the columns of the good pixels."""
    x2: Array
    """Sum of the squared columns of the good pixels."""
    y: Array
    """Sum of the rows of the good pixels."""
    y2: Array
    """Sum of the squared rows of the good pixels."""
    n_good: Array
    """Pixels that are unmasked and finite, before clipping."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of superpixels, ``(ny, nx)``."""
        ny, nx = self.count.shape
        return (ny, nx)

    @property
    def mean(self) -> Array:
        """Clipped mean, NaN where no pixel was kept."""
        return _ratio(self.total, self.count)

    @property
    def variance(self) -> Array:
        """Clipped variance of the pixels (n − 1), NaN where fewer than two were kept."""
        return _ratio(self.squares, self.count - 1.0)

    @property
    def variance_of_mean(self) -> Array:
        """Variance of `mean` for independent pixels, NaN where fewer than two were kept."""
        return _ratio(self.variance, self.count)

    @property
    def x_mean(self) -> Array:
        """Mean column of the good pixels relative to the full superpixel's centre, NaN if none."""
        return _ratio(self.x, self.n_good)

    @property
    def y_mean(self) -> Array:
        """Mean row of the good pixels relative to the full superpixel's centre, NaN if none."""
        return _ratio(self.y, self.n_good)

    @property
    def x_var(self) -> Array:
        """Population variance of the columns of the good pixels, NaN where there are none."""
        return np.maximum(_ratio(self.x2, self.n_good) - self.x_mean**2, 0.0)

    @property
    def y_var(self) -> Array:
        """Population variance of the rows of the good pixels, NaN where there are none."""
        return np.maximum(_ratio(self.y2, self.n_good) - self.y_mean**2, 0.0)


QUANTITIES: tuple[str, ...] = tuple(field.name for field in fields(SuperpixelSums))
"""Names of the planes of `to_array`, in order."""


def measure_visit(
    image: NDArray[np.float32],
    mask: NDArray[np.integer] | None,
    box: Box,
    grid: SuperpixelGrid,
    bad_bits: int,
    *,
    n_sigma: float = 3.0,
    n_iter: int = 3,
) -> SuperpixelSums:
    """Measure one visit on the superpixels that a box touches.

    Parameters
    ----------
    image
        float32 ``[y, x]`` of the pixels of ``box``.
    mask
        Bit field of the same shape, or None.
    box
        Tract pixels that are to be counted: the inner box of a patch.
    grid
        Superpixels of the tract.
    bad_bits
        Pixels with any of these bits are left out, as are pixels that are not finite.
    n_sigma, n_iter
        Clipping, as in `bgmatch_dask.numerics.superpixels.bin_statistics`.

    Returns
    -------
    SuperpixelSums
        Sums of the shape of ``grid.window(box)``.

    Raises
    ------
    GeometryError
        ``box-outside`` when the box leaves the tract.
    InputError
        When image, mask and clipping do not fit together, see `bin_statistics`.
    """
    window = _window(image, box, grid)
    edges = (window.x_edges, window.y_edges)
    found = bin_measures((image,), (mask,), bad_bits, *edges, n_sigma=n_sigma, n_iter=n_iter)
    return _sums(*found, box, grid, window)


def measure_difference(
    hub_image: NDArray[np.float32],
    hub_mask: NDArray[np.integer] | None,
    image: NDArray[np.float32],
    mask: NDArray[np.integer] | None,
    box: Box,
    grid: SuperpixelGrid,
    bad_bits: int,
    *,
    n_sigma: float = 3.0,
    n_iter: int = 3,
    left_out: NDArray[np.bool_] | None = None,
) -> SuperpixelSums:
    """Measure the difference hub − visit under the union of both masks.

    Parameters, result and errors are those of `measure_visit`; both images cover ``box``.
    ``left_out`` says which cells of `bgmatch_dask.numerics.cell_maps.CELL`² pixels, from the first
    pixel of the box on, are not to be used.
    """
    window = _window(image, box, grid)
    edges = (window.x_edges, window.y_edges)
    found = bin_measures(
        (hub_image, image),
        (hub_mask, mask),
        bad_bits,
        *edges,
        n_sigma=n_sigma,
        n_iter=n_iter,
        left_out=left_out,
    )
    return _sums(*found, box, grid, window)


def to_array(sums: SuperpixelSums) -> Array:
    """Stack the sums into one float64 array ``(n_quantity, ny, nx)``, order of `QUANTITIES`."""
    return np.stack([getattr(sums, name) for name in QUANTITIES])


def from_array(array: Array) -> SuperpixelSums:
    """Undo `to_array`.

    Raises
    ------
    MatchError
        ``sums-shape`` when the array does not hold one plane per quantity.
    """
    if array.ndim != 3 or array.shape[0] != len(QUANTITIES):
        raise MatchError(
            "sums-shape",
            f"Superpixel sums need shape ({len(QUANTITIES)}, ny, nx), got {array.shape}",
            fix="Measure again: the sums were stored by another version.",
        )
    return SuperpixelSums(*np.asarray(array, np.float64))


def empty_sums(shape: tuple[int, int]) -> SuperpixelSums:
    """Return sums of no pixel, of shape ``(ny, nx)``."""
    return from_array(np.zeros((len(QUANTITIES), *shape)))


def merge(
    parts: Iterable[tuple[SuperpixelWindow, SuperpixelSums]], grid: SuperpixelGrid
) -> SuperpixelSums:
    """Merge sums of disjoint boxes into tract-wide sums.

    Parameters
    ----------
    parts
        Windows and the sums measured on them. Their order does not matter: they are added in
        one fixed order.
    grid
        Superpixels of the tract.

    Returns
    -------
    SuperpixelSums
        Sums of shape ``grid.shape``; superpixels that straddle boxes hold all their pixels.

    Raises
    ------
    MatchError
        ``sums-shape`` when sums and window differ in shape or leave the grid.

    Notes
    -----
    Squared deviations combine as in Chan, Golub and LeVeque (1983):
    ``S = S_a + S_b + (mean_a − mean_b)² n_a n_b / (n_a + n_b)``.
    """
    tract = to_array(empty_sums(grid.shape))
    arrays = [(window, to_array(sums)) for window, sums in parts]
    for window, array in sorted(arrays, key=_place):
        target = tract[(slice(None), *window.slices)]
        if target.shape != array.shape:
            raise MatchError(
                "sums-shape",
                f"Sums of shape {array.shape[1:]} do not fit the window {window.shape}",
            )
        target[:] = _combine(target, array)
    return from_array(tract)


def measured(sums: SuperpixelSums, grid: SuperpixelGrid, min_fraction: float) -> NDArray[np.bool_]:
    """Return which superpixels of the tract hold enough pixels to be used.

    Parameters
    ----------
    sums
        Tract-wide sums.
    grid
        Superpixels of the tract.
    min_fraction
        Smallest share of good pixels, of the pixels that the superpixel has inside the tract.

    Returns
    -------
    ndarray of bool
        Shape ``grid.shape``. At least two pixels are needed in any case, for a variance.
    """
    ny, nx = grid.shape
    widths = np.minimum(grid.bin_x, grid.box.width - grid.bin_x * np.arange(nx))
    heights = np.minimum(grid.bin_y, grid.box.height - grid.bin_y * np.arange(ny))
    enough = min_fraction * np.outer(heights, widths)
    out: NDArray[np.bool_] = (sums.count >= 2) & (sums.n_good >= enough)
    return out


def _place(part: tuple[SuperpixelWindow, Array]) -> tuple[int, int, bytes]:
    """Order parts by place; by content when several lie in the same superpixel."""
    window, array = part
    return (window.sy0, window.sx0, array.tobytes())


def _combine(a: Array, b: Array) -> Array:
    count, total, squares = (QUANTITIES.index(name) for name in ("count", "total", "squares"))
    out: Array = a + b
    gap = _ratio(a[total], a[count]) - _ratio(b[total], b[count])
    both = (a[count] > 0) & (b[count] > 0)
    between = gap**2 * _ratio(a[count] * b[count], out[count])
    out[squares] += np.where(both, between, 0.0)
    return out


def _window(image: NDArray[np.float32], box: Box, grid: SuperpixelGrid) -> SuperpixelWindow:
    if image.shape != box.shape:
        raise MatchError("sums-shape", f"An image of shape {image.shape} does not cover {box}")
    return grid.window(box)


def _sums(
    statistics: BinStatistics,
    moments: BinMoments,
    box: Box,
    grid: SuperpixelGrid,
    window: SuperpixelWindow,
) -> SuperpixelSums:
    ys, xs = window.slices
    count = np.where(np.isfinite(statistics.mean), statistics.count, 0).astype(np.float64)
    good = statistics.n_good.astype(np.float64)
    x_shift = box.x0 - grid.x_centres[np.newaxis, xs]
    y_shift = box.y0 - grid.y_centres[ys, np.newaxis]
    x, x2 = _position_sums(good, moments.x_mean + x_shift, moments.x_var)
    y, y2 = _position_sums(good, moments.y_mean + y_shift, moments.y_var)
    mean = np.where(count > 0, statistics.mean, 0.0)
    variance = np.where(count > 1, statistics.variance, 0.0)
    squares = np.where(count > 1, variance * (count - 1.0), 0.0)
    return SuperpixelSums(count, mean * count, squares, x, x2, y, y2, good)


def _position_sums(count: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    used = count > 0
    first = np.where(used, mean, 0.0) * count
    second = np.where(used, variance + mean**2, 0.0) * count
    return first, second


def _ratio(top: Array, bottom: Array) -> Array:
    out = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=out, where=bottom > 0)
    return out
