"""Kernels for surfaces that are sums of products of vibrations along y and x."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import kernel

__all__ = ("BeamEnergies", "plate_energy", "plate_gradient", "products", "tapped")

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class BeamEnergies(NamedTuple):
    """Energies between the vibrations along one axis, ``(n, n)``, in the units of a plate."""

    curvature: Array
    """Bending."""
    slope: Array
    """Stretching."""


@kernel()
def tapped(shapes: Array, first: Index, weights: Array, count: int) -> Array:
    """Return weighted sums of successive rows.

    Parameters
    ----------
    shapes
        Rows, ``(n_rows, m)``.
    first
        First row of every sum, ``(n,)``.
    weights
        Of the rows from there on, ``(n, k)``.
    count
        Columns that are wanted.

    Returns
    -------
    ndarray of float64
        ``Σ_j weights[:, j] · shapes[first + j, :count]``, ``(n, count)``.
    """
    n = first.size
    out = np.zeros((n, count))
    for i in range(n):
        line = out[i]
        for j in range(weights.shape[1]):
            weight, row = weights[i, j], shapes[first[i] + j]
            for k in range(count):
                line[k] += weight * row[k]
    return out


@kernel()
def products(y: Array, x: Array, along_y: Index, along_x: Index) -> Array:
    """Return products of two sets of lines.

    Parameters
    ----------
    y, x
        Vibrations at the rows and at the columns of some places, ``(n, ny)`` and ``(n, nx)``.
    along_y, along_x
        Vibrations of every product, ``(m,)``.

    Returns
    -------
    ndarray of float64
        ``y[:, along_y] * x[:, along_x]``, ``(n, m)``.
    """
    n, m = y.shape[0], along_y.size
    out = np.empty((n, m))
    for i in range(n):
        line, row, column = out[i], y[i], x[i]
        for k in range(m):
            line[k] = row[along_y[k]] * column[along_x[k]]
    return out


@kernel()
def plate_energy(
    y: BeamEnergies, x: BeamEnergies, along_y: Index, along_x: Index, membrane: float
) -> Array:
    """Return the energies of a plate with a weak membrane between products of vibrations.

    Parameters
    ----------
    y, x
        Energies along both axes.
    along_y, along_x
        Vibrations of every product, ``(m,)``.
    membrane
        Weight of the membrane, ``ρ`` of `bgmatch_dask.background.penalty`.

    Returns
    -------
    ndarray of float64
        ``(m, m)``. Vibrations being orthonormal, the bending along one axis needs the same
        vibration along the other; what twists needs neither.
    """
    m = along_y.size
    out = np.empty((m, m))
    for i in range(m):
        ky, kx = along_y[i], along_x[i]
        for j in range(i + 1):
            ly, lx = along_y[j], along_x[j]
            total = 2.0 * y.slope[ky, ly] * x.slope[kx, lx]
            if kx == lx:
                total += y.curvature[ky, ly] + membrane * y.slope[ky, ly]
            if ky == ly:
                total += x.curvature[kx, lx] + membrane * x.slope[kx, lx]
            out[i, j] = total
            out[j, i] = total
    return out


@kernel()
def plate_gradient(g: Array, hy: float, hx: float, membrane: float) -> Array:
    """Return ``K g`` of a free plate with a weak membrane.

    Parameters
    ----------
    g
        Node values ``[y, x]``.
    hy, hx
        Distances of nodes along y and x.
    membrane
        Weight of the membrane, ``ρ`` of `bgmatch_dask.background.penalty`.

    Returns
    -------
    ndarray of float64
        Half the derivative of ``Σ g_xx² + 2 g_xy² + g_yy² + ρ |∇g|²`` of differences of nodes.
    """
    ny, nx = g.shape
    out = np.zeros((ny, nx))
    yy, xx, xy = 1.0 / hy**4, 1.0 / hx**4, 2.0 / (hy * hx) ** 2
    sy, sx = membrane / hy**2, membrane / hx**2
    for j in range(ny):
        for i in range(nx - 1):
            step = sx * (g[j, i + 1] - g[j, i])
            out[j, i + 1] += step
            out[j, i] -= step
        for i in range(nx - 2):
            bend = xx * (g[j, i + 2] - 2.0 * g[j, i + 1] + g[j, i])
            out[j, i + 2] += bend
            out[j, i + 1] -= 2.0 * bend
            out[j, i] += bend
    for j in range(ny - 1):
        for i in range(nx):
            step = sy * (g[j + 1, i] - g[j, i])
            out[j + 1, i] += step
            out[j, i] -= step
        for i in range(nx - 1):
            twist = xy * (g[j + 1, i + 1] - g[j + 1, i] - g[j, i + 1] + g[j, i])
            out[j + 1, i + 1] += twist
            out[j + 1, i] -= twist
            out[j, i + 1] -= twist
            out[j, i] += twist
    for j in range(ny - 2):
        for i in range(nx):
            bend = yy * (g[j + 2, i] - 2.0 * g[j + 1, i] + g[j, i])
            out[j + 2, i] += bend
            out[j + 1, i] -= 2.0 * bend
            out[j, i] += bend
    return out
