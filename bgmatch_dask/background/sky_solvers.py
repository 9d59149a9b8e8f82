"""Solutions of the normal equations: with the sky taken out last, or first.

Given the sky, visits do not meet. With ``T_i = B_iᵀ W_i B_i + P_i = L_i L_iᵀ`` and
``V_i = L_i⁻¹ B_iᵀ W_i`` the sky follows from ``M = Σ W_i − Σ V_iᵀ V_i``, one row per site, and the
offsets from the sky (`SkyLast`). The work grows with the number of visits, not with a power of
it, but with the cube of the number of sites.

Given the offsets, sites do not meet: the sky is a mean. Taken out first (`SkyFirst`), it leaves
one system for the modes of all visits. The work grows with the cube of their number, and with
the number of sites as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.sky_system import Prior, SkySystem, Strengths, each
from bgmatch_dask.errors import MatchError
from bgmatch_dask.numerics.row_products import row_dots, scaled_rows
from bgmatch_dask.numerics.triangular import (
    factor_lower,
    inverse_of_factor,
    solve_lower,
    solve_rows,
    subtract_lower,
)

__all__ = ("SkyFirst", "SkyLast", "SkySolver", "Spread", "factorise", "work_of")

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def work_of(modes: Array, samples: Array, n_sites: float) -> tuple[float, float]:
    """Return about how many operations a solution takes with the sky last, and first.

    Parameters
    ----------
    modes, samples
        Numbers of modes and samples of each visit.
    n_sites
        Number of sites.
    """
    own = modes**2 * samples
    last = (2.0 * modes**3 + 4.0 * own + modes * samples**2).sum() + n_sites**3 / 3.0
    last += n_sites**2 * modes.sum()
    total = modes.sum()
    # Two visits have in common what chance gives them.
    shared = (modes * samples).sum() ** 2 / max(n_sites, 1.0)
    return float(last), float(own.sum() + shared + total**3)


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """How well linear functions of a visit's modes are known, in units of the noise."""

    visit: int
    """The visit."""
    variance: Array
    """Variance of each function, ``(n,)``."""
    parts: Array
    """What covariances with those of other visits are made of, ``(n, …)``."""


@dataclass(frozen=True, eq=False)
class _Solver:
    """Factorised equations."""

    system: SkySystem
    """What was factorised."""
    weights: Array
    """Weight of each sample."""
    strengths: Strengths
    """Strengths of the priors."""
    priors: tuple[Prior, ...]
    """Prior of each visit."""

    def belongs_to(self, system: SkySystem, weights: Array) -> bool:
        """Whether these are the equations of a system with some weights."""
        return self.system is system and np.array_equal(self.weights, weights)

    def pulled(self, needed: Array, theta: Array) -> list[Array]:
        """Return the right-hand side of every visit: what is needed, less what the prior pulls."""
        system, weighted, parts = self.system, self.weights * needed, self.system.split(theta)
        return [
            rows.T @ weighted[system.own(v)] - self.priors[v].matrix @ parts[v]
            for v, rows in enumerate(system.rows)
        ]


