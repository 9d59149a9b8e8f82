"""The normal equations of the surface model, whatever their weights and strengths.

Sample ``e`` of visit ``i`` at site ``k`` needs the offset ``x_e``; with the operator ``B_i`` from
the modes of its surface to samples and the sky ``S``, one value per site::

    Σ_e w_e (x_e − (B_i g_i)_e − S_k)² + Σ_i g_iᵀ P_i g_i → min.

A strong prior leaves nothing of most modes. Each visit has as many as its prior leaves anything
of, so that the work follows what there is to know, not the number of superpixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.grid_covariance import GridLines
from bgmatch_dask.background.layout import NodeLayout
from bgmatch_dask.background.modes import Modes, modes_of
from bgmatch_dask.background.penalty import Penalty
from bgmatch_dask.background.samples import Samples

__all__ = ("THREADS", "Prior", "SkySystem", "Strengths", "build_system", "each")

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_Result = TypeVar("_Result")


def _processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


THREADS = min(_processors(), 8)
"""Visits that a solution works on at a time; the interpreter's lock keeps more from helping."""


def each(work: Callable[[int], _Result], n: int, threads: int) -> list[_Result]:
    """Return some work on ``0 … n − 1``, in order, by one thread or several."""
    if threads == 1:
        return [work(i) for i in range(n)]
    return list(_pool(threads).map(work, range(n)))


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads that stay: a solution asks for them a hundred times."""
    return ThreadPoolExecutor(threads, thread_name_prefix="bgmatch-solve")


@dataclass(frozen=True, slots=True)
class Strengths:
    """Strengths of the priors, per visit."""

    smoothing: Array
    """``λ``, positive, ``(n_visits,)``."""
    ridge: Array
    """Ridges on the terms of the trend, ``(n_visits, TREND)``; infinite: the term is zero."""


@dataclass(frozen=True)
class SkySystem:
    """Everything about the equations that does not depend on weights or strengths."""

    layout: NodeLayout
    """Where the nodes lie."""
    samples: Samples
    """What the equations are about."""
    modes: tuple[Modes, ...]
    """All modes of each visit."""
    rows: tuple[Array, ...]
    """``B_i`` of each visit, ``(n_samples, n_modes)``, for the modes that are used."""
    penalties: tuple[Penalty, ...]
    """Smoothness prior of each visit."""
    gauge: NDArray[np.bool_]
    """Visits whose trend is zero."""
    rigid: NDArray[np.bool_]
    """Visits whose offset is zero: they have no modes."""
    threads: int
    """Visits that are worked on at a time; no result depends on it."""

    @cached_property
    def starts(self) -> Index:
        """First unknown of each visit, and the number of unknowns."""
        return np.cumsum([0, *(b.shape[1] for b in self.rows)])

    def modes_of(self, visit: int) -> slice:
        """Return where the unknowns of a visit lie."""
        return slice(int(self.starts[visit]), int(self.starts[visit + 1]))

    def own(self, visit: int) -> slice:
        """Return where the samples of a visit lie."""
        return slice(int(self.samples.starts[visit]), int(self.samples.starts[visit + 1]))

    def each(self, work: Callable[[int], _Result], n: int | None = None) -> list[_Result]:
        """Return some work on every visit (or the first ``n``), in order."""
        return each(work, len(self.rows) if n is None else n, self.threads)

    def split(self, theta: Array) -> list[Array]:
        """Return the unknowns of every visit."""
        return [theta[self.modes_of(v)] for v in range(len(self.rows))]

    def surface(self, theta: Array, visit: int) -> Array:
        """Return the node values ``[y, x]`` of a visit."""
        return self.modes[visit].on_nodes(theta[self.modes_of(visit)])

    def on_nodes(self, theta: Array) -> Array:
        """Return the node values of all visits, as the layout numbers them."""
        parts = zip(self.modes, self.split(theta), strict=True)
        return np.concatenate([modes.on_nodes(own).ravel() for modes, own in parts])

    def on_grid(self, visit: int, sy: Index, sx: Index) -> GridLines:
        """Return the modes of a visit on full superpixels in some rows and columns."""
        y, x = sy.astype(np.float64), sx.astype(np.float64)
        return self.modes[visit].on_grid(self.layout, visit, y, x, self.rows[visit].shape[1])

    def with_modes(self, counts: Index) -> SkySystem:
        """Return the equations with as many modes per visit as asked for."""

        def build(v: int) -> tuple[Array, Penalty]:
            n, known = int(counts[v]), self.rows[v].shape[1]
            if n == known:
                return self.rows[v], self.penalties[v]
            # No column depends on how many there are.
            if n < known:
                return np.ascontiguousarray(self.rows[v][:, :n]), self.penalties[v].first(n)
            own, samples = self.own(v), self.samples
            low, high = [s[own] for s in samples.low], [s[own] for s in samples.high]
            return self.modes[v].rows(self.layout, v, low, high, n), self.modes[v].penalty(n)

        built = self.each(build)
        return replace(self, rows=tuple(b for b, _ in built), penalties=tuple(p for _, p in built))

    def moved(self, theta: Array, old: SkySystem) -> Array:
        """Return the unknowns that were solved for with another number of modes."""
        out = [np.zeros(b.shape[1]) for b in self.rows]
        for new, before in zip(out, old.split(theta), strict=True):
            n = min(len(new), len(before))
            new[:n] = before[:n]
        return np.concatenate(out)


def build_system(
    samples: Samples,
    layout: NodeLayout,
    gauge: NDArray[np.bool_],
    rigid: NDArray[np.bool_],
    threads: int = 1,
) -> SkySystem:
    """Return the equations of some samples, without modes yet."""
    n = len(layout.windows)
    modes = tuple(modes_of(layout, v, gauge=bool(gauge[v])) for v in range(n))
    rows = tuple(np.zeros((k, 0)) for k in np.diff(samples.starts))
    penalties = tuple(m.penalty(0) for m in modes)
    return SkySystem(layout, samples, modes, rows, penalties, gauge, rigid, threads)


@dataclass(frozen=True, slots=True)
class Prior:
    """The prior of one visit with the terms of its trend taken out."""

    terms: Index
    """Numbers of the terms that are not zero."""
    covariance: Array
    """``(λ S + R)⁻¹``, of the terms given the modes."""
    to_terms: Array
    """``J``: terms of the trend from the modes, ``(n_terms, n_modes)``."""
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
        matrix = smoothing * (penalty.energy + cross @ to_terms)
        return cls(terms, covariance, to_terms, matrix)
