"""Interpolation of a sampled curve: the styles and end rules of LSST ``afw::math::Interpolate``.

Two things differ from the LSST stack unless ``upstream=True`` is given:

* ``CONSTANT`` returns the ordinate of the nearest knot (of the right one half-way). Upstream
  returns the mean of two neighbouring ordinates, i.e. a curve shifted by half a cell (F-33).
* ``AKIMA`` treats slope differences of the size of rounding noise as zero. Upstream tests for
  exact zero, so that noise of one unit in the last place can turn a slope (F-41).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bgmatch_dask.errors import ConfigError, MatchError
from bgmatch_dask.numerics import splines

__all__ = (
    "InterpStyle",
    "best_style",
    "interpolate",
    "interpolate_or_reduce",
    "minimum_points",
    "parse_style",
)


class InterpStyle(IntEnum):
    """How a curve is drawn through samples. Values as in ``afw::math::Interpolate::Style``."""

    CONSTANT = splines.CONSTANT
    """Ordinate of the nearest knot."""
    LINEAR = splines.LINEAR
    """Straight lines."""
    NATURAL_SPLINE = splines.NATURAL
    """Cubic spline with zero second derivative at both ends."""
    CUBIC_SPLINE = splines.CUBIC
    """The same curve as `NATURAL_SPLINE`."""
    CUBIC_SPLINE_PERIODIC = splines.CUBIC_PERIODIC
    """Cubic spline with equal first and second derivatives at both ends."""
    AKIMA_SPLINE = splines.AKIMA
    """Akima's local cubic, robust against outlying samples."""
    AKIMA_SPLINE_PERIODIC = splines.AKIMA_PERIODIC
    """Akima's local cubic with slopes wrapped around the ends."""


_MINIMUM_POINTS: dict[InterpStyle, int] = {
    InterpStyle.CONSTANT: 1,
    InterpStyle.LINEAR: 2,
    InterpStyle.NATURAL_SPLINE: 3,
    InterpStyle.CUBIC_SPLINE: 3,
    InterpStyle.CUBIC_SPLINE_PERIODIC: 3,
    InterpStyle.AKIMA_SPLINE: 5,
    InterpStyle.AKIMA_SPLINE_PERIODIC: 5,
}


def parse_style(name: str) -> InterpStyle:
    """Return the style of that name.

    Parameters
    ----------
    name
        Such as ``"AKIMA_SPLINE"``.

    Raises
    ------
    ConfigError
        ``interp-style-unknown``.
    """
    if name not in InterpStyle.__members__:
        raise ConfigError(
            "interp-style-unknown",
            f"There is no interpolation style {name!r}",
            fix=f"Use one of {', '.join(InterpStyle.__members__)}.",
        )
    return InterpStyle[name]


def minimum_points(style: InterpStyle | int) -> int:
    """Return how many samples a style needs.

    Parameters
    ----------
    style
        A style or its number.

    Raises
    ------
    ConfigError
        ``interp-style-out-of-range`` when the number stands for no style.
    """
    if style not in _MINIMUM_POINTS:
        raise ConfigError(
            "interp-style-out-of-range",
            f"Interpolation style {style} is outside 0..{max(InterpStyle)}",
        )
    return _MINIMUM_POINTS[InterpStyle(style)]


def best_style(n: int) -> InterpStyle:
    """Return the smoothest style that ``n`` samples allow.

    Parameters
    ----------
    n
        Number of samples.

    Returns
    -------
    InterpStyle
        CONSTANT for 1, LINEAR for 2, CUBIC_SPLINE for 3 and 4, AKIMA_SPLINE from 5 on.

    Raises
    ------
    ConfigError
        ``interp-no-points`` for ``n < 1``.
    """
    if n < 1:
        raise ConfigError("interp-no-points", f"Interpolation needs at least one sample, not {n}")
    if n >= 5:
        return InterpStyle.AKIMA_SPLINE
    return (InterpStyle.CONSTANT, InterpStyle.LINEAR, InterpStyle.CUBIC_SPLINE)[min(n, 3) - 1]


