"""The surface model: a smooth grid of nodes per visit, solved directly for all visits at once.

What is too large for that is solved in steps, see `bgmatch_dask.background.wide`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.layout import NodeWindow, lay_out, superpixel_rows
from bgmatch_dask.background.normal_equations import build_system
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.smoothing_strength import Tuned, tune
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.geometry import SuperpixelGrid

__all__ = ("SurfaceFit", "between", "constant_levels", "fit_surfaces")

Array = NDArray[np.float64]

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
    """Surfaces of details that were added to a draft (0: solved directly)."""


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
    # Constants cost nothing in the prior. Taken out first, they cannot lose digits in a long
    # chain, nor can levels of thousands drown surfaces of a few counts.
    levels = constant_levels(observations, len(coverage))
    constant = between(levels, observations)
    rest = observations.value - constant
    rest[np.abs(rest) < _ROUNDING * np.abs(observations.value).max(initial=0.0)] = 0.0
    observations = replace(observations, value=rest)
    tuned = tune(
        build_system(observations, lay_out(coverage, grid, 1)), observations, anchored, config
    )
    observations, system, theta = tuned.observations, tuned.solver.system, tuned.theta
    windows, starts = system.layout.windows, system.layout.starts
    return SurfaceFit(
        pitch=1,
        windows=windows,
        nodes=tuple(
            levels[v] + theta.nodes[starts[v] : starts[v + 1]].reshape(w.ny, w.nx)
            for v, w in enumerate(windows)
        ),
        variance=tuple(_variance(tuned, v, plane) for v, plane in enumerate(coverage)),
        observations=replace(observations, value=observations.value + constant),
        prediction=constant + system.predict(theta),
        robust=tuned.robust,
        noise=tuned.noise,
        smoothing=tuned.strengths.smoothing,
        slope_prior=float(tuned.strengths.ridge.max(initial=0.0)),
        freedom=tuned.freedom,
        leverage=_leverage(tuned, observations),
        iterations=0,
    )


def constant_levels(observations: Observations, n_visits: int) -> Array:
    """Return the least-squares solution with one constant per unknown visit."""
    pair, n_pairs = observations.pair, len(observations.pairs)
    first = np.minimum(np.searchsorted(pair, np.arange(n_pairs)), max(len(pair) - 1, 0))
    weight = np.bincount(pair, observations.weight, n_pairs)
    ends = tuple(
        np.where(weight > 0, end[first], -1) for end in (observations.visit, observations.hub)
    )
    matrix = np.zeros((n_visits, n_visits))
    for end, other in (ends, ends[::-1]):
        np.add.at(matrix, (end[end >= 0], end[end >= 0]), weight[end >= 0])
        both = (end >= 0) & (other >= 0)
        np.add.at(matrix, (end[both], other[both]), -weight[both])
    levels = np.zeros(n_visits)
    for _ in range(2):
        left = observations.value - between(levels, observations)
        weighted = np.bincount(pair, observations.weight * left, n_pairs)
        right = np.zeros(n_visits)
        for end, sign in zip(ends, (1.0, -1.0), strict=True):
            np.add.at(right, end[end >= 0], sign * weighted[end >= 0])
        levels = levels + np.linalg.solve(matrix, right)
    return levels


def between(levels: Array, observations: Observations) -> Array:
    """Return visit − hub of one value per unknown visit, gauges being zero."""
    known = np.append(levels, 0.0)
    # Index −1, a gauge, is the zero at the end.
    out: Array = known[observations.visit] - known[observations.hub]
    return out


def _variance(tuned: Tuned, visit: int, plane: NDArray[np.bool_]) -> Array:
    """Return the variance of superpixel averages."""
    ys, xs = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    rows = np.arange(ys[0], ys[-1] + 1)
    columns = np.arange(xs[0], xs[-1] + 1)
    sy, sx = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
    operator = superpixel_rows(tuned.solver.system.layout, visit, sy, sx)
    inside = tuned.noise * tuned.inverse.variances(operator).reshape(len(rows), len(columns))
    pads = [
        (int(line[0]), int(n - 1 - line[-1])) for line, n in zip((ys, xs), plane.shape, strict=True)
    ]
    out: Array = np.pad(inside, pads, mode="edge")
    return out


def _leverage(tuned: Tuned, observations: Observations) -> Array:
    used = tuned.inverse.variances(tuned.solver.system.rows)
    out: Array = observations.weight * tuned.robust * used
    return out
