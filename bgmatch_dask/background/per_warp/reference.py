"""Choose the warp that the others are matched to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bgmatch_dask.background.per_warp.config import PerWarpConfig
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.errors import MatchError
from bgmatch_dask.numerics.statistics import Property, measure_statistics
from bgmatch_dask.warps.warp import Warp

__all__ = ("ReferenceChoice", "choose_reference_warp", "reference_costs")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReferenceChoice:
    """The chosen reference, and the cost of every candidate."""

    visit: Visit
    """The candidate of lowest cost; of equal ones the first."""
    costs: Mapping[Visit, float]
    """Cost of each visit; NaN for those without good pixels."""


def choose_reference_warp(
    warps: Mapping[Visit, Warp],
    config: PerWarpConfig | None = None,
    *,
    upstream: bool = False,
) -> ReferenceChoice:
    """Choose the warp of good coverage, low variance and low level.

    Parameters
    ----------
    warps
        Candidates.
    config
        Masks and weights; defaults when None.
    upstream
        See `reference_costs`.

    Raises
    ------
    MatchError
        ``per-warp-no-reference`` when there is no warp with a good pixel.
    """
    options = config if config is not None else PerWarpConfig()
    figures = [
        measure_statistics(warp.image, warp.mask, control=options.statistics)
        for warp in warps.values()
    ]
    variance, level, count = (
        np.array([each.value(name) for each in figures], np.float64)
        for name in (Property.VARIANCE, Property.MEAN, Property.NPOINT)
    )
    costs = reference_costs(variance, level, count, options, upstream=upstream)
    if not np.isfinite(costs).any():
        raise MatchError(
            "per-warp-no-reference",
            f"None of {len(warps)} warps has good pixels to be a reference",
            fix="Check the mask planes that are left out.",
        )
    visits = list(warps)
    table = dict(zip(visits, costs.tolist(), strict=True))
    return ReferenceChoice(visits[int(np.nanargmin(costs))], table)


def reference_costs(
    variance: ArrayLike,
    level: ArrayLike,
    count: ArrayLike,
    config: PerWarpConfig | None = None,
    *,
    upstream: bool = False,
) -> Array:
    """Return the cost of each candidate.

    Parameters
    ----------
    variance, level, count
        Variance and mean of the good pixels, and their number; shape ``(n,)``.
    config
        Weights; defaults when None.
    upstream
        Level term ``L / max L``, which turns round where levels are negative (fault L-6).

    Returns
    -------
    ndarray of float64
        Shape ``(n,)``; NaN for a candidate without good pixels.

    Notes
    -----
    ``w_var V / max V + w_level (L − min L) / max |L| + w_cov min N / N``. For positive levels the
    second term is upstream's minus a constant, so the choice is the same; and unlike upstream's it
    always grows with the level.
    """
    options = config if config is not None else PerWarpConfig()
    v, mean, n = (np.asarray(a, np.float64) for a in (variance, level, count))
    usable = np.isfinite(v) & np.isfinite(mean) & (n > 0)
    costs = np.full(v.shape, np.nan)
    if not usable.any():
        return costs
    v, mean, n = v[usable], mean[usable], n[usable]
    if upstream:
        level_term = _share(mean, float(mean.max()))
    else:
        level_term = _share(mean - mean.min(), float(np.abs(mean).max()))
    costs[usable] = (
        options.weight_variance * _share(v, float(v.max()))
        + options.weight_level * level_term
        + options.weight_coverage * (n.min() / n)
    )
    return costs


def _share(values: Array, largest: float) -> Array:
    return values / largest if largest != 0 else np.zeros_like(values)