@dataclass(frozen=True, eq=False)
class SkyLast(_Solver):
    """Visits are taken out one by one, and what is left is solved for the sky."""

    lower: tuple[Array, ...]
    """``L`` of each visit."""
    to_sky: tuple[Array, ...]
    """``Vᵀ`` of each visit, ``(n_samples, n_modes)``."""
    sky: Array
    """Lower Cholesky factor of ``M``."""
    _known: dict[int, Array] = field(default_factory=dict)
    _own: dict[int, Array] = field(default_factory=dict)

    @classmethod
    def of(
        cls, system: SkySystem, weights: Array, strengths: Strengths, priors: tuple[Prior, ...]
    ) -> SkyLast:
        """Factorise."""

        def factor(v: int) -> tuple[Array, Array, Array]:
            w, rows = np.sqrt(weights[system.own(v)])[:, np.newaxis], system.rows[v]
            heavy = w * rows
            lower = factor_lower(heavy.T @ heavy + priors[v].matrix)
            to_sky = solve_rows(lower, w * heavy)
            return lower, to_sky, to_sky @ to_sky.T

        found = system.each(factor)
        samples = system.samples
        matrix = np.diag(samples.of_sites(weights))
        for v, part in enumerate(found):
            subtract_lower(matrix, samples.site[system.own(v)], part[2])
        lower, to_sky = tuple(f[0] for f in found), tuple(f[1] for f in found)
        return cls(system, weights, strengths, priors, lower, to_sky, factor_lower(matrix))

    def step(self, needed: Array, theta: Array) -> Array:
        """Return the change of all modes that fits what the samples still need.

        ``needed`` is what is left with the modes ``theta``, whose prior pulls them back.
        """
        system, samples = self.system, self.system.samples
        halves = [
            solve_lower(lower, right)
            for lower, right in zip(self.lower, self.pulled(needed, theta), strict=True)
        ]
        right = samples.of_sites(self.weights * needed)
        for v, half in enumerate(halves):
            right[samples.site[system.own(v)]] -= self.to_sky[v] @ half
        sky = solve_lower(self.sky, solve_lower(self.sky, right), transposed=True)

        def back(v: int) -> Array:
            half = halves[v] - self.to_sky[v].T @ sky[samples.site[system.own(v)]]
            return solve_lower(self.lower[v], half, transposed=True)

        return np.concatenate(system.each(back))

    def spread(self, visit: int, rows: Array) -> Spread:
        """Return how well linear functions of a visit's modes are known."""
        half = solve_rows(self.lower[visit], rows)
        shared = rows @ self._to_site(visit).T
        variance = _squares(half) + _squares(shared)
        return Spread(visit, variance, shared)

    def between(self, one: Spread, at_one: Index, other: Spread, at_other: Index) -> Array:
        """Return the covariance of some functions of two visits, which comes with the sky."""
        out: Array = row_dots(one.parts, at_one, other.parts, at_other)
        return out

    def covariance(self, one: int, other: int) -> Array:
        """Return the covariance between the modes of two visits, in units of the noise."""
        if one != other:
            return np.ascontiguousarray(self._to_site(one).T @ self._to_site(other))
        if one not in self._own:
            found = inverse_of_factor(self.lower[one])
            shared = self._to_site(one)
            found += shared.T @ shared
            self._own[one] = found
        return self._own[one]

    def _to_site(self, visit: int) -> Array:
        """Return what errors of the sky do to the modes of a visit, ``(n_sites, n_modes)``."""
        if visit not in self._known:
            moved = np.zeros((self.system.samples.n_sites, len(self.lower[visit])))
            own = solve_rows(self.lower[visit], self.to_sky[visit], transposed=True)
            moved[self._sites(visit)] = own
            self._known[visit] = solve_lower(self.sky, moved)
        return self._known[visit]

    def _sites(self, visit: int) -> Index:
        return self.system.samples.site[self.system.own(visit)]


@dataclass(frozen=True, eq=False)
class SkyFirst(_Solver):
    """The sky is taken out of every site, and what is left is solved for all visits at once."""

    data: Array
    """Lower triangle of the system of all modes, without priors."""
    lower: Array
    """Lower Cholesky factor of the system."""
    _known: dict[int, Array] = field(default_factory=dict)
    _own: dict[int, Array] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        system: SkySystem,
        weights: Array,
        strengths: Strengths,
        priors: tuple[Prior, ...],
        like: _Solver | None = None,
    ) -> SkyFirst:
        """Factorise; ``like`` is a solution whose strengths alone are other ones."""
        if isinstance(like, SkyFirst) and like.belongs_to(system, weights):
            data = like.data
        else:
            data = _without_sky(system, weights)
        matrix = data.copy()
        for v, prior in enumerate(priors):
            matrix[system.modes_of(v), system.modes_of(v)] += prior.matrix
        return cls(system, weights, strengths, priors, data, factor_lower(matrix))

    def step(self, needed: Array, theta: Array) -> Array:
        """Return the change of all modes that fits what the samples still need."""
        samples = self.system.samples
        total = samples.of_sites(self.weights)
        sky = samples.of_sites(self.weights * needed) / np.where(total > 0, total, 1.0)
        right = np.concatenate(self.pulled(needed - sky[samples.site], theta))
        return solve_lower(self.lower, solve_lower(self.lower, right), transposed=True)

    def spread(self, visit: int, rows: Array) -> Spread:
        """Return how well linear functions of a visit's modes are known."""
        every, images = np.arange(len(rows)), rows @ self.covariance(visit, visit)
        return Spread(visit, row_dots(images, every, rows, every), rows)

    def between(self, one: Spread, at_one: Index, other: Spread, at_other: Index) -> Array:
        """Return the covariance of some functions of two visits."""
        joint = self.covariance(one.visit, other.visit)
        out: Array = row_dots(
            one.parts[at_one] @ joint, np.arange(len(at_one)), other.parts, at_other
        )
        return out

    def covariance(self, one: int, other: int) -> Array:
        """Return the covariance between the modes of two visits, in units of the noise."""
        if one == other:
            if one not in self._own:
                part = self._columns(one)
                self._own[one] = part.T @ part
            return self._own[one]
        # Columns of the inverse factor begin with the first mode of their visit.
        a, b = self._columns(one), self._columns(other)
        n = min(len(a), len(b))
        return a[len(a) - n :].T @ b[len(b) - n :]

    def _columns(self, visit: int) -> Array:
        """Return the columns of ``L⁻¹`` of the modes of a visit, without the zeros above them."""
        if visit not in self._known:
            first, m = int(self.system.starts[visit]), self.system.rows[visit].shape[1]
            unit = np.zeros((len(self.lower) - first, m))
            unit[:m] = np.eye(m)
            self._known[visit] = solve_lower(self.lower[first:, first:], unit)
        return self._known[visit]


