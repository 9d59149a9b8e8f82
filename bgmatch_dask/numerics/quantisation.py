"""Pixels on steps that are small beside their noise, which compress several times better.

A step is a power of two, so that the last bits of the float32 numbers are zero and nothing else
changes. Rounding to a step ``q`` adds noise of variance ``q² / 12``, and no bias where the noise
of a pixel is not much smaller than the step (Pence, White and Seaman 2010, PASP 122, 1065).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import kernel

__all__ = ("power_step", "rounded_to_bits", "rounded_to_step")

_FRACTION_BITS = 23


def power_step(sigma: float, share: float) -> float:
    """Return the largest power of two that is at most a share of some noise; 0 where there is none.

    Parameters
    ----------
    sigma
        Standard deviation of the noise.
    share
        Step in units of it.
    """
    wanted = share * sigma
    return 2.0 ** math.floor(math.log2(wanted)) if math.isfinite(wanted) and wanted > 0 else 0.0


@kernel()
def rounded_to_step(values: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """Return the nearest multiples of a power of two, ties to even; NaN stays NaN.

    Parameters
    ----------
    values
        Shape ``(y, x)``.
    step
        Power of two, more than zero.
    """
    out = np.empty(values.shape, np.float32)
    scale, back = 1.0 / step, step
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            out[y, x] = np.float32(np.rint(np.float64(values[y, x]) * scale) * back)
    return out


def rounded_to_bits(values: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Return numbers with fewer binary digits, wrong by less than a share of themselves.

    Parameters
    ----------
    values
        Positive numbers, NaN or infinity; any shape.
    share
        Largest relative error.

    Returns
    -------
    ndarray of float32
        Same shape; what is not finite stays as it is.
    """
    kept = min(max(math.ceil(-math.log2(share)) - 1, 0), _FRACTION_BITS)
    dropped = _FRACTION_BITS - kept
    if dropped == 0:
        return values
    half, last = np.uint32(1 << (dropped - 1)), np.uint32((1 << dropped) - 1)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + half) & ~last).view(np.float32)
    out: NDArray[np.float32] = np.where(np.isfinite(values), rounded, values)
    return out
