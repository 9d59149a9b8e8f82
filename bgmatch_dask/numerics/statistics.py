"""All statistics of one array of pixels: moments, order statistics, clipped moments, errors.

Source of the definitions: LSST ``afw`` ``Statistics.cc``. Two of its faults are not ours unless
asked for: the 32-bit product that spoils errors of the variance above 46 340 pixels, and the
error of the clipped variance that is always NaN. For many bins of a float32 image
`bgmatch_dask.numerics.superpixels` gives the clipped statistics some ten times faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import InputError
from bgmatch_dask.numerics.partial_order import partially_ordered_quartiles
from bgmatch_dask.numerics.properties import Property, Statistics, StatisticsControl

__all__ = ("IQR_TO_SIGMA", "Property", "Statistics", "StatisticsControl", "measure_statistics")

IQR_TO_SIGMA = 0.741301109252802
"""Standard deviation of a Gaussian over its interquartile range, as rounded by afw."""

_Real = NDArray[np.float64]


def measure_statistics(
    image: NDArray[np.number],
    mask: NDArray[np.integer] | None = None,
    variance: NDArray[np.floating] | None = None,
    weights: NDArray[np.floating] | None = None,
    control: StatisticsControl | None = None,
    *,
    upstream: bool = False,
) -> Statistics:
    """Measure all properties of an array of pixels.

    Parameters
    ----------
    image
        Pixels, any shape, a real or integer dtype. Integers get quantiles that spread equal
        values evenly over the unit interval around them.
    mask
        Bit field of the same shape, any integer dtype.
    variance
        Variance of the pixels, same shape, unit of the image squared; needed by the weighting
        ``inverse_variance`` and by the error modes other than ``sample``.
    weights
        Weights, same shape; needed by the weighting ``multiplicative``.
    control
        Selection, clipping, weights and errors; defaults when None.
    upstream
        Reproduce faults of afw: the 32-bit overflow in errors of the variance, no error of the
        clipped variance, extremes that start from the offset of the sums, quantiles of NaN in
        whatever order a partial sort leaves them when ``nan_safe`` is off.

    Returns
    -------
    Statistics
        Values and errors, accumulated in float64. No good pixel is not an error: counts and sum
        are 0 then, all else is NaN.

    Raises
    ------
    InputError
        ``image-empty``, ``image-dtype``, ``mask-dtype``, ``mask-shape``, ``variance-shape``,
        ``weights-shape``, ``variance-missing`` or ``weights-missing``.

    Notes
    -----
    Clips are inclusive and each starts from all good pixels. The first is about the median with
    ``n_sigma * 0.741301109252802 * IQRANGE``, the next about the clipped mean with ``n_sigma``
    clipped standard deviations. Variance of the variance: ``2 (n - 1) var² / n²``; of the
    median: ``π/2 var / n``.
    """
    control = control or StatisticsControl()
    with np.errstate(all="ignore"):
        pixels = _select(image, mask, variance, weights, control)
        return _summarise(pixels, control, upstream)


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Good pixels in float64, as flat arrays."""

    total: int
    whole_numbers: bool
    or_mask: int
    ranked: _Real
    """Values for order statistics, which take pixels without a positive variance too."""
    values: _Real
    weights: _Real | None
    variance: _Real | None


def _select(
    image: NDArray[np.number],
    mask: NDArray[np.integer] | None,
    variance: NDArray[np.floating] | None,
    weights: NDArray[np.floating] | None,
    control: StatisticsControl,
) -> _Pixels:
    _check(image, mask, variance, weights, control)
    good = np.ones(image.shape, np.bool_)
    if control.nan_safe and image.dtype.kind == "f":
        good &= np.isfinite(image.astype(np.float32, copy=False))
    bits = None if mask is None else mask.astype(np.int64, copy=False)
    if bits is not None:
        good &= (bits & control.and_mask) == 0
    ranked = image[good].astype(np.float64)
    weight = None
    if control.weighting == "inverse_variance" and variance is not None:
        good &= variance > 0
        weight = 1.0 / variance[good].astype(np.float64)
    elif control.weighting == "multiplicative" and weights is not None:
        weight = weights[good].astype(np.float64)
    return _Pixels(
        total=image.size,
        whole_numbers=image.dtype.kind in "iu",
        or_mask=0 if bits is None else int(np.bitwise_or.reduce(bits[good], initial=0)),
        ranked=ranked,
        values=image[good].astype(np.float64),
        weights=weight,
        variance=None if variance is None else variance[good].astype(np.float64),
    )


