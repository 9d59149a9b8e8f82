"""The surface model: a smooth grid of nodes per visit, solved for all visits at once.

A direct solution on nodes that are coarse enough to be affordable chooses strengths and
robust weights and gives the variances. If those nodes are not yet the wanted ones, conjugate
gradients continue on the wanted nodes, with the direct solution as preconditioner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.layout import NodeLayout, NodeWindow, lay_out, superpixel_rows
from bgmatch_dask.background.normal_equations import build_system
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.refinement import Refined, refine
from bgmatch_dask.background.smoothing_strength import Tuned, tune
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.geometry import SuperpixelGrid

__all__ = ("SurfaceFit", "fit_surfaces")

Array = NDArray[np.float64]

_MAX_PITCH = 64
_ROUNDING = 1e-12  # Below this share of the largest difference there is no signal.


@dataclass(frozen=True, slots=True)
class SurfaceFit:
    """Fitted node values of every unknown visit, and how they came about."""

    pitch: int
    """Superpixels per node."""
    windows: tuple[NodeWindow, ...]
    """Where each visit's nodes lie on the node grid."""
    nodes: tuple[Array, ...]
    """Node values of each visit ``[y, x]``."""
    variance: tuple[Array, ...]
    """Variance of the offset at every superpixel of the tract, ``(sy, sx)``."""
    observations: Observations
    """The data with their systematic noise."""
    prediction: Array
    """Modelled differences."""
    robust: Array
    """Robust weight of each observation."""
    noise: float
    """Noise variance of a weight of one."""
    smoothing: Array
    """Smoothness strength of each visit."""
    slope_prior: float
    """Ridge on slopes of visits that are not anchored (0 if there are none)."""
    freedom: Array
    """Effective parameters of each visit."""
    leverage: Array
    """Part of each observation's own degree of freedom that the fit uses up."""
    iterations: int
    """Conjugate-gradient iterations of the last solution (0: direct)."""


def fit_surfaces(
    observations: Observations,
    coverage: Sequence[NDArray[np.bool_]],
    anchored: NDArray[np.bool_],
    grid: SuperpixelGrid,
    config: SolveConfig,
) -> SurfaceFit:
    """Fit the offsets of all unknown visits.

    Parameters
    ----------
    observations
        Differences; every unknown visit has some, and hangs together with a gauge.
    coverage
        Superpixels of each unknown visit, bool ``(sy, sx)``.
    anchored
        Unknown visits whose slopes are free.
    grid
        Superpixels of the tract.
    config
        Model.

    Returns
    -------
    SurfaceFit
        Node values and figures.
    """
    wanted = config.node_pitch if config.node_pitch is not None else 1
    coarse = _affordable(coverage, grid, wanted, config.work_limit)
    # Constants cost nothing in the prior. Taken out first, they cannot lose digits in a long
    # chain, nor can levels of thousands drown surfaces of a few counts.
    levels = _levels(observations, len(coverage))
    constant = _between(levels, observations)
    rest = observations.value - constant
    rest[np.abs(rest) < _ROUNDING * np.abs(observations.value).max(initial=0.0)] = 0.0
    observations = replace(observations, value=rest)
    tuned = tune(build_system(observations, coarse), observations, anchored, config)
    observations = tuned.observations
    if coarse.pitch == wanted:
        fine = Refined(tuned.solver.system, tuned, tuned.theta, tuned.noise, 0)
    else:
        fine = refine(build_system(observations, lay_out(coverage, grid, wanted)), tuned, config)
    system, theta, tuned = fine.system, fine.theta, fine.coarse
    observations = tuned.observations
    windows = system.layout.windows
    starts = system.layout.starts
    return SurfaceFit(
        pitch=wanted,
        windows=windows,
        nodes=tuple(
            levels[v] + theta.nodes[starts[v] : starts[v + 1]].reshape(w.ny, w.nx)
            for v, w in enumerate(windows)
        ),
        variance=tuple(_variance(fine, v, plane) for v, plane in enumerate(coverage)),
        observations=replace(observations, value=observations.value + constant),
        prediction=constant + system.predict(theta),
        robust=tuned.robust,
        noise=fine.noise,
        smoothing=tuned.strengths.smoothing,
        slope_prior=float(tuned.strengths.ridge.max(initial=0.0)),
        freedom=tuned.freedom,
        leverage=_leverage(tuned, observations),
        iterations=fine.iterations,
    )


def _levels(observations: Observations, n_visits: int) -> Array:
    """Return the least-squares solution with one constant per unknown visit."""
    matrix = np.zeros((n_visits, n_visits))
    ends = (observations.visit, observations.hub)
    for end, other in (ends, ends[::-1]):
        np.add.at(matrix, (end[end >= 0], end[end >= 0]), observations.weight[end >= 0])
        both = (end >= 0) & (other >= 0)
        np.add.at(matrix, (end[both], other[both]), -observations.weight[both])
    levels = np.zeros(n_visits)
    for _ in range(2):
        weighted = observations.weight * (observations.value - _between(levels, observations))
        right = np.zeros(n_visits)
        for end, sign in zip(ends, (1.0, -1.0), strict=True):
            np.add.at(right, end[end >= 0], sign * weighted[end >= 0])
        levels = levels + np.linalg.solve(matrix, right)
    return levels


def _between(levels: Array, observations: Observations) -> Array:
    """Return visit − hub of one value per unknown visit, gauges being zero."""
    known = np.append(levels, 0.0)
    # Index −1, a gauge, is the zero at the end.
    out: Array = known[observations.visit] - known[observations.hub]
    return out


def _affordable(
    coverage: Sequence[NDArray[np.bool_]], grid: SuperpixelGrid, wanted: int, limit: float
) -> NodeLayout:
    """Return the finest nodes whose direct solution is affordable, or the cheapest ones."""
    best = lay_out(coverage, grid, wanted)
    pitch = wanted
    while best.work > limit and pitch < _MAX_PITCH:
        pitch += 1 + pitch // 4
        other = lay_out(coverage, grid, pitch)
        # Visits of a few superpixels do not get cheaper: their guard nodes stay.
        best = other if other.work < best.work else best
    return best


def _variance(fine: Refined, visit: int, plane: NDArray[np.bool_]) -> Array:
    """Return the variance of superpixel averages: exact where the direct solution is final.

    Otherwise it is that of the coarser nodes, which the prior makes nearly equivalent.
    """
    tuned = fine.coarse
    ys, xs = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    rows = np.arange(ys[0], ys[-1] + 1)
    columns = np.arange(xs[0], xs[-1] + 1)
    sy, sx = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
    operator = superpixel_rows(tuned.solver.system.layout, visit, sy, sx)
    inside = fine.noise * tuned.inverse.variances(operator).reshape(len(rows), len(columns))
    pads = [
        (int(line[0]), int(n - 1 - line[-1])) for line, n in zip((ys, xs), plane.shape, strict=True)
    ]
    out: Array = np.pad(inside, pads, mode="edge")
    return out


def _leverage(tuned: Tuned, observations: Observations) -> Array:
    used = tuned.inverse.variances(tuned.solver.system.rows)
    out: Array = observations.weight * tuned.robust * used
    return out
