"""Tracts whose superpixels are too many for one joint solution.

Two steps, each of which leaves to the next what it cannot represent: the joint solution on
coarser *cells*, from averages of the differences; and *details* on the superpixels, visit by
visit, where cross-validation asks for them. Then both once more, each without what belongs to the
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.coarse import (
    coarse_grid,
    coarse_plane,
    coarsen,
    refine_nodes,
    refine_plane,
)
from bgmatch_dask.background.detail import Detail, fit_detail
from bgmatch_dask.background.joint import Joint, Members, fit_joint
from bgmatch_dask.background.layout import GUARD, NodeLayout, lay_out, node_shape, on_tract
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.robust import redescending_weights, robust_scale
from bgmatch_dask.background.samples import gather
from bgmatch_dask.background.sky_solvers import work_of
from bgmatch_dask.background.sky_system import THREADS, Strengths, each
from bgmatch_dask.background.smoothing_strength import MOST_MODES
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.surface_samples import N_PLANES, box_differences, sample_planes

__all__ = ("Wide", "cell_factor", "fit_wide")

Array = NDArray[np.float64]

_ROUNDS = 3
_LARGEST_FACTOR = 64
_CLOSE = 1e-6


@dataclass(frozen=True, slots=True)
class Wide:
    """Surfaces of a wide tract, on one node per superpixel."""

    layout: NodeLayout
    """Where the nodes lie."""
    nodes: tuple[Array, ...]
    """Node values of every unknown visit, relative to its gauge."""
    variance: tuple[Array, ...]
    """Variance of every unknown offset, ``(sy, sx)``."""
    prediction: Array
    """Modelled differences."""
    trust: Array
    """Robust weight of each observation."""
    systematic: float
    """Variance of every sample beyond photon noise."""
    noise: float
    """Noise variance of a weight of one."""
    strengths: Strengths
    """Strengths of all members, per superpixel."""
    slope_prior: float
    """Ridge on the slopes of visits that are not anchored."""
    freedom: Array
    """Effective parameters."""
    n_details: int
    """Visits with details of their own."""


def work(
    planes: Sequence[NDArray[np.bool_]], grid: SuperpixelGrid, factor: int, most: int = MOST_MODES
) -> float:
    """Return about how many operations a joint solution on cells takes, with so many modes."""
    cells = [coarse_plane(plane, factor) for plane in planes]
    sites = float(np.logical_or.reduce(cells).sum())
    nodes = np.array([w.size for w in lay_out(cells, coarse_grid(grid, factor), 1).windows])
    own = np.array([plane.sum() for plane in cells], np.float64)
    return min(work_of(np.minimum(nodes, most).astype(np.float64), own, sites))


def cell_factor(members: Members, grid: SuperpixelGrid, config: SolveConfig) -> int:
    """Return the size of the finest cells [superpixels] whose joint solution is affordable."""
    best, least = 1, np.inf
    # What is given may be weak, and then needs all modes.
    most = MOST_MODES if config.smoothing is None else grid.shape[0] * grid.shape[1]
    factor = 1
    while factor <= _LARGEST_FACTOR:
        now = work(members.planes, grid, factor, most)
        # Visits of a few superpixels do not get cheaper: their guard nodes stay.
        if now < least:
            best, least = factor, now
        if now <= config.work_limit:
            break
        factor += 1 + factor // 4
    return best


def fit_wide(
    observations: Observations,
    members: Members,
    grid: SuperpixelGrid,
    config: SolveConfig,
    factor: int,
    strengths: Strengths | None = None,
) -> Wide:
    """Solve for all visits on cells, and then for details, twice.

    Parameters are those of `bgmatch_dask.background.joint.fit_joint`; ``factor`` is the size of
    a cell in superpixels; ``strengths`` are kept, if given.
    """
    steps = _Steps(observations, members, grid, config, factor)
    cells = None if strengths is None else _scaled(strengths, 1.0 / factor**4)
    joint = steps.on_cells(cells, keep=cells is not None)
    steps.look_closer(joint)
    joint = steps.on_cells(joint.tuned.strengths, keep=cells is not None)
    steps.look_closer(joint)
    return steps.finished(joint)


def _scaled(strengths: Strengths, factor: float) -> Strengths:
    return replace(strengths, smoothing=strengths.smoothing * factor)


class _Steps:
    """The differences, and what is known of them so far."""

    def __init__(
        self,
        data: Observations,
        members: Members,
        grid: SuperpixelGrid,
        config: SolveConfig,
        factor: int,
    ) -> None:
        self.data, self.members, self.grid = data, members, grid
        self.config, self.factor = config, factor
        self.samples = gather(data, len(members.planes), grid)
        self.layout = lay_out(members.planes, grid, 1)
        self.rigid = members.rigid
        self.details: dict[int, Detail] = {}
        self.trust = np.ones(len(self.samples))
        self.sigma = np.sqrt(self.samples.photon)
        self.left = np.zeros(len(self.samples))

    def own(self, visit: int) -> slice:
        """Return where the samples of a visit lie."""
        return slice(int(self.samples.starts[visit]), int(self.samples.starts[visit + 1]))

    def on_cells(self, start: Strengths | None, *, keep: bool) -> Joint:
        """Solve on cells for what is not detail."""
        data, factor, config = self.data, self.factor, self.config
        smooth = data.value
        if self.details:
            zero = [np.zeros((w.ny, w.nx)) for w in self.layout.windows]
            smooth = smooth - self._differences(self._with_details(zero))
        trust = self._at_pairs(self.trust)
        cells = coarsen(
            replace(data, value=smooth, variance=data.photon / trust), self.grid, factor
        )
        if config.smoothing is not None:
            config = replace(config, smoothing=config.smoothing / factor**4)
        planes = tuple(coarse_plane(plane, factor) for plane in self.members.planes)
        return fit_joint(
            cells,
            replace(self.members, planes=planes),
            coarse_grid(self.grid, factor),
            config,
            start=start,
            keep=keep,
            threads=THREADS,
        )

    def look_closer(self, joint: Joint) -> None:
        """Find details in what the cells leave over, and superpixels not to be trusted."""
        rest = self.data.value - self._differences(self._nodes(joint))
        samples = self.samples
        self.left = samples.needed(rest, tolerance=_CLOSE)
        self.left -= samples.medians(self.left)[samples.site]
        for _ in range(_ROUNDS):
            found = each(self._detail, len(self.members.planes), THREADS)
            for visit, detail in enumerate(found):
                if detail is None:
                    continue
                old = self.details.get(visit)
                change = detail.nodes if old is None else detail.nodes - old.nodes
                self.left[self.own(visit)] -= self._at_samples(change, visit)[0]
                self.details[visit] = detail
            self._weigh()
            if all(detail is None for detail in found):
                break

    def _weigh(self) -> None:
        """Weigh every sample anew, and centre what is left over."""
        samples = self.samples
        count = samples.of_sites(np.ones(len(samples)))[samples.site]
        free = np.sqrt(1.0 - 1.0 / count)
        excess = robust_scale(self.left / free) ** 2 - float(np.median(samples.photon))
        self.sigma = np.sqrt(samples.photon + max(excess, 0.0))
        z = self.left / (free * self.sigma)
        self.trust = redescending_weights(z / max(robust_scale(z), 1.0), self.config.huber)
        weight = self.trust / self.sigma**2
        sky = samples.of_sites(weight * self.left) / samples.of_sites(weight)
        self.left -= sky[samples.site]

    def _detail(self, visit: int) -> Detail | None:
        own, window = self.own(visit), self.layout.windows[visit]
        if self.rigid[visit]:
            return None
        shape = (window.ny - 2 * GUARD, window.nx - 2 * GUARD)
        at = (self.samples.sy[own] - window.y0, self.samples.sx[own] - window.x0)
        residual, weight = np.zeros(shape), np.zeros(shape)
        residual[at] = self.left[own]
        weight[at] = self.data.unit / self.samples.photon[own]
        given, old = self.config.smoothing, self.details.get(visit)
        if given is not None:
            if old is not None:
                return None
            given /= float(weight[at].mean())
        unit = np.sqrt(self.grid.bin_x * self.grid.bin_y)
        steps = (self.grid.bin_y / unit, self.grid.bin_x / unit)
        return fit_detail(residual, weight, steps, given, old)

    def _nodes(self, joint: Joint) -> list[Array]:
        """Return all surfaces on the superpixels' nodes, details with them."""
        smooth = []
        for v, window in enumerate(self.layout.windows):
            cells = joint.layout.windows[v]
            place = (window.y0, window.ny, window.x0, window.nx)
            smooth.append(refine_nodes(joint.surface(v), (cells.y0, cells.x0), self.factor, place))
        return self._with_details(smooth)

    def _with_details(self, nodes: list[Array]) -> list[Array]:
        return [
            own + self.details[v].nodes if v in self.details else own for v, own in enumerate(nodes)
        ]

    def _at_samples(self, nodes: Array, visit: int) -> Array:
        """Return average, slopes and curvatures of a surface at a visit's samples."""
        own, window = self.own(visit), self.layout.windows[visit]
        planes = sample_planes(nodes)
        y, x = self.samples.sy[own] - window.y0, self.samples.sx[own] - window.x0
        out: Array = planes[:, y, x]
        return out

    def _differences(self, nodes: list[Array]) -> Array:
        """Return the modelled differences of some surfaces."""
        samples, data = self.samples, self.data
        planes = np.empty((N_PLANES, len(samples)))
        for visit, own in enumerate(nodes):
            planes[:, self.own(visit)] = self._at_samples(own, visit)
        return box_differences(
            planes, samples.at_hub, samples.at_visit, data.sy, data.sx, *data.low, *data.high
        )

    def _at_pairs(self, trust: Array) -> Array:
        out: Array = np.minimum(trust[self.samples.at_hub], trust[self.samples.at_visit])
        return out

    def finished(self, joint: Joint) -> Wide:
        """Return the result."""
        members, samples, tuned = self.members, self.samples, joint.tuned
        nodes = self._nodes(joint)
        prediction = self._differences(nodes)
        freedom = np.array(tuned.freedom)
        for visit, detail in self.details.items():
            freedom[visit] += detail.freedom
        base = self.data.unit / self.sigma**2
        weights = base * self.trust
        total = samples.of_sites(weights)
        taken = float((samples.of_sites(weights * self.trust) / total).sum())
        left = max(float(self.trust.sum()) - taken - float(freedom.sum()), 1.0)
        noise = float((weights * self.trust * self.left**2).sum()) / left
        n, shape = members.n_unknown, node_shape(self.grid, 1)
        windows, gauges = self.layout.windows, range(n, len(nodes))
        zero = {g: on_tract(nodes[g], windows[g], shape) for g in gauges}
        rough = [self._of_detail(v, noise) for v in range(len(nodes))]
        cells = joint.variances()
        return Wide(
            layout=self.layout,
            nodes=tuple(
                nodes[v] - zero[int(members.gauge_of[v])][windows[v].slices] for v in range(n)
            ),
            variance=tuple(
                refine_plane(cells[v], self.factor, self.grid.shape)
                + (rough[v] + rough[int(members.gauge_of[v])])
                for v in range(n)
            ),
            prediction=prediction,
            trust=self._at_pairs(self.trust),
            systematic=float((self.sigma**2 - samples.photon).max(initial=0.0)),
            noise=noise,
            strengths=_scaled(tuned.strengths, self.factor**4),
            slope_prior=float(tuned.strengths.ridge[:n, 0].max(initial=0.0)),
            freedom=freedom,
            n_details=len(self.details),
        )

    def _of_detail(self, visit: int, noise: float) -> float:
        """Return the variance of a plate.

        Under data of weight ``w`` and with the strength ``λ`` it is ``φ / (8 √(w λ))``.
        """
        detail = self.details.get(visit)
        if detail is None or not np.isfinite(detail.smoothing):
            return 0.0
        weight = float((self.data.unit / self.samples.photon[self.own(visit)]).mean())
        return noise / (8.0 * weight * float(np.sqrt(detail.smoothing)))
