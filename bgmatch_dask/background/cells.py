"""Means of one visit in small cells that divide the superpixels.

From cells of two visits that were measured under one common mask their difference follows without
a look at the pixels. Cells that a visit does not fill, at gaps and edges, are left out of both, so
that light which is the same in both cancels although they fill a superpixel differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from bgmatch_dask.background.outliers import outlier_cells
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.geometry import Box, SuperpixelGrid, SuperpixelWindow
from bgmatch_dask.numerics.superpixels import bin_measures

__all__ = ("CellGrid", "CellMeans", "difference_of_cells", "measure_cells", "outliers_of_cells")

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FILLED = 0.25
"""Share of its pixels that a cell needs."""
_SPREAD = 16.0
"""Variance of the positions [px²] from which on a superpixel shows its slope."""
_LEAST = 0.05
"""Share of a cell's variance that is noise at least."""
_SOUND = 0.05
"""Share of the determinant that positions along a diagonal may leave."""


@dataclass(frozen=True, slots=True, eq=False)
class CellGrid:
    """Cells of one box: they divide its superpixels and end with them."""

    grid: SuperpixelGrid
    """Superpixels of the tract."""
    box: Box
    """Tract pixels."""
    window: SuperpixelWindow
    """Superpixels that the box touches."""
    x_edges: NDArray[np.int64]
    """Column edges relative to the box."""
    y_edges: NDArray[np.int64]
    """Row edges relative to the box."""
    x_first: NDArray[np.int64]
    """First cell column of each superpixel."""
    y_first: NDArray[np.int64]
    """First cell row of each superpixel."""

    @classmethod
    def of(cls, grid: SuperpixelGrid, box: Box, size: int) -> CellGrid:
        """Cut the superpixels of a box into cells of about ``size`` pixels."""
        window = grid.window(box)
        x_edges, x_first = _cut(window.x_edges, window.sx0, grid.bin_x, box.x0 - grid.box.x0, size)
        y_edges, y_first = _cut(window.y_edges, window.sy0, grid.bin_y, box.y0 - grid.box.y0, size)
        return cls(grid, box, window, x_edges, y_edges, x_first, y_first)

    @property
    def area(self) -> Array:
        """Pixels of each cell."""
        return np.outer(np.diff(self.y_edges), np.diff(self.x_edges)).astype(np.float64)

    def sums(self, values: Array) -> Array:
        """Add up the cells of each superpixel, over the last two axes."""
        rows = np.add.reduceat(values, self.y_first, axis=-2)
        out: Array = np.add.reduceat(rows, self.x_first, axis=-1)
        return out

    def spread(self, values: Array) -> Array:
        """Give each cell the value of its superpixel."""
        ny = np.diff([*self.y_first, len(self.y_edges) - 1])
        nx = np.diff([*self.x_first, len(self.x_edges) - 1])
        return np.repeat(np.repeat(values, ny, axis=0), nx, axis=1)


