"""The draft of a wide tract: all surfaces on coarse cells, the core of the visits jointly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from bgmatch_dask.background.coarse import coarse_grid, coarse_plane, subset
from bgmatch_dask.background.layout import NodeWindow, lay_out
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.background.surface import SurfaceFit
from bgmatch_dask.background.trend import fit_with_trend
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.surface_samples import sample_boxes, sample_planes

__all__ = ("Draft", "DraftPlan", "finish_draft", "fit_core", "plan_draft")

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Plane = NDArray[np.bool_]

_CORE = 10
_MAX_FACTOR = 64
_FEWEST = 6  # Cells along the shorter side of the tract.
# Half of the noise of a difference inside the core is the other visit's.
_CORE_SHARE = 0.5
_UNRESOLVED_FROM = 4.0 * np.pi  # ω² of a circle as large as the square of resolved waves.


@dataclass(frozen=True, slots=True)
class Draft:
    """Surfaces of all unknown visits on the nodes of coarse cells."""

    factor: int
    """Superpixels per cell and axis."""
    core: tuple[int, ...]
    """Unknown visits that were solved jointly."""
    windows: tuple[NodeWindow, ...]
    """Nodes of each visit, on the grid of the cells."""
    nodes: tuple[Array, ...]
    """Node values of each visit."""
    variance: tuple[Array, ...]
    """Variance of each visit's surface per cell, waves shorter than two cells included."""
    smoothing: Array
    """Strength of each visit, in units of superpixels and of their weights."""
    freedom: Array
    """Effective parameters of each visit."""
    slope_prior: float
    """Ridge on slopes of visits that are not anchored."""


@dataclass(frozen=True, slots=True)
class DraftPlan:
    """What is solved jointly, and on which cells."""

    core: tuple[int, ...]
    """Unknown visits that are solved jointly."""
    factor: int
    """Superpixels per cell and axis."""
    cells: SuperpixelGrid
    """The cells."""
    planes: tuple[Plane, ...]
    """Cells of each unknown visit."""
    anchored: Plane
    """Unknown visits whose slopes are free."""
    config: SolveConfig
    """Model, in units of cells."""

    @property
    def inside(self) -> Plane:
        """Which unknown visits belong to the core; the last entry, of index −1, is a gauge."""
        return np.array([*(v in self.core for v in range(len(self.planes))), True])


def plan_draft(
    observations: Observations,
    coverage: Sequence[Plane],
    anchored: Plane,
    grid: SuperpixelGrid,
    config: SolveConfig,
) -> DraftPlan:
    """Choose core and cells.

    Parameters are those of `bgmatch_dask.background.surface.fit_surfaces`.
    """
    core = core_visits(observations, len(coverage))
    factor = _factor([coverage[v] for v in core], grid, config.work_limit)
    if config.smoothing is not None:
        config = replace(config, smoothing=config.smoothing / factor**4)
    planes = tuple(coarse_plane(plane, factor) for plane in coverage)
    return DraftPlan(core, factor, coarse_grid(grid, factor), planes, anchored, config)


def fit_core(plan: DraftPlan, cells: Observations) -> SurfaceFit:
    """Solve the core jointly from the observations on cells."""
    core, inside = list(plan.core), plan.inside
    number = np.full(len(inside), -1, np.int64)
    number[core] = np.arange(len(core))
    joint = subset(
        cells, inside[cells.hub] & inside[cells.visit], number[cells.hub], number[cells.visit]
    )
    return fit_with_trend(
        joint, [plan.planes[v] for v in core], plan.anchored[core], plan.cells, plan.config
    )


