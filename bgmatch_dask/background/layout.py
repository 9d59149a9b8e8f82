"""Where the nodes of every visit's surface lie, and how the unknowns are numbered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.observations import Observations
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.keys import keys_averages
from bgmatch_dask.numerics.tap_kernels import TapRows

__all__ = (
    "GUARD",
    "NodeLayout",
    "NodeWindow",
    "box_taps",
    "lay_out",
    "node_shape",
    "on_tract",
    "taps",
)

Array = NDArray[np.float64]
Index = NDArray[np.int64]

GUARD = 2
"""Nodes before the first superpixel of the tract."""


@dataclass(frozen=True, slots=True)
class NodeWindow:
    """The nodes of one visit: a rectangle of the node grid of the tract."""

    x0: int
    """First node column."""
    y0: int
    """First node row."""
    nx: int
    """Number of node columns."""
    ny: int
    """Number of node rows."""

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.nx * self.ny

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where the nodes lie on those of the tract."""
        return slice(self.y0, self.y0 + self.ny), slice(self.x0, self.x0 + self.nx)


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """Nodes of all unknown visits; unknown ``start[v] + row · nx + column``."""

    grid: SuperpixelGrid
    """Superpixels of the tract."""
    pitch: int
    """Superpixels per node."""
    windows: tuple[NodeWindow, ...]
    """Nodes of every unknown visit."""
    starts: Index
    """First unknown of each visit, and the number of unknowns."""

    @property
    def n_nodes(self) -> int:
        """Number of unknown node values."""
        return int(self.starts[-1])


def node_shape(grid: SuperpixelGrid, pitch: int) -> tuple[int, int]:
    """Return the shape ``(ny, nx)`` of the node grid of a tract, with its guard nodes."""
    ny, nx = grid.shape
    return (_last_node(ny - 1, pitch) + 1, _last_node(nx - 1, pitch) + 1)


def on_tract(nodes: Array, window: NodeWindow, shape: tuple[int, int]) -> Array:
    """Continue a visit's nodes over the tract: constant beyond its window, hence bounded."""
    y = (window.y0, shape[0] - window.y0 - window.ny)
    x = (window.x0, shape[1] - window.x0 - window.nx)
    out: Array = np.pad(nodes, (y, x), mode="edge")
    return out


def _first_node(superpixel: int, pitch: int) -> int:
    return int(np.floor((superpixel - 0.5) / pitch)) - 1 + GUARD


def _last_node(superpixel: int, pitch: int) -> int:
    # Coarser nodes get one more, so that every window has as many nodes as an average has taps.
    return int(np.floor((superpixel + 0.5) / pitch)) + GUARD + (2 if pitch == 1 else 3)


def lay_out(coverage: Sequence[NDArray[np.bool_]], grid: SuperpixelGrid, pitch: int) -> NodeLayout:
    """Place nodes on the footprint of every unknown visit and around it.

    Parameters
    ----------
    coverage
        Superpixels of each unknown visit, bool ``(sy, sx)``, none of them empty.
    grid
        Superpixels of the tract.
    pitch
        Superpixels per node.

    Returns
    -------
    NodeLayout
        Nodes by visit, row and column.
    """
    windows = tuple(_window(plane, pitch) for plane in coverage)
    starts = np.concatenate([[0], np.cumsum([w.size for w in windows])]).astype(np.int64)
    return NodeLayout(grid, pitch, windows, starts)


def _window(plane: NDArray[np.bool_], pitch: int) -> NodeWindow:
    ys, xs = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    y0, y1 = _first_node(ys[0], pitch), _last_node(ys[-1], pitch)
    x0, x1 = _first_node(xs[0], pitch), _last_node(xs[-1], pitch)
    return NodeWindow(x0, y0, x1 - x0 + 1, y1 - y0 + 1)


def taps(observations: Observations, layout: NodeLayout) -> TapRows:
    """Return the observation operator on the nodes of a layout."""
    y = _axis_taps(observations, layout, 0)
    x = _axis_taps(observations, layout, 1)
    first, stride = zip(
        *(_first_taps(end, layout, y[0], x[0]) for end in (observations.visit, observations.hub)),
        strict=True,
    )
    return TapRows(first[0], stride[0], first[1], stride[1], x[1], y[1])


def _axis_taps(observations: Observations, layout: NodeLayout, axis: int) -> tuple[Index, Array]:
    begin, length = _spans(layout, axis)
    first = np.full(len(observations), -(1 << 40), np.int64)
    last = np.full(len(observations), 1 << 40, np.int64)
    for end in (observations.visit, observations.hub):
        known = end >= 0
        first[known] = np.maximum(first[known], begin[end[known]])
        last[known] = np.minimum(last[known], (begin + length - 1)[end[known]])
    low = observations.low[axis] / layout.pitch + GUARD
    high = observations.high[axis] / layout.pitch + GUARD
    return keys_averages(low, high, first, last)


def _spans(layout: NodeLayout, axis: int) -> tuple[Index, Index]:
    pairs = [(w.y0, w.ny) if axis == 0 else (w.x0, w.nx) for w in layout.windows]
    spans = np.array(pairs, np.int64).reshape(-1, 2)
    return spans[:, 0], spans[:, 1]


def _first_taps(end: Index, layout: NodeLayout, y: Index, x: Index) -> tuple[Index, Index]:
    known = end >= 0
    at = np.where(known, end, 0)
    y0, _ = _spans(layout, 0)
    x0, nx = _spans(layout, 1)
    if not len(x0):
        return np.full(len(end), -1, np.int64), np.zeros(len(end), np.int64)
    first = layout.starts[at] + (y - y0[at]) * nx[at] + (x - x0[at])
    return np.where(known, first, -1), np.where(known, nx[at], 0)


def box_taps(
    layout: NodeLayout, visit: int, axis: int, low: Array, high: Array
) -> tuple[Index, Array]:
    """Return the taps of averages over boxes on the nodes of a visit, along y (0) or x (1).

    Returns
    -------
    first : ndarray of int64
        Row or column of the visit's nodes of the first tap, ``(n,)``.
    weights : ndarray of float64
        ``(n, TAPS)``.
    """
    window = layout.windows[visit]
    first, count = ((window.y0, window.ny), (window.x0, window.nx))[axis]
    begin, end = low / layout.pitch + GUARD, high / layout.pitch + GUARD
    limits = (np.full(len(low), first), np.full(len(low), first + count - 1))
    base, weights = keys_averages(begin, end, *limits)
    return base - first, weights
