"""The smoothness prior: what a surface costs beyond its trend.

For a visit with node values ``g``, mean slope ``b`` and mean curvature ``c`` (all unknown)::

    K = ∫ (g_xx − c_xx)² + 2 (g_xy − c_xy)² + (g_yy − c_yy)² dA + ρ ∫ |∇g − b − c·(x, y)|² dA,

the bending energy of a thin plate about a parabola, and a weak membrane, which keeps
continuations from running away. A parabola costs nothing. Lengths are in superpixels, so that
strengths mean the same at every node pitch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ("MEMBRANE", "PLANE", "TREND", "Penalty", "trend_rows")

Array = NDArray[np.float64]

MEMBRANE = 0.003
"""ρ: structure longer than about 2π/√ρ ≈ 115 superpixels feels the membrane, not the plate."""
PLANE, TREND = 2, 5
"""Terms of a trend: the slopes along x and y; and the curvatures xx, xy and yy."""


@dataclass(frozen=True, slots=True)
class Penalty:
    """``K`` of one visit, for some modes of its nodes and terms of the trend."""

    energy: Array
    """Entries between modes, ``(n, n)``."""
    cross: Array
    """Entries between modes and terms, ``(n, TREND)``."""
    trend: Array
    """Entries between terms, ``(TREND, TREND)``."""

    def first(self, n: int) -> Penalty:
        """Return ``K`` of the first ``n`` modes."""
        return Penalty(np.ascontiguousarray(self.energy[:n, :n]), self.cross[:n].copy(), self.trend)


@lru_cache(maxsize=256)
def trend_rows(
    ny: int, nx: int, steps: tuple[float, float], membrane: float = MEMBRANE
) -> tuple[Array, Array]:
    """Return the part of ``K`` that the trend is in.

    Parameters
    ----------
    ny, nx
        Rows and columns of nodes.
    steps
        Their distances along (y, x) in superpixels.

    Returns
    -------
    cross : ndarray of float64
        Entries between terms and nodes, ``(TREND, ny, nx)``.
    trend : ndarray of float64
        Entries between terms, ``(TREND, TREND)``.
    """
    hy, hx = steps
    x, y = _centred(nx, hx), _centred(ny, hy)
    one_x, one_y = sparse.identity(nx), sparse.identity(ny)
    area = hx * hy
    first, second = np.sqrt(membrane * area), np.sqrt(area)
    cross, trend = np.zeros((ny * nx, TREND)), np.zeros((TREND, TREND))
    for matrix, scale, terms in (
        (sparse.kron(one_y, _differences(nx, 2)) / hx**2, second, _constant(2)),
        (
            sparse.kron(_differences(ny, 1), _differences(nx, 1)) / area,
            np.sqrt(2.0) * second,
            _constant(3),
        ),
        (sparse.kron(_differences(ny, 2), one_x) / hy**2, second, _constant(4)),
        (sparse.kron(one_y, _differences(nx, 1)) / hx, first, _slope(_middle(x), y, 0)),
        (sparse.kron(_differences(ny, 1), one_x) / hy, first, _slope(x, _middle(y), 1)),
    ):
        wanted = terms if terms.ndim == 2 else np.tile(terms, (matrix.shape[0], 1))
        cross -= scale**2 * (matrix.T @ wanted)
        trend += scale**2 * (wanted.T @ wanted)
    return cross.T.reshape(TREND, ny, nx), trend


def _differences(n: int, order: int) -> sparse.csr_matrix:
    stencil = (-1.0, 1.0) if order == 1 else (1.0, -2.0, 1.0)
    return sparse.diags(stencil, range(order + 1), shape=(n - order, n), format="csr")


def _centred(n: int, step: float) -> Array:
    out: Array = ((np.arange(n) - 0.5 * (n - 1)) * step).astype(np.float64, copy=False)
    return out


def _middle(line: Array) -> Array:
    return 0.5 * (line[1:] + line[:-1])


def _constant(term: int) -> Array:
    out = np.zeros(TREND)
    out[term] = 1.0
    return out


def _slope(x: Array, y: Array, axis: int) -> Array:
    """Return the terms of the trend's slope along x (axis 0) or y (axis 1) at all points."""
    yy, xx = (a.ravel() for a in np.meshgrid(y, x, indexing="ij"))
    one, zero = np.ones_like(xx), np.zeros_like(xx)
    terms = (one, zero, xx, yy, zero) if axis == 0 else (zero, one, zero, xx, yy)
    return np.stack(terms, axis=1)
