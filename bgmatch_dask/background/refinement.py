"""The last step of a solution whose nodes are too many to be solved for directly.

Conjugate gradients on the wanted nodes; the direct solution on coarser nodes plus the diagonal
is the preconditioner. Coarse nodes are smooth by themselves and ask for less smoothness than
the wanted ones need, so that the strength is settled here, by cross-validation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bgmatch_dask.background.layout import GUARD, NodeLayout
from bgmatch_dask.background.normal_equations import Strengths, SurfaceSystem, Theta
from bgmatch_dask.background.observations import with_systematics
from bgmatch_dask.background.robust import huber_weights
from bgmatch_dask.background.smoothing_strength import Tuned, at_least, solve_with, stronger
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.numerics.keys import keys_weights

__all__ = ("Refined", "refine")

Array = NDArray[np.float64]

_SEARCH_TOLERANCE = 1e-5
_TOLERANCE = 1e-11
_MAX_ITERATIONS = 1000
_MAX_STRONGER = 6
_SEED = 20
_LEAST = 0.02  # Very coarse nodes need no prior at all, and know nothing of the right one.


@dataclass(frozen=True, slots=True)
class Refined:
    """The solution on the wanted nodes."""

    system: SurfaceSystem
    """Normal equations on the wanted nodes."""
    coarse: Tuned
    """Direct solution with the same data, strengths and robust weights."""
    theta: Theta
    """Solution on the wanted nodes."""
    noise: float
    """Noise variance of a weight of one, unit squared."""
    iterations: int
    """Iterations of the last solution."""


def refine(system: SurfaceSystem, tuned: Tuned, config: SolveConfig) -> Refined:
    """Solve on finer nodes than those that strengths and robust weights were chosen on.

    Parameters
    ----------
    system
        Normal equations on the wanted nodes.
    tuned
        Direct solution on coarser nodes.
    config
        Whether the smoothness is given, and robustness.

    Returns
    -------
    Refined
        Solution with robust weights, systematic noise, and strengths of its own.

    Notes
    -----
    The strength with the lowest ``Σ w r² / (n − tr)²`` is taken, ``tr`` being the trace of the
    influence matrix from one fixed vector of signs (Hutchinson 1989; the relative error is
    about ``√(2/tr)``).
    """
    if config.smoothing is None and tuned.noise > 0.0:
        tuned = at_least(tuned, _LEAST)
    transfer = _transfer(tuned.solver.system.layout, system.layout)
    start = Theta(transfer @ tuned.theta.nodes, tuned.theta.slopes)
    best = _Trial.solve(system, tuned, transfer, start)
    best = best.reweighted(config)
    for _ in range(_MAX_STRONGER if config.smoothing is None and best.noise > 0.0 else 0):
        other = best.with_coarse(stronger(best.coarse))
        if other.score >= best.score:
            break
        best = other
    best = best.reweighted(config)
    theta, count = _conjugate_gradients(best, best.right_side(), best.theta, _TOLERANCE)
    return Refined(system, best.coarse, theta, best.noise, count)


@dataclass(frozen=True, slots=True)
class _Trial:
    """A solution with given weights and strengths, and how well it predicts."""

    system: SurfaceSystem
    coarse: Tuned
    transfer: sparse.csr_matrix
    between: sparse.csr_matrix
    theta: Theta
    noise: float
    lost: float
    score: float

    @classmethod
    def solve(
        cls, system: SurfaceSystem, coarse: Tuned, transfer: sparse.csr_matrix, start: Theta
    ) -> _Trial:
        """Solve well enough to compare strengths."""
        between = system.node_penalty(coarse.strengths)
        trial = cls(system, coarse, transfer, between, start, 0.0, 0.0, 0.0)
        theta, _ = _conjugate_gradients(trial, trial.right_side(), start, _SEARCH_TOLERANCE)
        return replace(trial, theta=theta).judged()

    def judged(self) -> _Trial:
        """Return the same with its noise and score."""
        signs = np.random.default_rng(_SEED).choice((-1.0, 1.0), len(self.weights))
        probe = np.sqrt(self.weights) * signs
        nothing = Theta(np.zeros_like(self.theta.nodes), np.zeros_like(self.theta.slopes))
        right = self.system.right_side(probe)
        response, _ = _conjugate_gradients(self, right, nothing, _SEARCH_TOLERANCE)
        trace = float(probe @ self.system.predict(response))
        total = float((self.coarse.robust * self.coarse.observations.share).sum())
        squares = float((self.weights * self.residual**2).sum())
        left = max(total - trace, 1.0)
        return replace(
            self, noise=squares / left, lost=min(trace / total, 0.99), score=squares / left**2
        )

    def with_coarse(self, coarse: Tuned) -> _Trial:
        """Return the solution with other weights or strengths."""
        return self.solve(self.system, coarse, self.transfer, self.theta)

    def reweighted(self, config: SolveConfig) -> _Trial:
        """Return the solution with systematic noise and robust weights from its residuals."""
        if self.coarse.noise == 0.0:
            return self
        residual = self.residual
        data = with_systematics(self.coarse.observations, residual / np.sqrt(1.0 - self.lost))
        robust = huber_weights(residual, np.sqrt(data.variance), config.huber)
        system, strengths = self.coarse.solver.system, self.coarse.strengths
        return self.with_coarse(solve_with(system, data, strengths, robust))

    @property
    def weights(self) -> Array:
        """Weight of each observation."""
        return self.coarse.observations.weight * self.coarse.robust

    @property
    def residual(self) -> Array:
        """Residual of each observation."""
        return self.coarse.observations.value - self.system.predict(self.theta)

    @property
    def strengths(self) -> Strengths:
        """Strengths of the priors."""
        return self.coarse.strengths

    def right_side(self) -> Theta:
        """Return the right-hand side of the normal equations."""
        return self.system.right_side(self.weights * self.coarse.observations.value)

    def multiply(self, theta: Theta) -> Theta:
        """Return the normal matrix times ``theta``."""
        return self.system.multiply(theta, self.weights, self.strengths, self.between)


def _conjugate_gradients(
    trial: _Trial, right: Theta, start: Theta, tolerance: float
) -> tuple[Theta, int]:
    """Solve the normal equations to a relative residual; return the number of iterations."""
    diagonal = trial.system.diagonal(trial.weights, trial.strengths)
    back = trial.transfer.T.tocsr()

    def precondition(r: Theta) -> Theta:
        coarse = trial.coarse.solver.solve(Theta(back @ r.nodes, r.slopes))
        return Theta(trial.transfer @ coarse.nodes + r.nodes / diagonal, coarse.slopes)

    theta, residual = start, _add(right, trial.multiply(start), -1.0)
    goal = tolerance**2 * _dot(right, right)
    direction, previous = residual, 0.0
    for count in range(_MAX_ITERATIONS):
        if _dot(residual, residual) <= goal:
            return theta, count
        z = precondition(residual)
        now = _dot(residual, z)
        direction = _add(z, direction, now / previous) if count else z
        product = trial.multiply(direction)
        step = now / _dot(direction, product)
        theta = _add(theta, direction, step)
        residual = _add(residual, product, -step)
        previous = now
    return theta, _MAX_ITERATIONS


def _dot(a: Theta, b: Theta) -> float:
    return float(a.nodes @ b.nodes + (a.slopes * b.slopes).sum())


def _add(a: Theta, b: Theta, factor: float) -> Theta:
    return Theta(a.nodes + factor * b.nodes, a.slopes + factor * b.slopes)


def _transfer(coarse: NodeLayout, fine: NodeLayout) -> sparse.csr_matrix:
    """Return the matrix that renders coarse node values at the fine nodes."""
    ratio = fine.pitch / coarse.pitch
    parts = []
    for small, large in zip(coarse.windows, fine.windows, strict=True):
        y = _axis_transfer(large.y0, large.ny, small.y0, small.ny, ratio)
        x = _axis_transfer(large.x0, large.nx, small.x0, small.nx, ratio)
        parts.append(sparse.kron(y, x))
    return sparse.csr_matrix(sparse.block_diag(parts))


def _axis_transfer(
    fine_first: int, n_fine: int, coarse_first: int, n_coarse: int, ratio: float
) -> sparse.csr_matrix:
    steps = np.arange(n_fine, dtype=np.float64) + (fine_first - GUARD)
    t: Array = steps * ratio + (GUARD - coarse_first)
    base, weights = keys_weights(t, n_coarse)
    matrix = np.zeros((n_fine, n_coarse))
    np.put_along_axis(matrix, base[:, np.newaxis] + np.arange(4), weights, axis=1)
    return sparse.csr_matrix(matrix)
