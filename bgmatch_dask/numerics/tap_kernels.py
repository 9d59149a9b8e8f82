"""Kernels for rows that average two surfaces: ``A c = average(visit) − average(hub)``.

Each row of the operator touches at most 5 × 5 nodes of each of two surfaces with separable
weights, so it is kept as ten weights instead of fifty matrix elements. All loops run over the
rows in order, which fixes the order of every sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.block_tridiagonal import BlockMatrix
from bgmatch_dask.numerics.keys import TAPS

__all__ = (
    "StripOrder",
    "TapRows",
    "adjoint",
    "apply",
    "normal_blocks",
    "normal_diagonal",
    "quadratic_forms",
)

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class TapRows(NamedTuple):
    """Rows of the operator, arrays of length ``n`` (weights ``(n, 5)``)."""

    visit_first: Index
    """Unknown of the first tap on the visit's surface, −1 for a surface that is zero."""
    visit_stride: Index
    """Unknowns per row of the visit's surface."""
    hub_first: Index
    """Unknown of the first tap on the hub's surface, −1 for a surface that is zero."""
    hub_stride: Index
    """Unknowns per row of the hub's surface."""
    x_weights: Array
    """Weights of the five node columns."""
    y_weights: Array
    """Weights of the five node rows."""


@numba.njit(cache=True, nogil=True)
def _average(surface: Array, first: int, stride: int, x_weights: Array, y_weights: Array) -> float:
    total = 0.0
    for j in range(TAPS):
        line = 0.0
        start = first + j * stride
        for i in range(TAPS):
            line += x_weights[i] * surface[start + i]
        total += y_weights[j] * line
    return total


@numba.njit(cache=True, nogil=True)
def apply(rows: TapRows, surface: Array) -> Array:
    """Return ``A c`` for the unknowns ``c``."""
    n = len(rows.visit_first)
    out = np.zeros(n)
    for k in range(n):
        wx, wy = rows.x_weights[k], rows.y_weights[k]
        if rows.visit_first[k] >= 0:
            out[k] += _average(surface, rows.visit_first[k], rows.visit_stride[k], wx, wy)
        if rows.hub_first[k] >= 0:
            out[k] -= _average(surface, rows.hub_first[k], rows.hub_stride[k], wx, wy)
    return out


@numba.njit(cache=True, nogil=True)
def _spread(
    out: Array, value: float, first: int, stride: int, x_weights: Array, y_weights: Array
) -> None:
    for j in range(TAPS):
        scaled = value * y_weights[j]
        start = first + j * stride
        for i in range(TAPS):
            out[start + i] += scaled * x_weights[i]


@numba.njit(cache=True, nogil=True)
def adjoint(rows: TapRows, values: Array, n_unknowns: int) -> Array:
    """Return ``Aᵀ r`` for the row values ``r``."""
    out = np.zeros(n_unknowns)
    for k in range(len(rows.visit_first)):
        wx, wy = rows.x_weights[k], rows.y_weights[k]
        if rows.visit_first[k] >= 0:
            _spread(out, values[k], rows.visit_first[k], rows.visit_stride[k], wx, wy)
        if rows.hub_first[k] >= 0:
            _spread(out, -values[k], rows.hub_first[k], rows.hub_stride[k], wx, wy)
    return out


@numba.njit(cache=True, nogil=True)
def normal_diagonal(rows: TapRows, weights: Array, n_unknowns: int) -> Array:
    """Return the diagonal of ``Aᵀ W A`` (a row's two surfaces are different ones)."""
    out = np.zeros(n_unknowns)
    for k in range(len(rows.visit_first)):
        wx, wy = rows.x_weights[k] ** 2, rows.y_weights[k] ** 2
        if rows.visit_first[k] >= 0:
            _spread(out, weights[k], rows.visit_first[k], rows.visit_stride[k], wx, wy)
        if rows.hub_first[k] >= 0:
            _spread(out, weights[k], rows.hub_first[k], rows.hub_stride[k], wx, wy)
    return out


@numba.njit(cache=True, nogil=True)
def _collect(
    first: int,
    stride: int,
    sign: float,
    x_weights: Array,
    y_weights: Array,
    unknowns: Index,
    values: Array,
    n: int,
) -> int:
    if first < 0:
        return n
    for j in range(TAPS):
        for i in range(TAPS):
            value = sign * y_weights[j] * x_weights[i]
            if value != 0.0:
                unknowns[n] = first + j * stride + i
                values[n] = value
                n += 1
    return n


@numba.njit(cache=True, nogil=True)
def _collect_row(rows: TapRows, k: int, unknowns: Index, values: Array) -> int:
    wx, wy = rows.x_weights[k], rows.y_weights[k]
    n = _collect(rows.visit_first[k], rows.visit_stride[k], 1.0, wx, wy, unknowns, values, 0)
    return _collect(rows.hub_first[k], rows.hub_stride[k], -1.0, wx, wy, unknowns, values, n)