def finish_draft(plan: DraftPlan, data: Observations, first: SurfaceFit) -> Draft:
    """Fit every visit outside the core to the core, and put all together."""
    n, core, shape = len(plan.planes), plan.core, plan.cells.shape
    place = {v: (first, i) for i, v in enumerate(core)}
    variance: dict[int, Array] = {
        v: first.variance[i] + _unresolved(first, i, data, v, _CORE_SHARE, shape)
        for i, v in enumerate(core)
    }
    rest = sorted(set(range(n)) - set(core))
    known, own = _core_at(data, first, plan), _groups(data, n, plan.inside)
    for v in rest:
        fit = _fit_alone(data, own[v], v, known, plan, first)
        place[v] = (fit, 0)
        variance[v] = (
            fit.variance[0]
            + _unresolved(fit, 0, data, v, 1.0, shape, own[v])
            + _of_hubs(data, own[v], v, variance, shape)
        )
    return Draft(
        plan.factor,
        core,
        tuple(place[v][0].windows[place[v][1]] for v in range(n)),
        tuple(place[v][0].nodes[place[v][1]] for v in range(n)),
        tuple(variance[v] for v in range(n)),
        np.array([place[v][0].smoothing[place[v][1]] * plan.factor**4 for v in range(n)]),
        np.array([place[v][0].freedom[place[v][1]] for v in range(n)]),
        first.slope_prior,
    )


def core_visits(observations: Observations, n_visits: int) -> tuple[int, ...]:
    """Return the unknown visits to solve jointly: hubs, ties between them, and some more."""
    ends = np.array([_ends(observations, p) for p in range(len(observations.pairs))]).reshape(-1, 3)
    counts = np.zeros(n_visits, np.int64)
    for column in (0, 1):
        known = ends[:, column] >= 0
        np.add.at(counts, ends[known, column], ends[known, 2])
    core = set(ends[ends[:, 0] >= 0, 0].tolist())
    # Ties: visits that join parts of the core come first, then those with most superpixels.
    for v in sorted(set(range(n_visits)) - core, key=lambda v: (-counts[v], v)):
        if len(core) < _CORE or _joins(ends, core, v):
            core.add(v)
    return tuple(sorted(core))


def _ends(observations: Observations, pair: int) -> tuple[int, int, int]:
    begin, end = np.searchsorted(observations.pair, [pair, pair + 1])
    if begin == end:
        return -1, -1, 0
    return int(observations.hub[begin]), int(observations.visit[begin]), int(end - begin)


def _joins(ends: Index, core: set[int], visit: int) -> bool:
    """Whether a visit ties parts of the core that nothing else in it ties."""

    # Gauges of one component are one; those of others have no pair with it.
    def parts(members: set[int]) -> int:
        names = {v: i + 1 for i, v in enumerate(sorted(members))} | {-1: 0}
        used = [(names[a], names[b]) for a, b, _ in ends if a in names and b in names]
        rows, columns = zip(*used, strict=True) if used else ((), ())
        shape = (len(names), len(names))
        graph = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
        return int(connected_components(graph, directed=False)[0])

    return parts(core | {visit}) < parts(core)


