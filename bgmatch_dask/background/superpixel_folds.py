"""Superpixels in folds, each fold predicted by a solution of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.layout import GUARD
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.solution import Offset, Solution, SolveConfig
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.numerics.keys import TAPS, keys_averages

__all__ = ("FoldResiduals", "predict_left_out", "predict_observations")

Array = NDArray[np.float64]
Pair = tuple[Visit, Visit]


@dataclass(frozen=True, slots=True)
class FoldResiduals:
    """Residuals of superpixels that their fit has not seen."""

    residual: Array
    """One for each observation of the solution; NaN where the others say nothing."""
    rms: float
    """Their root mean square."""
    rms_visit: Mapping[Visit, float]
    """The same over the pairs of each visit."""


def predict_left_out(
    differences: Mapping[Pair, SuperpixelSums],
    coverage: Mapping[Visit, NDArray[np.bool_]],
    solution: Solution,
    config: SolveConfig | None = None,
    *,
    folds: int = 5,
    cost_order: Sequence[Visit] = (),
) -> FoldResiduals:
    """Leave superpixels out by folds, solve again without them, and predict them.

    All pairs of a superpixel leave together, since they share the noise of its visits. With five
    folds no two neighbours along an axis leave at the same time. Strengths are chosen anew in
    each fold.

    Parameters
    ----------
    differences, coverage, config, cost_order
        What `solve_offsets` was given.
    solution
        What it returned.
    folds
        Number of folds, at least 2; the work is that many solutions.
    """
    data = solution.observations
    residual = np.full(len(data), np.nan)
    sy, sx = np.indices(solution.grid.shape)
    fold_of = (sx + 2 * sy) % folds
    for fold in range(folds):
        kept = {pair: _without(sums, fold_of == fold) for pair, sums in differences.items()}
        rest = solve_offsets(
            kept, coverage, solution.grid, solution.reference, config, cost_order=cost_order
        )
        out = np.flatnonzero(fold_of[data.sy, data.sx] == fold)
        residual[out] = data.value[out] - _predict(rest, data, out)
    return FoldResiduals(
        residual,
        _rms(residual),
        {visit: _rms(residual[np.isin(data.pair, _pairs_of(data, visit))]) for visit in coverage},
    )


def predict_observations(solution: Solution) -> Array:
    """Return ``⟨g_visit⟩ − ⟨g_hub⟩`` of every observation of a solution, from its offsets."""
    data = solution.observations
    out = np.zeros(len(data))
    for number, (hub, visit) in enumerate(data.pairs):
        own = np.flatnonzero(data.pair == number)
        out[own] = _averages(solution.offsets.get(visit), data, own) - _averages(
            solution.offsets.get(hub), data, own
        )
    return out


def _without(sums: SuperpixelSums, out: NDArray[np.bool_]) -> SuperpixelSums:
    planes = {f.name: np.where(out, 0.0, getattr(sums, f.name)) for f in fields(sums)}
    return SuperpixelSums(**planes)


def _pairs_of(data: Observations, visit: Visit) -> list[int]:
    return [number for number, pair in enumerate(data.pairs) if visit in pair]


def _predict(solution: Solution, data: Observations, at: NDArray[np.int64]) -> Array:
    """Return ``⟨g_visit⟩ − ⟨g_hub⟩`` of some observations, NaN where a visit has no offset."""
    out = np.full(len(at), np.nan)
    known = {v for c in solution.components for v in c.visits}
    lost = {v for c in solution.components if not c.has_reference for v in c.visits}
    for number in np.unique(data.pair[at]).tolist():
        hub, visit = data.pairs[number]
        # Two components have no common level: their difference is not predicted.
        if {hub, visit} & lost or not {hub, visit} <= known:
            continue
        own = data.pair[at] == number
        out[own] = _averages(solution.offsets.get(visit), data, at[own]) - _averages(
            solution.offsets.get(hub), data, at[own]
        )
    return out


def _averages(offset: Offset | None, data: Observations, at: NDArray[np.int64]) -> Array:
    """Return the averages of a surface over the boxes of observations; zero for the reference."""
    if offset is None:
        return np.zeros(len(at))
    taps = []
    for axis in (0, 1):
        low, high = (end[axis][at] / offset.pitch + GUARD for end in (data.low, data.high))
        last = np.full(len(at), offset.nodes.shape[axis] - 1, np.int64)
        base, weights = keys_averages(low, high, np.zeros_like(last), last)
        taps.append((base[:, np.newaxis] + np.arange(TAPS), weights))
    (rows, by_row), (columns, by_column) = taps
    nodes = offset.nodes[rows[:, :, np.newaxis], columns[:, np.newaxis, :]]
    out: Array = np.einsum("nj,njk,nk->n", by_row, nodes, by_column)
    return out


def _rms(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")
