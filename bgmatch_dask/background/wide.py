"""Tracts whose surfaces are too many or too fine for one direct solution.

Three steps, each of which leaves to the next what it cannot represent:

1. A *draft* on coarse cells. The *core*, hubs and what ties them, is solved jointly.
2. Every other visit is fitted to the core, alone: all its differences are against hubs.
3. *Details* on the superpixels, visit by visit, where cross-validation asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.coarse import coarsen, refine_nodes, refine_plane
from bgmatch_dask.background.detail import Detail
from bgmatch_dask.background.details import Details
from bgmatch_dask.background.draft import Draft, finish_draft, fit_core, plan_draft
from bgmatch_dask.background.layout import NodeWindow, node_window
from bgmatch_dask.background.observations import Observations, with_systematics
from bgmatch_dask.background.robust import huber_weights
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.background.surface import SurfaceFit, between, constant_levels
from bgmatch_dask.geometry import SuperpixelGrid

__all__ = ("fit_wide",)

Array = NDArray[np.float64]
Plane = NDArray[np.bool_]

_ROUNDING = 1e-12
_OUTLYING = 0.5  # Robust weight of superpixels that may bend the draft.


def fit_wide(
    observations: Observations,
    coverage: Sequence[Plane],
    anchored: Plane,
    grid: SuperpixelGrid,
    config: SolveConfig,
) -> SurfaceFit:
    """Fit the offsets of all unknown visits in three steps.

    Parameters, result and errors are those of `bgmatch_dask.background.surface.fit_surfaces`.
    """
    levels = constant_levels(observations, len(coverage))
    constant = between(levels, observations)
    value = observations.value - constant
    value[np.abs(value) < _ROUNDING * np.abs(observations.value).max(initial=0.0)] = 0.0
    data = replace(observations, value=value)
    draft, details = _fit(data, coverage, anchored, grid, config)
    prediction = details.prediction()
    residual = value - prediction
    freedom = draft.freedom + details.freedom
    lost = min(float(freedom.sum()) / data.freedom, 0.9)
    data = with_systematics(data, residual / np.sqrt(1.0 - lost))
    robust = huber_weights(residual, np.sqrt(data.variance), config.huber)
    squares = float((data.weight * (robust * residual) ** 2).sum())
    noise = squares / max(float((robust * data.share).sum()) - float(freedom.sum()), 1.0)
    variance = tuple(
        refine_plane(plane, draft.factor, grid.shape) + _of_detail(details, v, noise)
        for v, plane in enumerate(draft.variance)
    )
    given = config.smoothing
    return SurfaceFit(
        pitch=1,
        windows=tuple(details.windows[: len(coverage)]),
        nodes=tuple(levels[v] + details.nodes[v] for v in range(len(coverage))),
        variance=variance,
        observations=replace(data, value=observations.value),
        prediction=prediction + constant,
        robust=robust,
        noise=noise,
        smoothing=draft.smoothing if given is None else np.full(len(coverage), given),
        slope_prior=draft.slope_prior,
        freedom=freedom,
        leverage=_leverage(data, robust, variance, noise),
        iterations=details.rounds,
    )


def _fit(
    data: Observations,
    coverage: Sequence[Plane],
    anchored: Plane,
    grid: SuperpixelGrid,
    config: SolveConfig,
) -> tuple[Draft, Details]:
    """Return draft and details; the draft is made again without the details of the core.

    What is sharper than its cells would make the draft rough all over.
    """
    plan = plan_draft(data, coverage, anchored, grid, config)
    windows = tuple(node_window(plane) for plane in coverage)
    found: dict[int, Detail] = {}
    clean, n = data, len(coverage)
    for last in (False, True):
        cells = coarsen(clean, grid, plan.factor)
        draft = finish_draft(plan, cells, fit_core(plan, cells))
        nodes = [_fine(draft.nodes[v], draft.windows[v], plan.factor, windows[v]) for v in range(n)]
        details = Details(data, nodes, windows, grid, config.smoothing, plan.core, found)
        details.of_core()
        if last:
            break
        found = details.found
        robust = huber_weights(data.value - details.prediction(), np.sqrt(data.variance), 5.0)
        if not found and robust.min(initial=1.0) > _OUTLYING:
            break
        clean = replace(
            data, value=data.value - details.differences(), variance=data.variance / robust**2
        )
    details.of_others()
    details.regauge()
    return draft, details


def _fine(nodes: Array, coarse: NodeWindow, factor: int, window: NodeWindow) -> Array:
    place = (window.y0, window.ny, window.x0, window.nx)
    return refine_nodes(nodes, (coarse.y0, coarse.x0), factor, place)


def _of_detail(details: Details, visit: int, noise: float) -> float:
    """Return the variance of a plate of strength λ under data of weight w: ``φ / (8 √(w λ))``.

    A detail of a gauge is a part of every offset.
    """
    return sum(
        float(noise / (8.0 * details.mean_weight[v] * np.sqrt(details.found[v].smoothing)))
        for v in (visit, *details.gauges)
        if v in details.found
    )


def _leverage(data: Observations, robust: Array, variance: Sequence[Array], noise: float) -> Array:
    """Return about what the fit uses up, if both ends of a difference erred independently."""
    used = np.zeros(len(data))
    starts = np.searchsorted(data.pair, np.arange(len(data.pairs) + 1))
    for begin, end in pairwise(starts):
        at = slice(int(begin), int(end))
        if begin < end and noise > 0.0:
            for visit in (int(data.hub[begin]), int(data.visit[begin])):
                if visit >= 0:
                    used[at] += variance[visit][data.sy[at], data.sx[at]] / noise
    out: Array = np.minimum(data.weight * robust * used, 0.9 * data.share)
    return out
