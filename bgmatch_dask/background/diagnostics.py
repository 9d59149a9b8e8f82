"""How good the match is: residuals of pairs, figures of visits, and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.solution import Flag, PairResidual, Solution
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.background.visits import Visit, sorted_visits

__all__ = ("GateLimits", "VisitDiagnostics", "diagnose", "pair_residuals")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Limits beyond which a visit gets the gate ``warn``."""

    ratio: float = 1.1
    """Largest matched MSE over difference variance (upstream: ``maxMatchResidualRatio``)."""
    rms: float | None = None
    """Largest fit RMS, unit of the image (upstream: ``maxMatchResidualRMS``)."""


@dataclass(frozen=True, slots=True)
class VisitDiagnostics:
    """Figures of one visit, over the superpixels of all its pairs; NaN where it has none."""

    visit: Visit
    """Label of the visit."""
    n_superpixels: int
    """Measured superpixels, over all pairs."""
    coverage: float
    """Measured superpixels of the tract, as a share of those that the visit covers."""
    fit_rms: float
    """Root mean square residual of superpixel means after matching."""
    fit_rms_weighted: float
    """The same with inverse-variance and robust weights."""
    rms_before: float
    """Root mean square superpixel difference before matching."""
    matched_mse: float
    """Mean squared matched difference of the kept pixels, unit squared."""
    difference_variance: float
    """Mean variance of the kept pixels of the differences, unit squared."""
    ratio: float
    """``matched_mse / difference_variance``: 1 where matching leaves only noise."""
    chi2: float
    """Reduced χ² of the residuals against photon noise of superpixel means."""
    freedom: float
    """Degrees of freedom of that χ²: independent differences minus what the fit used up."""
    flag_shares: Mapping[str, float]
    """Share of the visit's superpixels that carries each flag."""
    gate: Literal["pass", "warn"]
    """``warn`` when a limit is exceeded, or nothing ties the visit to the reference."""
    reasons: tuple[str, ...]
    """Why the gate warns."""


def pair_residuals(
    observations: Observations, prediction: Array, robust: Array
) -> tuple[PairResidual, ...]:
    """Return the residuals of every pair, in the order of the observations."""
    residual = observations.value - prediction
    starts = np.searchsorted(observations.pair, np.arange(len(observations.pairs) + 1))
    out = []
    for number, (hub, visit) in enumerate(observations.pairs):
        at = slice(int(starts[number]), int(starts[number + 1]))
        r, weight = residual[at], observations.weight[at] * robust[at]
        out.append(
            PairResidual(
                hub,
                visit,
                len(r),
                _rms(observations.value[at]),
                _rms(r),
                float(np.sqrt((weight * r**2).sum() / weight.sum())),
                float((weight * r).sum() / weight.sum()),
                float((r**2 / observations.photon[at]).sum()),
                int((robust[at] < 1.0).sum()),
            )
        )
    return tuple(out)


def diagnose(
    solution: Solution,
    differences: Mapping[tuple[Visit, Visit], SuperpixelSums],
    coverage: Mapping[Visit, NDArray[np.bool_]],
    limits: GateLimits | None = None,
) -> tuple[VisitDiagnostics, ...]:
    """Return the diagnostics of every visit, the reference included.

    Parameters
    ----------
    solution
        The offsets.
    differences
        The sums that they were solved from.
    coverage
        Superpixels of each visit.
    limits
        Limits of the gate.

    Returns
    -------
    tuple of VisitDiagnostics
        In order of visit.

    Notes
    -----
    With kept pixels ``n_k``, their variance ``s_k²`` and residual ``r_k`` of a superpixel, the
    matched pixels have mean square ``s_k² + r_k²``: MSE and variance are their means weighted
    with ``n_k``, so that the ratio is one exactly when all residuals vanish.
    """
    pixels = _pixels(solution.observations, differences)
    bounds = limits if limits is not None else GateLimits()
    visits = sorted_visits({*coverage, *solution.offsets, solution.reference})
    return tuple(_visit(v, solution, pixels, coverage.get(v), bounds) for v in visits)


def _pixels(
    observations: Observations, differences: Mapping[tuple[Visit, Visit], SuperpixelSums]
) -> tuple[Array, Array]:
    """Return kept pixels and pixel variance of every observation."""
    count, variance = np.zeros(len(observations)), np.zeros(len(observations))
    starts = np.searchsorted(observations.pair, np.arange(len(observations.pairs) + 1))
    for number, pair in enumerate(observations.pairs):
        at = slice(int(starts[number]), int(starts[number + 1]))
        place = (observations.sy[at], observations.sx[at])
        count[at] = differences[pair].count[place]
        variance[at] = differences[pair].variance[place]
    return count, variance


def _visit(
    visit: Visit,
    solution: Solution,
    pixels: tuple[Array, Array],
    covered: NDArray[np.bool_] | None,
    limits: GateLimits,
) -> VisitDiagnostics:
    data = solution.observations
    member = np.array([visit in pair for pair in data.pairs], bool)
    own = member[data.pair]
    residual = (data.value - solution.prediction)[own]
    share = data.share[own]
    weight = (data.weight * solution.robust)[own]
    count, variance = pixels[0][own], pixels[1][own]
    spread = _mean(variance, count)
    mse = _mean(variance + residual**2, count)
    freedom = float((share - solution.leverage[own]).sum())
    chi2 = float((share * residual**2 / data.photon[own]).sum())
    rms, ratio = _rms(residual), mse / spread if spread > 0 else np.nan
    reasons = _reasons(visit, solution, rms, ratio, limits)
    return VisitDiagnostics(
        visit=visit,
        n_superpixels=int(own.sum()),
        coverage=_measured_share(data, own, covered),
        fit_rms=rms,
        fit_rms_weighted=float(np.sqrt(_mean(residual**2, weight))),
        rms_before=_rms(data.value[own]),
        matched_mse=mse,
        difference_variance=spread,
        ratio=ratio,
        chi2=chi2 / freedom if freedom > 0 else np.nan,
        freedom=freedom,
        flag_shares=_flag_shares(visit, solution, covered),
        gate="warn" if reasons else "pass",
        reasons=reasons,
    )


def _reasons(
    visit: Visit, solution: Solution, rms: float, ratio: float, limits: GateLimits
) -> tuple[str, ...]:
    lost = any(visit in c.visits and not c.has_reference for c in solution.components)
    out = ["disconnected"] if lost else []
    if ratio > limits.ratio:
        out.append("ratio")
    if limits.rms is not None and rms > limits.rms:
        out.append("rms")
    return tuple(out)


def _measured_share(
    data: Observations, own: NDArray[np.bool_], covered: NDArray[np.bool_] | None
) -> float:
    if covered is None or not covered.any():
        return float("nan")
    measured = np.zeros_like(covered)
    measured[data.sy[own], data.sx[own]] = True
    return float((measured & covered).sum() / covered.sum())


def _flag_shares(
    visit: Visit, solution: Solution, covered: NDArray[np.bool_] | None
) -> dict[str, float]:
    if visit not in solution.offsets or covered is None or not covered.any():
        return {}
    flags = solution.offsets[visit].flags[covered]
    return {str(f.name).lower(): float(((flags & f) != 0).mean()) for f in Flag}


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")


def _mean(values: Array, weights: Array) -> float:
    total = float(weights.sum())
    return float((weights * values).sum()) / total if total > 0 else float("nan")
