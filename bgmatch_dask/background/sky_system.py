"""The normal equations of the surface model, solved with the common sky taken out.

Sample ``e`` of visit ``i`` at site ``k`` needs the offset ``x_e``; with the operator ``B_i`` from
nodes to samples and the sky ``S``, one value per site::

    Σ_e w_e (x_e − (B_i g_i)_e − S_k)² + Σ_i g_iᵀ P_i g_i → min.

Given the sky, visits do not meet. With ``T_i = B_iᵀ W_i B_i + P_i = L_i L_iᵀ`` and
``V_i = L_i⁻¹ B_iᵀ W_i`` the sky follows from ``M = Σ W_i − Σ V_iᵀ V_i``, one row per site, and the
offsets from the sky. The work grows with the number of visits, not with a power of it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bgmatch_dask.background.layout import NodeLayout, sample_rows
from bgmatch_dask.background.penalty import Penalty, build_penalty
from bgmatch_dask.background.samples import Samples
from bgmatch_dask.errors import MatchError
from bgmatch_dask.numerics.triangular import inverse_of_factor, solve_lower

__all__ = ("SkySolver", "SkySystem", "Strengths", "build_system", "each", "factorise")

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_Result = TypeVar("_Result")


def each(work: Callable[[int], _Result], n: int, threads: int) -> list[_Result]:
    """Return some work on ``0 … n − 1``, in order, by one thread or several."""
    if threads == 1:
        return [work(i) for i in range(n)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(n)))


@dataclass(frozen=True, slots=True)
class Strengths:
    """Strengths of the priors, per visit."""

    smoothing: Array
    """``λ``, positive, ``(n_visits,)``."""
    ridge: Array
    """Ridges on the terms of the trend, ``(n_visits, TREND)``; infinite: the term is zero."""


@dataclass(frozen=True, slots=True)
class SkySystem:
    """Everything about the equations that does not depend on weights or strengths."""

    layout: NodeLayout
    """Where the nodes lie."""
    samples: Samples
    """What the equations are about."""
    rows: tuple[sparse.csr_matrix, ...]
    """``B_i`` of each visit."""
    penalties: tuple[Penalty, ...]
    """Smoothness prior of each visit."""
    gauge: NDArray[np.bool_]
    """Visits whose trend is zero."""
    rigid: NDArray[np.bool_]
    """Visits whose offset is zero."""
    threads: int
    """Visits that are worked on at a time; no result depends on it."""

    def own(self, visit: int) -> slice:
        """Return where the samples of a visit lie."""
        return slice(int(self.samples.starts[visit]), int(self.samples.starts[visit + 1]))

    def each(self, work: Callable[[int], _Result], n: int | None = None) -> list[_Result]:
        """Return some work on every visit (or the first ``n``), in order."""
        return each(work, len(self.rows) if n is None else n, self.threads)

    def nodes(self, theta: Array, visit: int) -> Array:
        """Return the node values of a visit."""
        starts = self.layout.starts
        return theta[int(starts[visit]) : int(starts[visit + 1])]

    def at_samples(self, theta: Array) -> Array:
        """Return the offset of every sample."""
        return np.concatenate([b @ self.nodes(theta, v) for v, b in enumerate(self.rows)])


def build_system(
    samples: Samples,
    layout: NodeLayout,
    gauge: NDArray[np.bool_],
    rigid: NDArray[np.bool_],
    threads: int = 1,
) -> SkySystem:
    """Return the equations of some samples on the nodes of a layout."""
    cache: dict[tuple[int, int], Penalty] = {}
    for window in layout.windows:
        key = (window.ny, window.nx)
        if key not in cache:
            cache[key] = build_penalty(window, layout.grid, layout.pitch)
    return SkySystem(
        layout=layout,
        samples=samples,
        rows=tuple(sample_rows(layout, samples, v) for v in range(len(layout.windows))),
        penalties=tuple(cache[w.ny, w.nx] for w in layout.windows),
        gauge=gauge,
        rigid=rigid,
        threads=threads,
    )


@dataclass(frozen=True, slots=True)
class Prior:
    """The prior of one visit with the terms of its trend taken out."""

    terms: Index
    """Numbers of the terms that are not zero."""
    covariance: Array
    """``(λ S + R)⁻¹``, of the terms given the nodes."""
    to_terms: Array
    """``J``: terms of the trend from the nodes, ``(n_terms, n_nodes)``."""
    matrix: Array
    """``P``, dense."""

    @classmethod
    def of(cls, penalty: Penalty, smoothing: float, ridge: Array) -> Prior:
        """Return ``P = λ (E − λ C (λ S + R)⁻¹ Cᵀ)``."""
        terms = np.flatnonzero(np.isfinite(ridge))
        cross = penalty.cross[:, terms]
        between = smoothing * penalty.trend[np.ix_(terms, terms)] + np.diag(ridge[terms])
        covariance = np.linalg.inv(between).astype(np.float64, copy=False)
        to_terms = -smoothing * (covariance @ cross.T)
        matrix = smoothing * (penalty.energy.toarray() + cross @ to_terms)
        return cls(terms, covariance, to_terms, matrix)


@dataclass(frozen=True, slots=True)
class _Block:
    """Factor of one visit's equations given the sky."""

    lower: Array
    """``L``."""
    fixed: Array | None
    """Orthonormal ``L⁻¹ Z``: directions in which a gauge does not move."""
    to_sky: Array
    """``V``, ``(n_nodes, n_samples)``."""
    prior: Prior
    """Prior of the visit."""

    def half(self, right: Array) -> Array:
        """Return ``L⁻¹`` times something, without what is fixed."""
        out = solve_lower(self.lower, right)
        return out if self.fixed is None else out - self.fixed @ (self.fixed.T @ out)

    def back(self, half: Array) -> Array:
        """Return ``L⁻ᵀ`` times something."""
        return solve_lower(self.lower, half, transposed=True)


