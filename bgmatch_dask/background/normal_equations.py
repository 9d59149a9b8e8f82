"""The normal equations of the surface model, their direct solution, and its inverse.

Unknowns ``θ = (g, b)``: node values of all visits, then two slopes per visit. With the
observation operator ``A``, weights ``W`` and strengths ``λ_v`` (smoothness) and ``μ_v`` (ridge
on slopes)::

    H θ = (Aᵀ W d, 0),   H = Aᵀ W A + Σ_v λ_v K_v + Σ_v μ_v |b_v|².

Between nodes, ``H`` is block tridiagonal in strips of the tract; the slopes are a border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_solve, cholesky, solve_triangular

from bgmatch_dask.background.layout import NodeLayout, taps
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.penalty import Penalty, build_penalty
from bgmatch_dask.errors import MatchError
from bgmatch_dask.numerics.block_tridiagonal import BlockCholesky, factorise
from bgmatch_dask.numerics.tap_kernels import (
    TapRows,
    adjoint,
    apply,
    normal_blocks,
    normal_diagonal,
    quadratic_forms,
)

__all__ = ("DirectSolver", "Strengths", "SurfaceSystem", "Theta", "build_system", "solve_directly")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Strengths:
    """Strengths of the priors, per unknown visit ``(n_visits,)``."""

    smoothing: Array
    """``λ_v``, positive."""
    ridge: Array
    """``μ_v``, zero for anchored visits."""


@dataclass(frozen=True, slots=True)
class Theta:
    """Values of all unknowns."""

    nodes: Array
    """Node values, ``(n_nodes,)``."""
    slopes: Array
    """Mean slopes along x and y, ``(n_visits, 2)``, per superpixel."""


@dataclass(frozen=True, slots=True)
class SurfaceSystem:
    """Everything about the normal equations that does not depend on weights or strengths."""

    layout: NodeLayout
    """Where the nodes lie."""
    rows: TapRows
    """Observation operator."""
    penalty: Penalty
    """Smoothness prior."""

    @property
    def rank(self) -> Array:
        """Rank of each visit's ``K_v``: all its unknowns but those of a plane."""
        return np.diff(self.layout.starts).astype(np.float64) - 1.0

    def predict(self, theta: Theta) -> Array:
        """Return the modelled differences."""
        return apply(self.rows, theta.nodes)

    def right_side(self, weighted: Array) -> Theta:
        """Return ``(Aᵀ r, 0)`` for weighted values ``r``."""
        nodes = adjoint(self.rows, weighted, self.layout.n_nodes)
        return Theta(nodes, np.zeros_like(self.penalty.slope))

    def node_penalty(self, strengths: Strengths) -> sparse.csr_matrix:
        """Return ``Σ λ_v K_v`` between nodes."""
        p, n = self.penalty, self.layout.n_nodes
        values = p.value * strengths.smoothing[p.visit]
        return sparse.csr_matrix((values, (p.row, p.column)), shape=(n, n))

    def cross(self, strengths: Strengths) -> Array:
        """Return the entries of ``H`` between each node and its visit's slopes."""
        return self.penalty.cross * strengths.smoothing[self.penalty.owner, np.newaxis]

    def slope_diagonal(self, strengths: Strengths) -> Array:
        """Return the diagonal of ``H`` at the slopes, ``(n_visits, 2)``."""
        own = self.penalty.slope * strengths.smoothing[:, np.newaxis]
        return own + strengths.ridge[:, np.newaxis]

    def multiply(
        self, theta: Theta, weights: Array, strengths: Strengths, between: sparse.csr_matrix
    ) -> Theta:
        """Return ``H θ``; ``between`` is `node_penalty` of the same strengths."""
        cross, owner = self.cross(strengths), self.penalty.owner
        nodes = adjoint(self.rows, weights * self.predict(theta), self.layout.n_nodes)
        nodes += between @ theta.nodes + (cross * theta.slopes[owner]).sum(axis=1)
        slopes = self.slope_diagonal(strengths) * theta.slopes
        for axis in (0, 1):
            slopes[:, axis] += np.bincount(owner, cross[:, axis] * theta.nodes, len(slopes))
        return Theta(nodes, slopes)

    def diagonal(self, weights: Array, strengths: Strengths) -> Array:
        """Return the diagonal of ``H`` at the nodes."""
        p = self.penalty
        on = p.row == p.column
        out = normal_diagonal(self.rows, weights, self.layout.n_nodes)
        out[p.row[on]] += p.value[on] * strengths.smoothing[p.visit[on]]
        return out


def build_system(observations: Observations, layout: NodeLayout) -> SurfaceSystem:
    """Return the normal equations of some observations on the nodes of a layout."""
    return SurfaceSystem(layout, taps(observations, layout), build_penalty(layout))