def _check(
    image: NDArray[np.number],
    mask: NDArray[np.integer] | None,
    variance: NDArray[np.floating] | None,
    weights: NDArray[np.floating] | None,
    control: StatisticsControl,
) -> None:
    if image.size == 0:
        raise InputError("image-empty", "The image contains no pixels")
    if image.dtype.kind not in "iuf":
        raise InputError("image-dtype", f"Statistics need real numbers, got {image.dtype}")
    if mask is not None and mask.dtype.kind not in "iub":
        raise InputError("mask-dtype", f"A mask is an integer bit field, got {mask.dtype}")
    for name, plane in (("mask", mask), ("variance", variance), ("weights", weights)):
        if plane is not None and plane.shape != image.shape:
            raise InputError(
                f"{name}-shape", f"The {name} has shape {plane.shape}, its image {image.shape}"
            )
    if variance is None and (control.weighting == "inverse_variance" or control.error != "sample"):
        raise InputError(
            "variance-missing",
            f"Weighting {control.weighting!r} with errors {control.error!r} needs variances",
        )
    if weights is None and control.weighting == "multiplicative":
        raise InputError("weights-missing", "Multiplicative weighting needs weights")


@dataclass(frozen=True, slots=True)
class _Moments:
    """Moments of a set of pixels, and the square of the error of the mean."""

    n: int = 0
    mean: float = math.nan
    variance: float = math.nan
    mean_variance: float = math.nan
    total: float = 0.0


def _moments(pixels: _Pixels, kept: NDArray[np.bool_] | None, pivot: float, error: str) -> _Moments:
    """Return the moments of the kept pixels (all when None), summed about ``pivot``."""
    x, w, v = (
        part if part is None or kept is None else part[kept]
        for part in (pixels.values, pixels.weights, pixels.variance)
    )
    if x is None or x.size == 0:
        return _Moments()
    delta = x - pivot
    weight = np.ones(x.size) if w is None else w
    w1, w2 = weight.sum(), (weight * weight).sum()
    s1, s2 = (weight * delta).sum(), (weight * delta * delta).sum()
    variance = (s2 / w1 - (s1 / w1) ** 2) * (w1 * w1 / (w1 * w1 - w2))
    if error == "sample" or v is None:
        mean_variance = variance * w2 / (w1 * w1)
    elif error == "input_variance":
        mean_variance = (v * weight * weight).sum() / (w1 * w1)
    else:
        mean_variance = (v * weight).sum() / w1
    return _Moments(
        x.size,
        float(s1 / w1 + pivot),
        float(variance) if x.size > 1 else math.nan,
        float(mean_variance) if x.size > 1 or error != "sample" else math.nan,
        float(s1 + w1 * pivot),
    )


def _clip(pixels: _Pixels, median: float, iqr: float, control: StatisticsControl) -> _Moments:
    """Return the moments of what the last clip keeps."""
    clipped = _Moments()
    for iteration in range(control.n_iter):
        centre = clipped.mean if iteration else median
        seeded = iteration > 0 and pixels.values.size > 1
        width = math.sqrt(max(clipped.variance, 0.0)) if seeded else IQR_TO_SIGMA * iqr
        if seeded and math.isnan(clipped.variance):
            width = math.nan
        half = control.n_sigma * width
        if math.isnan(centre) or math.isnan(half):
            return _Moments()
        kept = np.abs(pixels.values - centre) <= half
        clipped = _moments(pixels, kept, centre, control.error)
    return clipped


def _quantile(ranked: _Real, fraction: float, whole_numbers: bool) -> float:
    """Return a quantile of values in rising order; NaN when there are none, or a NaN."""
    n = ranked.size
    if n == 0 or math.isnan(ranked[-1]):
        return math.nan
    position = fraction * (n - 1)
    k = int(position)
    if whole_numbers:
        less, up_to = (
            np.searchsorted(ranked, ranked[k]),
            np.searchsorted(ranked, ranked[k], "right"),
        )
        return float(ranked[k] - 0.5 + (fraction * n - less) / (up_to - less))
    following = ranked[min(k + 1, n - 1)]
    return float((k + 1 - position) * ranked[k] + (position - k) * following)