def _factor(coverage: Sequence[Plane], grid: SuperpixelGrid, limit: float) -> int:
    """Return the finest cells whose joint solution is affordable, or the cheapest ones."""
    best, least = 1, np.inf
    factor = max(1, int(np.sqrt(sum(plane.sum() for plane in coverage) / 20000.0)))
    most = max(1, min(grid.shape) // _FEWEST)
    while factor <= min(most, _MAX_FACTOR):
        planes = [coarse_plane(plane, factor) for plane in coverage]
        work = lay_out(planes, coarse_grid(grid, factor), 1).work
        if work < least:
            best, least = factor, work
        if work <= limit:
            break
        factor += 1 + factor // 8
    return best


def _groups(data: Observations, n: int, inside: Plane) -> list[Index]:
    """Return the observations between each visit outside the core and the core."""
    out: list[Index] = [np.empty(0, np.int64)] * n
    outer = np.where(inside[data.visit], data.hub, data.visit)
    loose = np.flatnonzero(inside[data.visit] != inside[data.hub])
    order = loose[np.argsort(outer[loose], kind="stable")]
    starts = np.searchsorted(outer[order], np.arange(n + 1))
    for v in range(n):
        out[v] = order[starts[v] : starts[v + 1]]
    return out


def _core_at(data: Observations, fit: SurfaceFit, plan: DraftPlan) -> Array:
    """Return the offset of the core's end of every observation that leads out of the core."""
    inside, core = plan.inside, plan.core
    out = np.zeros(len(data))
    end = np.where(inside[data.visit], data.visit, data.hub)
    leads = inside[data.visit] != inside[data.hub]
    for i, v in enumerate(core):
        at = np.flatnonzero(leads & (end == v))
        if not at.size:
            continue
        w = fit.windows[i]
        planes = sample_planes(fit.nodes[i])
        out[at] = sample_boxes(
            planes,
            data.sy[at] - w.y0,
            data.sx[at] - w.x0,
            data.low[0][at] - w.y0,
            data.high[0][at] - w.y0,
            data.low[1][at] - w.x0,
            data.high[1][at] - w.x0,
        )
    return out


def _fit_alone(
    data: Observations, own: Index, visit: int, known: Array, plan: DraftPlan, core: SurfaceFit
) -> SurfaceFit:
    here, config, anchored = subset(data, own), plan.config, plan.anchored[[visit]]
    outward = here.visit == visit
    value = np.where(outward, here.value + known[own], known[own] - here.value)
    zero = np.zeros(len(own), np.int64)
    # The pair is no longer told apart: all are against the core.
    alone = replace(here, hub=zero - 1, visit=zero, value=value, pair=zero, pairs=here.pairs[:1])
    if not anchored[0] and config.slope_prior is None and core.slope_prior > 0.0:
        config = replace(config, slope_prior=core.slope_prior)
    return fit_with_trend(alone, [plan.planes[visit]], anchored, plan.cells, config)


def _unresolved(
    fit: SurfaceFit,
    number: int,
    data: Observations,
    visit: int,
    share: float,
    shape: tuple[int, int],
    own: Index | None = None,
) -> Array:
    """Return the variance in waves that are too short for the cells, per cell.

    The posterior of a plate of strength λ under data of weight w per cell has the spectrum
    ``φ / (w + λ ω⁴)``; its part beyond the waves that the cells resolve is integrated in closed
    form: ``φ / (4π √(w λ)) · (π/2 − atan(ω₀² √(λ/w)))``.
    """
    at = (data.hub == visit) | (data.visit == visit) if own is None else own
    weight = np.bincount(
        data.sy[at] * shape[1] + data.sx[at], data.weight[at], shape[0] * shape[1]
    ).reshape(shape)
    typical = float(np.median(weight[weight > 0])) if (weight > 0).any() else 1.0
    w = share * np.maximum(weight, 0.1 * typical)
    strength = float(fit.smoothing[number])
    angle = 0.5 * np.pi - np.arctan(_UNRESOLVED_FROM * np.sqrt(strength / w))
    out: Array = fit.noise * angle / (4.0 * np.pi * np.sqrt(w * strength))
    return out


def _of_hubs(
    data: Observations, own: Index, visit: int, variance: dict[int, Array], shape: tuple[int, int]
) -> Array:
    """Return the variance that a visit inherits from the hubs, as if they erred alike."""
    end = np.where(data.visit[own] == visit, data.hub[own], data.visit[own])
    sigma = np.zeros(len(own))
    for hub in np.unique(end[end >= 0]):
        at = end == hub
        sigma[at] = np.sqrt(variance[int(hub)][data.sy[own[at]], data.sx[own[at]]])
    cell, size = data.sy[own] * shape[1] + data.sx[own], shape[0] * shape[1]
    weight = np.bincount(cell, data.weight[own], size)
    total = np.bincount(cell, data.weight[own] * sigma, size)
    mean = total / np.maximum(weight, 1e-300)
    filled = np.where(weight > 0, mean, mean[weight > 0].max())
    return filled.reshape(shape) ** 2