@numba.njit(cache=True, nogil=True)
def _accumulate(
    rows: TapRows,
    weights: Array,
    block: Index,
    local: Index,
    sizes: Index,
    diagonal_at: Index,
    lower_at: Index,
    memory: Array,
) -> None:
    unknowns = np.empty(2 * TAPS * TAPS, np.int64)
    values = np.empty(2 * TAPS * TAPS)
    for k in range(len(rows.visit_first)):
        n = _collect_row(rows, k, unknowns, values)
        for p in range(n):
            b, m = block[unknowns[p]], local[unknowns[p]]
            scaled = weights[k] * values[p]
            on_diagonal = diagonal_at[b] + m * sizes[b]
            on_lower = lower_at[b - 1] + m * sizes[b - 1] if b > 0 else 0
            for q in range(n):
                c = block[unknowns[q]]
                if c == b:
                    memory[on_diagonal + local[unknowns[q]]] += scaled * values[q]
                elif c == b - 1:
                    memory[on_lower + local[unknowns[q]]] += scaled * values[q]


@dataclass(frozen=True, slots=True)
class StripOrder:
    """How unknowns are sorted into the blocks of a block-tridiagonal matrix."""

    block: Index
    """Block of each unknown."""
    local: Index
    """Place of each unknown inside its block."""
    sizes: Index
    """Unknowns per block."""

    @property
    def position(self) -> Index:
        """Place of each unknown in the order of the blocks."""
        return (np.cumsum(self.sizes) - self.sizes)[self.block] + self.local

    @property
    def starts(self) -> Index:
        """Start of each block in the memory of a matrix: diagonal blocks, then lower ones."""
        lengths = np.concatenate([self.sizes**2, self.sizes[1:] * self.sizes[:-1]])
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def addresses(self, row: Index, column: Index) -> tuple[Index, NDArray[np.bool_]]:
        """Return where entries lie in the memory, and which lie in a block that is kept.

        Kept are diagonal blocks and the blocks below them; the address of others is 0.
        """
        n = len(self.sizes)
        b, c = self.block[row], self.block[column]
        within = self.local[row] * self.sizes[c] + self.local[column]
        start = np.where(b == c, b, n + c)
        kept = (b == c) | (b == c + 1)
        return np.where(kept, self.starts[np.where(kept, start, 0)] + within, 0), kept

    def matrix(self, memory: Array) -> BlockMatrix:
        """Return the matrix whose blocks lie in a memory (as views)."""
        n, sizes, starts = len(self.sizes), self.sizes, self.starts
        parts = [memory[a:b] for a, b in pairwise(starts)]
        diagonal = tuple(parts[i].reshape(sizes[i], sizes[i]) for i in range(n))
        lower = tuple(parts[n + i].reshape(sizes[i + 1], sizes[i]) for i in range(n - 1))
        return BlockMatrix(diagonal, lower)


def normal_blocks(rows: TapRows, weights: Array, order: StripOrder) -> Array:
    """Return the memory of ``Aᵀ W A``, both triangles of the diagonal blocks.

    Parameters
    ----------
    rows, weights
        Operator and its row weights.
    order
        Order of the unknowns. Unknowns of one row must lie in the same block or in
        neighbouring ones.

    Returns
    -------
    ndarray of float64
        To be read through ``order.matrix``.
    """
    starts, n = order.starts, len(order.sizes)
    memory = np.zeros(int(starts[-1]))
    _accumulate(
        rows, weights, order.block, order.local, order.sizes, starts[:n], starts[n:], memory
    )
    return memory


@numba.njit(cache=True, nogil=True)
def _forms(
    rows: TapRows,
    block: Index,
    local: Index,
    sizes: Index,
    diagonal_at: Index,
    lower_at: Index,
    memory: Array,
    low_rank: Array,
) -> Array:
    unknowns = np.empty(2 * TAPS * TAPS, np.int64)
    values = np.empty(2 * TAPS * TAPS)
    out = np.zeros(len(rows.visit_first))
    rank = low_rank.shape[1]
    for k in range(len(out)):
        n = _collect_row(rows, k, unknowns, values)
        total = 0.0
        for p in range(n):
            b, m = block[unknowns[p]], local[unknowns[p]]
            on_diagonal = diagonal_at[b] + m * sizes[b]
            on_lower = lower_at[b - 1] + m * sizes[b - 1] if b > 0 else 0
            for q in range(n):
                c = block[unknowns[q]]
                if c == b:
                    total += values[p] * values[q] * memory[on_diagonal + local[unknowns[q]]]
                elif c == b - 1:
                    total += 2.0 * values[p] * values[q] * memory[on_lower + local[unknowns[q]]]
        for r in range(rank):
            dot = 0.0
            for p in range(n):
                dot += values[p] * low_rank[unknowns[p], r]
            total += dot * dot
        out[k] = total
    return out


def quadratic_forms(rows: TapRows, order: StripOrder, inverse: Array, low_rank: Array) -> Array:
    """Return ``a_kᵀ (S + Y Yᵀ) a_k`` for every row ``a_k`` of the operator.

    Parameters
    ----------
    rows
        Operator.
    order
        Order of the unknowns.
    inverse
        Memory of the blocks of ``S``.
    low_rank
        ``Y``, shape ``(n_unknowns, rank)``.

    Returns
    -------
    ndarray of float64
        One value per row.
    """
    starts, n = order.starts, len(order.sizes)
    # Rows of Y are visited scattered: keep them contiguous.
    y = np.ascontiguousarray(low_rank)
    return _forms(rows, order.block, order.local, order.sizes, starts[:n], starts[n:], inverse, y)