@dataclass(frozen=True, slots=True)
class SkySolver:
    """Factorised equations."""

    system: SkySystem
    """What was factorised."""
    weights: Array
    """Weight of each sample."""
    strengths: Strengths
    """Strengths of the priors."""
    blocks: tuple[_Block | None, ...]
    """Factor of each visit; None for what is rigid."""
    sky: Array
    """Lower Cholesky factor of ``M``."""

    def prior(self, visit: int) -> Prior:
        """Return the prior of a visit."""
        block, s = self.blocks[visit], self.strengths
        if block is not None:
            return block.prior
        return Prior.of(self.system.penalties[visit], s.smoothing[visit], s.ridge[visit])

    def step(self, needed: Array, theta: Array) -> Array:
        """Return the change of all nodes that fits what the samples still need.

        ``needed`` is what is left with the nodes ``theta``, whose prior pulls them back.
        """
        system, samples = self.system, self.system.samples
        weighted = self.weights * needed

        def forward(v: int) -> tuple[Array, Array] | None:
            block = self.blocks[v]
            if block is None:
                return None
            right = system.rows[v].T @ weighted[system.own(v)]
            half = block.half(right - block.prior.matrix @ system.nodes(theta, v))
            return half, block.to_sky.T @ half

        halves = system.each(forward)
        right = samples.of_sites(weighted)
        for v, found in enumerate(halves):
            if found is not None:
                right[samples.site[system.own(v)]] -= found[1]
        sky = solve_lower(self.sky, solve_lower(self.sky, right), transposed=True)

        def back(v: int) -> Array:
            block, found = self.blocks[v], halves[v]
            if block is None or found is None:
                return np.zeros(system.rows[v].shape[1])
            return block.back(found[0] - block.to_sky @ sky[samples.site[system.own(v)]])

        return np.concatenate(system.each(back))

    def spread(self, visit: int, rows: sparse.csr_matrix) -> tuple[Array, Array]:
        """Return how well linear functions of a visit's nodes are known, in units of the noise.

        Returns
        -------
        alone : ndarray of float64
            Their variance given the sky, ``(n,)``.
        shared : ndarray of float64
            ``F`` with ``Fᵀ F`` the covariance that comes with the sky, ``(n_sites, n)``: the
            variance of a difference of two visits is ``alone₁ + alone₂ + |F₁ − F₂|²``.
        """
        system, block = self.system, self.blocks[visit]
        n_sites = system.samples.n_sites
        if block is None:
            return np.zeros(rows.shape[0]), np.zeros((n_sites, rows.shape[0]))
        half = block.half(rows.toarray().T)
        moved = np.zeros((n_sites, rows.shape[0]))
        moved[system.samples.site[system.own(visit)]] = block.to_sky.T @ half
        shared = solve_lower(self.sky, moved)
        return (half**2).sum(axis=0), shared

    def spectrum(self, visit: int) -> tuple[Array, Array]:
        """Return the covariance of a visit's nodes, in units of the noise, in two parts.

        Returns
        -------
        alone : ndarray of float64
            Covariance given the sky, ``(n_nodes, n_nodes)``.
        shared : ndarray of float64
            ``Y`` with ``Y Yᵀ`` what comes with the sky, ``(n_nodes, n_sites)``.
        """
        system, block = self.system, self.blocks[visit]
        n = system.rows[visit].shape[1]
        if block is None:
            return np.zeros((n, n)), np.zeros((n, 0))
        if block.fixed is None:
            alone = inverse_of_factor(block.lower)
        else:
            identity = block.half(np.eye(n))
            alone = identity.T @ identity
        site = system.samples.site[system.own(visit)]
        moved = np.zeros((system.samples.n_sites, n))
        moved[site] = block.back(block.to_sky).T
        shared = solve_lower(self.sky, moved)
        return alone, shared.T


