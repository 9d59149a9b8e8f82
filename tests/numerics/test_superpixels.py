"""Superpixel statistics against plain numpy, on ordinary and on hostile pixels."""

from __future__ import annotations

import dataclasses
import math

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bgmatch_dask.errors import ConfigError, InputError
from bgmatch_dask.numerics._bin_clip import upper_limit
from bgmatch_dask.numerics.statistics import StatisticsControl, measure_statistics
from bgmatch_dask.numerics.superpixels import (
    bin_difference_statistics,
    bin_measures,
    bin_moments,
    bin_statistics,
)

FIELDS = ("count", "n_good", "mean", "variance", "median")
QUICK = settings(deadline=None, max_examples=60, derandomize=True)


def twin(pixels, n_sigma=3.0, n_iter=3):
    """Count, good pixels, mean, variance and median of one bin, as the definition says."""
    x = np.sort(np.asarray(pixels, np.float64)[np.isfinite(pixels)])
    n = len(x)
    if n == 0:
        return 0, 0, math.nan, math.nan, math.nan
    q25, median, q75 = np.quantile(x, (0.25, 0.5, 0.75))
    mean = variance = math.nan
    count = 0
    for iteration in range(n_iter):
        centre = mean if iteration else median
        width = math.sqrt(variance) if iteration and n > 1 else 0.741301109252802 * (q75 - q25)
        if math.isnan(centre) or math.isnan(width):
            return 0, n, math.nan, math.nan, median
        kept = x[np.abs(x - centre) <= n_sigma * width]
        count = len(kept)
        mean = centre + np.mean(kept - centre) if count else math.nan
        variance = np.var(kept - centre, ddof=1) if count > 1 else math.nan
    return count, n, mean, variance, median


def one_bin(pixels, mask=None, bits=0, **options):
    pixels = np.atleast_2d(np.asarray(pixels, np.float32))
    mask = None if mask is None else np.atleast_2d(mask)
    edges = [0, pixels.shape[1]], [0, pixels.shape[0]]
    result = bin_statistics(pixels, mask, bits, *edges, **options)
    return tuple(getattr(result, name)[0, 0] for name in FIELDS)


def assert_same(a, b):
    for field in dataclasses.fields(a):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


def assert_agrees(got, pixels, **options):
    expected = twin(pixels, **options)
    assert got[:2] == expected[:2]
    finite = np.abs(np.asarray(pixels, np.float64)[np.isfinite(pixels)])
    size = finite.max() if finite.size else 0.0
    np.testing.assert_allclose(got[2], expected[2], rtol=1e-9, atol=1e-12 * size)
    np.testing.assert_allclose(got[3], expected[3], rtol=1e-9, atol=1e-14 * size * size)
    np.testing.assert_allclose(got[4], expected[4], rtol=4e-16, atol=1e-16 * size)


def sky(shape, seed=0, outliers=0.02):
    rng = np.random.default_rng(seed)
    image = rng.normal(200.0, 20.0, shape).astype(np.float32)
    image[rng.random(shape) < outliers] += np.float32(300.0)
    mask = (rng.random(shape) < 0.03).astype(np.int32) * 5
    image[rng.random(shape) < 0.01] = np.nan
    return image, mask


@pytest.mark.parametrize("bin_size", [3, 17, 64, 128, 300])
@pytest.mark.parametrize("n_iter", [1, 3, 7])
def test_bins_equal_plain_numpy(bin_size, n_iter):
    image, mask = sky((301, 277), seed=bin_size)
    image, mask = image[: 4 * bin_size], mask[: 4 * bin_size]
    x_edges = np.r_[2, 2, np.arange(5, 270, bin_size), 270]
    y_edges = np.r_[np.arange(1, image.shape[0] - 3, bin_size), image.shape[0] - 3]
    got = bin_statistics(image, mask, 4, x_edges, y_edges, n_sigma=2.5, n_iter=n_iter)
    blanked = np.where(mask & 4, np.nan, image)
    for iy, ix in np.ndindex(got.count.shape):
        part = blanked[y_edges[iy] : y_edges[iy + 1], x_edges[ix] : x_edges[ix + 1]]
        bin_ = tuple(getattr(got, name)[iy, ix] for name in FIELDS)
        assert_agrees(bin_, part, n_sigma=2.5, n_iter=n_iter)
    assert got.n_good[0, 0] == 0
    assert math.isnan(got.mean[0, 0])


