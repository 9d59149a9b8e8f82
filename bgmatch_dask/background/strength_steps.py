"""One step of the strengths of the priors towards those that the data ask for.

The fixed-point step of Fellner and Schall, see `bgmatch_dask.background.smoothing_strength`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.evidence import FEWEST, Evidence
from bgmatch_dask.background.penalty import PLANE, TREND
from bgmatch_dask.background.sky_solvers import SkySolver
from bgmatch_dask.background.sky_system import Strengths
from bgmatch_dask.background.solution import SolveConfig

__all__ = ("BOUNDS", "next_strengths")

Array = NDArray[np.float64]
Plane = NDArray[np.bool_]

BOUNDS = (1e-5, 1e7)
"""Least and largest strength."""
# Parameters' worth of the common strength in every visit's own: much where narrow overlaps say
# little of the inside of a visit, little where they say all.
_POOL_LOOSE = 2000.0
_POOL_ANCHORED = 2.0
_STRIDE = 2.0
_LONGEST = 5.0
_LITTLE = 0.2
_TINY = 1e-300


def next_strengths(
    solver: SkySolver, evidence: Sequence[Evidence], noise: float, config: SolveConfig
) -> Strengths:
    """Return the strengths that a solution asks for.

    Parameters
    ----------
    solver
        The equations of the solution.
    evidence
        What each visit says.
    noise
        Noise variance of a weight of one.
    config
        Strengths that are given.
    """
    old, system, found = solver.strengths, solver.system, evidence
    smoothing, ridge = old.smoothing.copy(), old.ridge.copy()
    free, moving = ridge[:, 0] > 0, ~system.rigid
    if config.smoothing is None:
        fitted = np.array([e.fitted for e in found])
        energy = np.array([e.energy for e in found])
        size = np.array([len(modes) for modes in system.modes])
        aim = _pooled(fitted[moving], energy[moving], noise, ~free[moving])
        ratio = np.clip(aim / smoothing[moving], 1.0 / _LONGEST, _LONGEST)
        # Where little is fitted the steps go the right way, but not far enough.
        stride = np.where((fitted < _LITTLE * size)[moving], _STRIDE, 1.0)
        smoothing[moving] = np.clip(smoothing[moving] * ratio**stride, *BOUNDS)
    if config.slope_prior is None and free.any():
        ridge[free, :PLANE] = _common(evidence, noise, ridge, free, slice(0, PLANE))
    curved = np.isfinite(ridge[:, PLANE]) & ~system.gauge & moving
    if curved.any():
        ridge[curved, PLANE:] = _common(evidence, noise, ridge, curved, slice(PLANE, TREND))
    return Strengths(smoothing, ridge)


def _common(
    evidence: Sequence[Evidence], noise: float, ridge: Array, which: Plane, terms: slice
) -> float:
    """Return one ridge for some terms of some visits."""
    squares = np.array([e.squares for e in evidence])[which, terms]
    variances = np.array([e.variances for e in evidence])[which, terms]
    fitted = max(float((1.0 - ridge[which, terms] * variances).sum()), FEWEST)
    return _limited(noise * fitted / max(float(squares.sum()), _TINY))


def _pooled(fitted: Array, energy: Array, noise: float, anchored: Plane) -> Array:
    """Return every visit's own strength, drawn towards the common one where data are few."""
    common = _limited(noise * float(fitted.sum()) / max(float(energy.sum()), _TINY))
    # A few sharp skies have most of the energy: they must not make the others rough.
    typical = _limited(float(np.median(noise * fitted / np.maximum(energy, _TINY))))
    goal = np.where(anchored, max(typical, common), common)
    pool = np.where(anchored, _POOL_ANCHORED, _POOL_LOOSE)
    out: Array = noise * (fitted + pool) / (energy + pool * noise / goal)
    return np.clip(out, *BOUNDS)


def _limited(value: float) -> float:
    return float(np.clip(value, *BOUNDS))
