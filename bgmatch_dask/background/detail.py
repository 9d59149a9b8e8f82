"""What a draft leaves over, as one smooth surface of one visit on the superpixels.

The free plate is nearly diagonal in products of the vibrations of free beams. In that basis
the strength is chosen by cross-validation in closed form, and few conjugate-gradient steps
take gaps and edges into account.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from bgmatch_dask.background.penalty import MEMBRANE
from bgmatch_dask.background.robust import robust_scale
from bgmatch_dask.numerics.mode_kernels import plate_gradient

__all__ = ("Detail", "fit_detail")

Array = NDArray[np.float64]

_STRENGTHS = np.logspace(-3.0, 6.0, 28)
_MARGIN = 12.0  # Gain in cross-validation that is worth a surface, in parameters.
_ISOLATED = 5.0  # Sigma above the neighbours from which a superpixel is cut down to them.
_TOLERANCE = 1e-3
_MAX_ITERATIONS = 60


@dataclass(frozen=True, slots=True)
class Detail:
    """A fitted surface."""

    nodes: Array
    """Values at the superpixels and two guard nodes around, ``(ny + 4, nx + 4)``."""
    smoothing: float
    """Strength for weights in units of the mean weight."""
    freedom: float
    """Effective parameters."""
    gain: float
    """By how much it lowers the sum of squares, in terms of cross-validation."""


@dataclass(frozen=True, slots=True)
class _Beam:
    """Vibrations of a free beam of ``n`` points: its constant and linear modes cost nothing."""

    modes: Array
    curvature: Array
    slope: Array


@lru_cache(maxsize=64)
def _beam(n: int) -> _Beam:
    second, first = np.diff(np.eye(n), 2, axis=0), np.diff(np.eye(n), 1, axis=0)
    values, modes = np.linalg.eigh(second.T @ second)
    slope = ((first @ modes) ** 2).sum(axis=0)
    values[:2] = 0.0
    return _Beam(modes, np.maximum(values, 0.0), slope)


def fit_detail(
    residual: Array,
    weight: Array,
    steps: tuple[float, float],
    strength: float | None = None,
    old: Detail | None = None,
) -> Detail | None:
    """Fit a smooth surface to what is left over, if that predicts better than what there is.

    Parameters
    ----------
    residual
        Mean residual of every superpixel, ``(ny, nx)``; ignored where the weight is zero.
    weight
        Weight of every superpixel.
    steps
        Height and width of a superpixel in units of their geometric mean.
    strength
        Smoothness for weights in units of the mean weight; None: by cross-validation.
    old
        Surface that left this over; it is fitted anew.

    Returns
    -------
    Detail or None
        None if nothing is worth a surface, or a new one.
    """
    used = weight > 0
    n = int(used.sum())
    if n < 16:
        return None
    mean_weight = float(weight[used].mean())
    scaled = np.pad(weight / mean_weight, 2)
    clean = np.pad(_without_isolated(np.where(used, residual, 0.0), used), 2)
    basis = _beam(scaled.shape[0]), _beam(scaled.shape[1])
    energy = _spectrum(basis, steps)
    used_up = 0.0 if old is None else old.freedom
    now = float((clean**2).sum()) / max(n - used_up, 1.0) ** 2
    if old is not None:
        clean = clean + old.nodes
    coefficients = basis[0].modes.T @ clean @ basis[1].modes
    chosen, freedom, score = _choose(coefficients, energy, n, strength)
    flat = float((clean**2).sum()) / n**2
    if old is not None and strength is None and flat <= min(now, score) * (1.0 + _MARGIN / n):
        return Detail(np.zeros_like(clean), np.inf, 0.0, (now - flat) * n**2)
    gain = (now - score) * n**2
    if not gain > _MARGIN * now * n:
        return None
    start = basis[0].modes @ (coefficients / (1.0 + chosen * energy)) @ basis[1].modes.T
    nodes = _solve(scaled, clean, chosen, steps, start, basis, energy)
    return Detail(nodes, chosen, freedom, gain)


def _without_isolated(residual: Array, used: NDArray[np.bool_]) -> Array:
    """Cut superpixels that stand out from their neighbours; smooth bumps pass."""
    smooth = median_filter(residual, size=3, mode="nearest")
    rough = residual - smooth
    limit = _ISOLATED * robust_scale(rough[used])
    return np.where(used, smooth + np.clip(rough, -limit, limit), 0.0)


def _spectrum(basis: tuple[_Beam, _Beam], steps: tuple[float, float]) -> Array:
    (y, x), (hy, hx) = basis, steps
    sy, sx = y.slope[:, np.newaxis] / hy**2, x.slope / hx**2
    plate = y.curvature[:, np.newaxis] / hy**4 + 2.0 * sy * sx + x.curvature / hx**4
    out: Array = plate + MEMBRANE * (sy + sx)
    return out


def _choose(
    coefficients: Array, energy: Array, n: int, strength: float | None
) -> tuple[float, float, float]:
    """Return strength, effective parameters and score of generalised cross-validation."""
    power, flat = (coefficients**2).ravel(), energy.ravel()
    covered, best = n / flat.size, (1.0, 0.0, np.inf)
    for value in _STRENGTHS if strength is None else (strength,):
        passed = 1.0 / (1.0 + value * flat)
        freedom = covered * float(passed.sum())
        if freedom > 0.9 * n:
            continue
        score = float((power * (1.0 - passed) ** 2).sum()) / (n - freedom) ** 2
        if score < best[2]:
            best = (float(value), freedom, score)
    return best


def _solve(
    weight: Array,
    value: Array,
    strength: float,
    steps: tuple[float, float],
    start: Array,
    basis: tuple[_Beam, _Beam],
    energy: Array,
) -> Array:
    """Minimise ``Σ w (g − r)² + λ K(g)`` by preconditioned conjugate gradients."""
    inverse = 1.0 / (1.0 + strength * energy)
    y, x = basis[0].modes, basis[1].modes

    def precondition(r: Array) -> Array:
        out: Array = y @ (inverse * (y.T @ r @ x)) @ x.T
        return out

    nodes = start
    right = weight * value
    residual = right - weight * nodes - strength * plate_gradient(nodes, *steps, MEMBRANE)
    goal = _TOLERANCE**2 * float((right * precondition(right)).sum())
    direction, previous = np.zeros_like(nodes), 1.0
    for count in range(_MAX_ITERATIONS):
        z = precondition(residual)
        now = float((residual * z).sum())
        if now <= goal:
            break
        direction = z + (now / previous) * direction if count else z
        product = weight * direction + strength * plate_gradient(direction, *steps, MEMBRANE)
        step = now / float((direction * product).sum())
        nodes = nodes + step * direction
        residual = residual - step * product
        previous = now
    return nodes
