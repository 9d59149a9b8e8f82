"""The mean curvature of surfaces, which continues them where nothing is measured.

A bending energy makes a surface go on straight beyond the data. Skies go on curved. Where the
reference does not cover, what all visits have in common is only continued; the mean curvature
that a visit shows where it is known is then the better guess, as long as it is the same all over
the visit: a bump leaves no trend.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.layout import GUARD, NodeWindow, lay_out, taps
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.surface import SurfaceFit
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.tap_kernels import apply

__all__ = ("curvature_trend",)

Array = NDArray[np.float64]
Plane = NDArray[np.bool_]

_ENOUGH = 20
_WELL_KNOWN = 4.0
_PARTS = 3
_SHRINK = 2.0


def curvature_trend(
    fit: SurfaceFit,
    observations: Observations,
    coverage: Sequence[Plane],
    anchored: Plane,
    grid: SuperpixelGrid,
) -> tuple[tuple[Array, ...], Array]:
    """Return one parabola per visit with the mean curvature of its surface.

    Parameters
    ----------
    fit
        A first fit of all surfaces.
    observations
        What it was fitted to.
    coverage
        Superpixels of each unknown visit, bool ``(sy, sx)``.
    anchored
        Visits that get a parabola; the others get zero.
    grid
        Superpixels of the tract.

    Returns
    -------
    nodes
        Values on each visit's nodes, image unit.
    prediction
        Their differences at the observations.
    """
    layout = lay_out(coverage, grid, fit.pitch)
    nodes = tuple(
        _parabola(window, fit.pitch, _mean_curvature(fit, observations, v))
        if anchored[v]
        else np.zeros((window.ny, window.nx))
        for v, window in enumerate(fit.windows)
    )
    stacked = np.concatenate([values.ravel() for values in nodes])
    return nodes, apply(taps(observations, layout), stacked)


def _places(window: NodeWindow, pitch: int) -> tuple[Array, Array]:
    """Return rows and columns of the nodes in superpixels from the first centre."""
    rows = np.arange(window.y0, window.y0 + window.ny, dtype=np.float64) - GUARD
    columns = np.arange(window.x0, window.x0 + window.nx, dtype=np.float64) - GUARD
    return rows * pitch, columns * pitch


def _parabola(window: NodeWindow, pitch: int, curvature: tuple[float, float, float]) -> Array:
    rows, columns = _places(window, pitch)
    y, x = np.meshgrid(rows - rows.mean(), columns - columns.mean(), indexing="ij")
    yy, xy, xx = curvature
    out: Array = 0.5 * yy * y**2 + xy * x * y + 0.5 * xx * x**2
    return out


def _mean_curvature(
    fit: SurfaceFit, observations: Observations, visit: int
) -> tuple[float, float, float]:
    """Return the mean second derivatives (yy, xy, xx) per squared superpixel where known."""
    known = _known(fit, observations, visit)
    values, unit = fit.nodes[visit], float(fit.pitch) ** 2
    yy = values[2:] - 2.0 * values[1:-1] + values[:-2]
    xx = values[:, 2:] - 2.0 * values[:, 1:-1] + values[:, :-2]
    xy = values[1:, 1:] - values[1:, :-1] - values[:-1, 1:] + values[:-1, :-1]
    return (
        _steady_mean(yy, known[2:] & known[1:-1] & known[:-2]) / unit,
        _steady_mean(xy, known[1:, 1:] & known[1:, :-1] & known[:-1, 1:] & known[:-1, :-1]) / unit,
        _steady_mean(xx, known[:, 2:] & known[:, 1:-1] & known[:, :-2]) / unit,
    )


def _steady_mean(values: Array, used: Plane) -> float:
    """Return the mean of what is the same everywhere: zero where it changes from part to part.

    The area is cut into 3 × 3 parts. Their scatter is the error of the mean of the parts, and the
    mean is shrunk by it (James and Stein's rule for one component): the parabola of a sky passes,
    the ups and downs of a bump do not.
    """
    ys, xs = np.nonzero(used)
    if ys.size < _ENOUGH:
        return 0.0
    row = (ys - ys[0]) * _PARTS // (ys[-1] - ys[0] + 1)
    column = (xs - xs.min()) * _PARTS // (xs.max() - xs.min() + 1)
    part = row * _PARTS + column
    count = np.bincount(part, minlength=_PARTS**2)
    filled = count >= _ENOUGH / _PARTS**2
    total = np.bincount(part, values[ys, xs], _PARTS**2)
    means = total[filled] / count[filled]
    if means.size < _PARTS**2 // 2:
        return 0.0
    mean = float(means.mean())
    error = float(means.std(ddof=1)) / np.sqrt(means.size)
    return mean * max(0.0, 1.0 - (_SHRINK * error / mean) ** 2) if mean else 0.0


def _known(fit: SurfaceFit, observations: Observations, visit: int) -> Plane:
    """Return the nodes on superpixels that are measured and whose offset is well known."""
    variance = fit.variance[visit]
    measured = np.zeros(variance.shape, bool)
    own = (observations.visit == visit) | (observations.hub == visit)
    measured[observations.sy[own], observations.sx[own]] = True
    measured &= variance <= _WELL_KNOWN * np.median(variance[measured])
    y, x = (line.astype(np.int64) for line in _places(fit.windows[visit], fit.pitch))
    ny, nx = variance.shape
    inside = ((y >= 0) & (y < ny))[:, np.newaxis] & (x >= 0) & (x < nx)
    nearest = measured[np.clip(y, 0, ny - 1)][:, np.clip(x, 0, nx - 1)]
    out: Plane = inside & nearest
    return out