def _quartiles(pixels: _Pixels, upstream: bool) -> tuple[float, float, float]:
    if upstream and pixels.ranked.size > 1 and np.isnan(pixels.ranked).any():
        return partially_ordered_quartiles(pixels.ranked)
    ranked, whole = np.sort(pixels.ranked), pixels.whole_numbers
    lower, median, upper = (_quantile(ranked, fraction, whole) for fraction in (0.25, 0.5, 0.75))
    return lower, median, upper


def _variance_of_variance(n: int, variance: float, upstream: bool) -> float:
    square = np.float64(n) * n
    if upstream:
        square = np.float64((n * n + (1 << 31)) % (1 << 32) - (1 << 31))
    return float(2.0 * (n - 1) * variance * variance / square)


def _root(value: float) -> float:
    """Return the square root; NaN for what has none."""
    return math.sqrt(value) if value >= 0.0 else math.nan


def _summarise(pixels: _Pixels, control: StatisticsControl, upstream: bool) -> Statistics:
    lower, median, upper = _quartiles(pixels, upstream)
    x, w = pixels.values, pixels.weights
    pivot = float((x if w is None else w * x).sum() / x.size) if x.size else 0.0
    plain = _moments(pixels, None, pivot, control.error)
    clipped = _clip(pixels, median, upper - lower, control)
    values = {
        Property.NPOINT: float(plain.n),
        Property.MEAN: plain.mean,
        Property.STDEV: _root(plain.variance),
        Property.VARIANCE: plain.variance,
        Property.MEDIAN: median,
        Property.IQRANGE: upper - lower,
        Property.MEANCLIP: clipped.mean,
        Property.STDEVCLIP: _root(clipped.variance),
        Property.VARIANCECLIP: clipped.variance,
        Property.MEANSQUARE: (plain.n - 1) / max(plain.n, 1) * plain.variance
        + plain.mean * plain.mean,
        Property.SUM: plain.total,
        Property.NCLIPPED: float(plain.n - clipped.n),
        Property.NMASKED: float(pixels.total - plain.n),
    } | _extremes(x, pivot, upstream)
    errors = _errors(values, plain, clipped, upstream)
    return Statistics(values, errors, pixels.or_mask)


def _extremes(x: _Real, pivot: float, upstream: bool) -> dict[Property, float]:
    if upstream and x.size:
        low, high = np.minimum(x.min(), pivot), np.maximum(x.max(), pivot)
        return {Property.MIN: float(low), Property.MAX: float(high)}
    finite = x[np.isfinite(x)]
    low, high = (finite.min(), finite.max()) if finite.size else (math.nan, math.nan)
    return {Property.MIN: float(low), Property.MAX: float(high)}


def _errors(
    values: Mapping[Property, float], plain: _Moments, clipped: _Moments, upstream: bool
) -> dict[Property, float]:
    errors = dict.fromkeys(Property, 0.0)
    n = max(plain.n, 1)
    of_variance = _root(_variance_of_variance(n, plain.variance, upstream))
    of_clipped = _root(_variance_of_variance(max(clipped.n, 1), clipped.variance, upstream))
    stdev, stdev_clipped = values[Property.STDEV], values[Property.STDEVCLIP]
    errors[Property.MEAN] = _root(plain.mean_variance)
    errors[Property.MEANCLIP] = _root(clipped.mean_variance)
    errors[Property.MEDIAN] = _root(math.pi / 2 * plain.variance / n)
    errors[Property.IQRANGE] = math.nan
    errors[Property.VARIANCE] = of_variance
    errors[Property.STDEV] = 0.5 * of_variance / stdev if stdev else math.nan
    errors[Property.VARIANCECLIP] = math.nan if upstream else of_clipped
    errors[Property.STDEVCLIP] = 0.5 * of_clipped / stdev_clipped if stdev_clipped else math.nan
    errors[Property.MEANSQUARE] = _root(2.0) * abs(values[Property.MEANSQUARE]) / n
    return errors
