"""The polynomial model: one Chebyshev polynomial per visit, solved for all visits at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from bgmatch_dask.background.layout import GUARD, NodeLayout, lay_out, taps
from bgmatch_dask.background.observations import Observations, with_systematics
from bgmatch_dask.background.robust import huber_weights
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.background.surface import SurfaceFit
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.tap_kernels import TapRows, apply

__all__ = ("fit_polynomials",)

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_FIRST_RIDGE = 1e-2
_FREE_RIDGE = 1e-10
_BOUNDS = (1e-8, 1e8)
_MARGIN = 2.5  # Superpixels beyond the measured ones over which high orders may continue.


@dataclass(frozen=True, slots=True)
class _Basis:
    """Chebyshev polynomials of one visit, in the box of its measured superpixels."""

    centre: tuple[float, float]
    half: tuple[float, float]
    order: int

    def evaluate(self, y: Array, x: Array) -> Array:
        """Return all products of total order ≤ ``order`` at points, shape ``(n, n_terms)``."""
        lines = []
        for value, centre, half in zip((y, x), self.centre, self.half, strict=True):
            limit = np.inf if self.order < 2 else 1.0 + _MARGIN / half
            lines.append(chebvander(np.clip((value - centre) / half, -limit, limit), self.order))
        terms = [(i, n - i) for n in range(self.order + 1) for i in range(n + 1)]
        return np.stack([lines[0][:, i] * lines[1][:, j] for i, j in terms], axis=-1)


@dataclass(frozen=True, slots=True)
class _Fit:
    """One solution of the normal equations."""

    coefficients: Array
    covariance: Array
    prediction: Array
    noise: float
    used: Array


def fit_polynomials(
    observations: Observations,
    coverage: Sequence[NDArray[np.bool_]],
    anchored: NDArray[np.bool_],
    grid: SuperpixelGrid,
    config: SolveConfig,
) -> SurfaceFit:
    """Fit one polynomial of total order ``config.order`` per unknown visit.

    Parameters, result and errors are those of `bgmatch_dask.background.surface.fit_surfaces`.

    Notes
    -----
    Terms but the constant carry a ridge where the visit is not anchored, of a strength that is
    chosen as in `bgmatch_dask.background.smoothing_strength`; elsewhere one that only settles
    what the data leave open. Beyond the measured superpixels polynomials of order two and
    more soon become constant.
    """
    layout = lay_out(coverage, grid, 1)
    bases = _bases(observations, len(coverage), int(config.order))
    nodes = [_node_values(basis, layout, v) for v, basis in enumerate(bases)]
    design = _design(taps(observations, layout), nodes)
    ridge = np.where(anchored, _FREE_RIDGE, _ridge(config))
    robust = np.ones(len(observations))
    fit = _solve(observations, design, ridge, robust)
    if fit.noise > 0.0:
        observations = with_systematics(observations, observations.value - fit.prediction)
    for _ in range(max(config.n_robust, config.n_strength)):
        residual = observations.value - fit.prediction
        robust = huber_weights(residual, np.sqrt(observations.variance), config.huber)
        if config.slope_prior is None and fit.noise > 0 and design[0].shape[1] > 1:
            ridge = _next_ridge(fit, ridge, anchored)
        fit = _solve(observations, design, ridge, robust)
    return _result(fit, observations, layout, bases, nodes, coverage, ridge, anchored, robust)


def _ridge(config: SolveConfig) -> float:
    given = _FIRST_RIDGE if config.slope_prior is None else config.slope_prior
    return max(given, _FREE_RIDGE)


def _bases(observations: Observations, n_visits: int, order: int) -> list[_Basis]:
    out = []
    for v in range(n_visits):
        own = (observations.visit == v) | (observations.hub == v)
        spans = [(int(s[own].min()), int(s[own].max())) for s in (observations.sy, observations.sx)]
        centre = tuple(0.5 * (a + b) for a, b in spans)
        half = tuple(0.5 * (b - a) + 0.5 for a, b in spans)
        out.append(_Basis((centre[0], centre[1]), (half[0], half[1]), order))
    return out


def _node_values(basis: _Basis, layout: NodeLayout, visit: int) -> Array:
    w = layout.windows[visit]
    y = np.repeat(np.arange(w.y0, w.y0 + w.ny) - GUARD, w.nx).astype(np.float64)
    x = np.tile(np.arange(w.x0, w.x0 + w.nx) - GUARD, w.ny).astype(np.float64)
    return basis.evaluate(y, x)


def _design(rows: TapRows, nodes: list[Array]) -> tuple[Array, Array]:
    """Return every observation's terms of its visit and of its hub, ``(n, n_terms)`` each."""
    stacked = np.concatenate(nodes)
    none = np.full_like(rows.visit_first, -1)
    visit, hub = rows._replace(hub_first=none), rows._replace(visit_first=none)
    columns = [np.ascontiguousarray(column) for column in stacked.T]
    return (
        np.column_stack([apply(visit, column) for column in columns]),
        np.column_stack([apply(hub, column) for column in columns]),
    )


