"""How well overlapping visits agree, before and after matching: one number per pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bgmatch_dask.background.solution import Solution
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.background.visits import Visit

__all__ = ("Overlap", "OverlapFigures", "measure_overlaps", "overlap_figures")


@dataclass(frozen=True, slots=True)
class Overlap:
    """The mean difference hub − visit over all pixels that both have."""

    hub: Visit
    """First visit."""
    visit: Visit
    """Second visit."""
    n_superpixels: int
    """Superpixels with a measured difference."""
    n_pixels: float
    """Pixels behind it."""
    before: float
    """Clipped mean difference of the images [image unit]."""
    after: float
    """The same after matching."""
    sigma: float
    """Photon noise of the mean."""


@dataclass(frozen=True, slots=True)
class OverlapFigures:
    """All pairs in a few numbers."""

    pairs: int
    """Pairs measured."""
    rms_before: float
    """Root mean square of the mean differences before matching; NaN without pairs."""
    rms_after: float
    """The same after matching."""
    worst: float
    """Largest absolute mean difference after matching."""


def measure_overlaps(
    differences: Mapping[tuple[Visit, Visit], SuperpixelSums], solution: Solution
) -> tuple[Overlap, ...]:
    """Return the mean difference of every pair of the solution, weighted by pixels.

    Pairs of which the solution used no superpixel have none and are left out.

    Parameters
    ----------
    differences
        Sums of hub − visit of each pair on the tract-wide grid.
    solution
        The offsets; superpixels that it did not use are left out.
    """
    found = []
    for (hub, visit), residual in solution.residuals.items():
        sums = differences[hub, visit]
        used = (sums.count > 0) & np.isfinite(residual)
        n = float(sums.count[used].sum())
        if n == 0:
            continue
        found.append(
            Overlap(
                hub,
                visit,
                int(used.sum()),
                n,
                float(sums.total[used].sum()) / n,
                float((sums.count[used] * residual[used]).sum()) / n,
                float(np.sqrt(np.nansum((sums.count * sums.variance)[used]))) / n,
            )
        )
    return tuple(found)


def overlap_figures(overlaps: Sequence[Overlap]) -> OverlapFigures:
    """Summarise all pairs, every pair with the same weight."""
    before = np.array([o.before for o in overlaps])
    after = np.array([o.after for o in overlaps])
    if before.size == 0:
        return OverlapFigures(0, float("nan"), float("nan"), float("nan"))
    return OverlapFigures(
        len(overlaps),
        float(np.sqrt(np.mean(before**2))),
        float(np.sqrt(np.mean(after**2))),
        float(np.abs(after).max()),
    )
