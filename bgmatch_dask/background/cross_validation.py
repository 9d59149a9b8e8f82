"""How well overlaps agree that took no part in the solution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.observations import measured_pairs
from bgmatch_dask.background.offsets import at_superpixels
from bgmatch_dask.background.solution import Solution, SolveConfig
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.background.visits import Visit, visit_key
from bgmatch_dask.geometry import SuperpixelGrid

__all__ = ("CrossValidation", "LeftOut", "cross_validate")

Array = NDArray[np.float64]
Plane = NDArray[np.bool_]
Pair = tuple[Visit, Visit]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One overlap, predicted from all those of other folds."""

    hub: Visit
    """First visit."""
    visit: Visit
    """Second visit."""
    n_superpixels: int
    """Superpixels compared."""
    before: float
    """Mean difference hub − visit before matching, weighted by pixels [image unit]."""
    mean: float
    """The same after matching with offsets that have not seen it."""


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """All overlaps that could be predicted."""

    overlaps: tuple[LeftOut, ...]
    """By pair."""
    untied: tuple[Pair, ...]
    """Overlaps without which nothing ties the two visits: nothing predicts them."""

    @property
    def rms_before(self) -> float:
        """Root mean square of the same means before matching; NaN without any."""
        means = np.array([o.before for o in self.overlaps])
        return float(np.sqrt(np.mean(means**2))) if means.size else float("nan")

    @property
    def rms(self) -> float:
        """Root mean square of the means, every overlap with the same weight; NaN without any."""
        means = np.array([o.mean for o in self.overlaps])
        return float(np.sqrt(np.mean(means**2))) if means.size else float("nan")


def cross_validate(
    differences: Mapping[Pair, SuperpixelSums],
    coverage: Mapping[Visit, Plane],
    grid: SuperpixelGrid,
    reference: Visit,
    config: SolveConfig | None = None,
    *,
    folds: int = 5,
    cost_order: Sequence[Visit] = (),
) -> CrossValidation:
    """Leave overlaps out, fold by fold, and predict them from the rest.

    Parameters
    ----------
    differences, coverage, grid, reference, config, cost_order
        As of `bgmatch_dask.background.solve.solve_offsets`.
    folds
        Number of solutions; overlap *i*, in order of visits, belongs to fold *i* mod ``folds``.

    Returns
    -------
    CrossValidation
    """
    settings = config if config is not None else SolveConfig()
    usable = measured_pairs(differences, grid, settings.min_fraction)
    pairs = sorted(
        (p for p in usable if usable[p].any()), key=lambda p: (visit_key(p[0]), visit_key(p[1]))
    )
    found: list[LeftOut] = []
    untied: list[Pair] = []
    for fold in range(folds):
        out = pairs[fold::folds]
        kept = {p: differences[p] for p in pairs if p not in out}
        if not out:
            continue
        solution = solve_offsets(kept, coverage, grid, reference, settings, cost_order=cost_order)
        for pair in out:
            if _tied(solution, pair):
                found.append(_predicted(solution, pair, differences[pair], usable[pair]))
            else:
                untied.append(pair)
    return CrossValidation(tuple(found), tuple(untied))


def _tied(solution: Solution, pair: Pair) -> bool:
    return any(pair[0] in c.visits and pair[1] in c.visits for c in solution.components)


def _predicted(solution: Solution, pair: Pair, sums: SuperpixelSums, used: Plane) -> LeftOut:
    hub, visit = pair
    offset = _offset(solution, visit) - _offset(solution, hub)
    n = sums.count[used]
    before, mean = (
        float((n * values[used]).sum() / n.sum()) for values in (sums.mean, sums.mean - offset)
    )
    return LeftOut(hub, visit, int(used.sum()), before, mean)


def _offset(solution: Solution, visit: Visit) -> Array:
    known = solution.offsets.get(visit)
    return at_superpixels(known) if known is not None else np.zeros(solution.grid.shape)
