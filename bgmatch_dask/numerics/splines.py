"""Compiled kernels of one-dimensional interpolation: coefficients and evaluation.

The kernels work on the first ``n`` entries of caller-owned scratch arrays, allocate nothing and
release the GIL. They are compiled without fast-math, so that a result depends only on the knots and
on the abscissa: the same pixel rendered as part of any box, on any machine, has the same bytes.

Formulas: the natural and periodic cubic spline and Akima's spline (H. Akima 1970, J. ACM 17, 589)
with the end rules of the GNU Scientific Library, which the LSST stack uses, and a second-order
Taylor expansion about the end knots outside the knots.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner, kernel

__all__ = (
    "AKIMA",
    "AKIMA_PERIODIC",
    "CONSTANT",
    "CUBIC",
    "CUBIC_PERIODIC",
    "LINEAR",
    "NATURAL",
    "WORK_ROWS",
    "constant_pieces",
    "evaluate_constant",
    "evaluate_spline",
    "expansion",
    "noise_floor",
    "spline_coefficients",
)

CONSTANT: Final = 0
LINEAR: Final = 1
NATURAL: Final = 2
CUBIC: Final = 3
CUBIC_PERIODIC: Final = 4
AKIMA: Final = 5
AKIMA_PERIODIC: Final = 6

WORK_ROWS: Final = 4
"""Rows of the scratch array ``work`` that `spline_coefficients` needs, each ``n + 4`` long."""

_RELATIVE_NOISE: Final = 2.0**-40

_Floats = NDArray[np.float64]


@kernel(error_model="numpy")
def noise_floor(x: _Floats, y: _Floats, n: int, upstream: bool) -> float:
    """Return the slope difference below which two slopes count as equal (Akima only).

    Akima's weights are ratios of slope differences. Where the differences are rounding noise, the
    ratio is noise too and the slope at the knot may move by its full size (fault F-41 of the
    upstream exact-zero test). Differences below ``2**-40 max|y| / min(h)`` count as zero: far above
    the rounding of float64 ordinates, far below anything measured.

    Parameters
    ----------
    x, y
        Knots, float64, at least ``n`` long; ``x`` increasing.
    n
        Number of knots, at least 2.
    upstream
        Return 0, i.e. the exact-zero test.

    Returns
    -------
    float
        Units of ``y / x``. Knots that are not finite are left out of the scale.
    """
    if upstream:
        return 0.0
    largest = 0.0
    closest = np.inf
    for i in range(n):
        if abs(y[i]) > largest and abs(y[i]) < np.inf:
            largest = abs(y[i])
        if i > 0:
            closest = min(closest, x[i] - x[i - 1])
    return _RELATIVE_NOISE * largest / closest


@inner(error_model="numpy")
def _akima(
    x: _Floats, y: _Floats, n: int, lo: int, hi: int, periodic: bool, floor: float,
    b: _Floats, c: _Floats, d: _Floats, work: _Floats,
) -> None:  # fmt: skip
    # Slopes are stored two places to the right, so that m[0], m[1] are the left ghosts.
    m, knot, flat = work[0], work[1], work[2]
    for i in range(n - 1):
        m[i + 2] = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
    if periodic:
        m[0], m[1] = m[n - 1], m[n]
        m[n + 1], m[n + 2] = m[2], m[3]
    else:
        m[0], m[1] = 3.0 * m[2] - 2.0 * m[3], 2.0 * m[2] - m[3]
        m[n + 1], m[n + 2] = 2.0 * m[n] - m[n - 1], 3.0 * m[n] - 2.0 * m[n - 1]
    for i in range(lo, hi + 1):
        before = abs(m[i + 1] - m[i])
        total = abs(m[i + 3] - m[i + 2]) + before
        alpha = before / total
        flat[i] = 1.0 if total <= floor else 0.0
        knot[i] = (1.0 - alpha) * m[i + 1] + alpha * m[i + 2]
    for i in range(lo, hi):
        h = x[i + 1] - x[i]
        slope = m[i + 2]
        right = slope if flat[i + 1] != 0.0 else knot[i + 1]
        straight = flat[i] != 0.0
        left = slope if straight else knot[i]
        b[i] = left
        c[i] = 0.0 if straight else (3.0 * slope - 2.0 * left - right) / h
        d[i] = 0.0 if straight else (left + right - 2.0 * slope) / (h * h)


@inner(error_model="numpy")
def _from_curvatures(x: _Floats, y: _Floats, n: int, b: _Floats, c: _Floats, d: _Floats) -> None:
    # On entry c holds half the second derivative at all n knots.
    for i in range(n - 1):
        h = x[i + 1] - x[i]
        b[i] = (y[i + 1] - y[i]) / h - h * (c[i + 1] + 2.0 * c[i]) / 3.0
        d[i] = (c[i + 1] - c[i]) / (3.0 * h)


@inner(error_model="numpy")
def _natural(
    x: _Floats, y: _Floats, n: int, b: _Floats, c: _Floats, d: _Floats, work: _Floats
) -> None:
    # Thomas elimination, stable because the matrix is diagonally dominant; `upper` is the
    # eliminated superdiagonal.
    upper = work[0]
    c[0] = 0.0
    c[n - 1] = 0.0
    upper[0] = 0.0
    h_left = x[1] - x[0]
    m_left = (y[1] - y[0]) / h_left
    for i in range(1, n - 1):
        h = x[i + 1] - x[i]
        m = (y[i + 1] - y[i]) / h
        pivot = 2.0 * (h_left + h) - h_left * upper[i - 1]
        upper[i] = h / pivot
        c[i] = (3.0 * (m - m_left) - h_left * c[i - 1]) / pivot
        h_left, m_left = h, m
    for i in range(n - 3, 0, -1):
        c[i] -= upper[i] * c[i + 1]
    _from_curvatures(x, y, n, b, c, d)


@inner(error_model="numpy")
def _periodic_cubic(
    x: _Floats, y: _Floats, n: int, b: _Floats, c: _Floats, d: _Floats, work: _Floats
) -> None:
    # Unknowns c[1..n-1] with c[0] = c[n-1]; unknown i couples the steps i-1 and i (mod n-1).
    # The cyclic corner is removed with the Sherman-Morrison formula: u = (g, 0.., corner),
    # v = (1, 0.., corner / g), g = -diagonal.
    size = n - 1
    upper, extra = work[0], work[1]
    corner = x[1] - x[0]
    first = 2.0 * (x[2] - x[0])
    # Entry 0 is a dummy that makes the first elimination step like all others.
    upper[0] = c[0] = extra[0] = 0.0
    for i in range(1, n):
        h_left = x[i] - x[i - 1]
        j = i if i < size else 0
        h = x[j + 1] - x[j]
        jump = (y[j + 1] - y[j]) / h - (y[i] - y[i - 1]) / h_left
        diagonal = 2.0 * (h_left + h)
        side = 0.0
        if i == 1:
            diagonal += first
            side = -first
        elif i == size:
            diagonal += corner * corner / first
            side = corner
        pivot = diagonal - h_left * upper[i - 1]
        upper[i] = h / pivot
        c[i] = (3.0 * jump - h_left * c[i - 1]) / pivot
        extra[i] = (side - h_left * extra[i - 1]) / pivot
    for i in range(size - 1, 0, -1):
        c[i] -= upper[i] * c[i + 1]
        extra[i] -= upper[i] * extra[i + 1]
    ratio = -corner / first
    factor = (c[1] + ratio * c[size]) / (1.0 + extra[1] + ratio * extra[size])
    for i in range(1, n):
        c[i] -= factor * extra[i]
    c[0] = c[size]
    _from_curvatures(x, y, n, b, c, d)


@kernel(error_model="numpy")
def spline_coefficients(
    style: int, x: _Floats, y: _Floats, n: int, lo: int, hi: int, floor: float,
    b: _Floats, c: _Floats, d: _Floats, work: _Floats,
) -> None:  # fmt: skip
    """Compute ``f = y[k] + t (b[k] + t (c[k] + t d[k]))``, ``t = x - x[k]``, for all intervals.

    Parameters
    ----------
    style
        One of the integers of this module except `CONSTANT`.
    x, y
        Knots, float64, at least ``n`` long; ``x`` strictly increasing.
    n
        Number of knots, at least the minimum of the style.
    lo, hi
        Intervals ``lo <= k < hi`` are wanted; other entries are undefined for the local styles.
    floor
        Value of `noise_floor`.
    b, c, d
        Results, float64, at least ``n`` long.
    work
        Scratch, float64, shape ``(WORK_ROWS, >= n + 4)``.
    """
    if style in (AKIMA, AKIMA_PERIODIC):
        _akima(x, y, n, lo, hi, style == AKIMA_PERIODIC, floor, b, c, d, work)
    elif style in (NATURAL, CUBIC):
        _natural(x, y, n, b, c, d, work)
    elif style == CUBIC_PERIODIC:
        _periodic_cubic(x, y, n, b, c, d, work)
    else:
        for i in range(lo, hi):
            b[i] = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
            c[i] = 0.0
            d[i] = 0.0


@inner(error_model="numpy")
def expansion(b: float, c: float, d: float, h: float) -> tuple[float, float]:
    """Return slope and half the second derivative of a cubic at ``h`` from its knot.

    Also used with ``h = 0``: where ``d`` is infinite the result is NaN then, as upstream.
    """
    return b + h * (2.0 * c + 3.0 * d * h), c + 3.0 * d * h


@kernel(error_model="numpy")
def evaluate_spline(
    x: _Floats, y: _Floats, n: int, b: _Floats, c: _Floats, d: _Floats, t: _Floats, out: _Floats
) -> None:
    """Evaluate at any abscissae; outside the knots by second-order expansion about the end knot.

    Parameters
    ----------
    x, y, n
        Knots as in `spline_coefficients`.
    b, c, d
        Coefficients of all ``n - 1`` intervals.
    t
        Abscissae, float64, shape ``(q,)``; NaN gives NaN.
    out
        Results, float64, shape ``(q,)``.
    """
    k = n - 2
    first_slope, first_bend = expansion(b[0], c[0], d[0], 0.0)
    last_slope, last_bend = expansion(b[k], c[k], d[k], x[n - 1] - x[k])
    j = 0
    for q in range(t.size):
        if t[q] > x[n - 1]:
            u = t[q] - x[n - 1]
            out[q] = y[n - 1] + u * (last_slope + u * last_bend)
        elif t[q] < x[0]:
            u = t[q] - x[0]
            out[q] = y[0] + u * (first_slope + u * first_bend)
        elif np.isnan(t[q]):
            out[q] = np.nan
        else:
            # Questions mostly come in order: go on from the last interval.
            if t[q] < x[j]:
                j = np.searchsorted(x[:n], t[q], side="right") - 1
            while j < k and x[j + 1] <= t[q]:
                j += 1
            u = t[q] - x[j]
            out[q] = y[j] + u * (b[j] + u * (c[j] + u * d[j]))


@kernel(error_model="numpy")
def constant_pieces(
    x: _Floats, y: _Floats, n: int, upstream: bool, edges: _Floats, values: _Floats
) -> int:
    """Cut the line into constant pieces: ``values[k]``, k = number of ``edges <= t``.

    Parameters
    ----------
    x, y, n
        Knots.
    upstream
        False: each piece is the set nearest to one knot and carries its ordinate. True: as LSST,
        where the piece around knot ``k >= 1`` carries the mean of ``y[k-1]`` and ``y[k]`` and a
        last piece half a step outside carries ``y[n-1]`` (fault F-33, a shift by half a cell).
    edges, values
        Results, float64, at least ``n + 1`` long.

    Returns
    -------
    int
        Number of pieces; there is one edge less.
    """
    values[0] = y[0]
    for k in range(1, n):
        edges[k - 1] = 0.5 * (x[k - 1] + x[k])
        values[k] = 0.5 * (y[k - 1] + y[k]) if upstream else y[k]
    if not upstream or n == 1:
        return n
    edges[n - 1] = 1.5 * x[n - 1] - 0.5 * x[n - 2]
    values[n] = y[n - 1]
    return n + 1


@kernel(error_model="numpy")
def evaluate_constant(
    edges: _Floats, values: _Floats, pieces: int, t: _Floats, out: _Floats
) -> None:
    """Evaluate the pieces of `constant_pieces` at any abscissae (NaN counts as beyond the end).

    Parameters
    ----------
    edges, values, pieces
        As `constant_pieces` left them.
    t, out
        Abscissae and results, float64, shape ``(q,)``.
    """
    for q in range(t.size):
        k = pieces - 1
        if not np.isnan(t[q]):
            k = np.searchsorted(edges[: pieces - 1], t[q], side="right")
        out[q] = values[k]
