"""The surface model: a smooth grid of nodes per visit, solved for all visits at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.coarse import coarse_grid, coarse_plane, coarsen
from bgmatch_dask.background.joint import Joint, Members, draft_strengths, fit_joint, gauge_of
from bgmatch_dask.background.layout import NodeWindow
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.sky_system import THREADS, Strengths
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.background.wide import Wide, cell_factor, fit_wide
from bgmatch_dask.geometry import SuperpixelGrid

__all__ = ("SurfaceFit", "fit_surfaces")

Array = NDArray[np.float64]
Plane = NDArray[np.bool_]

_MOST = 0.9
_MANY, _LARGE = 200, 2500
"""Superpixels of a tract from which on first strengths are chosen on cells of 2², and of 3²."""
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
    strengths: Strengths | None
    """Strengths of all visits, gauges last; None for polynomials."""
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
    coverage: Sequence[Plane],
    anchored: Plane,
    grid: SuperpixelGrid,
    config: SolveConfig,
    gauges: Sequence[tuple[Visit, Plane]] = (),
    strengths: Strengths | None = None,
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
    gauges
        Visits whose offset is zero, and their superpixels.
    strengths
        Strengths of all visits, gauges last, that are kept; None: chosen from the data.

    Returns
    -------
    SurfaceFit
        Node values and figures.
    """
    # Constants cost nothing in the prior. Taken out first, they cannot lose digits in a long
    # chain, nor can levels of thousands drown surfaces of a few counts.
    n = len(coverage)
    levels = _levels(observations, n)
    constant = _between(levels, observations)
    rest = observations.value - constant
    rest[np.abs(rest) < _ROUNDING * np.abs(observations.value).max(initial=0.0)] = 0.0
    data = _numbered(replace(observations, value=rest), n, [label for label, _ in gauges])
    members = Members(
        (*coverage, *(plane for _, plane in gauges)),
        np.append(anchored, np.ones(len(gauges), bool)),
        gauge_of(data, n, len(gauges)),
        n,
    )
    pitch = config.node_pitch if config.node_pitch is not None else 1
    factor = cell_factor(members, grid, config) if pitch == 1 else 1
    if factor > 1:
        wide = fit_wide(data, members, grid, config, factor, strengths)
        return _wide_result(wide, observations, levels, constant)
    joint = fit_joint(
        data,
        members,
        grid,
        config,
        pitch=pitch,
        start=_from_cells(data, members, grid, config) if strengths is None else strengths,
        keep=strengths is not None,
        threads=THREADS,
    )
    return _result(joint.sharpened(), observations, levels, constant)


def _from_cells(
    data: Observations, members: Members, grid: SuperpixelGrid, config: SolveConfig
) -> Strengths | None:
    """Return strengths to begin with, chosen on cells; none where that saves nothing."""
    seen = int(np.logical_or.reduce(members.planes).sum())
    if config.smoothing is not None or config.node_pitch not in {None, 1} or seen < _MANY:
        return None
    size = 2 if seen < _LARGE else 3
    found = draft_strengths(
        coarsen(data, grid, size),
        replace(members, planes=tuple(coarse_plane(p, size) for p in members.planes)),
        coarse_grid(grid, size),
        config,
        threads=THREADS,
    )
    return replace(found, smoothing=found.smoothing * size**4)


def _result(joint: Joint, observations: Observations, levels: Array, constant: Array) -> SurfaceFit:
    tuned, n = joint.tuned, joint.members.n_unknown
    samples, trust = tuned.solver.system.samples, tuned.data.trust
    robust = np.minimum(trust[samples.at_hub], trust[samples.at_visit])
    robust = np.minimum(robust, tuned.data.pair_trust)
    weighed = _weighed(observations, tuned.data.systematic)
    strengths = tuned.strengths
    return SurfaceFit(
        pitch=joint.layout.pitch,
        windows=joint.layout.windows[:n],
        nodes=tuple(level + own for level, own in zip(levels, joint.nodes(), strict=True)),
        variance=joint.variances(),
        observations=weighed,
        prediction=constant + joint.prediction(),
        robust=robust,
        noise=tuned.noise * weighed.unit / observations.unit,
        smoothing=strengths.smoothing[:n],
        strengths=strengths,
        slope_prior=float(strengths.ridge[:n, 0].max(initial=0.0)),
        freedom=joint.freedom()[:n],
        leverage=weighed.weight * robust * joint.leverage() * observations.unit / weighed.unit,
        iterations=0,
    )


def _wide_result(
    wide: Wide, observations: Observations, levels: Array, constant: Array
) -> SurfaceFit:
    n = len(wide.nodes)
    weighed = _weighed(observations, wide.systematic)
    noise = wide.noise * weighed.unit / observations.unit
    # About what the fit uses up, if both ends of a difference erred independently.
    planes = np.stack([*wide.variance, np.zeros_like(wide.variance[0])])
    # Index −1, a gauge, is the zero at the end.
    used = planes[weighed.hub, weighed.sy, weighed.sx]
    used += planes[weighed.visit, weighed.sy, weighed.sx]
    used *= weighed.weight * wide.trust / (noise if noise > 0.0 else 1.0)
    return SurfaceFit(
        pitch=1,
        windows=wide.layout.windows[:n],
        nodes=tuple(level + own for level, own in zip(levels, wide.nodes, strict=True)),
        variance=wide.variance,
        observations=weighed,
        prediction=constant + wide.prediction,
        robust=wide.trust,
        noise=noise,
        smoothing=wide.strengths.smoothing[:n],
        strengths=wide.strengths,
        slope_prior=wide.slope_prior,
        freedom=wide.freedom[:n],
        leverage=np.minimum(used, _MOST * weighed.share),
        iterations=wide.n_details,
    )


def _weighed(observations: Observations, systematic: float) -> Observations:
    """Return the observations with the systematic variance of both ends."""
    variance = observations.photon + 2.0 * systematic
    unit = float(np.median(variance)) if len(variance) else observations.unit
    weight = observations.share * unit / variance
    return replace(observations, variance=variance, weight=weight, unit=unit)


def _numbered(observations: Observations, n: int, labels: Sequence[Visit]) -> Observations:
    """Give the gauges numbers after the unknown visits."""
    place = {label: n + i for i, label in enumerate(labels)}
    hubs, visits = (
        np.array([place.get(pair[end], -1) for pair in observations.pairs], np.int64)
        for end in (0, 1)
    )
    data = observations
    return replace(
        data,
        hub=np.where(data.hub < 0, hubs[data.pair], data.hub),
        visit=np.where(data.visit < 0, visits[data.pair], data.visit),
    )


def _levels(observations: Observations, n_visits: int) -> Array:
    """Return the least-squares solution with one constant per unknown visit."""
    data = observations
    first = np.flatnonzero(np.diff(data.pair, prepend=-1))
    ends = (data.visit[first], data.hub[first])
    weight = np.add.reduceat(data.weight, first) if len(first) else np.empty(0)
    matrix = np.zeros((n_visits, n_visits))
    for end, other in (ends, ends[::-1]):
        np.add.at(matrix, (end[end >= 0], end[end >= 0]), weight[end >= 0])
        both = (end >= 0) & (other >= 0)
        np.add.at(matrix, (end[both], other[both]), -weight[both])
    levels = np.zeros(n_visits)
    for _ in range(2):
        left = data.weight * (data.value - _between(levels, data))
        weighted = np.add.reduceat(left, first) if len(first) else np.empty(0)
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
