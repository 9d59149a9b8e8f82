"""Differences of pairs as samples of visits: noise belongs to visits, not to pairs.

The pairs that are measured on one superpixel tie its visits together. Up to one constant, their
differences say which offset each visit needs there; that constant is the common sky, which the
solution leaves free. What one visit shows alone, and no pair of the others, is seen here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.observations import Observations
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.median import group_medians
from bgmatch_dask.numerics.site_offsets import site_offsets

__all__ = ("Samples", "gather")

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_ROUNDING = 1e-15


@dataclass(frozen=True, slots=True)
class Samples:
    """One sample per visit and superpixel, by visit; arrays of length ``n``."""

    visit: Index
    """Visit."""
    site: Index
    """Site: a superpixel, or one of the parts of its visits that no pair ties to the others."""
    sy: Index
    """Row of the superpixel."""
    sx: Index
    """Column of the superpixel."""
    low: tuple[Array, Array]
    """Lower end of the mean box along (y, x), superpixels from the first centre."""
    high: tuple[Array, Array]
    """Upper end of the mean box along (y, x)."""
    photon: Array
    """Variance of a visit's own mean for independent pixels."""
    n_sites: int
    """Number of sites."""
    at_hub: Index
    """Sample of the hub of each observation."""
    at_visit: Index
    """Sample of the visit of each observation."""
    starts: Index
    """First sample of each visit, and the number of samples."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.visit)

    def of_sites(self, values: Array) -> Array:
        """Return the sum of values of samples at every site."""
        return _sums(self.site, values, self.n_sites)

    def medians(self, values: Array) -> Array:
        """Return the median of the samples of every site: one bad visit does not move it."""
        out: Array = group_medians(values, self.site, self.n_sites)
        return out

    def needed(
        self, difference: Array, trust: Array | None = None, tolerance: float = _ROUNDING
    ) -> Array:
        """Return the offset that each sample needs, with mean zero at every site.

        Parameters
        ----------
        difference
            ``g_visit − g_hub`` of each observation.
        trust
            Weight of each observation; None: all the same.
        tolerance
            What may be left of each site, relative.

        Returns
        -------
        ndarray of float64
            Least-squares values, exact where the differences of a site close.
        """
        weight = np.ones(len(difference)) if trust is None else trust
        found: Array = site_offsets(
            difference, weight, self.at_hub, self.at_visit, self.site, self.n_sites, tolerance
        )
        return found


def gather(observations: Observations, n_visits: int, grid: SuperpixelGrid) -> Samples:
    """Return the samples behind some observations whose ends all have a number."""
    data, nx = observations, grid.shape[1]
    n_places = grid.shape[0] * nx
    place = data.sy * nx + data.sx
    keys = (data.hub * n_places + place, data.visit * n_places + place)
    known = np.zeros(n_visits * n_places, bool)
    for key in keys:
        known[key] = True
    number = np.cumsum(known) - 1
    at_hub, at_visit = number[keys[0]], number[keys[1]]
    found = np.flatnonzero(known)
    visit, where = found // n_places, found % n_places
    part = _parts(visit, at_hub, at_visit)
    _, site = np.unique(where * n_visits + part, return_inverse=True)
    n = len(found)

    def mean(values: Array) -> Array:
        return (_sums(at_hub, values, n) + _sums(at_visit, values, n)) / count

    one = np.ones(len(data))
    count = _sums(at_hub, one, n) + _sums(at_visit, one, n)
    boxes = []
    for low, high in zip(data.low, data.high, strict=True):
        middle, half = mean(0.5 * (low + high)), 0.5 * np.sqrt(mean((high - low) ** 2))
        boxes.append((middle - half, middle + half))
    return Samples(
        visit=visit,
        site=site.astype(np.int64),
        sy=where // nx,
        sx=where % nx,
        low=(boxes[0][0], boxes[1][0]),
        high=(boxes[0][1], boxes[1][1]),
        photon=0.5 * mean(data.photon),
        n_sites=int(site.max(initial=-1)) + 1,
        at_hub=at_hub,
        at_visit=at_visit,
        starts=np.searchsorted(visit, np.arange(n_visits + 1)),
    )


def _sums(number: Index, values: Array, n: int) -> Array:
    return np.bincount(number, values, n).astype(np.float64, copy=False)


def _parts(visit: Index, at_hub: Index, at_visit: Index) -> Index:
    """Return for each sample the lowest visit of its superpixel that pairs tie it to."""
    part: Index = visit.astype(np.int64)
    while True:
        low = np.minimum(part[at_hub], part[at_visit])
        lower: Index = part.copy()
        np.minimum.at(lower, at_hub, low)
        np.minimum.at(lower, at_visit, low)
        if np.array_equal(lower, part):
            return part
        part = lower