def _squares(rows: Array) -> Array:
    every = np.arange(len(rows))
    out: Array = row_dots(rows, every, rows, every)
    return out


def _without_sky(system: SkySystem, weights: Array) -> Array:
    """Return the lower triangle of the equations of all modes, with the sky taken out."""
    samples, size = system.samples, int(system.starts[-1])
    share = weights / np.sqrt(samples.of_sites(weights))[samples.site]
    matrix, minus, n = np.zeros((size, size)), -share, len(system.rows)

    place = np.full((n, samples.n_sites), -1)
    for v in range(n):
        place[v, samples.site[system.own(v)]] = np.arange(len(system.rows[v]))

    def block(number: int) -> None:
        v, u = blocks[number]
        own, mine, rows = system.own(v), system.modes_of(v), system.rows[v]
        if u == v:
            # Rounding can make it less than nothing where a visit is alone.
            left = np.sqrt(np.maximum(weights[own] - share[own] ** 2, 0.0))
            heavy = scaled_rows(rows, np.arange(len(rows)), left)
            matrix[mine, mine] = heavy.T @ heavy
            return
        at = place[v, samples.site[system.own(u)]]
        both = np.flatnonzero(at >= 0)
        one = scaled_rows(rows, at[both], share[own])
        other = scaled_rows(system.rows[u], both, minus[system.own(u)])
        matrix[mine, system.modes_of(u)] = one.T @ other

    # The largest come first: what is left at the end is short.
    modes = np.diff(system.starts)
    blocks = sorted(
        ((v, u) for v in range(n) for u in range(v + 1)), key=lambda b: -modes[b[0]] * modes[b[1]]
    )
    each(block, len(blocks), system.threads)
    return matrix


SkySolver: TypeAlias = SkyLast | SkyFirst


def factorise(
    system: SkySystem, weights: Array, strengths: Strengths, like: SkySolver | None = None
) -> SkySolver:
    """Factorise the equations, in the order that is less work.

    Parameters
    ----------
    system
        The equations.
    weights
        Weight of each sample.
    strengths
        Strengths of the priors.
    like
        A solution; where it has the same weights, its sums over samples are used again.

    Raises
    ------
    MatchError
        ``solve-singular`` when the equations do not determine the offsets.
    """
    priors = tuple(
        system.each(
            lambda v: Prior.of(system.penalties[v], strengths.smoothing[v], strengths.ridge[v])
        )
    )
    modes = np.diff(system.starts).astype(np.float64)
    samples = np.diff(system.samples.starts).astype(np.float64)
    last, first = work_of(modes, samples, system.samples.n_sites)
    try:
        if last <= first:
            return SkyLast.of(system, weights, strengths, priors)
        return SkyFirst.of(system, weights, strengths, priors, like)
    except np.linalg.LinAlgError as error:
        raise MatchError(
            "solve-singular",
            "The differences and the priors do not determine the offsets",
            fix="Use a larger match.smoothing, or let it be chosen from the data.",
        ) from error
