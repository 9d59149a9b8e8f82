"""Kernels over the samples of every site: what they need by their differences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner, kernel

__all__ = ("site_offsets",)

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_MAX_ITERATIONS = 60


@inner()
def _gathered(weight: Array, flow: Array, hub: Index, visit: Index, n: int) -> Array:
    """Return what flows into each sample: from all visits first, then out to all hubs."""
    into, out = np.zeros(n), np.zeros(n)
    for k in range(flow.size):
        one = weight[k] * flow[k]
        into[visit[k]] += one
        out[hub[k]] += one
    for e in range(n):
        into[e] -= out[e]
    return into


@inner()
def _of_sites(one: Array, other: Array, site: Index, n_sites: int) -> Array:
    total = np.zeros(n_sites)
    for e in range(one.size):
        total[site[e]] += one[e] * other[e]
    return total


@inner()
def _product(weight: Array, direction: Array, hub: Index, visit: Index) -> Array:
    flow = np.empty(hub.size)
    for k in range(hub.size):
        flow[k] = direction[visit[k]] - direction[hub[k]]
    return _gathered(weight, flow, hub, visit, direction.size)


@inner()
def _degrees(weight: Array, hub: Index, visit: Index, n: int) -> Array:
    """Return the weight of all observations of each sample."""
    degree = np.zeros(n)
    for k in range(weight.size):
        degree[visit[k]] += weight[k]
    for k in range(weight.size):
        degree[hub[k]] += weight[k]
    return degree


# Loops, not expressions of arrays: numba compiles each of those as a function of its own.
@inner()
def _count_above(values: Array, limit: Array, above: NDArray[np.bool_]) -> int:
    n = 0
    for k in range(values.size):
        above[k] = values[k] > limit[k]
        n += 1 if above[k] else 0
    return n


@inner()
def _divide(one: Array, other: Array, out: Array) -> None:
    for e in range(one.size):
        out[e] = one[e] / other[e]


@kernel()
def site_offsets(
    difference: Array,
    weight: Array,
    at_hub: Index,
    at_visit: Index,
    site: Index,
    n_sites: int,
    tolerance: float,
) -> Array:
    """Return the offset that each sample needs, with mean zero at every site.

    Parameters
    ----------
    difference, weight
        ``g_visit − g_hub`` of each observation and its weight, ``(n_observations,)``.
    at_hub, at_visit
        Samples of its ends.
    site
        Site of each sample, ``(n,)``; every observation lies within one.
    n_sites
        Number of sites.
    tolerance
        What may be left of each site, relative.

    Returns
    -------
    ndarray of float64
        Weighted least-squares values, ``(n,)``.

    Notes
    -----
    Conjugate gradients on the graph of each site, preconditioned by the weight of each sample's
    observations, all sites at once; as many steps as the largest site has visits at most.
    """
    n = site.size
    one = np.ones(n)
    degree = _degrees(weight, at_hub, at_visit, n)
    x, direction = np.zeros(n), np.zeros(n)
    rest = _gathered(weight, difference, at_hub, at_visit, n)
    goal = _of_sites(rest, rest, site, n_sites)
    for k in range(n_sites):
        goal[k] *= tolerance**2
    is_open, before, scaled = np.empty(n_sites, np.bool_), np.ones(n_sites), np.empty(n)
    for count in range(_MAX_ITERATIONS):
        if not _count_above(_of_sites(rest, rest, site, n_sites), goal, is_open):
            break
        _divide(rest, degree, scaled)
        now = _of_sites(rest, scaled, site, n_sites)
        for e in range(n):
            k = site[e]
            grown = now[k] / before[k] * direction[e] if count and is_open[k] else 0.0
            direction[e] = scaled[e] + grown
        product = _product(weight, direction, at_hub, at_visit)
        bend = _of_sites(direction, product, site, n_sites)
        for e in range(n):
            k = site[e]
            if is_open[k] and bend[k] > 0.0:
                step = now[k] / bend[k]
                x[e] += step * direction[e]
                rest[e] -= step * product[e]
        for k in range(n_sites):
            before[k] = now[k] if now[k] > 0.0 else 1.0
    total, size = _of_sites(one, x, site, n_sites), _of_sites(one, one, site, n_sites)
    for e in range(n):
        x[e] -= total[site[e]] / size[site[e]]
    return x
