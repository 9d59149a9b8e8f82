"""Averages of smooth surfaces over the boxes that measurements used, from planes per superpixel.

A surface averaged over a box with centroid ``c`` and variance ``s²`` per axis is, to second
order, ``ḡ + c·∇g + ½ (s² − 1/12) g''``, where ``ḡ`` is the average over the full superpixel.
That is exact for parabolas, and costs five look-ups instead of twenty-five products.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import kernel
from bgmatch_dask.numerics.keys import keys_averages

__all__ = ("N_PLANES", "box_differences", "sample_planes")

Array = NDArray[np.float64]
Index = NDArray[np.int64]

N_PLANES = 5
"""Planes that describe a surface at the superpixels."""

_FULL = 1.0 / 12.0


@lru_cache(maxsize=1)
def _average_weights() -> Array:
    """Return the weights of nodes −2 … 2 in the average over a superpixel about node 0."""
    end = np.array([0.5])
    limit = np.array([-10], np.int64), np.array([10], np.int64)
    base, weights = keys_averages(-end, end, *limit)
    out = np.zeros(9)
    out[4 + int(base[0]) : 9 + int(base[0])] = weights[0]
    return out[2:7]


def sample_planes(nodes: Array) -> Array:
    """Return averages, slopes and curvatures of a surface at the superpixels.

    Parameters
    ----------
    nodes
        Node values, one per superpixel with two guard nodes at every side, ``(ny + 4, nx + 4)``.

    Returns
    -------
    ndarray of float64
        ``(5, ny, nx)``: the average over the full superpixel, and ``g_y``, ``g_x``, ``g_yy``,
        ``g_xx`` at its centre, per superpixel.
    """
    ny, nx = nodes.shape[0] - 4, nodes.shape[1] - 4
    w = _average_weights()
    lines = np.zeros((nodes.shape[0], nx))
    for i in range(5):
        lines += w[i] * nodes[:, i : i + nx]
    out = np.zeros((5, ny, nx))
    for i in range(5):
        out[0] += w[i] * lines[i : i + ny]
    middle, above, below = nodes[2:-2, 2:-2], nodes[3:-1, 2:-2], nodes[1:-3, 2:-2]
    after, before = nodes[2:-2, 3:-1], nodes[2:-2, 1:-3]
    out[1], out[2] = 0.5 * (above - below), 0.5 * (after - before)
    out[3], out[4] = above - 2.0 * middle + below, after - 2.0 * middle + before
    return out


@kernel()
def box_differences(
    planes: Array,
    at_hub: Index,
    at_visit: Index,
    sy: Index,
    sx: Index,
    low_y: Array,
    low_x: Array,
    high_y: Array,
    high_x: Array,
) -> Array:
    """Return the averages of one surface less those of another over boxes.

    Parameters
    ----------
    planes
        `sample_planes` of all surfaces at the samples, ``(N_PLANES, n_samples)``.
    at_hub, at_visit
        Samples of the surface that is subtracted and of the other one, ``(n,)``.
    sy, sx
        Superpixel of each box, ``(n,)``.
    low_y, low_x, high_y, high_x
        Ends of each box, superpixels from the first centre, ``(n,)``.

    Returns
    -------
    ndarray of float64
        ``(n,)``.
    """
    out = np.empty(len(sy))
    for k in range(len(sy)):
        cy, cx = 0.5 * (low_y[k] + high_y[k]) - sy[k], 0.5 * (low_x[k] + high_x[k]) - sx[k]
        vy = (high_y[k] - low_y[k]) ** 2 / 12.0 - _FULL + cy * cy
        vx = (high_x[k] - low_x[k]) ** 2 / 12.0 - _FULL + cx * cx
        h, v = at_hub[k], at_visit[k]
        out[k] = (
            (planes[0, v] - planes[0, h])
            + cy * (planes[1, v] - planes[1, h])
            + cx * (planes[2, v] - planes[2, h])
            + 0.5 * (vy * (planes[3, v] - planes[3, h]) + vx * (planes[4, v] - planes[4, h]))
        )
    return out
