"""Choice of the reference visit from the tract-wide superpixel sums alone.

The three terms are those of the upstream task (χ² of a plane, variance, coverage), each per
*measured* superpixel, and each compared with the typical candidate instead of the worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.superpixels import SuperpixelSums, measured
from bgmatch_dask.background.visits import Visit, find_visit, sorted_visits
from bgmatch_dask.errors import MatchError
from bgmatch_dask.geometry import SuperpixelGrid

__all__ = ("Candidate", "ReferenceChoice", "ReferenceWeights", "choose_reference", "tract_cost")

_PLANE_PARAMETERS = 3


@dataclass(frozen=True, slots=True)
class ReferenceWeights:
    """Weights of the terms of the cost (upstream: ``bestRefWeight*``); only ratios matter."""

    chi2: float = 0.3
    """Weight of the χ² of a plane."""
    variance: float = 0.3
    """Weight of the pixel variance."""
    coverage: float = 0.4
    """Weight of the coverage."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One visit as a candidate for the reference."""

    visit: Visit
    """Label of the visit."""
    n_superpixels: int
    """Measured superpixels."""
    chi2: float
    """χ² of the superpixel means about a plane, per degree of freedom; NaN if there is none."""
    variance: float
    """Median pixel variance of the measured superpixels, unit squared."""
    coverage: float
    """Good pixels of the visit as a share of the pixels of the tract."""
    chi2_term: float = np.nan
    """χ² compared with the median candidate, 0 (best) to 1."""
    variance_term: float = np.nan
    """Variance compared with the median candidate, 0 (best) to 1."""
    coverage_term: float = np.nan
    """1 − coverage as a share of the largest coverage, 0 (best) to 1."""
    cost: float = np.inf
    """Weighted mean of the terms; infinite for a visit that cannot be the reference."""


@dataclass(frozen=True, slots=True)
class ReferenceChoice:
    """The reference visit and how it compares."""

    visit: Visit
    """Label of the reference visit."""
    candidates: tuple[Candidate, ...]
    """All visits, by visit."""
    forced: bool
    """Whether the user named the reference."""

    @property
    def cost_order(self) -> tuple[Visit, ...]:
        """All visits, lowest cost first; ties by visit."""
        # The sort is stable and the candidates are in order of visit.
        return tuple(c.visit for c in sorted(self.candidates, key=lambda c: c.cost))


def choose_reference(
    sums: Mapping[Visit, SuperpixelSums],
    grid: SuperpixelGrid,
    *,
    visit: Visit | None = None,
    weights: ReferenceWeights | None = None,
    min_fraction: float = 0.1,
) -> ReferenceChoice:
    """Choose the visit whose background all others are brought to.

    Parameters
    ----------
    sums
        Tract-wide sums of every visit.
    grid
        Superpixels of the tract.
    visit
        Reference that the user wants; it is checked, and the costs are computed all the same.
    weights
        Weights of the terms.
    min_fraction
        Smallest share of good pixels that a superpixel needs to be used.

    Returns
    -------
    ReferenceChoice
        The visit of lowest cost (ties: lowest visit) or the forced one, and all candidates.

    Raises
    ------
    MatchError
        ``reference-unknown`` when the wanted visit is not there, ``reference-none`` when no
        visit has a measured superpixel.
    """
    candidates = tract_cost(sums, grid, weights=weights, min_fraction=min_fraction)
    if visit is not None:
        return ReferenceChoice(find_visit(visit, sums), candidates, forced=True)
    best = min(candidates, key=lambda c: c.cost, default=None)
    if best is None or not np.isfinite(best.cost):
        raise MatchError(
            "reference-none",
            "No visit of this tract has a measured superpixel",
            fix="Check the mask planes and background.min_frac.",
        )
    return ReferenceChoice(best.visit, candidates, forced=False)


def tract_cost(
    sums: Mapping[Visit, SuperpixelSums],
    grid: SuperpixelGrid,
    *,
    weights: ReferenceWeights | None = None,
    min_fraction: float = 0.1,
) -> tuple[Candidate, ...]:
    """Return every visit's cost as the reference, by visit.

    Parameters
    ----------
    sums, grid, weights, min_fraction
        As in `choose_reference`.

    Returns
    -------
    tuple of Candidate
        One per visit.

    Notes
    -----
    With ``m_k`` the superpixel means, ``s_k² = var_k / n_k`` their variances (at least a
    quarter of the median one, so that no superpixel dominates) and ``p`` the plane fitted with
    weights ``1/s_k²``: ``chi2 = Σ (m_k − p_k)² / s_k² / (K − 3)`` over the K measured
    superpixels. A positive term ``q`` enters as ``r / (1 + r)``, ``r = q / median(q)``, which
    is bounded: one bad visit can neither compress nor swamp the others.
    """
    raw = [_measure(v, sums[v], grid, min_fraction) for v in sorted_visits(sums)]
    usable = [c for c in raw if c.n_superpixels > 0]
    chi2 = _typical([c.chi2 for c in usable])
    variance = _typical([c.variance for c in usable])
    coverage = max((c.coverage for c in usable), default=0.0)
    share = weights if weights is not None else ReferenceWeights()
    return tuple(_with_terms(c, chi2, variance, coverage, share) for c in raw)


def _measure(
    visit: Visit, sums: SuperpixelSums, grid: SuperpixelGrid, min_fraction: float
) -> Candidate:
    used = measured(sums, grid, min_fraction)
    coverage = float(sums.n_good.sum()) / (grid.box.width * grid.box.height)
    if not used.any():
        return Candidate(visit, 0, np.nan, np.nan, coverage)
    chi2 = _plane_chi2(sums, grid, used)
    return Candidate(visit, int(used.sum()), chi2, float(np.median(sums.variance[used])), coverage)


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


def _typical(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.median(finite)) if finite else 0.0


def _bounded(value: float, typical: float) -> float:
    if not np.isfinite(value):
        return 1.0
    total = value + typical
    return value / total if total > 0 else 0.5


def _with_terms(
    raw: Candidate, chi2: float, variance: float, coverage: float, weights: ReferenceWeights
) -> Candidate:
    if raw.n_superpixels == 0:
        return raw
    terms = (
        _bounded(raw.chi2, chi2),
        _bounded(raw.variance, variance),
        1.0 - raw.coverage / coverage,
    )
    shares = (weights.chi2, weights.variance, weights.coverage)
    total = sum(shares)
    # Without any weight all candidates are equal, and the lowest visit is chosen.
    cost = sum(w * t for w, t in zip(shares, terms, strict=True)) / total if total > 0 else 0.0
    return Candidate(
        raw.visit,
        raw.n_superpixels,
        raw.chi2,
        raw.variance,
        raw.coverage,
        *terms,
        cost,
    )
