"""What every chooser of a reference sees, and what it says of each visit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from bgmatch_dask.background.superpixels import SuperpixelSums, measured
from bgmatch_dask.background.visits import Visit, sorted_visits
from bgmatch_dask.geometry import SuperpixelGrid

__all__ = (
    "Candidate",
    "ReferenceField",
    "ReferenceWeights",
    "VisitFacts",
    "bounded",
    "measure_candidates",
    "typical",
    "with_cost",
)


@dataclass(frozen=True, slots=True)
class ReferenceWeights:
    """Weights of the terms of a cost (upstream: ``bestRefWeight*``); only ratios matter."""

    chi2: float = 0.3
    """Weight of the χ² of a plane (`tract_cost`)."""
    variance: float = 0.3
    """Weight of the pixel variance (`tract_cost`, `legacy_cost`)."""
    coverage: float = 0.4
    """Weight of the coverage (all)."""
    level: float = 0.2
    """Weight of the level (`legacy_cost`)."""
    depth: float = 0.6
    """Weight of the depth (`depth`)."""


@dataclass(frozen=True, slots=True)
class VisitFacts:
    """What is known of a visit beside its pixels."""

    exposure_time: float | None = None
    """Exposure time [s]."""
    fwhm: float | None = None
    """Seeing, full width at half maximum, in one unit for all visits."""


@dataclass(frozen=True, slots=True)
class ReferenceField:
    """All that a chooser may look at."""

    sums: Mapping[Visit, SuperpixelSums]
    """Tract-wide sums of every visit."""
    grid: SuperpixelGrid
    """Superpixels of the tract."""
    weights: ReferenceWeights = ReferenceWeights()
    """Weights of the terms."""
    min_fraction: float = 0.1
    """Smallest share of good pixels that a superpixel needs to be used."""
    facts: Mapping[Visit, VisitFacts] = field(default_factory=dict)
    """What is known of the visits beside their pixels."""
    calibrated: bool = True
    """Whether the images share one flux scale; else they scale with the exposure time."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One visit as a candidate for the reference."""

    visit: Visit
    """Label of the visit."""
    n_superpixels: int
    """Measured superpixels."""
    variance: float
    """Median pixel variance of the measured superpixels, unit squared; NaN if there is none."""
    level: float
    """Median of the means of the measured superpixels; NaN if there is none."""
    coverage: float
    """Good pixels of the visit as a share of the pixels of the tract."""
    chi2: float = np.nan
    """χ² of the superpixel means about a plane, per degree of freedom; NaN if not looked at."""
    depth: float = np.nan
    """``T² / (FWHM² σ²)``; NaN if not looked at."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Terms of the cost by name, each from 0 (best) to 1."""
    missing: tuple[str, ...] = ()
    """Facts that the chooser wanted of this visit and that are not known."""
    cost: float = np.inf
    """Weighted mean of the terms; infinite for a visit that cannot be the reference."""


def measure_candidates(seen: ReferenceField) -> list[Candidate]:
    """Return what all choosers need of every visit, by visit."""
    return [_measure(seen, visit) for visit in sorted_visits(seen.sums)]


def _measure(seen: ReferenceField, visit: Visit) -> Candidate:
    sums, box = seen.sums[visit], seen.grid.box
    used = measured(sums, seen.grid, seen.min_fraction)
    coverage = float(sums.n_good.sum()) / (box.width * box.height)
    if not used.any():
        return Candidate(visit, 0, np.nan, np.nan, coverage)
    variance = float(np.median(sums.variance[used]))
    return Candidate(visit, int(used.sum()), variance, float(np.median(sums.mean[used])), coverage)


def typical(values: Iterable[float]) -> float:
    """Return the median of the finite values, 0 if there are none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.median(finite)) if finite else 0.0


def bounded(value: float, usual: float) -> float:
    """Return ``r / (1 + r)`` with ``r = value / usual`` for positive values: 0 (best) to 1.

    One bad visit can then neither compress nor swamp the others, as it does where values are
    divided by the largest.
    """
    if not np.isfinite(value):
        return 1.0
    total = value + usual
    return value / total if total > 0 else 0.5


def with_cost(
    candidate: Candidate, terms: Mapping[str, float], weights: ReferenceWeights
) -> Candidate:
    """Return a candidate with its terms and their mean, weighted by the weights of their names."""
    if candidate.n_superpixels == 0:
        return candidate
    shares = {name: float(getattr(weights, name)) for name in terms}
    total = sum(shares.values())
    # Without any weight all candidates are equal, and the lowest visit is chosen.
    cost = sum(shares[name] * terms[name] for name in terms) / total if total > 0 else 0.0
    return replace(candidate, terms=dict(terms), cost=cost)