def _cut(
    edges: NDArray[np.int64], first: int, bin_size: int, start: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    number = max(1, round(bin_size / size))
    inside = np.round(np.arange(number) * bin_size / number).astype(np.int64)
    cuts: list[int] = []
    firsts: list[int] = []
    for k, (low, high) in enumerate(pairwise(edges.tolist())):
        places = (first + k) * bin_size - start + inside
        firsts.append(len(cuts))
        cuts += [low, *(p for p in places.tolist() if low < p < high)]
    return np.array([*cuts, int(edges[-1])], np.int64), np.array(firsts, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class CellMeans:
    """One visit in the cells of a box, arrays ``(cy, cx)``; NaN in cells that are not filled."""

    count: Array
    """Pixels kept by the clipping, 0 where the cell is not filled."""
    mean: Array
    """Clipped mean."""
    variance: Array
    """Clipped variance of the pixels."""
    x: Array
    """Mean column of the good pixels, relative to the box."""
    y: Array
    """Mean row of the good pixels, relative to the box."""
    x_slope: Array
    """Slope of the means along x in the superpixel of each cell, per pixel."""
    y_slope: Array
    """Slope along y."""


def measure_cells(
    image: NDArray[np.float32],
    bad: Bools,
    cells: CellGrid,
    *,
    n_sigma: float = 3.0,
    n_iter: int = 3,
) -> CellMeans:
    """Measure one visit on the cells of a box.

    Parameters
    ----------
    image
        float32 ``[y, x]`` of the pixels of the box.
    bad
        Pixels to leave out.
    cells
        The cells.
    n_sigma, n_iter
        Clipping, cell by cell, as in `bgmatch_dask.numerics.superpixels.bin_statistics`.
    """
    good = np.where(bad, np.float32(np.nan), image)
    edges = (cells.x_edges, cells.y_edges)
    found, places = bin_measures((good,), (None,), 0, *edges, n_sigma=n_sigma, n_iter=n_iter)
    used = np.isfinite(found.variance) & (found.n_good >= _FILLED * cells.area)
    mean, variance, x, y = (
        np.where(used, a, np.nan)
        for a in (found.mean, found.variance, places.x_mean, places.y_mean)
    )
    count = np.where(used, found.count, 0.0)
    x_slope, y_slope = _slopes(cells, count, mean, x, y)
    # What the slope scatters within a cell is no noise of a difference.
    slant = x_slope**2 * places.x_var + y_slope**2 * places.y_var
    variance = np.maximum(variance - slant, _LEAST * variance)
    return CellMeans(count, mean, variance, x, y, x_slope, y_slope)


def _slopes(cells: CellGrid, count: Array, mean: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Return the least-squares slopes of the means in each superpixel, spread to its cells."""
    total = np.maximum(cells.sums(count), 1.0)

    def centred(values: Array) -> Array:
        middle = cells.sums(count * np.nan_to_num(values)) / total
        return np.where(count > 0, values - cells.spread(middle), 0.0)

    dx, dy, dm = centred(x), centred(y), centred(mean)

    def moment(a: Array, b: Array) -> Array:
        return cells.sums(count * a * b) / total

    xx, yy, xy = moment(dx, dx), moment(dy, dy), moment(dx, dy)
    xm, ym = moment(dx, dm), moment(dy, dm)
    det = xx * yy - xy**2
    # A sliver shows no slope across itself: it takes that of the nearest superpixel which does.
    shown = (xx > _SPREAD) & (yy > _SPREAD) & (det > _SOUND * xx * yy)
    if not shown.any():
        return np.zeros(count.shape), np.zeros(count.shape)
    rows, columns = distance_transform_edt(~shown, return_distances=False, return_indices=True)
    det = np.where(shown, det, 1.0)
    x_slope, y_slope = (
        cells.spread((top / det)[rows, columns]) for top in (xm * yy - ym * xy, ym * xx - xm * xy)
    )
    return x_slope, y_slope


def _step(hub: CellMeans, visit: CellMeans) -> tuple[Array, Array, Array]:
    """Return difference and place of every cell: both means moved to their middle."""
    x, y = 0.5 * (hub.x + visit.x), 0.5 * (hub.y + visit.y)
    a, b = (
        each.mean + each.x_slope * (x - each.x) + each.y_slope * (y - each.y)
        for each in (hub, visit)
    )
    return a - b, x, y


def _weight(hub: CellMeans, visit: CellMeans) -> Array:
    """Return the harmonic mean of both counts: what the difference of the means is worth."""
    total = hub.count + visit.count
    return 2.0 * hub.count * visit.count / np.maximum(total, 1.0)


def outliers_of_cells(hub: CellMeans, visit: CellMeans, n_sigma: float) -> Bools:
    """Find the cells where two visits differ by more than sky and noise.

    See `bgmatch_dask.background.outliers`.
    """
    difference, _, _ = _step(hub, visit)
    both = hub.variance + visit.variance
    sigma = np.sqrt(np.nanmedian(both)) if np.isfinite(both).any() else np.nan
    weight = _weight(hub, visit)
    error = np.where(sigma > 0, sigma, 1.0) / np.sqrt(np.where(weight > 0, weight, np.nan))
    return outlier_cells(difference, error, n_sigma)


def difference_of_cells(
    hub: CellMeans, visit: CellMeans, cells: CellGrid, left_out: Bools | None = None
) -> SuperpixelSums:
    """Return the sums of hub − visit from the cells that both fill.

    Parameters
    ----------
    hub, visit
        The two visits, measured under one mask of the sources of both.
    cells
        Their cells.
    left_out
        Cells that are not used.

    Returns
    -------
    SuperpixelSums
        Of the shape of the window of the cells. `count` is the number of pixels that the
        difference is worth: the harmonic mean of both counts, summed over cells.

    Notes
    -----
    The difference is ``Σ w_c d_c / Σ w_c`` with ``w_c`` the harmonic mean of both counts and
    ``d_c`` the difference of the means of cell c, each moved along its visit's slope in the
    superpixel to the middle of both centroids: pixels that one visit lacks leak no gradient.
    Its variance is ``Σ w_c² (v/n + v'/n') / (Σ w_c)²``.
    """
    d, x, y = _step(hub, visit)
    weight = _weight(hub, visit)
    used = weight > 0 if left_out is None else (weight > 0) & ~left_out
    weight = np.where(used, weight, 0.0)
    noise = hub.variance / np.maximum(hub.count, 1.0) + visit.variance / np.maximum(
        visit.count, 1.0
    )
    window = cells.window
    ys, xs = window.slices
    x = x + cells.box.x0 - cells.spread(np.broadcast_to(cells.grid.x_centres[xs], window.shape))
    y = (
        y
        + cells.box.y0
        - cells.spread(np.broadcast_to(cells.grid.y_centres[ys][:, np.newaxis], window.shape))
    )
    width = (np.diff(cells.x_edges) ** 2 - 1.0)[np.newaxis, :] / 12.0
    height = (np.diff(cells.y_edges) ** 2 - 1.0)[:, np.newaxis] / 12.0
    d, x, y, noise = (np.where(used, a, 0.0) for a in (d, x, y, noise))
    count = cells.sums(weight)
    some = np.maximum(count, 1.0)
    squares = cells.sums(weight**2 * noise) / some * np.maximum(count - 1.0, 0.0)
    return SuperpixelSums(
        count=count,
        total=cells.sums(weight * d),
        squares=squares,
        x=cells.sums(weight * x),
        x2=cells.sums(weight * (x**2 + width)),
        y=cells.sums(weight * y),
        y2=cells.sums(weight * (y**2 + height)),
        n_good=count.copy(),
    )
