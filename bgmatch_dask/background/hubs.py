"""Hub visits: the visits that all others are differenced against.

Every visit against every other would cost N²/2 differences per patch. A few hubs that cover
the tract several times over carry nearly all the information; where the tract is shallow,
nearly every visit becomes a hub, and chains are tied through all their overlaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.visits import Visit, visit_key

__all__ = ("choose_hubs", "pairs_for_patch")

Coverage = Mapping[Visit, NDArray[np.bool_]]


def choose_hubs(
    coverage: Coverage,
    cost_order: Sequence[Visit],
    reference: Visit,
    *,
    depth: int = 3,
    all_pairs_below: int = 12,
    max_hubs: int | None = None,
) -> tuple[Visit, ...]:
    """Choose the hub visits of a tract, reference first.

    Parameters
    ----------
    coverage
        Superpixels that each visit covers, bool ``(sy, sx)``.
    cost_order
        Visits by cost, best first: settles ties. Visits that it leaves out come last.
    reference
        The reference visit; always the first hub.
    depth
        Hubs that every superpixel should have (or all its visits, if they are fewer).
    all_pairs_below
        Tracts of up to this many visits difference every pair.
    max_hubs
        Largest number of hubs for the depth. Hubs that keep the overlap graph connected are
        added in any case, because without them visits would be lost.

    Returns
    -------
    tuple
        Hub visits in the order they were chosen.

    Notes
    -----
    Greedy set multi-cover: the next hub is the visit that adds most superpixels to the depth.
    """
    ranked = sorted(coverage, key=visit_key)
    place = {visit: i for i, visit in enumerate(cost_order)}
    ranked.sort(key=lambda visit: place.get(visit, len(place)))
    ranked = [reference, *(v for v in ranked if v != reference)]
    ranked = [v for v in ranked if v == reference or coverage[v].any()]
    if len(ranked) <= all_pairs_below and (max_hubs is None or max_hubs >= len(ranked)):
        return tuple(ranked)
    planes = np.stack([coverage[v].ravel() for v in ranked])
    chosen = _cover(planes, depth, max_hubs if max_hubs is not None else len(ranked))
    return tuple(ranked[i] for i in _connect(planes, chosen))


def _cover(planes: NDArray[np.bool_], depth: int, limit: int) -> list[int]:
    wanted = np.minimum(planes.sum(axis=0), depth)
    chosen = [0]
    wanted = wanted - planes[0]
    while len(chosen) < limit:
        gain = (planes & (wanted > 0)).sum(axis=1)
        gain[chosen] = 0
        # The first of equal gains is the one of lowest cost.
        best = int(np.argmax(gain))
        if gain[best] == 0:
            break
        chosen.append(best)
        wanted = wanted - planes[best]
    return chosen


def _connect(planes: NDArray[np.bool_], chosen: list[int]) -> list[int]:
    """Add hubs until visits that overlaps can connect are connected through hubs."""
    counts = planes.astype(np.float64)
    overlap = (counts @ counts.T) > 0
    group = _components(overlap, chosen)
    target = len(set(_components(overlap, range(len(planes)))))
    while len(set(group)) > target:
        joined = [
            len({group[j] for j in np.flatnonzero(overlap[i])} | {group[i]})
            for i in range(len(planes))
        ]
        chosen = [*chosen, int(np.argmax(joined))]
        group = _components(overlap, chosen)
    return chosen


def _components(overlap: NDArray[np.bool_], hubs: Iterable[int]) -> list[int]:
    group = list(range(len(overlap)))
    for hub in hubs:
        touched = {group[j] for j in np.flatnonzero(overlap[hub])} | {group[hub]}
        first = min(touched)
        group = [first if g in touched else g for g in group]
    return group


def pairs_for_patch(
    hubs: Sequence[Visit], visits: Iterable[Visit]
) -> tuple[tuple[Visit, Visit], ...]:
    """Return the (hub, visit) pairs to difference on one patch, each unordered pair once.

    Parameters
    ----------
    hubs
        Hub visits of the tract, in their order.
    visits
        Visits that have a warp of this patch.

    Returns
    -------
    tuple of (hub, visit)
        By hub, then by visit. Of two hubs the earlier one is the hub, on every patch.
    """
    here = sorted(set(visits), key=visit_key)
    rank = {hub: i for i, hub in enumerate(hubs)}
    return tuple(
        (hub, visit)
        for hub in hubs
        if hub in here
        for visit in here
        if rank.get(visit, len(rank)) > rank[hub]
    )
