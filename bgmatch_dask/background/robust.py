"""Robust weights: superpixels that disagree with the model count less."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ("huber_weights", "redescending_weights", "robust_scale")

Array = NDArray[np.float64]

_MAD_TO_SIGMA = 1.4826022185056018
_FAR = 4.0
_LEAST = 1e-8


def robust_scale(standardised: Array) -> float:
    """Return the robust standard deviation about zero: 1.4826 · median |z| (0 if empty)."""
    if not standardised.size:
        return 0.0
    return _MAD_TO_SIGMA * float(np.median(np.abs(standardised)))


def huber_weights(residual: Array, sigma: Array, limit: float) -> Array:
    """Return Huber's weights, ``min(1, limit · s / |z|)`` with ``z = residual / sigma``.

    Parameters
    ----------
    residual
        Residuals.
    sigma
        Their standard deviations, up to a common factor ``s`` that is taken from the
        residuals themselves (`robust_scale`).
    limit
        Where weights begin to fall, in standard deviations.

    Returns
    -------
    ndarray of float64
        Weights in (0, 1].

    Notes
    -----
    Huber (1964), Ann. Math. Statist. 35, 73. Where more than half of the residuals are zero
    there is no scale, and all weights are one.
    """
    z = np.abs(residual / sigma)
    bound = limit * robust_scale(z)
    if bound <= 0.0:
        return np.ones_like(z)
    out: Array = bound / np.maximum(z, bound)
    return out


def redescending_weights(z: Array, limit: float) -> Array:
    """Return Huber's weights that fall faster far out, so that what is absurd has no say.

    Parameters
    ----------
    z
        Residuals in standard deviations.
    limit
        Where weights begin to fall.

    Returns
    -------
    ndarray of float64
        ``limit / |z|``, and beyond ``4 · limit`` that times ``(4 · limit / |z|)²``; never zero.
    """
    size = np.abs(z)
    near = limit / np.maximum(size, limit)
    far = _FAR * limit / np.maximum(size, _FAR * limit)
    out: Array = np.maximum(near * far**2, _LEAST)
    return out
