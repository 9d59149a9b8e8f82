"""The default chooser: a flat, quiet and broad visit.

The three terms are those of the upstream task (χ² of a plane, variance, coverage), each per
*measured* superpixel, and each compared with the typical candidate instead of the worst.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.reference.candidates import (
    Candidate,
    ReferenceField,
    bounded,
    measure_candidates,
    typical,
    with_cost,
)
from bgmatch_dask.background.superpixels import SuperpixelSums, measured
from bgmatch_dask.geometry import SuperpixelGrid

__all__ = ("tract_cost",)

_PLANE_PARAMETERS = 3


def tract_cost(seen: ReferenceField) -> tuple[Candidate, ...]:
    """Return every visit's cost as the reference, by visit.

    Notes
    -----
    With ``m_k`` the superpixel means, ``s_k² = var_k / n_k`` their variances (at least a
    quarter of the median one, so that no superpixel dominates) and ``p`` the plane fitted with
    weights ``1/s_k²``: ``chi2 = Σ (m_k − p_k)² / s_k² / (K − 3)`` over the K measured
    superpixels. χ² and variance enter as in `bounded`, the coverage as 1 − its share of the
    largest.
    """
    raw = [_with_chi2(seen, candidate) for candidate in measure_candidates(seen)]
    usable = [c for c in raw if c.n_superpixels > 0]
    chi2 = typical(c.chi2 for c in usable)
    variance = typical(c.variance for c in usable)
    coverage = max((c.coverage for c in usable), default=0.0)
    return tuple(
        with_cost(
            c,
            {
                "chi2": bounded(c.chi2, chi2),
                "variance": bounded(c.variance, variance),
                "coverage": 1.0 - c.coverage / coverage if coverage > 0 else 1.0,
            },
            seen.weights,
        )
        for c in raw
    )


def _with_chi2(seen: ReferenceField, candidate: Candidate) -> Candidate:
    if candidate.n_superpixels == 0:
        return candidate
    sums = seen.sums[candidate.visit]
    used = measured(sums, seen.grid, seen.min_fraction)
    return replace(candidate, chi2=_plane_chi2(sums, seen.grid, used))


def _plane_chi2(sums: SuperpixelSums, grid: SuperpixelGrid, used: NDArray[np.bool_]) -> float:
    freedom = int(used.sum()) - _PLANE_PARAMETERS
    if freedom < 1:
        return float("nan")
    variance = sums.variance_of_mean[used]
    positive = variance[variance > 0]
    floor = 0.25 * float(np.median(positive)) if positive.size else 1.0
    weight = 1.0 / np.sqrt(np.maximum(variance, floor))
    x = (grid.x_centres[np.newaxis, :] + sums.x_mean)[used]
    y = (grid.y_centres[:, np.newaxis] + sums.y_mean)[used]
    # Centred and scaled, so that the normal equations keep their digits.
    scale = max(grid.box.width, grid.box.height)
    design = np.column_stack([np.ones_like(x), (x - x.mean()) / scale, (y - y.mean()) / scale])
    mean = sums.mean[used]
    target = (mean - np.median(mean)) * weight
    solution = np.linalg.lstsq(design * weight[:, np.newaxis], target, rcond=None)[0]
    residual = target - (design * weight[:, np.newaxis]) @ solution
    return float(residual @ residual) / freedom
