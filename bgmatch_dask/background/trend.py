"""Surfaces about parabolas, which cost nothing and continue where nothing is measured.

A bending energy makes a surface go on straight beyond the data, and takes the steady curvature
of a sky for roughness. Skies go on curved. So a parabola of every visit whose slopes are free is
found first, all of them at once, and the surfaces are fitted to what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.layout import lay_out, taps
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.polynomial import fit_polynomials
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.background.surface import SurfaceFit, fit_surfaces
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.tap_kernels import TapRows, apply

__all__ = ("fit_with_trend",)

Array = NDArray[np.float64]
Plane = NDArray[np.bool_]

_SHARP = 0.1  # Of the median strength.


def fit_with_trend(
    observations: Observations,
    coverage: Sequence[Plane],
    anchored: Plane,
    grid: SuperpixelGrid,
    config: SolveConfig,
) -> SurfaceFit:
    """Fit surfaces about parabolas.

    Parameters, result and errors are those of `bgmatch_dask.background.surface.fit_surfaces`.
    Visits whose slopes are not free get no parabola: through narrow overlaps it could grow
    along a chain. Where the smoothness is given it is the whole prior, without parabolas.
    """
    if not anchored.any() or config.smoothing is not None:
        return fit_surfaces(observations, coverage, anchored, grid, config)
    rows = taps(observations, lay_out(coverage, grid, 1))

    def about(parabolas: SurfaceFit) -> SurfaceFit:
        return _about(observations, parabolas, rows, coverage, anchored, grid, config)

    settings = replace(config, order=2, slope_prior=None)
    fit = about(fit_polynomials(observations, coverage, anchored, grid, settings))
    sharp = fit.smoothing < _SHARP * np.median(fit.smoothing[anchored])
    if not sharp.any() or sharp.all():
        return fit
    # What is sharp bends the parabolas of all: they are found again without it.
    nodes = [n if rough else np.zeros_like(n) for n, rough in zip(fit.nodes, sharp, strict=True)]
    smooth = replace(observations, value=observations.value - _differences(rows, nodes))
    return about(fit_polynomials(smooth, coverage, anchored, grid, settings))


def _about(
    observations: Observations,
    parabolas: SurfaceFit,
    rows: TapRows,
    coverage: Sequence[Plane],
    anchored: Plane,
    grid: SuperpixelGrid,
    config: SolveConfig,
) -> SurfaceFit:
    nodes = tuple(
        part if free else np.zeros_like(part)
        for part, free in zip(parabolas.nodes, anchored, strict=True)
    )
    prediction = _differences(rows, nodes)
    rest = replace(observations, value=observations.value - prediction)
    fit = fit_surfaces(rest, coverage, anchored, grid, config)
    # A surface costs no less than its parabola; what bends more costs more than both.
    scale = fit.noise / parabolas.noise if parabolas.noise > 0.0 else 0.0
    variance = tuple(
        np.maximum(own, scale * parabola) if free else own
        for own, parabola, free in zip(fit.variance, parabolas.variance, anchored, strict=True)
    )
    return replace(
        fit,
        variance=variance,
        freedom=np.where(anchored, np.maximum(fit.freedom, 6.0), fit.freedom),
        nodes=tuple(a + b for a, b in zip(fit.nodes, nodes, strict=True)),
        observations=replace(fit.observations, value=observations.value),
        prediction=fit.prediction + prediction,
    )


def _differences(rows: TapRows, nodes: Sequence[Array]) -> Array:
    return apply(rows, np.concatenate([part.ravel() for part in nodes]))
