"""The smoothness prior: what a surface costs beyond its trend.

For a visit with node values ``g``, mean slope ``b`` and mean curvature ``c`` (all unknown)::

    K = ∫ (g_xx − c_xx)² + 2 (g_xy − c_xy)² + (g_yy − c_yy)² dA + ρ ∫ |∇g − b − c·(x, y)|² dA,

the bending energy of a thin plate about a parabola, and a weak membrane, which keeps
continuations from running away. A parabola costs nothing. Lengths are in superpixels, so that
strengths mean the same at every node pitch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bgmatch_dask.background.layout import NodeWindow
from bgmatch_dask.geometry import SuperpixelGrid

__all__ = ("MEMBRANE", "PLANE", "TREND", "Penalty", "build_penalty")

Array = NDArray[np.float64]

MEMBRANE = 0.003
"""ρ: structure longer than about 2π/√ρ ≈ 115 superpixels feels the membrane, not the plate."""
PLANE, TREND = 2, 5
"""Terms of a trend: the slopes along x and y; and the curvatures xx, xy and yy."""


@dataclass(frozen=True, slots=True)
class Penalty:
    """``K`` of one visit, for node values and terms of the trend."""

    energy: sparse.csr_matrix
    """Entries between nodes."""
    cross: Array
    """Entries between nodes and terms, ``(n_nodes, TREND)``."""
    trend: Array
    """Entries between terms, ``(TREND, TREND)``."""
    polynomials: Array
    """Constant, slopes and curvatures at the nodes, ``(n_nodes, 1 + TREND)``."""


def build_penalty(
    window: NodeWindow, grid: SuperpixelGrid, pitch: int, membrane: float = MEMBRANE
) -> Penalty:
    """Return ``K`` for the nodes of a visit."""
    unit = np.sqrt(grid.bin_x * grid.bin_y)
    hx, hy = pitch * grid.bin_x / unit, pitch * grid.bin_y / unit
    x, y = ((np.arange(n) - 0.5 * (n - 1)) * h for n, h in ((window.nx, hx), (window.ny, hy)))
    one_x, one_y = sparse.identity(window.nx), sparse.identity(window.ny)
    area = hx * hy
    first, second = np.sqrt(membrane * area), np.sqrt(area)
    parts = []
    for matrix, scale, terms in (
        (sparse.kron(one_y, _differences(window.nx, 2)) / hx**2, second, _constant(2)),
        (
            sparse.kron(_differences(window.ny, 1), _differences(window.nx, 1)) / area,
            np.sqrt(2.0) * second,
            _constant(3),
        ),
        (sparse.kron(_differences(window.ny, 2), one_x) / hy**2, second, _constant(4)),
        (sparse.kron(one_y, _differences(window.nx, 1)) / hx, first, _slope(_middle(x), y, 0)),
        (sparse.kron(_differences(window.ny, 1), one_x) / hy, first, _slope(x, _middle(y), 1)),
    ):
        wanted = terms if terms.ndim == 2 else np.tile(terms, (matrix.shape[0], 1))
        parts.append((scale * matrix, scale * wanted))
    rows = sparse.vstack([matrix for matrix, _ in parts]).tocsr()
    terms = np.concatenate([wanted for _, wanted in parts])
    yy, xx = (a.ravel() for a in np.meshgrid(y, x, indexing="ij"))
    polynomials = np.stack(
        [np.ones_like(xx), xx, yy, 0.5 * xx * xx, xx * yy, 0.5 * yy * yy], axis=1
    )
    return Penalty((rows.T @ rows).tocsr(), -(rows.T @ terms), terms.T @ terms, polynomials)


def _differences(n: int, order: int) -> sparse.csr_matrix:
    stencil = (-1.0, 1.0) if order == 1 else (1.0, -2.0, 1.0)
    return sparse.diags(stencil, range(order + 1), shape=(n - order, n), format="csr")


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