def factorise(system: SkySystem, weights: Array, strengths: Strengths) -> SkySolver:
    """Factorise the equations.

    Raises
    ------
    MatchError
        ``solve-singular`` when the equations do not determine the offsets.
    """

    def factor(v: int) -> tuple[_Block, Array] | None:
        if system.rigid[v]:
            return None
        w = weights[system.own(v)]
        heavy = sparse.diags(w) @ system.rows[v]
        prior = Prior.of(system.penalties[v], strengths.smoothing[v], strengths.ridge[v])
        matrix = (system.rows[v].T @ heavy).toarray() + prior.matrix
        fixed = None
        if system.gauge[v]:
            basis, _ = np.linalg.qr(system.penalties[v].polynomials)
            matrix += float(np.diag(matrix).mean()) * (basis @ basis.T)
        lower = np.linalg.cholesky(matrix)
        if system.gauge[v]:
            fixed, _ = np.linalg.qr(solve_lower(lower, basis))
        block = _Block(lower, fixed, np.empty((0, 0)), prior)
        to_sky = block.half(heavy.toarray().T)
        return _Block(lower, fixed, to_sky, prior), to_sky.T @ to_sky

    try:
        found = system.each(factor)
        samples = system.samples
        matrix = np.diag(samples.of_sites(weights))
        for v, part in enumerate(found):
            if part is not None:
                site = samples.site[system.own(v)]
                matrix[np.ix_(site, site)] -= part[1]
        sky: Array = np.linalg.cholesky(matrix).astype(np.float64, copy=False)
    except np.linalg.LinAlgError as error:
        raise MatchError(
            "solve-singular",
            "The differences and the priors do not determine the offsets",
            fix="Use a larger match.smoothing, or let it be chosen from the data.",
        ) from error
    return SkySolver(
        system, weights, strengths, tuple(None if p is None else p[0] for p in found), sky
    )
