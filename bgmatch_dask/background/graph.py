"""The graph of overlaps: what is tied to what, and whose slope the overlaps determine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.solution import Component
from bgmatch_dask.background.visits import Visit, sorted_visits

__all__ = ("anchored_visits", "find_components")

Plane = NDArray[np.bool_]
Pairs = Mapping[tuple[Visit, Visit], Plane]

_MIN_EXTENT = 3


def find_components(
    visits: Sequence[Visit], pairs: Pairs, reference: Visit, cost_order: Sequence[Visit] = ()
) -> tuple[Component, ...]:
    """Return the connected components of the overlap graph, the reference's first.

    Parameters
    ----------
    visits
        All visits.
    pairs
        Measured superpixels of every pair.
    reference
        Gauge of its component.
    cost_order
        Visits, best first: the first of a component is its gauge (default: lowest visit).

    Returns
    -------
    tuple of Component
        In order of their gauges after the reference's.
    """
    group = {visit: visit for visit in visits}
    for hub, visit in sorted(pairs, key=str):
        if pairs[hub, visit].any():
            old, new = group[visit], group[hub]
            group = {v: new if g == old else g for v, g in group.items()}
    members: dict[Visit, list[Visit]] = {}
    for visit in sorted_visits(visits):
        members.setdefault(group[visit], []).append(visit)
    place = {visit: i for i, visit in enumerate(cost_order)}
    out = []
    for found in members.values():
        has_reference = reference in found
        gauge = reference if has_reference else min(found, key=lambda v: place.get(v, len(place)))
        out.append(Component(tuple(found), gauge, has_reference))
    return tuple(sorted(out, key=lambda c: not c.has_reference))


def anchored_visits(
    coverage: Mapping[Visit, Plane],
    pairs: Pairs,
    gauges: Sequence[Visit],
    share: float,
) -> frozenset[Visit]:
    """Return the visits whose slopes broad overlaps determine.

    A surface that is added to *all* visits changes no difference, except against a reference.
    Through narrow overlaps such a surface can grow along a chain unnoticed; a visit that
    overlaps the reference broadly, or visits that do, is safe.

    Parameters
    ----------
    coverage
        Superpixels of each visit.
    pairs
        Measured superpixels of every pair.
    gauges
        Visits that are anchored by definition.
    share
        Share of the visit's superpixels, and of its extents along x and y, that have to be
        measured against anchored visits.

    Returns
    -------
    frozenset
        The anchored visits with the gauges. Found breadth first: each round looks only at
        the visits anchored in rounds before, so that order does not matter.
    """
    anchored = set(gauges)
    shared = {
        visit: np.zeros_like(plane) for visit, plane in coverage.items() if visit not in anchored
    }
    fresh = set(anchored)
    while fresh:
        for (hub, visit), plane in pairs.items():
            for one, other in ((hub, visit), (visit, hub)):
                if one in fresh and other in shared:
                    shared[other] = shared[other] | plane
        fresh = {v for v, plane in shared.items() if _broad(plane, coverage[v], share)}
        anchored |= fresh
        for visit in fresh:
            del shared[visit]
    return frozenset(anchored)


def _broad(shared: Plane, own: Plane, share: float) -> bool:
    if shared.sum() < max(share * own.sum(), 1.0):
        return False
    for axis in (0, 1):
        whole, part = _extent(own, axis), _extent(shared, axis)
        if part < max(share * whole, _MIN_EXTENT):
            return False
    return True


def _extent(plane: Plane, axis: int) -> int:
    places = np.flatnonzero(plane.any(axis=axis))
    return int(places[-1] - places[0] + 1) if places.size else 0