def interpolate(
    x: ArrayLike,
    y: ArrayLike,
    t: ArrayLike,
    style: InterpStyle = InterpStyle.AKIMA_SPLINE,
    *,
    upstream: bool = False,
) -> NDArray[np.float64]:
    """Draw a curve through samples and read it at other places.

    Inside the knots the interval of ``t`` is the last one that starts at or before ``t``. Outside,
    the curve is continued by the second-order Taylor expansion about the end knot: linearly for
    LINEAR and the natural spline, quadratically for AKIMA.

    Parameters
    ----------
    x
        Abscissae of the samples, strictly increasing, shape ``(n,)``.
    y
        Ordinates, shape ``(n,)``. NaN is not dropped; it spreads as far as the style looks.
    t
        Where to read, any shape. NaN gives NaN.
    style
        The kind of curve.
    upstream
        Do as LSST ``afw`` in the two points of the module docstring; a NaN abscissa then gives the
        last value of a CONSTANT curve, and CONSTANT does not check the order of ``x``.

    Returns
    -------
    ndarray of float64
        Shape of ``t``, units of ``y``.

    Raises
    ------
    MatchError
        ``interp-too-few-points`` when there are fewer samples than the style needs;
        ``interp-knots-not-increasing`` when ``x`` does not strictly increase.
    ConfigError
        ``interp-shape`` when ``x`` and ``y`` are not one-dimensional and equally long.

    Notes
    -----
    Source of the formulas: `bgmatch_dask.numerics.splines`.
    """
    knots, values = _check_samples(x, y, style, upstream=upstream)
    where = np.asarray(t, np.float64)
    flat = np.ascontiguousarray(where).reshape(-1)
    out = np.empty(flat.shape, np.float64)
    n = len(knots)
    if style is InterpStyle.CONSTANT:
        edges, levels = np.empty((2, n + 1))
        pieces = splines.constant_pieces(knots, values, n, upstream, edges, levels)
        splines.evaluate_constant(edges, levels, pieces, flat, out)
        if not upstream:
            out[np.isnan(flat)] = np.nan
    else:
        b, c, d = np.empty((3, n))
        work = np.empty((splines.WORK_ROWS, n + 4))
        floor = splines.noise_floor(knots, values, n, upstream)
        splines.spline_coefficients(style.value, knots, values, n, 0, n - 1, floor, b, c, d, work)
        splines.evaluate_spline(knots, values, n, b, c, d, flat, out)
    return out.reshape(where.shape)


def interpolate_or_reduce(
    x: ArrayLike,
    y: ArrayLike,
    t: ArrayLike,
    style: InterpStyle = InterpStyle.AKIMA_SPLINE,
    *,
    upstream: bool = False,
) -> NDArray[np.float64]:
    """Interpolate with the wanted style, or with the best one that the samples allow.

    Parameters
    ----------
    x, y, t, style, upstream
        As for `interpolate`.

    Returns
    -------
    ndarray of float64
        Shape of ``t``; NaN everywhere when there is no sample.

    Raises
    ------
    MatchError
        ``interp-knots-not-increasing``.
    ConfigError
        ``interp-shape``.
    """
    n = np.size(x)
    if n == 0:
        return np.full(np.shape(t), np.nan)
    if n < minimum_points(style):
        style = best_style(n)
    return interpolate(x, y, t, style, upstream=upstream)


def _check_samples(
    x: ArrayLike, y: ArrayLike, style: InterpStyle, *, upstream: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    knots = np.ascontiguousarray(x, np.float64)
    values = np.ascontiguousarray(y, np.float64)
    if knots.ndim != 1 or knots.shape != values.shape:
        raise ConfigError(
            "interp-shape",
            f"Samples need two vectors of one length, not shapes {knots.shape} and {values.shape}",
        )
    needed = minimum_points(style)
    if len(knots) < needed:
        raise MatchError(
            "interp-too-few-points",
            f"{style.name} needs at least {needed} samples, there are {len(knots)}",
            fix="Use interpolate_or_reduce, or a style of lower order.",
        )
    ordered = bool(np.all(np.diff(knots) > 0))
    if not ordered and not (upstream and style is InterpStyle.CONSTANT):
        raise MatchError(
            "interp-knots-not-increasing",
            "The abscissae of the samples do not strictly increase",
            fix="Sort the samples and merge those at one place.",
        )
    return knots, values