def _normal_equations(
    observations: Observations, design: tuple[Array, Array], weights: Array, n_visits: int
) -> tuple[Array, Array]:
    """Return the normal matrix ``(v, term, v, term)`` and the right-hand side ``(v, term)``."""
    n_terms = design[0].shape[1]
    matrix = np.zeros((n_visits, n_terms, n_visits, n_terms))
    right = np.zeros((n_visits, n_terms))
    starts = np.searchsorted(observations.pair, np.arange(len(observations.pairs) + 1))
    for begin, end in pairwise(starts):
        if begin == end:
            continue
        at = slice(begin, end)
        sides = [
            (int(e[begin]), d[at])
            for e, d in zip((observations.visit, observations.hub), design, strict=True)
            if e[begin] >= 0
        ]
        for v, one in sides:
            weighted = one * weights[at, np.newaxis]
            right[v] += weighted.T @ observations.value[at]
            for u, other in sides:
                matrix[v, :, u] += weighted.T @ other
    return matrix, right


def _solve(
    observations: Observations, design: tuple[Array, Array], ridge: Array, robust: Array
) -> _Fit:
    n_terms, n_visits = design[0].shape[1], len(ridge)
    weights = observations.weight * robust
    matrix, right = _normal_equations(observations, design, weights, n_visits)
    size = n_visits * n_terms
    normal = matrix.reshape(size, size)
    scale = np.diag(normal)[::n_terms, np.newaxis]
    prior = (ridge[:, np.newaxis] + _FREE_RIDGE * scale) * (np.arange(n_terms) > 0)
    factor = cho_factor(normal + np.diag(prior.ravel()), lower=True)
    coefficients = cho_solve(factor, right.ravel()).reshape(n_visits, n_terms)
    covariance = cho_solve(factor, np.eye(size))
    ends = (observations.visit, observations.hub)
    prediction = _predict(ends, design, coefficients)
    freedom = size - float((prior.ravel() * np.diag(covariance)).sum())
    squares = float((weights * (observations.value - prediction) ** 2).sum())
    left = float((robust * observations.share).sum()) - freedom
    known = left >= 1.0 and squares > 1e-20 * float((weights * observations.value**2).sum())
    used = _leverage(ends, design, covariance, n_terms) * weights
    return _Fit(coefficients, covariance, prediction, squares / left if known else 0.0, used)


def _predict(ends: tuple[Index, Index], design: tuple[Array, Array], terms: Array) -> Array:
    out = np.zeros(len(ends[0]))
    for end, part in zip(ends, design, strict=True):
        known = end >= 0
        out[known] += (part[known] * terms[end[known]]).sum(axis=1)
    return out


def _leverage(
    ends: tuple[Index, Index], design: tuple[Array, Array], covariance: Array, n_terms: int
) -> Array:
    blocks = covariance.reshape(-1, n_terms, len(covariance) // n_terms, n_terms)
    out = np.zeros(len(ends[0]))
    for end, part in zip(ends, design, strict=True):
        for other, other_part in zip(ends, design, strict=True):
            both = (end >= 0) & (other >= 0)
            middle = blocks[end[both], :, other[both], :]
            out[both] += np.einsum("ni,nij,nj->n", part[both], middle, other_part[both])
    return out


def _next_ridge(fit: _Fit, ridge: Array, anchored: NDArray[np.bool_]) -> Array:
    if anchored.all():
        return ridge
    n_terms = fit.coefficients.shape[1]
    diagonal = np.diag(fit.covariance).reshape(-1, n_terms)[:, 1:]
    fitted = (1.0 - ridge[:, np.newaxis] * diagonal)[~anchored].sum()
    energy = (fit.coefficients[:, 1:] ** 2)[~anchored].sum()
    value = fit.noise * max(float(fitted), 1e-3) / max(float(energy), 1e-300)
    return np.where(anchored, _FREE_RIDGE, np.clip(value, *_BOUNDS))


def _result(
    fit: _Fit,
    observations: Observations,
    layout: NodeLayout,
    bases: list[_Basis],
    nodes: list[Array],
    coverage: Sequence[NDArray[np.bool_]],
    ridge: Array,
    anchored: NDArray[np.bool_],
    robust: Array,
) -> SurfaceFit:
    n_visits, n_terms = fit.coefficients.shape
    covariance = fit.covariance.reshape(n_visits, n_terms, n_visits, n_terms)
    variance = []
    for v, (basis, plane) in enumerate(zip(bases, coverage, strict=True)):
        y, x = (a.ravel().astype(np.float64) for a in np.indices(plane.shape))
        terms = basis.evaluate(y, x)
        own = fit.noise * ((terms @ covariance[v, :, v]) * terms).sum(axis=1)
        variance.append(own.reshape(plane.shape))
    values = [n @ c for n, c in zip(nodes, fit.coefficients, strict=True)]
    bound = ridge[:, np.newaxis] * np.diag(fit.covariance).reshape(n_visits, n_terms)
    return SurfaceFit(
        pitch=1,
        windows=layout.windows,
        nodes=tuple(
            value.reshape(w.ny, w.nx) for value, w in zip(values, layout.windows, strict=True)
        ),
        variance=tuple(variance),
        observations=observations,
        prediction=fit.prediction,
        robust=robust,
        noise=fit.noise,
        smoothing=np.full(n_visits, np.nan),
        strengths=None,
        slope_prior=float(ridge[~anchored].max(initial=0.0)),
        freedom=n_terms - bound[:, 1:].sum(axis=1),
        leverage=fit.used,
        iterations=0,
    )
