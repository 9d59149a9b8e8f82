"""The background of one visit over a whole tract, on its superpixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve

from bgmatch_dask.background.superpixels import (
    SuperpixelSums,
    empty_sums,
    measure_visit,
    measured,
    merge,
)
from bgmatch_dask.geometry import Box, SuperpixelGrid
from bgmatch_dask.numerics.gapfill import fill_gaps
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import UndersampleStyle, render_nodes
from bgmatch_dask.numerics.smoothing import smooth_masked

__all__ = ("TractBackground", "TractBackgroundConfig")

_FLAT = 1e-3
"""Determinant of the scatter of positions, in superpixels, below which they lie in a line."""


@dataclass(frozen=True, slots=True)
class TractBackgroundConfig:
    """How a tract background is measured and drawn (upstream: TractBackgroundConfig)."""

    bad_bits: int = 0
    """Mask bits whose pixels are left out (``mask``)."""
    n_sigma: float = 3.0
    """Clipping threshold in sigma."""
    n_iter: int = 3
    """Iterations of the clipping."""
    min_fraction: float = 0.1
    """Smallest share of good pixels of a superpixel (``minFrac``)."""
    smoothing: float | None = None
    """Standard deviation of a Gaussian in superpixels, or none (``doSmooth``, ``smoothScale``)."""
    style: InterpStyle = InterpStyle.AKIMA_SPLINE
    """Interpolation, for gaps and between superpixels (``interpolation``)."""


@dataclass(frozen=True, slots=True, eq=False)
class TractBackground:
    """Count, mean and variance of every superpixel of a tract.

    Backgrounds of disjoint pixels merge with ``+``. Nothing here changes in place.
    """

    grid: SuperpixelGrid
    """Superpixels of the tract; bins need not divide patches, nor the tract begin at (0, 0)."""
    sums: SuperpixelSums
    """Sums of shape ``grid.shape``."""
    config: TractBackgroundConfig = TractBackgroundConfig()
    """How it is measured and drawn."""

    @classmethod
    def empty(
        cls, grid: SuperpixelGrid, config: TractBackgroundConfig | None = None
    ) -> TractBackground:
        """Return the background of no pixel."""
        return cls(grid, empty_sums(grid.shape), config or TractBackgroundConfig())

    def add(
        self, image: NDArray[np.float32], mask: NDArray[np.integer] | None, box: Box
    ) -> TractBackground:
        """Return this background with the pixels of one more box.

        Parameters
        ----------
        image, mask
            float32 and bit field ``[y, x]`` of the pixels of ``box``.
        box
            Tract pixels that were not added before: the inner box of a patch.
        """
        settings = self.config
        part = measure_visit(
            image,
            mask,
            box,
            self.grid,
            settings.bad_bits,
            n_sigma=settings.n_sigma,
            n_iter=settings.n_iter,
        )
        whole = self.grid.window(self.grid.box)
        sums = merge([(whole, self.sums), (self.grid.window(box), part)], self.grid)
        return TractBackground(self.grid, sums, settings)

    def __add__(self, other: TractBackground) -> TractBackground:
        """Merge two backgrounds of the same grid."""
        if self.grid != other.grid:
            return NotImplemented
        return self.merged([self, other])

    @staticmethod
    def merged(parts: Iterable[TractBackground]) -> TractBackground:
        """Merge one or more backgrounds of the same grid, in one fixed order."""
        some = list(parts)
        grid = some[0].grid
        whole = grid.window(grid.box)
        return TractBackground(
            grid, merge([(whole, part.sums) for part in some], grid), some[0].config
        )

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Superpixels with enough good pixels, shape ``grid.shape``."""
        return measured(self.sums, self.grid, self.config.min_fraction)

    def values(self) -> NDArray[np.float64]:
        """Return the value at the centre of every superpixel, smoothed if asked, gaps filled.

        Where the good pixels of a superpixel lie to one side, at gaps and at the end of a tract,
        their mean is moved to the centre along the slope of the superpixels around.

        Raises
        ------
        MatchError
            ``gaps-only`` when nothing is measured.
        """
        bad = ~self.measured
        mean = np.where(bad, np.nan, _at_centres(self.sums, self.grid, ~bad))
        if self.config.smoothing is not None:
            mean = smooth_masked(mean, bad, self.config.smoothing)
            bad = np.isnan(mean)
        return fill_gaps(mean, bad, self.config.style) if bad.any() else mean

    def render(self, box: Box) -> NDArray[np.float32]:
        """Draw the background on a box of tract pixels.

        A pixel's value depends on its place in the tract alone: overlapping boxes agree.
        """
        drawn = render_nodes(
            self.grid.x_centres,
            self.grid.y_centres,
            self.values(),
            box,
            self.config.style,
            UndersampleStyle.REDUCE_INTERP_ORDER,
        )
        return drawn.image


def _at_centres(
    sums: SuperpixelSums, grid: SuperpixelGrid, used: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Move each mean from its pixels' centroid to the centre, along a plane through 3 × 3 means."""
    row, column = np.indices(grid.shape, np.float64)
    dx, dy = sums.x_mean / grid.bin_x, sums.y_mean / grid.bin_y

    def around(values: NDArray[np.float64]) -> NDArray[np.float64]:
        out: NDArray[np.float64] = convolve(
            np.where(used, values, 0.0), np.ones((3, 3)), mode="constant"
        )
        return out

    x, y = column + dx, row + dy
    level = float(np.median(sums.mean[used])) if used.any() else 0.0
    m = sums.mean - level
    n = np.maximum(around(np.ones(grid.shape)), 1.0)
    xm, ym, mm = around(x) / n, around(y) / n, around(m) / n
    xx, yy = around(x * x) / n - xm**2, around(y * y) / n - ym**2
    xy = around(x * y) / n - xm * ym
    xv, yv = around(x * m) / n - xm * mm, around(y * m) / n - ym * mm
    det = xx * yy - xy**2
    # Means in one line, or a single one, show no plane.
    shown = det > _FLAT
    det = np.where(shown, det, 1.0)
    slope_x = np.where(shown, (xv * yy - yv * xy) / det, 0.0)
    slope_y = np.where(shown, (yv * xx - xv * xy) / det, 0.0)
    return level + m - slope_x * dx - slope_y * dy
