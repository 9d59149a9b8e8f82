"""Bilinear sampling of an image at positions that are separable: one vector per axis.

Maps between superpixel grids and images scale and shift each axis by itself, so sampling positions
form a grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bgmatch_dask.errors import ConfigError

__all__ = ("sample_bilinear",)


def sample_bilinear(
    image: ArrayLike, x: ArrayLike, y: ArrayLike, *, scale: float = 1.0, upstream: bool = False
) -> NDArray[np.float32]:
    """Sample an image between its pixels.

    With ``i = floor(s)`` and ``f = s - i`` on each axis, a sample is the sum over the 2 x 2
    neighbours of ``(1 - fx, fx) (1 - fy, fy) pixel``. Neighbours of weight 0 are left out, so that
    a NaN there does no harm; any other NaN gives NaN.

    Parameters
    ----------
    image
        Shape ``(ny, nx)``.
    x, y
        Array positions of the samples (integers at pixel centres), shapes ``(nx_out,)`` and
        ``(ny_out,)``.
    scale
        Factor on the result: the area of an output pixel in input pixels, where flux is to be kept.
    upstream
        Do as LSST ``warpImage``: positions on the last row or column count as outside, an image
        narrower than 2 pixels gives nothing, and sums are rounded to float32 after each term.

    Returns
    -------
    ndarray of float32
        Shape ``(ny_out, nx_out)``; NaN for positions outside ``[0, nx - 1]`` or ``[0, ny - 1]``.

    Raises
    ------
    ConfigError
        ``sample-shape`` when ``image`` is not two-dimensional and non-empty.

    Notes
    -----
    Source: LSST ``afw`` ``warpExposure.h`` and ``ConvolveImage.h`` with the bilinear kernel.
    """
    pixels = np.asarray(image)
    if pixels.ndim != 2 or pixels.size == 0:
        raise ConfigError("sample-shape", f"Sampling needs an image, not shape {pixels.shape}")
    accumulator = np.float32 if upstream else np.float64
    ix, fx, inside_x = _cells(np.asarray(x, np.float64), pixels.shape[1], upstream=upstream)
    iy, fy, inside_y = _cells(np.asarray(y, np.float64), pixels.shape[0], upstream=upstream)
    total = np.zeros((len(iy), len(ix)), accumulator)
    for dy, wy in ((0, 1.0 - fy), (1, fy)):
        rows = np.minimum(iy + dy, pixels.shape[0] - 1)
        for dx, wx in ((0, 1.0 - fx), (1, fx)):
            columns = np.minimum(ix + dx, pixels.shape[1] - 1)
            weight = wy[:, None] * wx[None, :]
            value = pixels[rows[:, None], columns[None, :]]
            term = np.zeros(weight.shape)
            np.multiply(value, weight, out=term, where=weight != 0)
            total += term.astype(accumulator)
    out = np.where(inside_y[:, None] & inside_x[None, :], total * accumulator(scale), np.nan)
    return out.astype(np.float32)


def _cells(
    s: NDArray[np.float64], size: int, *, upstream: bool
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.bool_]]:
    """Return the left neighbour, the distance from it, and whether the position is inside."""
    inside = (s >= 0) & ((s < size - 1) if upstream else (s <= size - 1))
    safe = np.where(inside, s, 0.0)
    index = np.floor(safe).astype(np.intp)
    return index, safe - index, inside
