"""The joint solution of all visits on one grid of nodes, its variances and its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.grid_covariance import GridLines, covariance_on_grid
from bgmatch_dask.background.layout import (
    GUARD,
    NodeLayout,
    lay_out,
    node_shape,
    on_tract,
)
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.samples import gather
from bgmatch_dask.background.sharp_light import SharpLight, find_sharp_light
from bgmatch_dask.background.sky_system import SkySystem, Strengths, build_system, each
from bgmatch_dask.background.smoothing_strength import Tuned, draft, tune
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.tap_kernels import apply

__all__ = ("Joint", "Members", "draft_strengths", "fit_joint", "gauge_of")

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Plane = NDArray[np.bool_]

_FEW_MODES = 120
"""Modes that first strengths are chosen with."""
_WHOLE = 0.5  # Share of the whole extent from which a gauge can have a surface of its own.


@dataclass(frozen=True, slots=True)
class Members:
    """The visits of a solution: the unknown ones first, then the gauges."""

    planes: tuple[Plane, ...]
    """Superpixels of each visit, bool ``(sy, sx)``."""
    anchored: Plane
    """Visits whose slopes are free."""
    gauge_of: Index
    """The gauge that each visit hangs together with."""
    n_unknown: int
    """Number of unknown visits."""

    @property
    def is_gauge(self) -> Plane:
        """Visits whose offset is zero."""
        out: Plane = np.arange(len(self.planes)) >= self.n_unknown
        return out

    @property
    def rigid(self) -> Plane:
        """Gauges that see too little of the tract to tell their surface from that of all."""
        whole = np.logical_or.reduce(self.planes).sum()
        small = np.array([plane.sum() < _WHOLE * whole for plane in self.planes], bool)
        out: Plane = self.is_gauge & small
        return out


@dataclass(frozen=True, slots=True)
class Joint:
    """A joint solution."""

    members: Members
    """Who was solved for."""
    tuned: Tuned
    """Strengths, weights and node values, each gauge with a surface of its own."""
    sharp: tuple[SharpLight | None, ...] = ()
    """What is added to each surface; empty: nothing."""

    @property
    def layout(self) -> NodeLayout:
        """Where the nodes lie."""
        return self.tuned.solver.system.layout

    def surface(self, visit: int) -> Array:
        """Return a visit's own nodes ``[y, x]``, with its gauge's surface still in them."""
        smooth = self.tuned.solver.system.surface(self.tuned.theta, visit)
        sharp = self.sharp[visit] if self.sharp else None
        return smooth if sharp is None else smooth + sharp.nodes

    def sharpened(self) -> Joint:
        """Return the solution with light that is sharper than its surfaces."""
        return self if self.layout.pitch != 1 else replace(self, sharp=find_sharp_light(self.tuned))

    def prediction(self) -> Array:
        """Return the modelled differences."""
        surfaces = [self.surface(v).ravel() for v in range(len(self.members.planes))]
        out: Array = apply(self.tuned.data.taps, np.concatenate(surfaces))
        return out

    def nodes(self) -> tuple[Array, ...]:
        """Return the nodes of all unknown visits, relative to their gauges."""
        layout, members = self.layout, self.members
        shape = node_shape(layout.grid, layout.pitch)
        gauges = range(members.n_unknown, len(members.planes))
        zero = {g: on_tract(self.surface(g), layout.windows[g], shape) for g in gauges}
        return tuple(
            self.surface(v) - zero[int(members.gauge_of[v])][layout.windows[v].slices]
            for v in range(members.n_unknown)
        )

    def freedom(self) -> Array:
        """Return the effective parameters of every visit."""
        sharp = [0 if light is None else light.n_superpixels for light in self.sharp]
        return self.tuned.freedom + (np.array(sharp) if sharp else 0)

    def variances(self) -> tuple[Array, ...]:
        """Return the variance of every unknown offset on the superpixels ``(sy, sx)``."""
        system, n = self.tuned.solver.system, self.members.n_unknown
        return tuple(system.each(self._variance, n))

    def _gauge_on_grid(self, gauge: int, rows: Index, columns: Index) -> GridLines:
        """Return the modes of a gauge on some superpixels; it is constant beyond its nodes."""
        w, pitch = self.layout.windows[gauge], self.layout.pitch
        y = np.clip(rows, (w.y0 + 1 - GUARD) * pitch, (w.y0 + w.ny - 2 - GUARD) * pitch)
        x = np.clip(columns, (w.x0 + 1 - GUARD) * pitch, (w.x0 + w.nx - 2 - GUARD) * pitch)
        return self.tuned.solver.system.on_grid(gauge, y, x)

    def _variance(self, visit: int) -> Array:
        plane = self.members.planes[visit]
        ys, xs = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        rows, columns = np.arange(ys[0], ys[-1] + 1), np.arange(xs[0], xs[-1] + 1)
        solver, gauge = self.tuned.solver, int(self.members.gauge_of[visit])
        own = solver.system.on_grid(visit, rows, columns)
        total = covariance_on_grid(own, own, solver.covariance(visit, visit))
        if not solver.system.rigid[gauge]:
            zero = self._gauge_on_grid(gauge, rows, columns)
            total += covariance_on_grid(zero, zero, solver.covariance(gauge, gauge))
            total -= 2.0 * covariance_on_grid(own, zero, solver.covariance(visit, gauge))
        sy, sx = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
        total = total.ravel()
        total = np.maximum(total, 0.0) + self._sharp_variance(visit, sy, sx)
        total = self.tuned.noise * (total + self._sharp_variance(gauge, sy, sx))
        pads = [
            (int(line[0]), int(n - 1 - line[-1]))
            for line, n in zip((ys, xs), plane.shape, strict=True)
        ]
        out: Array = np.pad(total.reshape(len(rows), len(columns)), pads, mode="edge")
        return out

    def _sharp_variance(self, visit: int, sy: Index, sx: Index) -> Array:
        sharp = self.sharp[visit] if self.sharp else None
        if sharp is None:
            return np.zeros(len(sy))
        window, own = self.layout.windows[visit], sharp.variance
        y, x = sy - window.y0, sx - window.x0
        inside = (y >= 0) & (y < own.shape[0]) & (x >= 0) & (x < own.shape[1])
        out: Array = np.where(inside, own[y * inside, x * inside], 0.0)
        return out

    def leverage(self) -> Array:
        """Return the variance of every modelled difference, in units of the noise."""
        solver, system = self.tuned.solver, self.tuned.solver.system
        samples, starts = system.samples, system.samples.starts
        spreads = system.each(lambda v: solver.spread(v, system.rows[v]))
        ends = np.stack([samples.at_visit, samples.at_hub])
        first = np.flatnonzero(np.diff(self.tuned.data.observations.pair, prepend=-1))
        bounds = [*first, ends.shape[1]]

        def of_pair(number: int) -> Array:
            own = ends[:, bounds[number] : bounds[number + 1]]
            visits = samples.visit[own[:, 0]]
            at_one, at_other = (at - starts[v] for v, at in zip(visits, own, strict=True))
            one, other = (spreads[v] for v in visits)
            both = solver.between(one, at_one, other, at_other)
            out: Array = one.variance[at_one] + other.variance[at_other] - 2.0 * both
            return out

        found = each(of_pair, len(first), system.threads)
        out: Array = np.maximum(np.concatenate([*found, np.empty(0)]), 0.0)
        return out


def fit_joint(
    observations: Observations,
    members: Members,
    grid: SuperpixelGrid,
    config: SolveConfig,
    *,
    pitch: int = 1,
    start: Strengths | None = None,
    keep: bool = False,
    threads: int = 1,
) -> Joint:
    """Solve for all visits at once.

    Parameters
    ----------
    observations
        Differences, whose ends are numbers of members.
    members
        The visits.
    grid
        Superpixels of the observations.
    config
        Model.
    pitch
        Superpixels per node.
    start
        Strengths to begin with.
    keep
        Whether to end with them too.
    threads
        Visits that are worked on at a time; no result depends on it.

    Returns
    -------
    Joint
        The solution.
    """
    system = _system(observations, members, grid, pitch, threads)
    return Joint(members, tune(system, observations, members.anchored, config, start, keep=keep))


def draft_strengths(
    observations: Observations,
    members: Members,
    grid: SuperpixelGrid,
    config: SolveConfig,
    *,
    threads: int = 1,
) -> Strengths:
    """Choose strengths as `fit_joint` does, without the solution that belongs to them."""
    system = _system(observations, members, grid, 1, threads)
    return draft(system, observations, members.anchored, config, most_modes=_FEW_MODES).strengths


def _system(
    observations: Observations, members: Members, grid: SuperpixelGrid, pitch: int, threads: int
) -> SkySystem:
    samples = gather(observations, len(members.planes), grid)
    layout = lay_out(members.planes, grid, pitch)
    return build_system(samples, layout, members.is_gauge, members.rigid, threads)


def gauge_of(observations: Observations, n_unknown: int, n_gauges: int) -> Index:
    """Return the gauge that each visit hangs together with."""
    out = np.full(n_unknown + n_gauges, -1)
    out[n_unknown:] = np.arange(n_unknown, n_unknown + n_gauges)
    # Observations come by pair, so that the first one of each tells its ends.
    first = np.flatnonzero(np.diff(observations.pair, prepend=-1))
    ends = np.stack([observations.hub[first], observations.visit[first]])
    while (out < 0).any():
        for a, b in (ends, ends[::-1]):
            reached = (out[a] >= 0) & (out[b] < 0)
            out[b[reached]] = out[a[reached]]
    return out
