"""Cubic convolution (Keys 1981, a = −1/2) on an even grid of nodes.

A surface is ``s(t) = Σ_j c_j K(t − j)`` in each axis, ``t`` counted in nodes. The kernel has
four taps, reproduces parabolas exactly, and is continuous with its first derivative. Besides
its value at a point, the exact *average* over an interval is given: what a bin sees.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = (
    "TAPS",
    "keys_at",
    "keys_averages",
    "keys_render",
    "keys_weights",
    "linear_at",
    "linear_render",
)

Array = NDArray[np.float64]

TAPS = 5
"""Nodes that the average over an interval within one node of some node can touch."""

_NARROW = 1e-3  # Below this the difference of antiderivatives would lose digits.


def keys_weights(t: Array, n_nodes: int | None = None) -> tuple[NDArray[np.int64], Array]:
    """Return the four taps of the kernel at points.

    Parameters
    ----------
    t
        Positions in nodes, shape ``(n,)``.
    n_nodes
        If given, positions whose taps would not all lie in ``0 … n_nodes − 1`` continue the
        cubic of the nearest interval, which is exact for parabolas.

    Returns
    -------
    base : ndarray of int64
        Node of the first tap, ``floor(t) − 1`` unless limited.
    weights : ndarray of float64
        Weights of the nodes ``base … base + 3``, shape ``(n, 4)``; each row sums to one.

    Notes
    -----
    Keys (1981), IEEE Trans. ASSP 29, 1153, equation 15.
    """
    floor = np.floor(t)
    if n_nodes is not None:
        floor = np.clip(floor, 1.0, n_nodes - 3.0)
    f = t - floor
    weights = np.stack(
        [
            ((-0.5 * f + 1.0) * f - 0.5) * f,
            (1.5 * f - 2.5) * f * f + 1.0,
            ((-1.5 * f + 2.0) * f + 0.5) * f,
            (0.5 * f - 0.5) * f * f,
        ],
        axis=-1,
    )
    return floor.astype(np.int64) - 1, weights


def keys_averages(
    low: Array, high: Array, first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Array]:
    """Return the taps of the average of a surface over intervals.

    Parameters
    ----------
    low, high
        Ends of the intervals in nodes, shape ``(n,)``; each lies within one node of some node.
    first, last
        First and last node that exist, for each interval; at least `TAPS` nodes.

    Returns
    -------
    base : ndarray of int64
        Node of the first tap.
    weights : ndarray of float64
        Weights of the nodes ``base … base + 4``, shape ``(n, 5)``; each row sums to one.
    """
    base = np.minimum(np.floor(low).astype(np.int64) - 1, last - (TAPS - 1))
    base = np.maximum(base, first)
    node = base[:, np.newaxis] + np.arange(TAPS)
    width = (high - low)[:, np.newaxis]
    narrow = width < _NARROW
    centre = 0.5 * (low + high)[:, np.newaxis] - node
    areas = _integral(high[:, np.newaxis] - node) - _integral(low[:, np.newaxis] - node)
    weights = np.where(narrow, _kernel(centre), areas / np.where(narrow, 1.0, width))
    return base, weights


def _kernel(u: Array) -> Array:
    a = np.abs(u)
    near = (1.5 * a - 2.5) * a * a + 1.0
    far = ((-0.5 * a + 2.5) * a - 4.0) * a + 2.0
    out: Array = np.where(a < 1.0, near, np.where(a < 2.0, far, 0.0))
    return out


def _integral(u: Array) -> Array:
    """Return the integral of the kernel from 0 to ``u``."""
    a = np.minimum(np.abs(u), 2.0)
    near = ((0.375 * a - 2.5 / 3.0) * a * a + 1.0) * a
    far = (((-0.125 * a + 2.5 / 3.0) * a - 2.0) * a + 2.0) * a - 1.0 / 6.0
    out: Array = np.sign(u) * np.where(a < 1.0, near, far)
    return out


def keys_render(nodes: Array, x: Array, y: Array) -> NDArray[np.float32]:
    """Render a surface on the product of columns and rows.

    Parameters
    ----------
    nodes
        Node values ``[y, x]``, at least four in each axis.
    x, y
        Positions of the columns and rows in nodes; points outside take the surface's value
        at the last place that has all four taps.

    Returns
    -------
    ndarray of float32
        Shape ``(len(y), len(x))``. Every pixel is computed from its own position alone, in
        float64 with a fixed order of operations, and rounded once: two calls that share a
        pixel agree in every bit.
    """
    ny, nx = nodes.shape
    x_base, x_weights = keys_weights(np.clip(x, 1.0, nx - 2.0), nx)
    y_base, y_weights = keys_weights(np.clip(y, 1.0, ny - 2.0), ny)
    out = np.empty((len(y), len(x)), np.float32)
    _render(np.ascontiguousarray(nodes), x_base, x_weights, y_base, y_weights, out)
    return out


def keys_at(nodes: Array, x: Array, y: Array) -> NDArray[np.float32]:
    """Return the surface of `keys_render` at points ``(x[i], y[i])``, float32 ``(n,)``.

    A point that is a pixel of a product of columns and rows has the same bits as there.
    """
    ny, nx = nodes.shape
    x_base, x_weights = keys_weights(np.clip(x, 1.0, nx - 2.0), nx)
    y_base, y_weights = keys_weights(np.clip(y, 1.0, ny - 2.0), ny)
    out = np.empty(len(x), np.float32)
    _at(np.ascontiguousarray(nodes), x_base, x_weights, y_base, y_weights, out)
    return out


def linear_render(nodes: Array, x: Array, y: Array) -> NDArray[np.float32]:
    """Render node values linearly, constant beyond the outermost nodes.

    Parameters, result and bitwise agreement are those of `keys_render`; any number of nodes.
    """
    x_base, x_weights = _linear_weights(x, nodes.shape[1])
    y_base, y_weights = _linear_weights(y, nodes.shape[0])
    out = np.empty((len(y), len(x)), np.float32)
    _render(_padded(nodes), x_base, x_weights, y_base, y_weights, out)
    return out


def linear_at(nodes: Array, x: Array, y: Array) -> NDArray[np.float32]:
    """Return the values of `linear_render` at points ``(x[i], y[i])``, float32 ``(n,)``."""
    x_base, x_weights = _linear_weights(x, nodes.shape[1])
    y_base, y_weights = _linear_weights(y, nodes.shape[0])
    out = np.empty(len(x), np.float32)
    _at(_padded(nodes), x_base, x_weights, y_base, y_weights, out)
    return out


def _padded(nodes: Array) -> Array:
    return np.pad(nodes, ((1, 3), (1, 3)), mode="edge")


def _linear_weights(t: Array, n_nodes: int) -> tuple[NDArray[np.int64], Array]:
    """Return linear weights in the form of four taps, on nodes that are padded by one."""
    place = np.clip(t, 0.0, n_nodes - 1.0)
    low = np.floor(place)
    f = place - low
    zero = np.zeros_like(f)
    return low.astype(np.int64), np.stack([zero, 1.0 - f, f, zero], axis=-1)


@numba.njit(cache=True, nogil=True)
def _render(
    nodes: Array,
    x_base: NDArray[np.int64],
    x_weights: Array,
    y_base: NDArray[np.int64],
    y_weights: Array,
    out: NDArray[np.float32],
) -> None:
    height, width = out.shape
    n_nodes = nodes.shape[1]
    line = np.empty(n_nodes)
    # Columns between the same nodes share their taps: the inner loop then has no gather.
    starts = np.empty(width + 1, np.int64)
    n_runs = 0
    for i in range(width):
        if i == 0 or x_base[i] != x_base[i - 1]:
            starts[n_runs] = i
            n_runs += 1
    starts[n_runs] = width
    w0 = x_weights[:, 0].copy()
    w1 = x_weights[:, 1].copy()
    w2 = x_weights[:, 2].copy()
    w3 = x_weights[:, 3].copy()
    for j in range(height):
        b = y_base[j]
        v0, v1, v2, v3 = y_weights[j, 0], y_weights[j, 1], y_weights[j, 2], y_weights[j, 3]
        for k in range(n_nodes):
            line[k] = (v0 * nodes[b, k] + v1 * nodes[b + 1, k]) + (
                v2 * nodes[b + 2, k] + v3 * nodes[b + 3, k]
            )
        row = out[j]
        for r in range(n_runs):
            lo, hi = starts[r], starts[r + 1]
            c = x_base[lo]
            n0, n1, n2, n3 = line[c], line[c + 1], line[c + 2], line[c + 3]
            for i in range(lo, hi):
                row[i] = np.float32((w0[i] * n0 + w1[i] * n1) + (w2[i] * n2 + w3[i] * n3))


@numba.njit(cache=True, nogil=True)
def _at(
    nodes: Array,
    x_base: NDArray[np.int64],
    x_weights: Array,
    y_base: NDArray[np.int64],
    y_weights: Array,
    out: NDArray[np.float32],
) -> None:
    line = np.empty(4)
    for i in range(out.shape[0]):
        b, c = y_base[i], x_base[i]
        v0, v1, v2, v3 = y_weights[i, 0], y_weights[i, 1], y_weights[i, 2], y_weights[i, 3]
        # Columns first and then the row, in the order of `_render`, for the same bits.
        for k in range(4):
            line[k] = (v0 * nodes[b, c + k] + v1 * nodes[b + 1, c + k]) + (
                v2 * nodes[b + 2, c + k] + v3 * nodes[b + 3, c + k]
            )
        w0, w1, w2, w3 = x_weights[i, 0], x_weights[i, 1], x_weights[i, 2], x_weights[i, 3]
        out[i] = np.float32((w0 * line[0] + w1 * line[1]) + (w2 * line[2] + w3 * line[3]))
