"""The strengths of the priors, chosen from the data.

The priors are Gaussian, so that their strengths are variance components. They are found by
maximising the restricted likelihood with the fixed-point steps of Fellner and Schall (in the
form of Wood and Fasiolo 2017, Biometrics 73, 1071)::

    λ ← φ · (rank K − λ tr(H⁻¹ K)) / (θᵀ K θ).

The bracket is the number of parameters that the data, not the prior, determine. Traces are
exact, so that nothing is random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.normal_equations import (
    DirectSolver,
    SelectedInverse,
    Strengths,
    SurfaceSystem,
    Theta,
    solve_directly,
)
from bgmatch_dask.background.observations import Observations, with_systematics
from bgmatch_dask.background.robust import huber_weights
from bgmatch_dask.background.solution import SolveConfig

__all__ = ("Tuned", "at_least", "solve_with", "stronger", "tune")

Array = NDArray[np.float64]

_FIRST_SMOOTHING = 1.0
_FIRST_RIDGE = 10.0
_BOUNDS = (1e-5, 1e7)
# Parameters' worth of the common strength in every visit's own: much where narrow overlaps say
# little of the inside of a visit, little where they say all.
_POOL_LOOSE = 250.0
_POOL_ANCHORED = 2.0
_NOISE_FREE = 1e-20
_REFINEMENTS = 2
_STRONGER = 3.0
_MAX_STRONGER = 4


@dataclass(frozen=True, slots=True)
class Tuned:
    """Strengths, robust weights, and the solution they lead to."""

    observations: Observations
    """The data with their systematic noise."""
    strengths: Strengths
    """Strengths of the priors."""
    robust: Array
    """Robust weight of each observation."""
    theta: Theta
    """Solution on the nodes of the system."""
    solver: DirectSolver
    """Factorised equations of that solution."""
    inverse: SelectedInverse
    """Their inverse."""
    noise: float
    """Noise variance of a weight of one, unit squared."""
    freedom: Array
    """Effective parameters of each visit."""
    score: float
    """Generalised cross-validation, up to a factor."""


def tune(
    system: SurfaceSystem,
    observations: Observations,
    anchored: NDArray[np.bool_],
    config: SolveConfig,
) -> Tuned:
    """Choose strengths and robust weights together, and solve.

    Parameters
    ----------
    system
        Normal equations on nodes for which a direct solution is affordable.
    observations
        The data.
    anchored
        Unknown visits whose slopes get no ridge.
    config
        Given strengths, and numbers of iterations.

    Returns
    -------
    Tuned
        The last solution belongs to the weights and strengths that are returned with it.
    """
    strengths = _first_strengths(anchored, config)
    robust = np.ones(len(observations))
    chooses = config.smoothing is None or (config.slope_prior is None and not anchored.all())
    tuned = solve_with(system, observations, strengths, robust)
    for _ in range(config.n_strength if chooses else config.n_robust):
        if tuned.noise == 0.0:
            return tuned
        residual = observations.value - system.predict(tuned.theta)
        # Residuals are smaller than errors by what the fit has used up.
        lost = float(tuned.freedom.sum()) / observations.freedom
        observations = with_systematics(observations, residual / np.sqrt(1.0 - lost))
        robust = huber_weights(residual, np.sqrt(observations.variance), config.huber)
        if chooses:
            strengths = _next_strengths(tuned, config)
        tuned = solve_with(system, observations, strengths, robust)
    return _smoothest(tuned) if config.smoothing is None else tuned


def _smoothest(tuned: Tuned) -> Tuned:
    """Strengthen the smoothness as long as that predicts better.

    A likelihood takes curvature for Gaussian. Backgrounds are smooth with a few bumps, which
    make it too weak for the rest; generalised cross-validation, ``Σ w r² / (n − freedom)²``,
    asks for prediction alone (Golub, Heath and Wahba 1979, Technometrics 21, 215).
    """
    for _ in range(_MAX_STRONGER):
        other = stronger(tuned)
        if other.noise == 0.0 or other.score >= tuned.score:
            break
        tuned = other
    return tuned


def stronger(tuned: Tuned) -> Tuned:
    """Return the solution with three times the smoothness."""
    return _with_smoothing(tuned, np.minimum(_STRONGER * tuned.strengths.smoothing, _BOUNDS[1]))


def at_least(tuned: Tuned, smoothing: float) -> Tuned:
    """Return the solution whose smoothness is nowhere weaker than a limit."""
    return _with_smoothing(tuned, np.maximum(tuned.strengths.smoothing, smoothing))


def _with_smoothing(tuned: Tuned, smoothing: Array) -> Tuned:
    if np.array_equal(smoothing, tuned.strengths.smoothing):
        return tuned
    strengths = replace(tuned.strengths, smoothing=smoothing)
    return solve_with(tuned.solver.system, tuned.observations, strengths, tuned.robust)


def _first_strengths(anchored: NDArray[np.bool_], config: SolveConfig) -> Strengths:
    smoothing = _FIRST_SMOOTHING if config.smoothing is None else config.smoothing
    ridge = _FIRST_RIDGE if config.slope_prior is None else config.slope_prior
    low = _BOUNDS[0]
    return Strengths(
        np.full(len(anchored), max(smoothing, low)), np.where(anchored, 0.0, max(ridge, low))
    )


def solve_with(
    system: SurfaceSystem, observations: Observations, strengths: Strengths, robust: Array
) -> Tuned:
    """Solve directly with given strengths and robust weights.

    The noise is 0 when nothing is left over: data without noise, or no more data than
    parameters.
    """
    weights = observations.weight * robust
    solver = solve_directly(system, weights, strengths)
    theta = _refined(solver, weights, strengths, weights * observations.value)
    inverse = solver.inverse()
    bound = strengths.smoothing * inverse.traces()
    bound += (strengths.ridge[:, np.newaxis] * inverse.slope_diagonal()).sum(axis=1)
    freedom = system.rank + 3.0 - bound
    residual = observations.value - system.predict(theta)
    squares = float((weights * residual**2).sum())
    left = float((robust * observations.share).sum()) - float(freedom.sum())
    known = squares > _NOISE_FREE * float((weights * observations.value**2).sum()) and left >= 1.0
    noise = squares / left if known else 0.0
    score = noise / left if known else 0.0
    return Tuned(observations, strengths, robust, theta, solver, inverse, noise, freedom, score)


def _refined(solver: DirectSolver, weights: Array, strengths: Strengths, weighted: Array) -> Theta:
    """Solve with iterative refinement: long chains would otherwise lose half the digits."""
    system = solver.system
    right = system.right_side(weighted)
    between = system.node_penalty(strengths)
    theta = solver.solve(right)
    for _ in range(_REFINEMENTS):
        product = system.multiply(theta, weights, strengths, between)
        rest = Theta(right.nodes - product.nodes, right.slopes - product.slopes)
        step = solver.solve(rest)
        theta = Theta(theta.nodes + step.nodes, theta.slopes + step.slopes)
    return theta


def _next_strengths(tuned: Tuned, config: SolveConfig) -> Strengths:
    system, old = tuned.solver.system, tuned.strengths
    smoothing, ridge = old.smoothing, old.ridge
    inverse = tuned.inverse
    free = ridge > 0
    if config.smoothing is None:
        fitted = np.maximum(system.rank - smoothing * inverse.traces(), 1e-3)
        energy = system.penalty.forms(tuned.theta.nodes, tuned.theta.slopes)
        smoothing = _pooled(fitted, energy, tuned.noise, ~free)
    if config.slope_prior is None and free.any():
        fitted = 2.0 - (ridge[:, np.newaxis] * inverse.slope_diagonal()).sum(axis=1)
        energy = (tuned.theta.slopes**2).sum(axis=1)
        total = max(float(fitted[free].sum()), 1e-3)
        spread = max(float(energy[free].sum()), 1e-300)
        ridge = np.where(free, _limited(tuned.noise * total / spread), 0.0)
    return Strengths(smoothing, ridge)


def _pooled(fitted: Array, energy: Array, noise: float, anchored: NDArray[np.bool_]) -> Array:
    """Return every visit's own strength, drawn towards the common one where data are few."""
    common = _limited(noise * float(fitted.sum()) / max(float(energy.sum()), 1e-300))
    pool = np.where(anchored, _POOL_ANCHORED, _POOL_LOOSE)
    out: Array = noise * (fitted + pool) / (energy + pool * noise / common)
    return np.clip(out, *_BOUNDS)


def _limited(value: float) -> float:
    return float(np.clip(value, *_BOUNDS))
