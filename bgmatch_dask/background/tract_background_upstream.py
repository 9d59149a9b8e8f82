"""The tract background exactly as LSST's ``TractBackground`` makes it, for comparison alone.

Superpixels are measured on boxes twice as wide as they are (fault F-01), pixels in overlaps of
patches count once per warp (F-06), and the grid that is drawn on a warp is shifted. Use
`bgmatch_dask.background.tract_background` for anything else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import ConfigError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.bilinear import sample_bilinear
from bgmatch_dask.numerics.gapfill import fill_gaps
from bgmatch_dask.numerics.gridded import (
    BackgroundControl,
    GriddedBackground,
    background_from_values,
)
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import UndersampleStyle
from bgmatch_dask.numerics.smoothing import smooth_masked
from bgmatch_dask.numerics.superpixels import bin_statistics

__all__ = ("UpstreamTractBackground", "bin_limits")

Floats = NDArray[np.float32]


def bin_limits(index: int, size: float, box_bins: int = 2) -> tuple[int, int]:
    """Return the first and last tract pixel that superpixel ``index`` is measured on.

    ``box_bins`` is the width of the measured box in bins: 2 as upstream, 1 for exact bins.
    """
    reach = 0.5 * (box_bins - 1)
    low = np.floor((index - reach) * size + 0.5)
    high = np.floor((index + reach) * size + size - 1 + 0.5)
    return int(low), int(high)


@dataclass(frozen=True, slots=True, eq=False)
class UpstreamTractBackground:
    """Sums of one visit over a tract that begins at pixel (0, 0); see the module."""

    x_bin: float
    """Pitch of the superpixels along x [pixels] (``xBin``)."""
    y_bin: float
    """Pitch along y (``yBin``)."""
    total: Floats
    """Sum of mean · n, shape ``(ny, nx)``."""
    count: Floats
    """Sum of n, the good pixels before clipping."""
    squares: Floats
    """Sum of variance · n."""
    bad_bits: int = 0
    """Mask bits whose pixels are left out."""
    min_fraction: float = 0.1
    """Smallest count as a share of the superpixel (``minFrac``)."""
    smoothing: float | None = None
    """Gaussian in superpixels, or none."""
    style: InterpStyle = InterpStyle.AKIMA_SPLINE
    """Interpolation, of gaps and between cells."""
    box_bins: int = 2
    """Width of the measured boxes in bins."""

    @classmethod
    def empty(
        cls,
        width: int,
        height: int,
        x_bin: float,
        y_bin: float,
        *,
        bad_bits: int = 0,
        box_bins: int = 2,
    ) -> UpstreamTractBackground:
        """Return the background of no warp on a tract of ``width`` × ``height`` pixels."""
        shape = (int(height / y_bin), int(width / x_bin))
        total, count, squares = np.zeros((3, *shape), np.float32)
        return cls(x_bin, y_bin, total, count, squares, bad_bits=bad_bits, box_bins=box_bins)

    def add_warp(
        self, image: Floats, mask: NDArray[np.integer] | None, box: Box
    ) -> UpstreamTractBackground:
        """Return this background with one more warp, overlaps counted again.

        Parameters
        ----------
        image, mask
            float32 and bit field ``[y, x]`` of the pixels of ``box``.
        box
            Tract pixels of the warp.
        """
        planes = (self.total.copy(), self.count.copy(), self.squares.copy())
        for xx in range(planes[0].shape[1]):
            for yy in range(planes[0].shape[0]):
                part = self._box(xx, yy).intersect(box)
                if not part.empty:
                    self._add_bin(planes, (yy, xx), image, mask, part.slices_in(box))
        return self._with(*planes)

    def _box(self, xx: int, yy: int) -> Box:
        x0, x1 = bin_limits(xx, self.x_bin, self.box_bins)
        y0, y1 = bin_limits(yy, self.y_bin, self.box_bins)
        return Box(x0, y0, x1 - x0 + 1, y1 - y0 + 1)

    def _add_bin(
        self,
        planes: tuple[Floats, ...],
        at: tuple[int, int],
        image: Floats,
        mask: NDArray[np.integer] | None,
        window: tuple[slice, slice],
    ) -> None:
        pixels = image[window]
        bits = None if mask is None else mask[window]
        height, width = pixels.shape
        found = bin_statistics(pixels, bits, self.bad_bits, [0, width], [0, height])
        mean, variance, n = found.mean[0, 0], found.variance[0, 0], found.n_good[0, 0]
        if np.isfinite(mean):
            for plane, value in zip(planes, (mean * n, n, variance * n), strict=True):
                plane[at] += np.float32(value)

    def _with(self, total: Floats, count: Floats, squares: Floats) -> UpstreamTractBackground:
        return UpstreamTractBackground(
            self.x_bin,
            self.y_bin,
            total,
            count,
            squares,
            self.bad_bits,
            self.min_fraction,
            self.smoothing,
            self.style,
            self.box_bins,
        )

    def __add__(self, other: UpstreamTractBackground) -> UpstreamTractBackground:
        """Merge: the sums add up.

        Raises
        ------
        ConfigError
            ``tract-background-grid`` when the grids differ.
        """
        mine = (self.x_bin, self.y_bin, self.total.shape)
        if mine != (other.x_bin, other.y_bin, other.total.shape):
            raise ConfigError("tract-background-grid", "The two backgrounds have different grids")
        return self._with(
            self.total + other.total, self.count + other.count, self.squares + other.squares
        )

    def stats_image(self) -> Floats:
        """Return the mean of every superpixel, gaps filled over the whole tract.

        Raises
        ------
        MatchError
            ``gaps-only`` when no superpixel has enough pixels.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self.total / self.count
        bad = self.count < self.min_fraction * self.x_bin * self.y_bin
        if self.smoothing is not None:
            mean = smooth_masked(mean, bad, self.smoothing).astype(np.float32)
            bad = np.isnan(mean)
        if not bad.any():
            return mean
        return fill_gaps(mean, bad, self.style, upstream=True).astype(np.float32)

    def variance_image(self) -> Floats:
        """Return the mean pixel variance of every superpixel, NaN where there is none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.squares / self.count

    def to_warp_background(self, box: Box, inner: int, binning: int = 64) -> GriddedBackground:
        """Return the background as upstream draws it on a warp.

        Parameters
        ----------
        box
            Tract pixels of the warp.
        inner
            Inner size of a patch.
        binning
            Size of a cell of the result [pixels].
        """
        overlap = (box.width - inner) // 2
        # Upstream decides from x alone, for both axes.
        shift = overlap if box.x0 % inner != 0 else 0
        nx, ny = box.width // binning, box.height // binning
        x = (binning * np.arange(nx) + box.x0 + shift) / self.x_bin - 0.5
        y = (binning * np.arange(ny) + box.y0 + shift) / self.y_bin - 0.5
        means = self.stats_image()
        scale = (binning / self.x_bin) * (binning / self.y_bin)
        top = sample_bilinear(means, x, y, scale=scale, upstream=True)
        norm = sample_bilinear(np.ones_like(means), x, y, scale=scale, upstream=True)
        cells = top / norm
        missing = np.isnan(cells)
        if missing.any() and not missing.all():
            cells[missing] = np.float32(np.mean(cells[~missing], dtype=np.float64))
        control = BackgroundControl(
            nx=nx, ny=ny, style=self.style, undersample=UndersampleStyle.REDUCE_INTERP_ORDER
        )
        return background_from_values(box, cells, control=control)
