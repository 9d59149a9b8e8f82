"""The chooser of the task of 2012 to 2024, on the scale of the tract: variance, level, coverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bgmatch_dask.background.per_warp.config import PerWarpConfig
from bgmatch_dask.background.per_warp.reference import reference_costs
from bgmatch_dask.background.reference.candidates import (
    Candidate,
    ReferenceField,
    measure_candidates,
    with_cost,
)
from bgmatch_dask.background.superpixels import SuperpixelSums

__all__ = ("legacy_cost",)


def legacy_cost(seen: ReferenceField) -> tuple[Candidate, ...]:
    """Return every visit's cost as the reference, by visit.

    Notes
    -----
    Variance and mean are those of all kept pixels of the visit, so that gradients count as
    variance, as they did; the terms are `bgmatch_dask.background.per_warp.reference_costs`.
    """
    raw = [_over_all_pixels(seen, candidate) for candidate in measure_candidates(seen)]
    variance = [c.variance for c in raw]
    level = [c.level for c in raw]
    count = [c.coverage for c in raw]
    # A weight of one for a single term gives that term alone.
    terms = {
        "variance": reference_costs(variance, level, count, _alone(1.0, 0.0, 0.0)),
        "level": reference_costs(variance, level, count, _alone(0.0, 1.0, 0.0)),
        "coverage": reference_costs(variance, level, count, _alone(0.0, 0.0, 1.0)),
    }
    return tuple(
        with_cost(c, {name: float(values[i]) for name, values in terms.items()}, seen.weights)
        for i, c in enumerate(raw)
    )


def _alone(variance: float, level: float, coverage: float) -> PerWarpConfig:
    return PerWarpConfig(weight_variance=variance, weight_level=level, weight_coverage=coverage)


def _over_all_pixels(seen: ReferenceField, candidate: Candidate) -> Candidate:
    if candidate.n_superpixels == 0:
        return candidate
    variance, level = _pooled(seen.sums[candidate.visit])
    return replace(candidate, variance=variance, level=level)


def _pooled(sums: SuperpixelSums) -> tuple[float, float]:
    """Return variance and mean of the kept pixels of all superpixels."""
    held = sums.count > 0
    count = float(sums.count.sum())
    level = float(sums.total.sum()) / count
    between = (sums.count[held] * (sums.mean[held] - level) ** 2).sum()
    return float(np.sum(sums.squares) + between) / (count - 1.0), level
