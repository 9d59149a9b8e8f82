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

__all__ = (
    "GateLimits",
    "VisitDiagnostics",
    "diagnose",
    "diagnose_patches",
    "left_out_residuals",
    "pair_residuals",
)

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
    cv_rms: float
    """Root mean square residual of superpixels that were left out, see `left_out_residuals`."""
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
    table = _Table(solution, differences, coverage, limits or GateLimits())
    visits = sorted_visits({*coverage, *solution.offsets, solution.reference})
    return tuple(table.row(v, table.members(v), coverage.get(v)) for v in visits)


def diagnose_patches(
    solution: Solution,
    differences: Mapping[tuple[Visit, Visit], SuperpixelSums],
    coverage: Mapping[Visit, NDArray[np.bool_]],
    patch_of: NDArray[np.int64],
    limits: GateLimits | None = None,
) -> Mapping[tuple[Visit, int], VisitDiagnostics]:
    """Return the diagnostics of every visit on every patch that it covers.

    Parameters
    ----------
    solution, differences, coverage, limits
        As for `diagnose`.
    patch_of
        Patch of every superpixel ``(sy, sx)``: each belongs to one, so that sums over the patches
        are those of the tract.

    Returns
    -------
    Mapping
        By visit and patch, in order.
    """
    table = _Table(solution, differences, coverage, limits or GateLimits())
    data = solution.observations
    label = patch_of[data.sy, data.sx]
    out = {}
    for visit in sorted_visits({*coverage, *solution.offsets, solution.reference}):
        own, covered = table.members(visit), coverage.get(visit)
        order = np.argsort(label[own], kind="stable")
        for patch in np.unique(patch_of if covered is None else patch_of[covered]).tolist():
            first, last = np.searchsorted(label[own[order]], [patch, patch + 1])
            here = None if covered is None else covered & (patch_of == patch)
            out[visit, int(patch)] = table.row(visit, np.sort(own[order[first:last]]), here)
    return out


def left_out_residuals(solution: Solution) -> Array:
    """Return what each observation would leave had its superpixel been left out of the fit.

    Notes
    -----
    For a linear fit the residual of a left-out observation is ``r / (1 − h)``, with ``h`` the
    diagonal of the hat matrix (Allen 1974, Technometrics 16, 125; exact). Here ``h`` is the
    leverage over the observation's independent share, so that all the pairs of a superpixel leave
    together; strengths and robust weights stay those of the whole fit.
    """
    data = solution.observations
    residual = data.value - solution.prediction
    share = np.maximum(data.share, np.finfo(np.float64).tiny)
    rest = 1.0 - np.clip(solution.leverage / share, 0.0, 0.99)
    out: Array = residual / rest
    return out


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


class _Table:
    """What the rows of visits and patches share."""

    def __init__(
        self,
        solution: Solution,
        differences: Mapping[tuple[Visit, Visit], SuperpixelSums],
        coverage: Mapping[Visit, NDArray[np.bool_]],
        limits: GateLimits,
    ) -> None:
        data = solution.observations
        self.solution, self.coverage, self.limits = solution, coverage, limits
        self.count, self.variance = _pixels(data, differences)
        self.residual = data.value - solution.prediction
        self.left_out = left_out_residuals(solution)
        self.share = data.share

    def members(self, visit: Visit) -> NDArray[np.int64]:
        """Return the observations of a visit, in order."""
        data = self.solution.observations
        member = np.array([visit in pair for pair in data.pairs], bool)
        return np.flatnonzero(member[data.pair])

    def row(
        self, visit: Visit, own: NDArray[np.int64], covered: NDArray[np.bool_] | None
    ) -> VisitDiagnostics:
        """Return the figures of a visit over some of its observations and superpixels."""
        solution, data = self.solution, self.solution.observations
        residual, share, count = self.residual[own], self.share[own], self.count[own]
        weight = (data.weight * solution.robust)[own]
        spread = _mean(self.variance[own], count)
        mse = _mean(self.variance[own] + residual**2, count)
        freedom = float((share - solution.leverage[own]).sum())
        chi2 = float((share * residual**2 / data.photon[own]).sum())
        rms, ratio = _rms(residual), mse / spread if spread > 0 else np.nan
        reasons = _reasons(visit, solution, rms, ratio, self.limits)
        return VisitDiagnostics(
            visit=visit,
            n_superpixels=len(own),
            coverage=_measured_share(data, own, covered),
            fit_rms=rms,
            fit_rms_weighted=float(np.sqrt(_mean(residual**2, weight))),
            cv_rms=_rms(self.left_out[own]),
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
    data: Observations, own: NDArray[np.int64], covered: NDArray[np.bool_] | None
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