@pytest.mark.parametrize(
    ("pixels", "options", "count", "mean", "variance", "median"),
    [
        ([1, 2, 3, 2], {}, 4, 2, 2 / 3, 2),
        (range(11), {}, 11, 5, 11, 5),
        ([*range(1, 21), 1000], {}, 20, 10.5, 35, 11),
        ([3.25] * 9, {}, 9, 3.25, 0, 3.25),
        ([7.5], {}, 1, 7.5, np.nan, 7.5),
        ([np.nan], {}, 0, np.nan, np.nan, np.nan),
        ([1, 2, np.nan, 4, np.inf, 5], {}, 4, 3, 10 / 3, 3),
        ([0] * 7 + [0.001, 5], {}, 7, 0, 0, 0),
        ([1, 2, 4], {"n_sigma": 0.1}, 0, np.nan, np.nan, 2),
    ],
)
def test_golden_numbers(pixels, options, count, mean, variance, median):
    got = one_bin(list(pixels), **options)
    assert got[0] == count
    np.testing.assert_allclose(got[2:], (mean, variance, median), rtol=1e-10)


def hostile():
    rng = np.random.default_rng(5)
    n = 128 * 128
    noise = rng.normal(0.0, 1.0, n)
    ramp = np.arange(n, dtype=np.float64)
    sampled = noise.copy()
    sampled[:: n // 64] = 1e6 + noise[:: n // 64]
    return {
        "all equal": np.full(n, 0.1),
        "three quarters equal": np.where(ramp % 4 < 3, 7.0, noise),
        "half equal": np.where(ramp % 2 < 1, 7.0, noise),
        "two values": np.where(ramp % 10 < 6, 1.0, 2.0),
        "counts": rng.poisson(3.0, n),
        "rising": ramp,
        "vee": np.abs(ramp - n / 2),
        "saw": ramp % 97,
        "wide": np.exp(20.0 * noise),
        "huge": 1e38 * np.tanh(noise) * 3.4,
        "largest": np.where(ramp % 2 < 1, 3.4028234e38, -3.4028234e38),
        "denormal": 1e-42 * noise,
        "offset": 1e7 + noise,
        "near the sentinel of others": 1e30 * (1 + 1e-3 * noise),
        "sample is misled": sampled,
        "zeros of both signs": np.where(ramp % 2 < 1, 0.0, -0.0),
        "infinite": np.where(ramp % 3 < 1, np.inf, noise),
        "minus infinite": np.where(ramp % 3 < 2, -np.inf, noise),
        "few": np.where(ramp % 4000 < 1, noise, np.nan),
        "one": np.where(ramp == 777, 5.0, np.nan),
        "two": np.where((ramp == 777) | (ramp == 9000), noise, np.nan),
        "none": np.full(n, np.nan),
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile_bins(name):
    with np.errstate(over="ignore"):
        pixels = hostile()[name].astype(np.float32).reshape(128, 128)
    assert_agrees(one_bin(pixels), pixels)


@numba.njit
def compiled_limit(centre, half):
    return upper_limit(centre, half)


@given(
    st.floats(-3e38, 3e38) | st.floats(-300, 300),
    st.floats(0, 1e39) | st.floats(0, 100),
    st.integers(0, 2**32 - 1),
)
@example(0.6404226422309875, 0.6404226422309875, 0)
@example(0.0, 0.0, 0)
@example(-3e38, 1e39, 0)
@settings(deadline=None, max_examples=300)
def test_limits_in_float32_admit_what_float64_would(centre, half, seed):
    low, high = -compiled_limit(-centre, half), compiled_limit(centre, half)
    largest = np.finfo(np.float32).max
    ends = np.clip([centre - half, centre + half, centre], -largest, largest).astype(np.float32)
    below = np.nextafter(ends, np.float32(-largest))
    above = np.nextafter(ends, np.float32(largest))
    further = np.random.default_rng(seed).normal(0.0, 100.0, 20).astype(np.float32)
    pixels = np.concatenate([ends, below, above, further])
    inside = np.abs(pixels.astype(np.float64) - centre) <= half
    np.testing.assert_array_equal((pixels >= low) & (pixels <= high), inside)


def test_constant_bins_have_no_variance_at_all():
    for value in (0.1, -1234.567, 3e6, 3e38, 1e-40):
        got = one_bin(np.full((40, 50), value))
        assert got[2] == got[4] == np.float32(value)
        assert got[3] == 0.0


@given(
    arrays(
        np.float32, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.floats(width=32)
    ),
    st.sampled_from([1, 2, 3, 6]),
)
@QUICK
def test_any_pixels_at_all(pixels, n_iter):
    assert_agrees(one_bin(pixels, n_iter=n_iter), pixels, n_iter=n_iter)


@pytest.mark.parametrize("share", [0.6, 0.4, 0.1, 0.03, 0.002])
@pytest.mark.parametrize("in_one_piece", [True, False])
def test_bins_with_few_good_pixels(share, in_one_piece):
    rng = np.random.default_rng(4)
    pixels = rng.normal(200.0, 20.0, 128 * 128).astype(np.float32)
    place = np.linspace(0.0, 1.0, pixels.size) if in_one_piece else rng.random(pixels.size)
    pixels[place >= share] = np.nan
    assert_agrees(one_bin(pixels.reshape(128, 128)), pixels)


@given(
    st.integers(1, 45),
    st.integers(1, 45),
    st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    st.booleans(),
    st.integers(0, 2**31),
)
@QUICK
def test_cells_that_are_left_out_are_masked_pixels(height, width, share, difference, seed):
    rng = np.random.default_rng(seed)
    images = tuple(sky((height, width), seed + k)[0] for k in range(1 + difference))
    masks = tuple(sky((height, width), seed + k)[1] for k in range(1 + difference))
    left_out = rng.random((-(-height // 8), -(-width // 8))) < share
    x_edges = np.sort(rng.integers(0, width + 1, 5))
    y_edges = np.sort(rng.integers(0, height + 1, 4))
    marked = np.kron(left_out, np.ones((8, 8), np.int32))[:height, :width] * 8
    without = tuple(mask | marked for mask in masks)
    got = bin_measures(images, masks, 12, x_edges, y_edges, left_out=left_out)
    expected = bin_measures(images, without, 12, x_edges, y_edges)
    for a, b in zip(got, expected, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("with_a", [True, False])
@pytest.mark.parametrize("with_b", [True, False])
def test_either_image_of_a_difference_may_have_a_mask(with_a, with_b):
    (a, mask_a), (b, mask_b) = (sky((70, 90), seed) for seed in (1, 2))
    edges = [0, 40, 90], [3, 70]
    masks = mask_a if with_a else None, mask_b if with_b else None
    got = bin_difference_statistics(a, masks[0], b, masks[1], 4, *edges)
    blanked = [
        image if mask is None else np.where(mask & 4, np.float32(np.nan), image)
        for image, mask in zip((a, b), masks, strict=True)
    ]
    assert_same(got, bin_statistics(blanked[0] - blanked[1], None, 0, *edges))


def test_cells_have_to_cover_the_image():
    image = np.zeros((17, 9), np.float32)
    with pytest.raises(InputError, match="cells of shape"):
        bin_measures((image,), (None,), 0, [0, 9], [0, 17], left_out=np.zeros((2, 2), bool))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
@QUICK
def test_order_of_pixels_does_not_matter(seed, height, width):
    image, _ = sky((height, width), seed)
    shuffled = np.random.default_rng(seed).permutation(image.ravel()).reshape(image.shape)
    a, b = one_bin(image), one_bin(shuffled)
    assert a[:2] == b[:2]
    np.testing.assert_allclose(a[2:], b[2:], rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(-30, 30))
@QUICK
def test_scale_by_powers_of_two_is_exact(seed, power):
    image, _ = sky((25, 31), seed)
    a, b = one_bin(image), one_bin(image * np.float32(2.0**power))
    scale = 2.0**power
    np.testing.assert_array_equal((*a[:2], a[2] * scale, a[3] * scale**2, a[4] * scale), b)


@given(st.integers(0, 2**32 - 1), st.integers(-(10**5), 10**5))
@QUICK
def test_shift_moves_mean_and_median_alone(seed, shift):
    image = np.rint(sky((25, 31), seed)[0])
    a, b = one_bin(image), one_bin(image + np.float32(shift))
    assert a[:2] == b[:2]
    np.testing.assert_allclose((a[2] + shift, a[3], a[4] + shift), b[2:], rtol=1e-9, atol=1e-7)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60))
@QUICK
def test_masked_is_the_same_as_nan(seed, height, width):
    image, mask = sky((height, width), seed)
    edges = [0, width // 2, width], [0, height // 3, height]
    a = bin_statistics(image, mask, 1, *edges)
    b = bin_statistics(np.where(mask & 1, np.float32(np.nan), image), None, 0, *edges)
    assert_same(a, b)
    assert_same(bin_statistics(image, mask, 2, *edges), bin_statistics(image, None, 2, *edges))


def test_tiling_equals_one_call_per_piece():
    image, mask = sky((150, 170), 3)
    edges = np.array([0, 40, 90, 150])
    whole = bin_statistics(image, mask, 5, edges, edges)
    for iy, ix in np.ndindex(3, 3):
        where = slice(edges[iy], edges[iy + 1]), slice(edges[ix], edges[ix + 1])
        part = one_bin(image[where].copy(), mask[where].copy(), 5)
        np.testing.assert_array_equal([getattr(whole, n)[iy, ix] for n in FIELDS], part)


def test_one_bin_equals_the_statistics_of_an_image():
    image, mask = sky((150, 170), 4)
    got = one_bin(image, mask, 4, n_sigma=2.0, n_iter=5)
    control = StatisticsControl(n_sigma=2.0, n_iter=5, and_mask=4)
    full = measure_statistics(image, mask, control=control)
    assert got[1] == full.value("NPOINT")
    assert got[0] == full.value("NPOINT") - full.value("NCLIPPED")
    expected = [full.value(name) for name in ("MEANCLIP", "VARIANCECLIP", "MEDIAN")]
    np.testing.assert_allclose(got[2:], expected, rtol=1e-12)


def views(image):
    read_only = image.copy()
    read_only.flags.writeable = False
    raw = np.empty(image.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(image.dtype).reshape(image.shape)
    unaligned[...] = image
    return {
        "cut-out": np.pad(image, 7, constant_values=1)[7:-7, 7:-7],
        "columns first": np.asfortranarray(image),
        "every second": np.repeat(np.repeat(image, 2, 0), 2, 1)[::2, ::2],
        "rows backwards": image[::-1].copy()[::-1],
        "columns backwards": image[:, ::-1].copy()[:, ::-1],
        "other byte order": image.astype(image.dtype.newbyteorder()),
        "read-only": read_only,
        "unaligned": unaligned,
    }


def test_views_and_byte_orders():
    image, mask = sky((60, 70), 6)
    edges = [3, 30, 66], [0, 60]
    expected = bin_statistics(image, mask, 5, *edges)
    for name, view in views(image).items():
        assert_same(bin_statistics(view, views(mask)[name], 5, *edges), expected)
    row = image[:1].repeat(2, 0)[::2]
    assert_same(
        bin_statistics(row, None, 0, [0, 70], [0, 1]),
        bin_statistics(image, None, 0, [0, 70], [0, 1]),
    )


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.uint32, np.int64, np.uint64])
def test_mask_types(kind):
    image, mask = sky((60, 70), 7)
    edges = [0, 70], [0, 60]
    assert_same(
        bin_statistics(image, mask.astype(kind), 4, *edges), bin_statistics(image, mask, 4, *edges)
    )


def test_highest_bit_and_truth_values_as_masks():
    image, mask = sky((60, 70), 8)
    edges = [0, 70], [0, 60]
    expected = bin_statistics(image, mask, 1, *edges)
    top = np.where(mask & 1, np.int32(-(2**31)), np.int32(0))
    assert_same(bin_statistics(image, top, 1 << 31, *edges), expected)
    assert_same(bin_statistics(image, top, -(1 << 31), *edges), expected)
    assert_same(bin_statistics(image, mask != 0, 1, *edges), expected)


@pytest.mark.parametrize("masks", [(True, True), (True, False), (False, True), (False, False)])
def test_difference_equals_statistics_of_the_difference(masks):
    (a, mask_a), (b, mask_b) = sky((150, 170), 9), sky((150, 170), 10)
    mask_a, mask_b = (m if used else None for m, used in zip((mask_a, mask_b), masks, strict=True))
    edges = np.array([0, 31, 150])
    union = sum(m for m in (mask_a, mask_b) if m is not None)
    union = None if isinstance(union, int) else (union != 0).astype(np.int32)
    got = bin_difference_statistics(a, mask_a, b, mask_b, 5, edges, edges)
    assert_same(got, bin_statistics(a - b, union, 1, edges, edges))


def test_difference_that_is_not_finite_is_left_out():
    a = np.array([[3e38, np.inf, np.nan, 1.0, 5.0]], np.float32)
    b = np.array([[-3e38, np.inf, 1.0, np.inf, 2.0]], np.float32)
    got = bin_difference_statistics(a, None, b, None, 0, [0, 5], [0, 1])
    assert (got.n_good[0, 0], got.mean[0, 0]) == (1, 3.0)


def test_moments_of_positions():
    (a, mask_a), (b, mask_b) = sky((90, 80), 11), sky((90, 80), 12)
    x_edges, y_edges = [5, 5, 40, 79], [3, 33, 90]
    good = np.isfinite(a) & np.isfinite(b) & ((mask_a | mask_b) & 4 == 0)
    got = bin_moments((a, b), (mask_a, mask_b), 4, x_edges, y_edges)
    assert np.isnan(got.x_mean[:, 0]).all()
    assert np.isnan(got.y_var[:, 0]).all()
    for iy, ix in np.ndindex(2, 2):
        y, x = np.nonzero(good[y_edges[iy] : y_edges[iy + 1], x_edges[ix + 1] : x_edges[ix + 2]])
        x, y = x + x_edges[ix + 1], y + y_edges[iy]
        mine = [m[iy, ix + 1] for m in (got.x_mean, got.y_mean, got.x_var, got.y_var)]
        np.testing.assert_allclose(mine, (x.mean(), y.mean(), x.var(), y.var()), rtol=1e-12)


def test_moments_of_one_image_and_of_one_pixel():
    image = np.full((6, 7), np.nan, np.float32)
    image[2, 5] = 1.0
    got = bin_moments((image,), (None,), 0, [0, 7], [0, 6])
    assert [m[0, 0] for m in (got.x_mean, got.y_mean, got.x_var, got.y_var)] == [5, 2, 0, 0]


def test_nothing_at_all():
    got = bin_statistics(np.empty((0, 4), np.float32), None, 0, [0, 2, 4], [0, 0])
    assert got.count.tolist() == [[0, 0]]
    assert np.isnan(got.median).all()


GOOD = np.zeros((4, 5), np.float32)


@pytest.mark.parametrize(
    ("image", "mask", "x_edges", "code"),
    [
        (GOOD.astype(np.float64), None, [0, 5], "image-dtype"),
        (GOOD[0], None, [0, 5], "image-shape"),
        (GOOD, np.zeros((4, 4), np.int32), [0, 5], "mask-shape"),
        (GOOD, np.zeros((4, 5), np.float32), [0, 5], "mask-dtype"),
        (GOOD, None, [0, 6], "edges-invalid"),
        (GOOD, None, [-1, 5], "edges-invalid"),
        (GOOD, None, [3, 2, 5], "edges-invalid"),
        (GOOD, None, [0], "edges-invalid"),
        (GOOD, None, [0.0, 5.0], "edges-invalid"),
        (GOOD, None, [[0, 5]], "edges-invalid"),
    ],
)
def test_bad_input_is_refused(image, mask, x_edges, code):
    with pytest.raises(InputError) as caught:
        bin_statistics(image, mask, 1, x_edges, [0, 4])
    assert caught.value.code == code


@pytest.mark.parametrize("options", [{"n_sigma": 0.0}, {"n_sigma": np.nan}, {"n_iter": 0}])
def test_bad_clips_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        bin_statistics(GOOD, None, 0, [0, 5], [0, 4], **options)
    assert caught.value.code == "clip-invalid"


def test_images_must_pair_up():
    with pytest.raises(InputError, match="image-shape"):
        bin_difference_statistics(GOOD, None, GOOD[:3], None, 0, [0, 5], [0, 3])
    with pytest.raises(InputError, match="image-count"):
        bin_moments((GOOD,), (None, None), 0, [0, 5], [0, 4])
