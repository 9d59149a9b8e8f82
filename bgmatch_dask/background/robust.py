"""Robust weights: superpixels that disagree with the model count less."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ("huber_weights", "robust_scale")

Array = NDArray[np.float64]

_MAD_TO_SIGMA = 1.4826022185056018


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
