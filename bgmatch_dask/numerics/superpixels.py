"""Clipped statistics of superpixels: one call bins a whole image, or a difference of two.

Definitions follow LSST ``afw`` ``makeStatistics``: the first clip is taken about the median
with the interquartile range as width, the next ones about the clipped mean, each of them
starts again from all good pixels, and limits are inclusive. The arithmetic is in
`bgmatch_dask.numerics._bin_kernels`; nothing here touches a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bgmatch_dask.errors import ConfigError, InputError
from bgmatch_dask.numerics import _bin_kernels as kernels
from bgmatch_dask.numerics.cell_maps import cells_of

__all__ = (
    "BinMoments",
    "BinStatistics",
    "bin_difference_statistics",
    "bin_measures",
    "bin_moments",
    "bin_statistics",
)

_Number = TypeVar("_Number", np.float32, np.int32)


@dataclass(frozen=True, slots=True)
class BinStatistics:
    """Statistics of the pixels of every bin, arrays of shape ``(ny, nx)``."""

    count: NDArray[np.int64]
    """Pixels kept by the last clip."""
    n_good: NDArray[np.int64]
    """Pixels that are unmasked and finite, before clipping."""
    mean: NDArray[np.float64]
    """Clipped mean, in the unit of the image; NaN where it is undefined."""
    variance: NDArray[np.float64]
    """Clipped variance of the pixels (n - 1 estimator), unit squared; NaN where undefined."""
    median: NDArray[np.float64]
    """Median of the good pixels; NaN where there are none."""


@dataclass(frozen=True, slots=True)
class BinMoments:
    """Where the good pixels of every bin lie, arrays of shape ``(ny, nx)``, NaN where none."""

    x_mean: NDArray[np.float64]
    """Mean array column."""
    y_mean: NDArray[np.float64]
    """Mean array row."""
    x_var: NDArray[np.float64]
    """Population variance (divided by n) of the columns, pixel²."""
    y_var: NDArray[np.float64]
    """Population variance (divided by n) of the rows, pixel²."""


def bin_statistics(
    image: NDArray[np.float32],
    mask: NDArray[np.integer] | None,
    bad_bits: int,
    x_edges: ArrayLike,
    y_edges: ArrayLike,
    *,
    n_sigma: float = 3.0,
    n_iter: int = 3,
) -> BinStatistics:
    """Measure every bin of an image.

    Parameters
    ----------
    image
        float32 ``[y, x]``; may be a view. Pixels that are not finite are left out.
    mask
        Bit field of the same shape, any integer dtype, or None.
    bad_bits
        Pixels with any of these mask bits are left out.
    x_edges, y_edges
        Array columns and rows at which bins begin and end, never decreasing, ``nx + 1`` and
        ``ny + 1`` values. Bins of width zero hold nothing.
    n_sigma
        Half-width of the clip, in standard deviations.
    n_iter
        Number of clips; all of them are made.

    Returns
    -------
    BinStatistics
        Statistics of shape ``(ny, nx)``.

    Raises
    ------
    InputError
        ``image-dtype``, ``image-shape``, ``mask-shape``, ``mask-dtype`` or ``edges-invalid``.
    ConfigError
        ``clip-invalid``.

    Notes
    -----
    Quantiles interpolate linearly between order statistics. With ``half`` the width of a clip,
    the first is ``|x - median| <= n_sigma * 0.741301109252802 * IQR`` and the next are
    ``|x - mean| <= n_sigma * sqrt(variance)`` with the mean and variance of the one before.
    If a clip keeps one pixel its variance is NaN, and so is everything after it; a clip that
    keeps none gives NaN; both have count 0 in the end.
    """
    pixels = _Pixels.of((image,), (mask,), bad_bits)
    return _measure(pixels, x_edges, y_edges, n_sigma, n_iter)[0]


def bin_difference_statistics(
    image_a: NDArray[np.float32],
    mask_a: NDArray[np.integer] | None,
    image_b: NDArray[np.float32],
    mask_b: NDArray[np.integer] | None,
    bad_bits: int,
    x_edges: ArrayLike,
    y_edges: ArrayLike,
    *,
    n_sigma: float = 3.0,
    n_iter: int = 3,
) -> BinStatistics:
    """Measure every bin of ``image_a - image_b`` under the union of both masks.

    The difference is rounded to float32, as that of two float32 arrays is. It is never held
    as a whole. Parameters, result and errors are those of `bin_statistics`; both images must
    have the same shape.
    """
    pixels = _Pixels.of((image_a, image_b), (mask_a, mask_b), bad_bits)
    return _measure(pixels, x_edges, y_edges, n_sigma, n_iter)[0]


def bin_measures(
    images: tuple[NDArray[np.float32], ...],
    masks: tuple[NDArray[np.integer] | None, ...],
    bad_bits: int,
    x_edges: ArrayLike,
    y_edges: ArrayLike,
    *,
    n_sigma: float = 3.0,
    n_iter: int = 3,
    left_out: NDArray[np.bool_] | None = None,
) -> tuple[BinStatistics, BinMoments]:
    """Return the statistics of one image or of a difference, and `bin_moments`, in one pass.

    Parameters and errors are those of `bin_moments` and `bin_statistics`, and ``left_out``: cells
    of `bgmatch_dask.numerics.cell_maps.CELL`² pixels whose pixels are left out, and not even read.
    They begin at the first pixel; ``cells-shape`` when they do not cover the images.
    """
    pixels = _Pixels.of(images, masks, bad_bits, left_out)
    statistics, moments = _measure(pixels, x_edges, y_edges, n_sigma, n_iter, moments=True)
    return statistics, BinMoments(*moments)


def bin_moments(
    images: tuple[NDArray[np.float32], ...],
    masks: tuple[NDArray[np.integer] | None, ...],
    bad_bits: int,
    x_edges: ArrayLike,
    y_edges: ArrayLike,
) -> BinMoments:
    """Return mean and variance of the positions of the good pixels of every bin.

    Parameters
    ----------
    images
        One image, or two for the pixels that `bin_difference_statistics` uses.
    masks
        As many masks, each a bit field or None.
    bad_bits, x_edges, y_edges
        As in `bin_statistics`.

    Returns
    -------
    BinMoments
        In array columns and rows (integers at pixel centres), before clipping.

    Raises
    ------
    InputError
        As `bin_statistics`, and ``image-count`` when there is neither one image nor two.
    """
    pixels = _Pixels.of(images, masks, bad_bits)
    columns, rows = _edges(x_edges, pixels.shape[1], "x"), _edges(y_edges, pixels.shape[0], "y")
    moments = np.empty((4, len(rows) - 1, len(columns) - 1), np.float64)
    kernels.moments_of_bins(pixels.planes, columns, rows, moments)
    return BinMoments(*moments)


@dataclass(frozen=True, slots=True)
class _Pixels:
    """One image or two with their masks, checked, as the kernels take them."""

    shape: tuple[int, int]
    planes: kernels.Planes

    @classmethod
    def of(
        cls,
        images: tuple[NDArray[np.float32], ...],
        masks: tuple[NDArray[np.integer] | None, ...],
        bad_bits: int,
        left_out: NDArray[np.bool_] | None = None,
    ) -> _Pixels:
        if len(images) not in (1, 2) or len(images) != len(masks):
            raise InputError(
                "image-count",
                f"Bins take one image or two, with a mask each, got {len(images)} images and "
                f"{len(masks)} masks",
            )
        height, width = _check_images(images)
        planes = [_plane(*pair, bad_bits) for pair in zip(images, masks, strict=True)]
        none = kernels.Plane(_frozen(np.float32), 0, _frozen(np.int32), 0, np.int32(0))
        cells = _cells(left_out, height, width)
        b = planes[1] if len(planes) > 1 else none
        return cls((height, width), kernels.Planes(planes[0], b, cells))


def _cells(left_out: NDArray[np.bool_] | None, height: int, width: int) -> NDArray[np.bool_]:
    if left_out is None:
        return np.zeros((0, 0), bool)
    shape = cells_of((height, width))
    if left_out.shape != shape:
        raise InputError(
            "cells-shape",
            f"An image of {height} by {width} pixels has cells of shape {shape}, "
            f"got {left_out.shape}",
        )
    return np.ascontiguousarray(left_out, bool)


def _check_images(images: tuple[NDArray[np.float32], ...]) -> tuple[int, int]:
    shape = images[0].shape
    for image in images:
        if image.ndim != 2 or image.shape != shape:
            raise InputError(
                "image-shape", f"Images must be 2-D, of one shape, got {image.shape} and {shape}"
            )
        if image.dtype.newbyteorder("=") != np.float32:
            raise InputError(
                "image-dtype",
                f"Bins are measured on float32 images, got {image.dtype}",
                fix="Convert the image with astype(np.float32) if that loses nothing.",
            )
    return shape[0], shape[1]


def _plane(
    image: NDArray[np.float32], mask: NDArray[np.integer] | None, bad_bits: int
) -> kernels.Plane:
    flat, pitch = _flat(image.astype(np.float32, copy=False))
    if mask is None:
        return kernels.Plane(flat, pitch, _frozen(np.int32), 0, np.int32(0))
    if mask.shape != image.shape:
        raise InputError(
            "mask-shape", f"The mask has shape {mask.shape}, its image has {image.shape}"
        )
    if mask.dtype.kind not in "iub":
        raise InputError("mask-dtype", f"A mask is an integer bit field, got {mask.dtype}")
    if mask.dtype == np.int32 and 0 <= bad_bits < 1 << 31:
        native = mask.astype(np.int32, copy=False)
        return kernels.Plane(flat, pitch, *_flat(native), np.int32(bad_bits))
    # Other bit fields are rare: they are reduced to the one bit that matters.
    unsigned = np.dtype(f"u{mask.itemsize}").type
    bits = unsigned(bad_bits & (1 << 8 * mask.itemsize) - 1)
    bad = (mask.astype(unsigned, copy=False) & bits) != 0
    return kernels.Plane(flat, pitch, *_flat(bad.astype(np.int32)), np.int32(1))


def _flat(array: NDArray[_Number]) -> tuple[NDArray[_Number], int]:
    """Return the memory of a 2-D array as one read-only row, and the pitch in elements.

    Kernels then see one array type whatever view comes in: a cut-out is not copied, and
    nothing is compiled twice. Only views with gaps inside a row are copied.
    """
    height, width = array.shape
    if array.size == 0:
        return _frozen(array.dtype.type), 0
    item = array.itemsize
    step = array.strides[0] if height > 1 else width * item
    in_order = step % item == 0 and step >= width * item
    if not (array.flags.aligned and in_order and (width == 1 or array.strides[1] == item)):
        array, step = np.ascontiguousarray(array), width * item
    length = (height - 1) * (step // item) + width
    flat = np.lib.stride_tricks.as_strided(array, (length,), (item,), writeable=False)
    return flat, step // item


def _frozen(kind: type[_Number]) -> NDArray[_Number]:
    empty = np.empty(0, kind)
    empty.flags.writeable = False
    return empty


def _edges(edges: ArrayLike, size: int, axis: str) -> NDArray[np.int64]:
    values = np.asarray(edges)
    good = values.ndim == 1 and values.size > 1 and values.dtype.kind in "iu"
    if good:
        values = np.ascontiguousarray(values, np.int64)
        good = bool(values[0] >= 0 and values[-1] <= size and np.all(np.diff(values) >= 0))
    if not good:
        raise InputError(
            "edges-invalid",
            f"Bin edges along {axis} must be two or more whole numbers from 0 to {size} that never "
            f"decrease, got {edges!r}",
        )
    return values


def _measure(
    pixels: _Pixels,
    x_edges: ArrayLike,
    y_edges: ArrayLike,
    n_sigma: float,
    n_iter: int,
    *,
    moments: bool = False,
) -> tuple[BinStatistics, NDArray[np.float64]]:
    if not (math.isfinite(n_sigma) and n_sigma > 0 and n_iter >= 1):
        raise ConfigError(
            "clip-invalid",
            f"Clipping needs n_sigma > 0 and n_iter >= 1, got {n_sigma} and {n_iter}",
        )
    columns, rows = _edges(x_edges, pixels.shape[1], "x"), _edges(y_edges, pixels.shape[0], "y")
    shape = (len(rows) - 1, len(columns) - 1)
    counts = np.empty((2, *shape), np.int64)
    values = np.empty((3, *shape), np.float64)
    places = np.empty((4, *shape) if moments else (0, 0, 0), np.float64)
    clips = float(n_sigma), int(n_iter)
    kernels.statistics_of_bins(pixels.planes, columns, rows, *clips, counts, values, places)
    return BinStatistics(counts[0], counts[1], values[0], values[1], values[2]), places
