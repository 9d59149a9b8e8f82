"""The sky noise of an image that comes without a variance plane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ("sky_sigma",)

_LAG = 5
"""Pixels between the two of a difference: beyond the reach of resampled, correlated noise."""
_BLOCK = 64
_MAD_TO_SIGMA = 1.482602218505602


def sky_sigma(image: NDArray[np.float32]) -> float | None:
    """Estimate the noise of the sky from the pixels themselves.

    In each block of 64² pixels, σ = 1.4826 MAD(difference of pixels 5 apart along x) / √2. Slow
    gradients cancel in the differences, and the lag is longer than the correlation of resampled
    noise. The result is the first quartile over the blocks, because sources and nebulosity only
    ever add scatter.

    Parameters
    ----------
    image
        Pixels [unit of the image], NaN where there is no data; shape (y, x).

    Returns
    -------
    float or None
        σ of one pixel; None with fewer than 100 finite differences or no scatter at all.
    """
    difference = (image[:, _LAG:] - image[:, :-_LAG]).astype(np.float64)
    sigmas = [
        _MAD_TO_SIGMA * float(np.median(np.abs(good - np.median(good)))) / np.sqrt(2.0)
        for good in _blocks(difference)
    ]
    usable = [sigma for sigma in sigmas if sigma > 0]
    return float(np.percentile(usable, 25)) if usable else None


def _blocks(difference: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    height, width = difference.shape
    blocks = [
        difference[y : y + _BLOCK, x : x + _BLOCK]
        for y in range(0, height, _BLOCK)
        for x in range(0, width, _BLOCK)
    ]
    finite = [block[np.isfinite(block)] for block in blocks]
    return [good for good in finite if good.size >= 100]
