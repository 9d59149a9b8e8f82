"""Match one warp, or many, to a reference warp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.per_warp.config import PerWarpConfig
from bgmatch_dask.background.per_warp.difference import Difference, subtract
from bgmatch_dask.background.per_warp.model import WarpModel, draw_model, fit_model
from bgmatch_dask.background.per_warp.reference import ReferenceChoice, choose_reference_warp
from bgmatch_dask.background.per_warp.upstream import upstream_residuals
from bgmatch_dask.background.visits import Visit, find_visit
from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.numerics.cells import CellGrid, measure_cells
from bgmatch_dask.numerics.statistics import Property, measure_statistics
from bgmatch_dask.warps.warp import Warp

__all__ = ("PerWarpMatches", "WarpFigures", "WarpMatch", "match_warp", "match_warps")


@dataclass(frozen=True, slots=True, eq=False)
class WarpFigures:
    """How good a match is."""

    fit_rms: float
    """Root mean square of `residuals` [image unit] (fitRMS)."""
    matched_mse: float
    """Mean square of the difference after matching [image unit squared] (matchedMSE)."""
    difference_variance: float
    """Clipped mean of the variance plane of the difference [image unit squared] (diffImVar)."""
    coverage: float
    """Share of the science warp's good pixels that lie in measured cells of the model; the offset
    of the others is interpolated or extrapolated."""
    grid: CellGrid
    """Cells of the residuals."""
    residuals: NDArray[np.float64]
    """Statistic of the matched difference in each cell [image unit], shape ``(ny, nx)``; NaN where
    nothing was measured."""

    @property
    def ratio(self) -> float:
        """``matched_mse / difference_variance``, about 1 for a good match; NaN when undefined."""
        if not self.difference_variance > 0:
            return float("nan")
        return self.matched_mse / self.difference_variance


@dataclass(frozen=True, slots=True, eq=False)
class WarpMatch:
    """A matched warp."""

    warp: Warp
    """The science warp with the offset added; variance and mask are as they were."""
    model: WarpModel
    """The offset."""
    figures: WarpFigures
    """How good the match is."""


@dataclass(frozen=True, slots=True, eq=False)
class PerWarpMatches:
    """All warps of one patch, matched to one of them."""

    reference: Visit
    """The reference. It has no entry in `matches` (fault L-7)."""
    choice: ReferenceChoice | None
    """How it was chosen; None when it was given."""
    matches: Mapping[Visit, WarpMatch | BgmatchError]
    """Match of every other visit, or the error that prevented it."""


def match_warp(
    reference: Warp,
    science: Warp,
    config: PerWarpConfig | None = None,
    *,
    upstream: bool = False,
) -> WarpMatch:
    """Bring one warp to the background of another.

    Parameters
    ----------
    reference, science
        Warps of the same box and unit; they are not changed.
    config
        Options; defaults when None.
    upstream
        Reproduce what LSST computed, faults L-1 to L-5 and L-8 included.

    Returns
    -------
    WarpMatch
        Matched warp, offset and figures.

    Raises
    ------
    MatchError
        A `RuntimeError`: ``per-warp-box``, ``per-warp-model``.
    InputError
        A `ValueError`: ``per-warp-no-overlap``, ``per-warp-bin-too-large``,
        ``per-warp-undersampled``.

    Notes
    -----
    With D = reference − science and the model M: matched = science + M, difference variance =
    clipped mean of the variance of D, matched MSE = mean of (D − M)², over pixels that no plane of
    ``config.mask`` marks in either warp. Residuals are the statistic of D − M in the very cells of
    the fit (faults L-4, L-5: upstream takes another grid, and the model half a pixel off).
    """
    options = config if config is not None else PerWarpConfig()
    difference = subtract(reference, science, options)
    model = fit_model(difference, options, upstream=upstream)
    offset = draw_model(model)
    with np.errstate(invalid="ignore", over="ignore"):
        matched = replace(science, image=science.image + offset)
        left = replace(difference, image=difference.image - offset)
    if upstream:
        grid, residuals = upstream_residuals(difference, offset, options)
    else:
        grid, residuals = _residuals(left, model, options)
    figures = WarpFigures(
        fit_rms=_rms(residuals[np.isfinite(residuals)]),
        matched_mse=_measure(left, left.image, options, Property.MEANSQUARE),
        difference_variance=_measure(left, left.variance, options, Property.MEANCLIP),
        coverage=_coverage(science, model, options),
        grid=grid,
        residuals=residuals,
    )
    return WarpMatch(matched, model, figures)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")


def _residuals(
    left: Difference, model: WarpModel, config: PerWarpConfig
) -> tuple[CellGrid, NDArray[np.float64]]:
    grid = model.background.cells
    residuals, _ = measure_cells(
        left.image, left.mask, left.variance, grid, config.statistic, config.statistics
    )
    return grid, residuals


def _measure(
    left: Difference, plane: NDArray[np.float32], config: PerWarpConfig, what: Property
) -> float:
    return measure_statistics(plane, left.mask, control=config.statistics).value(what)


def _coverage(science: Warp, model: WarpModel, config: PerWarpConfig) -> float:
    grid = model.background.cells
    good = np.isfinite(science.image) & ((science.mask & config.statistics.and_mask) == 0)
    rows = np.add.reduceat(good.astype(np.int64), grid.y_edges[:-1], axis=0)
    count = np.add.reduceat(rows, grid.x_edges[:-1], axis=1)
    return float(count[np.isfinite(model.background.values)].sum() / count.sum())


def match_warps(
    warps: Mapping[Visit, Warp],
    config: PerWarpConfig | None = None,
    *,
    reference: Visit | None = None,
    upstream: bool = False,
) -> PerWarpMatches:
    """Bring all warps of one patch to the background of one of them.

    Parameters
    ----------
    warps
        Warp of each visit, all of the same box and unit.
    config
        Options; defaults when None.
    reference
        The visit to match to; chosen by `choose_reference_warp` when None.
    upstream
        See `match_warp` and `choose_reference_warp`.

    Returns
    -------
    PerWarpMatches
        A visit that cannot be matched carries its error and stops no other.

    Raises
    ------
    MatchError
        ``per-warp-no-reference`` when none can be chosen, ``reference-unknown`` when the given one
        is not among the warps.
    """
    options = config if config is not None else PerWarpConfig()
    choice = None
    if reference is None:
        choice = choose_reference_warp(warps, options, upstream=upstream)
        chosen = choice.visit
    else:
        chosen = find_visit(reference, warps)
    matches: dict[Visit, WarpMatch | BgmatchError] = {}
    for visit, warp in warps.items():
        if visit == chosen:
            continue
        try:
            matches[visit] = match_warp(warps[chosen], warp, options, upstream=upstream)
        except BgmatchError as error:
            matches[visit] = error
    return PerWarpMatches(chosen, choice, matches)
