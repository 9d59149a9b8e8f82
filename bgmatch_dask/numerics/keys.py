"""Cubic convolution (Keys 1981, a = −1/2) on an even grid of nodes.

A surface is ``s(t) = Σ_j c_j K(t − j)`` in each axis, ``t`` counted in nodes. The kernel has
four taps, reproduces parabolas exactly, and is continuous with its first derivative. Besides
its value at a point, the exact *average* over an interval is given: what a bin sees.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.row_polynomials import (
    Places,
    RowPolynomials,
    cubic_at,
    through_nodes,
)
from bgmatch_dask.numerics.row_polynomials import linear_at as _linear_at

__all__ = (
    "TAPS",
    "keys_at",
    "keys_averages",
    "keys_render",
    "keys_rows",
    "keys_weights",
    "linear_at",
    "linear_render",
    "linear_rows",
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


def keys_rows(nodes: Array, x: Array, y: Array) -> RowPolynomials:
    """Return a surface on the product of columns and rows, to be rendered row by row.

    Parameters
    ----------
    nodes
        Node values ``[y, x]``, at least four in each axis.
    x, y
        Positions of the columns and rows in nodes; points outside take the surface's value
        at the last place that has all four taps.
    """
    ny, nx = nodes.shape
    return through_nodes(nodes, _cubic_places(x, nx), _cubic_places(y, ny), cubic=True)


def keys_render(nodes: Array, x: Array, y: Array) -> NDArray[np.float32]:
    """Render a surface on the product of columns and rows.

    Parameters
    ----------
    nodes, x, y
        As `keys_rows` takes them.

    Returns
    -------
    ndarray of float32
        Shape ``(len(y), len(x))``. Every pixel is computed from its own position alone, in
        float64 with a fixed order of operations, and rounded once: two calls that share a
        pixel agree in every bit.
    """
    return keys_rows(nodes, x, y).render(np.empty((len(y), len(x)), np.float32))


def keys_at(nodes: Array, x: Array, y: Array) -> NDArray[np.float32]:
    """Return the surface of `keys_render` at points ``(x[i], y[i])``, float32 ``(n,)``.

    A point that is a pixel of a product of columns and rows has the same bits as there.
    """
    ny, nx = nodes.shape
    return cubic_at(nodes, _cubic_places(x, nx), _cubic_places(y, ny))


def _cubic_places(t: Array, n_nodes: int) -> Places:
    place = np.clip(t, 1.0, n_nodes - 2.0)
    floor = np.minimum(np.floor(place), n_nodes - 3.0)
    return floor.astype(np.int64) - 1, place - floor


def linear_rows(nodes: Array, x: Array, y: Array) -> RowPolynomials:
    """Return node values interpolated linearly, constant beyond the outermost nodes.

    Parameters and result are those of `keys_rows`; any number of nodes.
    """
    ny, nx = nodes.shape
    return through_nodes(_padded(nodes), _linear_places(x, nx), _linear_places(y, ny), cubic=False)


def linear_render(nodes: Array, x: Array, y: Array) -> NDArray[np.float32]:
    """Render `linear_rows`; bitwise agreement as of `keys_render`."""
    return linear_rows(nodes, x, y).render(np.empty((len(y), len(x)), np.float32))


def linear_at(nodes: Array, x: Array, y: Array) -> NDArray[np.float32]:
    """Return the values of `linear_render` at points ``(x[i], y[i])``, float32 ``(n,)``."""
    ny, nx = nodes.shape
    return _linear_at(_padded(nodes), _linear_places(x, nx), _linear_places(y, ny))


def _padded(nodes: Array) -> Array:
    return np.pad(nodes, ((1, 3), (1, 3)), mode="edge")


def _linear_places(t: Array, n_nodes: int) -> Places:
    """Return places between nodes that are padded by one."""
    place = np.clip(t, 0.0, n_nodes - 1.0)
    floor = np.floor(place)
    return floor.astype(np.int64), place - floor
