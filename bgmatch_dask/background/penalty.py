"""The smoothness prior: what a surface costs beyond its plane.

For a visit with node values ``g`` and mean slope ``b`` (both unknown)::

    K = ∫ (g_xx² + 2 g_xy² + g_yy²) dA + ρ ∫ |∇g − b|² dA,

the bending energy of a thin plate, and a weak membrane on what is not plane, which keeps
continuations from running away. A plane costs nothing. Lengths are in superpixels, so that
strengths mean the same at every node pitch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bgmatch_dask.background.layout import NodeLayout, NodeWindow

__all__ = ("MEMBRANE", "Penalty", "build_penalty")

Array = NDArray[np.float64]
Index = NDArray[np.int64]

MEMBRANE = 0.003
"""ρ: structure longer than about 2π/√ρ ≈ 115 superpixels feels the membrane, not the plate."""


@dataclass(frozen=True, slots=True)
class Penalty:
    """``K`` of all visits: entries between nodes, and the parts that involve slopes.

    The slopes of visit ``v`` are the unknowns ``2 v`` (along x) and ``2 v + 1`` (along y),
    counted after the nodes, in image units per superpixel.
    """

    row: Index
    """Rows of the entries between nodes, each entry once, both triangles."""
    column: Index
    """Columns of the entries."""
    value: Array
    """Values of the entries."""
    visit: Index
    """Unknown visit of each entry."""
    cross: Array
    """Entries between the node of a row and its own visit's slopes, ``(n_nodes, 2)``."""
    slope: Array
    """Diagonal entries of the slopes, ``(n_visits, 2)``."""
    owner: Index
    """Unknown visit of each node."""

    def forms(self, nodes: Array, slopes: Array) -> Array:
        """Return every visit's ``θᵀ K θ``, nodes ``(n_nodes,)`` and slopes ``(n_visits, 2)``."""
        n = len(self.slope)
        own = self.value * nodes[self.row] * nodes[self.column]
        mixed = 2.0 * nodes * (self.cross * slopes[self.owner]).sum(axis=1)
        out: Array = (
            np.bincount(self.visit, own, n)
            + np.bincount(self.owner, mixed, n)
            + (self.slope * slopes**2).sum(axis=1)
        )
        # Rounding must not make an energy negative.
        return np.maximum(out, 0.0)


def build_penalty(layout: NodeLayout, membrane: float = MEMBRANE) -> Penalty:
    """Return ``K`` for a layout."""
    grid, pitch = layout.grid, layout.pitch
    unit = np.sqrt(grid.bin_x * grid.bin_y)
    steps = (pitch * grid.bin_x / unit, pitch * grid.bin_y / unit)
    cache: dict[tuple[int, int], tuple[sparse.coo_matrix, Array, Array]] = {}
    rows, columns, values, visits, cross, slope = [], [], [], [], [], []
    for v, window in enumerate(layout.windows):
        key = (window.ny, window.nx)
        if key not in cache:
            cache[key] = _visit_energy(window, steps, membrane)
        energy, mixed, own = cache[key]
        rows.append(energy.row + layout.starts[v])
        columns.append(energy.col + layout.starts[v])
        values.append(energy.data)
        visits.append(np.full(energy.nnz, v))
        cross.append(mixed)
        slope.append(own)
    owner = np.repeat(np.arange(len(layout.windows)), [w.size for w in layout.windows])
    return Penalty(
        np.concatenate(rows).astype(np.int64),
        np.concatenate(columns).astype(np.int64),
        np.concatenate(values),
        np.concatenate(visits),
        np.concatenate(cross),
        np.array(slope),
        owner,
    )


def _differences(n: int, order: int) -> sparse.csr_matrix:
    stencil = (-1.0, 1.0) if order == 1 else (1.0, -2.0, 1.0)
    return sparse.diags(stencil, range(order + 1), shape=(n - order, n), format="csr")


def _visit_energy(
    window: NodeWindow, steps: tuple[float, float], membrane: float
) -> tuple[sparse.coo_matrix, Array, Array]:
    hx, hy = steps
    area = hx * hy
    one_x, one_y = sparse.identity(window.nx), sparse.identity(window.ny)
    dx = sparse.kron(one_y, _differences(window.nx, 1)) / hx
    dy = sparse.kron(_differences(window.ny, 1), one_x) / hy
    dxx = sparse.kron(one_y, _differences(window.nx, 2)) / hx**2
    dyy = sparse.kron(_differences(window.ny, 2), one_x) / hy**2
    dxy = sparse.kron(_differences(window.ny, 1), _differences(window.nx, 1)) / area
    plate = dxx.T @ dxx + 2.0 * (dxy.T @ dxy) + dyy.T @ dyy
    energy = area * (plate + membrane * (dx.T @ dx + dy.T @ dy))
    ones = [np.ones(dx.shape[0]), np.ones(dy.shape[0])]
    cross = -area * membrane * np.column_stack([dx.T @ ones[0], dy.T @ ones[1]])
    own = area * membrane * np.array([dx.shape[0], dy.shape[0]], np.float64)
    return sparse.coo_matrix(energy.tocsr()), cross, own
