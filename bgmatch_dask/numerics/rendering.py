"""A smooth image from values on a grid of nodes: columns first, then rows.

This is the evaluation of LSST ``afw::math::BackgroundMI``, for any increasing nodes. The value of a
pixel depends on the nodes and on the coordinates of that pixel only, so a part of an image is the
same bytes as the same part of the whole image.

A row is drawn interval by interval, with the coefficients of one interval held constant, which the
compiler turns into vector instructions; the pixels are written once, as float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bgmatch_dask.errors import ConfigError, MatchError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.called_code import CALLED
from bgmatch_dask.numerics.compiling import inner, kernel
from bgmatch_dask.numerics.interpolation import InterpStyle, best_style, minimum_points
from bgmatch_dask.numerics.splines import (
    CONSTANT,
    CUBIC,
    LINEAR,
    WORK_ROWS,
    constant_pieces,
    expansion,
    noise_floor,
    spline_coefficients,
)

__all__ = ("Rendered", "UndersampleStyle", "choose_style", "render_nodes")

_Floats = NDArray[np.float64]
_Line = NDArray[np.float64] | NDArray[np.float32]


class UndersampleStyle(IntEnum):
    """What to do where a style has too few nodes. Values as in ``afw::math::UndersampleStyle``."""

    THROW_EXCEPTION = 0
    """Raise."""
    REDUCE_INTERP_ORDER = 1
    """Use the best style that the nodes allow, column by column and row by row."""
    INCREASE_NXNYSAMPLE = 2
    """Not supported upstream either: raises like `THROW_EXCEPTION`."""


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """An image and the styles it was drawn with."""

    image: NDArray[np.float32]
    """Shape of the box, units of the node values; NaN where there was no node to go by."""
    box: Box
    """Pixels that the image covers."""
    style: InterpStyle
    """Style used for columns and rows that have all their nodes."""
    undersample: UndersampleStyle
    """Rule used for the others."""


def choose_style(
    shape: tuple[int, int], style: InterpStyle, undersample: UndersampleStyle
) -> InterpStyle:
    """Return the style that a grid allows on both axes.

    Parameters
    ----------
    shape
        Number of nodes, ``(ny, nx)``.
    style
        Wanted style.
    undersample
        Only `UndersampleStyle.REDUCE_INTERP_ORDER` permits another style than the wanted one.

    Raises
    ------
    ConfigError
        ``grid-undersampled`` when an axis has fewer nodes than the style needs.
    """
    needed = minimum_points(style)
    if min(shape) >= needed:
        return style
    if undersample is not UndersampleStyle.REDUCE_INTERP_ORDER:
        raise ConfigError(
            "grid-undersampled",
            f"{style.name} needs {needed} nodes on each axis, the grid has {shape} (ny, nx)",
            fix="Use REDUCE_INTERP_ORDER, more cells, or a style of lower order.",
        )
    return best_style(min(shape))


def render_nodes(
    x_nodes: ArrayLike,
    y_nodes: ArrayLike,
    values: ArrayLike,
    box: Box,
    style: InterpStyle = InterpStyle.AKIMA_SPLINE,
    undersample: UndersampleStyle = UndersampleStyle.THROW_EXCEPTION,
    *,
    upstream: bool = False,
    out: NDArray[np.float32] | None = None,
) -> Rendered:
    """Draw the smooth image that goes through values on a grid.

    Every grid column is interpolated along y at the rows of ``box``, then every row along x. Nodes
    that are NaN are left out. The order matters for AKIMA, which is not linear.

    Parameters
    ----------
    x_nodes, y_nodes
        Pixel coordinates of the nodes (integers at pixel centres), strictly increasing, shapes
        ``(nx,)`` and ``(ny,)``.
    values
        Node values, shape ``(ny, nx)``; NaN where unknown.
    box
        Pixels to draw, in the coordinates of the nodes. May reach beyond the nodes: see
        `bgmatch_dask.numerics.interpolation.interpolate` for the continuation.
    style, undersample
        How to draw, and what to do where there are too few nodes.
    upstream
        See `bgmatch_dask.numerics.interpolation`.
    out
        Where to write, float32, C-contiguous, shape of ``box``; a new array when None.

    Returns
    -------
    Rendered
        The image (``out`` when that was given).

    Raises
    ------
    ConfigError
        ``grid-undersampled``; ``grid-shape`` when the shapes do not fit each other or the nodes do
        not increase; ``render-out`` when ``out`` has the wrong shape, dtype or memory order.
    MatchError
        ``interp-too-few-points`` when NaN values leave too few nodes in a column or row, and
        ``undersample`` does not permit another style.

    Notes
    -----
    Source: LSST ``afw`` ``BackgroundMI.cc``, ``doGetImage``. Runs without the GIL.
    """
    x = np.ascontiguousarray(x_nodes, np.float64)
    y = np.ascontiguousarray(y_nodes, np.float64)
    grid = np.ascontiguousarray(values, np.float64)
    _check_nodes(x, y, grid)
    used = choose_style((len(y), len(x)), style, undersample)
    image = _output(box, out)
    if box.empty:
        return Rendered(image, box, used, undersample)
    reduce = undersample is UndersampleStyle.REDUCE_INTERP_ORDER
    needed = minimum_points(used)
    rows = np.arange(box.y0, box.y1, dtype=np.float64)
    columns = np.arange(box.x0, box.x1, dtype=np.float64)
    between = np.empty((len(rows), len(x)))
    few = _draw_columns(y, grid, rows, used.value, needed, reduce, upstream, between)
    if few < 0:
        few = _draw_rows(x, between, columns, used.value, needed, reduce, upstream, image)
    if few >= 0:
        raise MatchError(
            "interp-too-few-points",
            f"A row or column of the grid has {few} good nodes, {used.name} needs {needed}",
            fix="Use REDUCE_INTERP_ORDER, or fill the grid first.",
        )
    return Rendered(image, box, used, undersample)


def _check_nodes(x: _Floats, y: _Floats, grid: _Floats) -> None:
    fits = x.ndim == 1 and y.ndim == 1 and grid.shape == (len(y), len(x)) and grid.size > 0
    if not (fits and np.all(np.diff(x) > 0) and np.all(np.diff(y) > 0)):
        raise ConfigError(
            "grid-shape",
            "Values on a grid need increasing nodes and the shape (ny, nx); got nodes "
            f"{x.shape} in x, {y.shape} in y and values {grid.shape}",
        )


def _output(box: Box, out: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if out is None:
        return np.empty(box.shape, np.float32)
    if out.shape != box.shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ConfigError(
            "render-out",
            f"The output array must be C-contiguous float32 of shape {box.shape}, "
            f"not {out.dtype} of shape {out.shape}",
        )
    return out


@inner(error_model="numpy")
def _allowed(style: int, n: int, needed: int, reduce: bool) -> int:
    """Style for ``n`` good nodes; -1 for none, -2 when that is an error."""
    if n >= needed:
        return style
    if not reduce:
        return -2
    if n == 0:
        return -1
    if n == 1:
        return CONSTANT
    return LINEAR if n == 2 else CUBIC


@inner(error_model="numpy")
def _keep_good(nodes: _Floats, values: _Floats, x: _Floats, y: _Floats) -> int:
    n = 0
    for i in range(len(nodes)):
        if not np.isnan(values[i]):
            x[n] = nodes[i]
            y[n] = values[i]
            n += 1
    return n


@inner(error_model="numpy")
def _cubic_run(t: _Floats, knot: float, y: float, b: float, c: float, d: float, out: _Line) -> None:
    for p in range(out.size):
        u = t[p] - knot
        out[p] = y + u * (b + u * (c + u * d))


@inner(error_model="numpy")
def _first_at(t0: float, width: int, x: float) -> int:
    """Index of the first of ``width`` consecutive integers from ``t0`` that is >= ``x``."""
    return int(min(max(np.ceil(x - t0), 0.0), float(width)))


@inner(error_model="numpy")
def _spline_line(
    kind: int, x: _Floats, y: _Floats, n: int, floor: float, b: _Floats, c: _Floats, d: _Floats,
    work: _Floats, t: _Floats, out: _Line,
) -> None:  # fmt: skip
    width = t.size
    t0 = t[0]
    # The Taylor expansions at both ends need the end intervals; Akima needs no more than is drawn.
    lo = min(max(np.searchsorted(x[:n], t0, side="right") - 1, 0), n - 2)
    hi = min(max(np.searchsorted(x[:n], t[width - 1], side="right"), lo + 1), n - 1)
    spline_coefficients(kind, x, y, n, lo, hi, floor, b, c, d, work)
    begin = _first_at(t0, width, x[0])
    if begin > 0:
        slope, bend = expansion(b[0], c[0], d[0], 0.0)
        _cubic_run(t[:begin], x[0], y[0], slope, bend, 0.0, out[:begin])
    for k in range(lo, hi):
        # The last interval is closed: its right knot belongs to it.
        if k < n - 2:
            end = _first_at(t0, width, x[k + 1])
        else:
            end = int(min(max(np.floor(x[n - 1] - t0) + 1.0, 0.0), float(width)))
        if end > begin:
            _cubic_run(t[begin:end], x[k], y[k], b[k], c[k], d[k], out[begin:end])
            begin = end
    if begin < width:
        k = n - 2
        slope, bend = expansion(b[k], c[k], d[k], x[n - 1] - x[k])
        _cubic_run(t[begin:], x[n - 1], y[n - 1], slope, bend, 0.0, out[begin:])


@inner(error_model="numpy")
def _constant_line(edges: _Floats, values: _Floats, pieces: int, t: _Floats, out: _Line) -> None:
    begin = 0
    for k in range(pieces):
        end = t.size if k == pieces - 1 else _first_at(t[0], t.size, edges[k])
        for p in range(begin, end):
            out[p] = values[k]
        begin = max(begin, end)


@inner(error_model="numpy")
def _draw_line(
    nodes: _Floats, values: _Floats, t: _Floats, style: int, needed: int, reduce: bool,
    upstream: bool, knots: _Floats, work: _Floats, out: _Line,
) -> int:  # fmt: skip
    """Interpolate at the consecutive integers ``t``; return -1, or the nodes that are too few."""
    x, y, b, c, d = knots
    n = _keep_good(nodes, values, x, y)
    kind = _allowed(style, n, needed, reduce)
    if kind == -2:
        return n
    if kind == -1:
        out[:] = np.nan
    elif kind == CONSTANT:
        pieces = constant_pieces(x, y, n, upstream, b, c)
        _constant_line(b, c, pieces, t, out)
    else:
        floor = noise_floor(x, y, n, upstream)
        _spline_line(kind, x, y, n, floor, b, c, d, work, t, out)
    return -1


@kernel(error_model="numpy")
def _draw_columns(
    nodes: _Floats, grid: _Floats, t: _Floats, style: int, needed: int, reduce: bool,
    upstream: bool, out: _Floats, called: int = CALLED,  # noqa: ARG001
) -> int:  # fmt: skip
    """Interpolate each grid column; the result has one row for each of ``t``."""
    knots = np.empty((5, len(nodes) + 1))
    work = np.empty((WORK_ROWS, len(nodes) + 4))
    # Columns are turned into rows eight at a time, a full line of cache for each row.
    lines = np.empty((8, len(t)))
    for first in range(0, grid.shape[1], 8):
        count = min(8, grid.shape[1] - first)
        for j in range(count):
            few = _draw_line(
                nodes, grid[:, first + j], t, style, needed, reduce, upstream, knots, work,
                lines[j],
            )  # fmt: skip
            if few >= 0:
                return few
        for i in range(len(t)):
            for j in range(count):
                out[i, first + j] = lines[j, i]
    return -1


@kernel(error_model="numpy")
def _draw_rows(
    nodes: _Floats, between: _Floats, t: _Floats, style: int, needed: int, reduce: bool,
    upstream: bool, out: NDArray[np.float32], called: int = CALLED,  # noqa: ARG001
) -> int:  # fmt: skip
    """Interpolate each row of ``between``; each row of ``out`` is written once."""
    knots = np.empty((5, len(nodes) + 1))
    work = np.empty((WORK_ROWS, len(nodes) + 4))
    for i in range(between.shape[0]):
        few = _draw_line(nodes, between[i], t, style, needed, reduce, upstream, knots, work, out[i])
        if few >= 0:
            return few
    return -1
