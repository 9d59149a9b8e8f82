"""What the solution for a visit says about the strengths of its priors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.penalty import TREND
from bgmatch_dask.background.sky_solvers import SkySolver

__all__ = ("FEWEST", "Evidence", "evidence_of")

Array = NDArray[np.float64]

FEWEST = 1e-3
"""Parameters that the data determine at least."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one visit says about the strengths of its priors."""

    freedom: float
    """Effective parameters."""
    fitted: float
    """Parameters among those that the smoothness restrains."""
    energy: float
    """``K`` of its surface."""
    squares: Array
    """Squared terms of its trend."""
    variances: Array
    """Their variances, in units of the noise."""


def evidence_of(solver: SkySolver, theta: Array, visit: int) -> Evidence:
    """Return what a visit says.

    Parameters
    ----------
    solver
        Factorised equations of the solution.
    theta
        Modes of all visits.
    visit
        The visit.
    """
    system, prior, covariance = solver.system, solver.priors[visit], solver.covariance(visit, visit)
    penalty, terms, j = system.penalties[visit], prior.terms, prior.to_terms
    cross, own = penalty.cross[:, terms], penalty.trend[np.ix_(terms, terms)]
    jc = j @ covariance
    between = float(np.vdot(penalty.energy, covariance))
    mixed = float((cross.T * jc).sum())
    trace = between + 2.0 * mixed + float(((own @ j) * jc).sum())
    trace += float((prior.covariance * own).sum())
    strength = float(solver.strengths.smoothing[visit])
    n, n_terms = float(len(covariance)), len(terms)
    # A gauge has no trend, hence nothing that K leaves free.
    rank = n + n_terms if system.gauge[visit] else n - 1.0
    g = theta[system.modes_of(visit)]
    b = j @ g
    squares, variances = np.zeros(TREND), np.zeros(TREND)
    squares[terms] = b**2
    variances[terms] = np.diag(prior.covariance + jc @ j.T)
    energy = float(g @ (penalty.energy @ g) + 2.0 * (g @ cross) @ b + b @ own @ b)
    return Evidence(
        freedom=n - strength * (between + mixed),
        fitted=max(rank - strength * trace, FEWEST),
        energy=max(energy, 0.0),
        squares=squares,
        variances=variances,
    )
