"""Kernels over the samples of every site: what they need by their differences, and medians."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ("site_medians", "site_offsets")

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_MAX_ITERATIONS = 60


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def _of_sites(one: Array, other: Array, site: Index, n_sites: int) -> Array:
    total = np.zeros(n_sites)
    for e in range(one.size):
        total[site[e]] += one[e] * other[e]
    return total


@numba.njit(cache=True, nogil=True)
def _product(weight: Array, direction: Array, hub: Index, visit: Index) -> Array:
    flow = np.empty(hub.size)
    for k in range(hub.size):
        flow[k] = direction[visit[k]] - direction[hub[k]]
    return _gathered(weight, flow, hub, visit, direction.size)


@numba.njit(cache=True, nogil=True)
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
    degree = np.zeros(n)
    for k in range(weight.size):
        degree[at_visit[k]] += weight[k]
    for k in range(weight.size):
        degree[at_hub[k]] += weight[k]
    x, direction = np.zeros(n), np.zeros(n)
    rest = _gathered(weight, difference, at_hub, at_visit, n)
    goal = tolerance**2 * _of_sites(rest, rest, site, n_sites)
    before = np.ones(n_sites)
    for count in range(_MAX_ITERATIONS):
        is_open = _of_sites(rest, rest, site, n_sites) > goal
        if not is_open.any():
            break
        now = _of_sites(rest, rest / degree, site, n_sites)
        for e in range(n):
            k = site[e]
            z = rest[e] / degree[e]
            grown = now[k] / before[k] * direction[e] if count and is_open[k] else 0.0
            direction[e] = z + grown
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
    mean = _of_sites(one, x, site, n_sites) / _of_sites(one, one, site, n_sites)
    for e in range(n):
        x[e] -= mean[site[e]]
    return x


@numba.njit(cache=True, nogil=True)
def site_medians(values: Array, site: Index, n_sites: int) -> Array:
    """Return the median of the samples of every site.

    Parameters
    ----------
    values
        float64 ``(n,)``, finite.
    site
        Site of each sample; each has one at least.
    n_sites
        Number of sites.

    Returns
    -------
    ndarray of float64
        ``(n_sites,)``; of an even number the mean of the middle two.
    """
    first = np.zeros(n_sites + 1, np.int64)
    for k in site:
        first[k + 1] += 1
    for k in range(n_sites):
        first[k + 1] += first[k]
    filled, ranked = first[:-1].copy(), np.empty(values.size)
    for e in range(values.size):
        ranked[filled[site[e]]] = values[e]
        filled[site[e]] += 1
    out = np.empty(n_sites)
    for k in range(n_sites):
        own = np.sort(ranked[first[k] : first[k + 1]])
        out[k] = 0.5 * (own[(own.size - 1) // 2] + own[own.size // 2])
    return out
