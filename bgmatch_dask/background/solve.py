"""The joint solution: offsets of all visits from all measured differences at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.diagnostics import pair_residuals
from bgmatch_dask.background.graph import anchored_visits, find_components
from bgmatch_dask.background.layout import node_shape, on_tract
from bgmatch_dask.background.observations import Observations, measured_pairs, observe, thin_out
from bgmatch_dask.background.polynomial import fit_polynomials
from bgmatch_dask.background.sky_system import Strengths
from bgmatch_dask.background.solution import (
    Component,
    Flag,
    Offset,
    Solution,
    SolveConfig,
    VisitFigures,
)
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.background.surface import SurfaceFit, fit_surfaces
from bgmatch_dask.background.visits import Visit, find_visit, sorted_visits, visit_key
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.one_thread import one_thread

__all__ = ("solve_offsets",)

Array = NDArray[np.float64]
Plane = NDArray[np.bool_]
Pair = tuple[Visit, Visit]


def solve_offsets(
    differences: Mapping[Pair, SuperpixelSums],
    coverage: Mapping[Visit, Plane],
    grid: SuperpixelGrid,
    reference: Visit,
    config: SolveConfig | None = None,
    *,
    cost_order: Sequence[Visit] = (),
    strengths: Mapping[Visit, Array] | None = None,
) -> Solution:
    """Find the offset of every visit that brings it to the background of the reference.

    Parameters
    ----------
    differences
        Tract-wide sums of hub − visit for every (hub, visit) that was differenced.
    coverage
        Superpixels that each visit covers, bool ``(sy, sx)``.
    grid
        Superpixels of the tract.
    reference
        Visit whose offset is zero.
    config
        Model and robustness.
    cost_order
        Visits, best first: chooses the gauge of components without the reference.
    strengths
        `Solution.strengths` of another solution, which are kept if all visits have some.

    Returns
    -------
    Solution
        Offsets by visit, without an entry for the reference. A visit that nothing ties to the
        reference never raises: it is flagged, and its component reported.

    Raises
    ------
    MatchError
        ``reference-unknown`` when the reference is no visit of the tract, ``sums-shape`` and
        ``pair-invalid`` for differences that are malformed.

    Notes
    -----
    Every superpixel ``k`` of a pair (h, v) says ``⟨g_v⟩_k − ⟨g_h⟩_k = d_hv(k)``, where ``⟨⟩_k``
    averages the *rendered* surface over the pixels used. All of them are solved jointly by
    robust least squares with a smoothness prior per visit; the gauge is ``g_reference = 0``.
    The result does not depend on the order of any mapping.
    """
    settings = config if config is not None else SolveConfig()
    usable = measured_pairs(differences, grid, settings.min_fraction)
    usable = thin_out(usable, settings.observation_limit)
    covered = _covered(coverage, usable, grid)
    reference = find_visit(reference, covered)
    components = find_components(tuple(covered), usable, reference, cost_order)
    gauges = [c.gauge for c in components]
    unknowns = [v for v in covered if v not in gauges]
    pairs = sorted((p for p in usable if usable[p].any()), key=_pair_key)
    data = observe(differences, usable, pairs, unknowns, grid)
    anchored = anchored_visits(covered, usable, gauges, settings.anchor_overlap)
    is_anchored = np.array([v in anchored for v in unknowns], bool)
    # One thread within BLAS: the sum of a product depends on how many share it. Whole visits are
    # given to threads instead, which changes no sum.
    with one_thread():
        at_zero = [(c.gauge, covered[c.gauge]) for c in components if len(c.visits) > 1]
        members = [*unknowns, *(gauge for gauge, _ in at_zero)]
        kept = _kept(strengths, members)
        planes = [covered[v] for v in unknowns]
        fit = _fit(data, planes, is_anchored, grid, settings, at_zero, kept)
    return Solution(
        reference=reference,
        grid=grid,
        offsets=_offsets(fit, unknowns, components, covered, usable, grid),
        components=components,
        figures={
            v: VisitFigures(v in anchored, float(fit.smoothing[i]), float(fit.freedom[i]))
            for i, v in enumerate(unknowns)
        },
        pairs=pair_residuals(fit.observations, fit.prediction, fit.robust),
        noise_factor=fit.noise / fit.observations.unit,
        systematic=_systematic(fit.observations),
        slope_prior=fit.slope_prior,
        strengths=_by_visit(fit.strengths, members),
        pitch=fit.pitch,
        iterations=fit.iterations,
        observations=fit.observations,
        prediction=fit.prediction,
        robust=fit.robust,
        leverage=fit.leverage,
    )


def _systematic(observations: Observations) -> float:
    excess = observations.variance - observations.photon
    return float(np.sqrt(excess.max(initial=0.0)))


def _pair_key(pair: Pair) -> tuple[tuple[int, int, str], tuple[int, int, str]]:
    return visit_key(pair[0]), visit_key(pair[1])


def _covered(
    coverage: Mapping[Visit, Plane], usable: Mapping[Pair, Plane], grid: SuperpixelGrid
) -> dict[Visit, Plane]:
    visits = sorted_visits({*coverage, *(v for pair in usable for v in pair)})
    out = {v: np.array(coverage.get(v, np.zeros(grid.shape, bool)), bool) for v in visits}
    for pair in usable:
        for visit in pair:
            out[visit] |= usable[pair]
    return out


def _fit(
    observations: Observations,
    coverage: list[Plane],
    anchored: Plane,
    grid: SuperpixelGrid,
    config: SolveConfig,
    gauges: Sequence[tuple[Visit, Plane]],
    strengths: Strengths | None,
) -> SurfaceFit:
    if not coverage:
        none = np.zeros(len(observations))
        empty = np.empty(0)
        return SurfaceFit(
            1, (), (), (), observations, none, none + 1.0, 0.0, empty, None, 0.0, empty, none, 0
        )
    if config.order != "surface":
        return fit_polynomials(observations, coverage, anchored, grid, config)
    return fit_surfaces(observations, coverage, anchored, grid, config, gauges, strengths)


def _kept(strengths: Mapping[Visit, Array] | None, members: Sequence[Visit]) -> Strengths | None:
    if not strengths or not all(visit in strengths for visit in members):
        return None
    table = np.array([strengths[visit] for visit in members])
    return Strengths(table[:, 0], table[:, 1:])


def _by_visit(strengths: Strengths | None, members: Sequence[Visit]) -> dict[Visit, Array]:
    if strengths is None:
        return {}
    table = np.column_stack([strengths.smoothing, strengths.ridge])
    return dict(zip(members, table, strict=True))


def _offsets(
    fit: SurfaceFit,
    unknowns: Sequence[Visit],
    components: Sequence[Component],
    coverage: Mapping[Visit, Plane],
    usable: Mapping[Pair, Plane],
    grid: SuperpixelGrid,
) -> dict[Visit, Offset]:
    number = {visit: i for i, visit in enumerate(unknowns)}
    lost = {v for c in components if not c.has_reference for v in c.visits}
    shape = node_shape(grid, fit.pitch)
    out = {}
    for visit in coverage:
        flags = _flags(visit, usable, grid, disconnected=visit in lost)
        if visit in number:
            i = number[visit]
            nodes = on_tract(fit.nodes[i], fit.windows[i], shape)
            out[visit] = Offset(visit, grid, fit.pitch, nodes, fit.variance[i], flags)
        elif visit in lost:
            zero = np.zeros(grid.shape)
            out[visit] = Offset(visit, grid, fit.pitch, np.zeros(shape), zero, flags)
    return out


def _flags(
    visit: Visit, usable: Mapping[Pair, Plane], grid: SuperpixelGrid, *, disconnected: bool
) -> NDArray[np.uint8]:
    measured = np.zeros(grid.shape, bool)
    for pair, plane in usable.items():
        if visit in pair:
            measured |= plane
    between = np.zeros(grid.shape, bool)
    for axis in (0, 1):
        before = np.logical_or.accumulate(measured, axis=axis)
        after = np.flip(np.logical_or.accumulate(np.flip(measured, axis), axis=axis), axis)
        between |= before & after
    other = np.where(between, Flag.INTERPOLATED, Flag.EXTRAPOLATED)
    flags = np.where(measured, Flag.MEASURED, other).astype(np.uint8)
    return flags | np.uint8(Flag.DISCONNECTED if disconnected else 0)