@dataclass(frozen=True, slots=True)
class DirectSolver:
    """Factorised normal equations."""

    system: SurfaceSystem
    """What was factorised."""
    blocks: BlockCholesky
    """Factor between nodes, in the order of the strips."""
    border: Array
    """``X = T⁻¹ C`` in the order of the strips: ``T`` between nodes, ``C`` nodes to slopes."""
    schur: Array
    """Lower Cholesky factor of ``D − Cᵀ X``, ``D`` between slopes."""

    def solve(self, right: Theta) -> Theta:
        """Return ``H⁻¹`` times a right-hand side."""
        position = self.system.layout.order.position
        sorted_right = np.empty_like(right.nodes)
        sorted_right[position] = right.nodes
        first = self.blocks.solve(sorted_right)
        # Cᵀ T⁻¹ r = Xᵀ r: the border needs no second look at C.
        rest = right.slopes.ravel() - self.border.T @ sorted_right
        slopes = cho_solve((self.schur, True), rest, check_finite=False)
        nodes = first - self.border @ slopes
        return Theta(nodes[position], slopes.reshape(right.slopes.shape))

    def inverse(self) -> SelectedInverse:
        """Return the part of ``H⁻¹`` that variances and traces need."""
        position = self.system.layout.order.position
        found = self.blocks.inverse_blocks()
        memory = np.concatenate([b.ravel() for b in (*found.diagonal, *found.lower)])
        border = self.border[position]
        identity = np.eye(len(self.schur))
        half = solve_triangular(self.schur, identity, lower=True, check_finite=False)
        return SelectedInverse(self.system, memory, border @ half.T, half)


@dataclass(frozen=True, slots=True)
class SelectedInverse:
    """Entries of ``H⁻¹`` inside the pattern of ``H``: ``S + Y Yᵀ`` between nodes."""

    system: SurfaceSystem
    """What was inverted."""
    memory: Array
    """Blocks of ``S``."""
    low_rank: Array
    """``Y``, by node."""
    half: Array
    """``L⁻¹`` of the slopes' Schur complement ``L Lᵀ``."""

    def variances(self, rows: TapRows) -> Array:
        """Return the variance of every row of an operator, in units of the noise."""
        return quadratic_forms(rows, self.system.layout.order, self.memory, self.low_rank)

    def slope_diagonal(self) -> Array:
        """Return the diagonal of ``H⁻¹`` at the slopes, ``(n_visits, 2)``."""
        out: Array = (self.half**2).sum(axis=0).reshape(-1, 2)
        return out

    def traces(self) -> Array:
        """Return ``tr(H⁻¹ K_v)`` of every visit."""
        p, n = self.system.penalty, len(self.system.penalty.slope)
        where, kept = self.system.layout.order.addresses(p.row, p.column)
        block = self.system.layout.order.block
        # Entries above the diagonal blocks equal those below, which are counted twice.
        times = np.where(kept, np.where(block[p.row] == block[p.column], 1.0, 2.0), 0.0)
        entries = times * self.memory[where]
        energy = sparse.csr_matrix((p.value, (p.row, p.column)), shape=(len(block), len(block)))
        mixed = (self.low_rank * (energy @ self.low_rank)).sum(axis=1)
        out: Array = np.zeros(n)
        out += np.bincount(p.visit, p.value * entries, n) + np.bincount(p.owner, mixed, n)
        for axis in (0, 1):
            mixed = -(self.low_rank * self.half[:, 2 * p.owner + axis].T).sum(axis=1)
            out += np.bincount(p.owner, 2.0 * p.cross[:, axis] * mixed, n)
        out += (p.slope * self.slope_diagonal()).sum(axis=1)
        return out


def solve_directly(system: SurfaceSystem, weights: Array, strengths: Strengths) -> DirectSolver:
    """Factorise the normal equations.

    Parameters
    ----------
    system
        The equations.
    weights
        Weight of each observation.
    strengths
        Strengths of the priors.

    Returns
    -------
    DirectSolver
        Solves for any right-hand side, and inverts.

    Raises
    ------
    MatchError
        ``solve-singular`` when the equations do not determine the offsets.
    """
    order, p = system.layout.order, system.penalty
    memory = normal_blocks(system.rows, weights, order)
    where, kept = order.addresses(p.row, p.column)
    memory[where[kept]] += (p.value * strengths.smoothing[p.visit])[kept]
    position, n_slopes = order.position, p.slope.size
    mixed = system.cross(strengths)
    cross = np.zeros((system.layout.n_nodes, n_slopes))
    for axis in (0, 1):
        cross[position, 2 * p.owner + axis] = mixed[:, axis]
    try:
        blocks = factorise(order.matrix(memory))
        border = blocks.solve(cross)
        schur = np.diag(system.slope_diagonal(strengths).ravel()) - cross.T @ border
        lower = cholesky(schur, lower=True, check_finite=False)
    except np.linalg.LinAlgError as error:
        raise MatchError(
            "solve-singular",
            "The differences and the priors do not determine the offsets",
            fix="Use a larger match.smoothing, or let it be chosen from the data.",
        ) from error
    return DirectSolver(system, blocks, border, lower)
