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
from scipy import sparse

from bgmatch_dask.background.layout import GUARD, NodeLayout, NodeWindow, lay_out, superpixel_rows
from bgmatch_dask.background.normal_equations import (
    DirectSolver,
    Strengths,
    SurfaceSystem,
    Theta,
    build_system,
)
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.robust import huber_weights
from bgmatch_dask.background.smoothing_strength import Tuned, tune
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.keys import keys_weights

__all__ = ("SurfaceFit", "fit_surfaces")

Array = NDArray[np.float64]

_TOLERANCE = 1e-11
_MAX_ITERATIONS = 400
_FINE_ROBUST = 2
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
        system, theta, robust, iterations = tuned.solver.system, tuned.theta, tuned.robust, 0
    else:
        system = build_system(observations, lay_out(coverage, grid, wanted))
        theta, robust, iterations = _refine(system, tuned, observations, config)
    windows = system.layout.windows
    starts = system.layout.starts
    return SurfaceFit(
        pitch=wanted,
        windows=windows,
        nodes=tuple(
            levels[v] + theta.nodes[starts[v] : starts[v + 1]].reshape(w.ny, w.nx)
            for v, w in enumerate(windows)
        ),
        variance=tuple(_variance(tuned, v, plane) for v, plane in enumerate(coverage)),
        observations=replace(observations, value=observations.value + constant),
        prediction=constant + system.predict(theta),
        robust=robust,
        noise=tuned.noise,
        smoothing=tuned.strengths.smoothing,
        slope_prior=float(tuned.strengths.ridge.max(initial=0.0)),
        freedom=tuned.freedom,
        leverage=_leverage(tuned, observations),
        iterations=iterations,
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


def _variance(tuned: Tuned, visit: int, plane: NDArray[np.bool_]) -> Array:
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


def _refine(
    system: SurfaceSystem, tuned: Tuned, observations: Observations, config: SolveConfig
) -> tuple[Theta, Array, int]:
    transfer = _transfer(tuned.solver.system.layout, system.layout)
    theta = Theta(transfer @ tuned.theta.nodes, tuned.theta.slopes)
    robust, iterations = tuned.robust, 0
    between = system.node_penalty(tuned.strengths)
    for step in range(_FINE_ROBUST + 1):
        if step:
            residual = observations.value - system.predict(theta)
            robust = huber_weights(residual, np.sqrt(observations.variance), config.huber)
        weights = observations.weight * robust
        equations = _Equations(system, weights, tuned.strengths, between)
        right = system.right_side(weights * observations.value)
        theta, iterations = _conjugate_gradients(equations, tuned.solver, transfer, right, theta)
    return theta, robust, iterations


@dataclass(frozen=True, slots=True)
class _Equations:
    system: SurfaceSystem
    weights: Array
    strengths: Strengths
    between: sparse.csr_matrix

    def residual(self, right: Theta, theta: Theta) -> Theta:
        product = self.multiply(theta)
        return Theta(right.nodes - product.nodes, right.slopes - product.slopes)

    def multiply(self, theta: Theta) -> Theta:
        return self.system.multiply(theta, self.weights, self.strengths, self.between)


def _conjugate_gradients(
    equations: _Equations,
    solver: DirectSolver,
    transfer: sparse.csr_matrix,
    right: Theta,
    start: Theta,
) -> tuple[Theta, int]:
    """Solve by conjugate gradients; coarse solution plus diagonal as preconditioner."""
    diagonal = equations.system.diagonal(equations.weights, equations.strengths)
    back = transfer.T.tocsr()

    def precondition(r: Theta) -> Theta:
        coarse = solver.solve(Theta(back @ r.nodes, r.slopes))
        return Theta(transfer @ coarse.nodes + r.nodes / diagonal, coarse.slopes)

    theta, residual = start, equations.residual(right, start)
    goal = _TOLERANCE**2 * _dot(right, right)
    direction, previous = residual, 0.0
    for count in range(_MAX_ITERATIONS):
        if _dot(residual, residual) <= goal:
            return theta, count
        z = precondition(residual)
        now = _dot(residual, z)
        direction = _add(z, direction, now / previous) if count else z
        product = equations.multiply(direction)
        step = now / _dot(direction, product)
        theta = _add(theta, direction, step)
        residual = _add(residual, product, -step)
        previous = now
    return theta, _MAX_ITERATIONS


def _dot(a: Theta, b: Theta) -> float:
    return float(a.nodes @ b.nodes + (a.slopes * b.slopes).sum())


def _add(a: Theta, b: Theta, factor: float) -> Theta:
    return Theta(a.nodes + factor * b.nodes, a.slopes + factor * b.slopes)


def _transfer(coarse: NodeLayout, fine: NodeLayout) -> sparse.csr_matrix:
    """Return the matrix that renders coarse node values at the fine nodes."""
    ratio = fine.pitch / coarse.pitch
    parts = []
    for small, large in zip(coarse.windows, fine.windows, strict=True):
        y = _axis_transfer(large.y0, large.ny, small.y0, small.ny, ratio)
        x = _axis_transfer(large.x0, large.nx, small.x0, small.nx, ratio)
        parts.append(sparse.kron(y, x))
    return sparse.csr_matrix(sparse.block_diag(parts))


def _axis_transfer(
    fine_first: int, n_fine: int, coarse_first: int, n_coarse: int, ratio: float
) -> sparse.csr_matrix:
    steps = np.arange(n_fine, dtype=np.float64) + (fine_first - GUARD)
    t: Array = steps * ratio + (GUARD - coarse_first)
    base, weights = keys_weights(t, n_coarse)
    matrix = np.zeros((n_fine, n_coarse))
    np.put_along_axis(matrix, base[:, np.newaxis] + np.arange(4), weights, axis=1)
    return sparse.csr_matrix(matrix)
