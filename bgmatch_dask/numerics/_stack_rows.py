"""Compiled loops over one row of four warps, behind `bgmatch_dask.numerics.stacking`.

Four at a time: what is known of a pixel stays in registers, and more arrays would be too many for
the compiler to see that none of them lies upon another, without which it does one pixel at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner

__all__ = (
    "Factor",
    "Row",
    "add_four",
    "add_four_plain",
    "mean_of_four",
    "mean_row",
    "plain_row",
)

Floats = NDArray[np.float32]
Bits = NDArray[np.int32]
Array = NDArray[np.float64]
Row = tuple[Floats, Floats, Bits, Floats, Floats]
"""Image, variance and mask of a row of a warp, and what is added to the first two."""
Factor = tuple[float, np.int32, np.float32]
"""Weight of a warp, bits of its bad pixels, and the largest size of a good one."""
PixelSums = tuple[float, float, float, np.int32, np.int32]
"""Σ w, Σ w · image, Σ w² · variance, number of warps and OR of the masks of one pixel."""


@inner(error_model="numpy")
def mean_of_four(
    a: Row,
    b: Row,
    c: Row,
    d: Row,
    factors: tuple[Factor, ...],
    bits: Bits,
    plain: Floats,
    image: Floats,
    variance: Floats,
    mask: Bits,
    number: Bits,
    empty_bits: np.int32,
) -> None:
    """Take the mean of a row of four warps, whose sums never leave the registers."""
    f0, f1, f2, f3 = factors
    i0, v0, m0, s0, n0 = a
    i1, v1, m1, s1, n1 = b
    i2, v2, m2, s2, n2 = c
    i3, v3, m3, s3, n3 = d
    # Without branches the compiler does several pixels at a time.
    for x in range(image.size):
        t = (0.0, 0.0, 0.0, np.int32(0), bits[x])
        t = _add(i0[x] + s0[x], v0[x] + n0[x], m0[x], f0, t)
        t = _add(i1[x] + s1[x], v1[x] + n1[x], m1[x], f1, t)
        t = _add(i2[x] + s2[x], v2[x] + n2[x], m2[x], f2, t)
        t = _add(i3[x] + s3[x], v3[x] + n3[x], m3[x], f3, t)
        p = _add_plain(i0[x], v0[x], m0[x], f0, (0.0, 0.0))
        p = _add_plain(i1[x], v1[x], m1[x], f1, p)
        p = _add_plain(i2[x], v2[x], m2[x], f2, p)
        p = _add_plain(i3[x], v3[x], m3[x], f3, p)
        bare = p[0] if p[0] > 0.0 else np.nan
        plain[x] = np.float32(p[1] / bare)
        filled = t[3] > 0
        weight = t[0] if filled else np.nan
        image[x] = np.float32(t[1] / weight)
        variance[x] = np.float32(t[2] / (weight * weight))
        mask[x] = t[4] if filled else empty_bits
        number[x] = t[3]


@inner()
def add_four(
    a: Row,
    b: Row,
    c: Row,
    d: Row,
    factors: tuple[Factor, ...],
    sum_weight: Array,
    sum_image: Array,
    sum_variance: Array,
    count: Bits,
    bits: Bits,
) -> None:
    """Add a row of each of four warps to sums, which are loaded and stored once for all."""
    f0, f1, f2, f3 = factors
    i0, v0, m0, s0, n0 = a
    i1, v1, m1, s1, n1 = b
    i2, v2, m2, s2, n2 = c
    i3, v3, m3, s3, n3 = d
    for x in range(count.size):
        t = (sum_weight[x], sum_image[x], sum_variance[x], count[x], bits[x])
        t = _add(i0[x] + s0[x], v0[x] + n0[x], m0[x], f0, t)
        t = _add(i1[x] + s1[x], v1[x] + n1[x], m1[x], f1, t)
        t = _add(i2[x] + s2[x], v2[x] + n2[x], m2[x], f2, t)
        t = _add(i3[x] + s3[x], v3[x] + n3[x], m3[x], f3, t)
        sum_weight[x], sum_image[x], sum_variance[x], count[x], bits[x] = t


@inner()
def add_four_plain(
    a: Row, b: Row, c: Row, d: Row, factors: tuple[Factor, ...], sum_weight: Array, sum_image: Array
) -> None:
    f0, f1, f2, f3 = factors
    i0, v0, m0, _, _ = a
    i1, v1, m1, _, _ = b
    i2, v2, m2, _, _ = c
    i3, v3, m3, _, _ = d
    for x in range(sum_weight.size):
        p = _add_plain(i0[x], v0[x], m0[x], f0, (sum_weight[x], sum_image[x]))
        p = _add_plain(i1[x], v1[x], m1[x], f1, p)
        p = _add_plain(i2[x], v2[x], m2[x], f2, p)
        p = _add_plain(i3[x], v3[x], m3[x], f3, p)
        sum_weight[x], sum_image[x] = p


@inner(forceinline=True)
def _add(
    value: np.float32,
    spread: np.float32,
    flags: np.int32,
    factor: Factor,
    sums: PixelSums,
) -> PixelSums:
    weight, bad, most = factor
    good = (abs(value) <= most) & (abs(spread) <= most) & ((flags & bad) == 0)
    return (
        sums[0] + (weight if good else 0.0),
        sums[1] + (weight * np.float64(value) if good else 0.0),
        sums[2] + (weight**2 * np.float64(spread) if good else 0.0),
        np.int32(sums[3] + (np.int32(1) if good else np.int32(0))),
        sums[4] | (flags if good else np.int32(0)),
    )


@inner(forceinline=True)
def _add_plain(
    value: np.float32,
    spread: np.float32,
    flags: np.int32,
    factor: Factor,
    sums: tuple[float, float],
) -> tuple[float, float]:
    weight, bad, most = factor
    good = (abs(value) <= most) & (abs(spread) <= most) & ((flags & bad) == 0)
    return (
        sums[0] + (weight if good else 0.0),
        sums[1] + (weight * np.float64(value) if good else 0.0),
    )


@inner(error_model="numpy")
def mean_row(
    sum_weight: Array,
    sum_image: Array,
    sum_variance: Array,
    count: Bits,
    bits: Bits,
    image: Floats,
    variance: Floats,
    mask: Bits,
    number: Bits,
    empty_bits: np.int32,
) -> None:
    for x in range(count.size):
        filled = count[x] > 0
        weight = sum_weight[x] if filled else np.nan
        image[x] = np.float32(sum_image[x] / weight)
        variance[x] = np.float32(sum_variance[x] / (weight * weight))
        mask[x] = bits[x] if filled else empty_bits
        number[x] = count[x]


@inner(error_model="numpy")
def plain_row(sum_weight: Array, sum_image: Array, image: Floats) -> None:
    for x in range(image.size):
        weight = sum_weight[x] if sum_weight[x] > 0.0 else np.nan
        image[x] = np.float32(sum_image[x] / weight)
