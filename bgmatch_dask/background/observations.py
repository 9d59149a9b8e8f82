"""The measured differences as one list of observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.robust import robust_scale
from bgmatch_dask.background.superpixels import SuperpixelSums, measured
from bgmatch_dask.background.visits import Visit, visit_key
from bgmatch_dask.errors import MatchError
from bgmatch_dask.geometry import SuperpixelGrid

__all__ = ("Observations", "measured_pairs", "observe", "thin_out", "with_systematics")

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Pair = tuple[Visit, Visit]

_VARIANCE_FLOOR = 0.25
_PICKED = ("mean", "variance_of_mean", "x_mean", "y_mean", "x_var", "y_var")


@dataclass(frozen=True, slots=True)
class Observations:
    """Superpixel differences ``value = g_visit − g_hub``, arrays of length ``n``."""

    pairs: tuple[Pair, ...]
    """(hub, visit) of each pair, in the order of the observations."""
    pair: Index
    """Index of the pair."""
    hub: Index
    """Index of the hub among the unknown visits, −1 for a gauge."""
    visit: Index
    """Index of the visit among the unknown visits, −1 for a gauge."""
    sy: Index
    """Row of the superpixel."""
    sx: Index
    """Column of the superpixel."""
    value: Array
    """Clipped mean of hub − visit."""
    photon: Array
    """Variance of the mean for independent pixels, with a floor."""
    variance: Array
    """`photon`, and the systematic variance if there is any."""
    weight: Array
    """Weights: inverse variances in units of the median, shared among redundant pairs."""
    unit: float
    """Median variance: a weight of 1 means this variance."""
    low: tuple[Array, Array]
    """Lower end of the equivalent box along (y, x), superpixels from the first centre."""
    high: tuple[Array, Array]
    """Upper end of the equivalent box along (y, x)."""

    def __len__(self) -> int:
        """Return the number of observations."""
        return len(self.value)

    @property
    def share(self) -> Array:
        """Independent share of each observation, see `observe`."""
        return self.weight * self.variance / self.unit

    @property
    def freedom(self) -> float:
        """Independent differences: N visits on a superpixel give N − 1, however many pairs."""
        return float(self.share.sum())


def measured_pairs(
    differences: Mapping[Pair, SuperpixelSums], grid: SuperpixelGrid, min_fraction: float
) -> dict[Pair, NDArray[np.bool_]]:
    """Return the usable superpixels of every pair.

    Raises
    ------
    MatchError
        ``sums-shape`` when sums are not tract-wide, ``pair-invalid`` when a visit is paired
        with itself or a pair comes in both directions.
    """
    out = {}
    for hub, visit in differences:
        if hub == visit or (visit, hub) in differences:
            raise MatchError("pair-invalid", f"The pair {hub} and {visit} must come once")
        sums = differences[hub, visit]
        if sums.shape != grid.shape:
            raise MatchError("sums-shape", f"Differences need shape {grid.shape}, got {sums.shape}")
        out[hub, visit] = measured(sums, grid, min_fraction) & np.isfinite(sums.mean)
    return out


def thin_out(
    usable: Mapping[Pair, NDArray[np.bool_]], limit: float, depth: int = 2
) -> dict[Pair, NDArray[np.bool_]]:
    """Keep few of the pairs of each visit on a superpixel, where all would be too many.

    Noise belongs to visits: a visit's differences to all hubs say hardly more than those to two.

    Parameters
    ----------
    usable
        Usable superpixels of every pair.
    limit
        Number of observations up to which all are kept.
    depth
        Pairs to keep for every visit and superpixel; the hubs that see most come first.

    Returns
    -------
    dict
        The same pairs, those beyond with fewer superpixels or none.
    """
    if sum(int(plane.sum()) for plane in usable.values()) <= limit:
        return dict(usable)
    size: dict[Visit, int] = {}
    for (hub, _), plane in usable.items():
        size[hub] = size.get(hub, 0) + int(plane.sum())
    seen: dict[Visit, NDArray[np.int8]] = {}
    out = {}
    for pair in sorted(usable, key=lambda p: (-size[p[0]], visit_key(p[0]), visit_key(p[1]))):
        plane = usable[pair]
        before = seen.setdefault(pair[1], np.zeros(plane.shape, np.int8))
        out[pair] = plane & (before < depth)
        before += out[pair]
    return out


def observe(
    differences: Mapping[Pair, SuperpixelSums],
    usable: Mapping[Pair, NDArray[np.bool_]],
    pairs: Sequence[Pair],
    unknowns: Sequence[Visit],
    grid: SuperpixelGrid,
) -> Observations:
    """List the observations of some pairs.

    Parameters
    ----------
    differences
        Tract-wide sums of hub − visit.
    usable
        Superpixels to use, per pair.
    pairs
        Pairs to list, in this order.
    unknowns
        Visits with an unknown offset; the others have offset zero.
    grid
        Superpixels of the tract.

    Returns
    -------
    Observations
        By pair, then row, then column.

    Notes
    -----
    A superpixel mean is the average over the pixels used. They are represented by a box with
    their centroid and variances, of width ``√(12 var)`` (the variance of a uniform density is
    width²/12): exact for planes and pure parabolas wherever masks and edges lie.
    """
    number = {visit: i for i, visit in enumerate(unknowns)}
    places = [np.nonzero(usable[pair]) for pair in pairs]
    counts = [len(rows) for rows, _ in places]
    sy = _join([rows for rows, _ in places])
    sx = _join([columns for _, columns in places])
    picked = {name: np.empty(len(sy)) for name in _PICKED}
    end = np.cumsum([0, *counts])
    for i, (pair, at) in enumerate(zip(pairs, places, strict=True)):
        sums, own = differences[pair], slice(int(end[i]), int(end[i + 1]))
        for name, column in picked.items():
            column[own] = getattr(sums, name)[at]
    low_y, high_y = _box(sy, picked["y_mean"], picked["y_var"], grid.bin_y)
    low_x, high_x = _box(sx, picked["x_mean"], picked["x_var"], grid.bin_x)
    variance, unit = _with_floor(picked["variance_of_mean"])
    hub = np.repeat(np.array([number.get(h, -1) for h, _ in pairs], np.int64), counts)
    visit = np.repeat(np.array([number.get(v, -1) for _, v in pairs], np.int64), counts)
    share = _redundancy(sy * grid.shape[1] + sx, pairs, counts)
    return Observations(
        pairs=tuple(pairs),
        pair=np.repeat(np.arange(len(pairs)), counts),
        hub=hub,
        visit=visit,
        sy=sy,
        sx=sx,
        value=picked["mean"],
        photon=variance,
        variance=variance,
        weight=share * unit / variance,
        unit=unit,
        low=(low_y, low_x),
        high=(high_y, high_x),
    )


def with_systematics(observations: Observations, residual: Array) -> Observations:
    """Add the variance that photon noise does not explain, the same for every observation.

    Superpixel means of many pixels have next to no photon noise. Flat-field and registration
    errors and imperfect subtraction of sources remain, and do not average out with pixels;
    without them a full superpixel would outweigh a narrow one beyond reason.

    Parameters
    ----------
    observations
        Observations with photon noise alone.
    residual
        Residuals of a first solution.

    Returns
    -------
    Observations
        The same with ``variance = photon + s²``, where ``s²`` is the robust variance of the
        residuals beyond the median photon noise (none if there is no excess).
    """
    excess = robust_scale(residual) ** 2 - float(np.median(observations.photon))
    variance = observations.photon + max(excess, 0.0)
    unit = float(np.median(variance))
    weight = observations.share * unit / variance
    return replace(observations, variance=variance, weight=weight, unit=unit)


def _join(parts: list[Index]) -> Index:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _box(index: Index, mean: Array, variance: Array, size: int) -> tuple[Array, Array]:
    centre = index + mean / size
    half = 0.5 * np.sqrt(12.0 * variance) / size
    return np.maximum(centre - half, index - 1.0), np.minimum(centre + half, index + 1.0)


def _with_floor(variance: Array) -> tuple[Array, float]:
    positive = variance[variance > 0]
    unit = float(np.median(positive)) if positive.size else 1.0
    return np.maximum(variance, _VARIANCE_FLOOR * unit), unit


def _redundancy(superpixel: Index, pairs: Sequence[Pair], counts: list[int]) -> Array:
    """Return the share of each pair's information that is its own.

    The noise belongs to visits, not to pairs: N visits on a superpixel make N − 1 independent
    differences. For equal noise, N (N − 1) / 2 pairs with the weight 2/N each are exactly the
    generalised least-squares problem; (N − 1) / M does the same for M pairs that connect them.
    """
    if not len(superpixel):
        return np.empty(0)
    labels = {visit: i for i, visit in enumerate(dict.fromkeys(v for p in pairs for v in p))}
    n_pairs = np.bincount(superpixel)
    seen = np.zeros((len(labels), len(n_pairs)), bool)
    for end in (0, 1):
        label = np.repeat(np.array([labels[p[end]] for p in pairs], np.int64), counts)
        seen[label, superpixel] = True
    independent = np.maximum(seen.sum(axis=0) - 1, 1)
    share: Array = np.minimum(independent / np.maximum(n_pairs, 1), 1.0)[superpixel]
    return share
