import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.coadd.layout import COADD_PLANES
from bgmatch_dask.coadd.stack import BAND, TOGETHER, MeanPlanes, SkyWeight, Stack, WeightedWarp
from bgmatch_dask.maskplanes import CLIPPED, NO_DATA, bits_of
from bgmatch_dask.numerics.keys import keys_render, keys_rows, linear_render, linear_rows

SHAPE = (30, 40)
BAD = bits_of(("SAT", "NO_DATA"))
SAT, CR, DETECTED = bits_of(("SAT",)), bits_of(("CR",)), bits_of(("DETECTED",))


def _warps(count, seed=0):
    rng = np.random.default_rng(seed)
    warps = []
    for _ in range(count):
        image = rng.normal(100.0, 5.0, SHAPE).astype(np.float32)
        variance = rng.uniform(20.0, 30.0, SHAPE).astype(np.float32)
        mask = rng.choice([0, 0, 0, SAT, CR, DETECTED], SHAPE).astype(np.int32)
        image[rng.random(SHAPE) < 0.1] = np.nan
        variance[rng.random(SHAPE) < 0.05] = np.inf
        variance[rng.random(SHAPE) < 0.05] = np.nan
        warps.append((image, variance, mask, float(1.0 / rng.uniform(20.0, 30.0))))
    return warps


def _stack(warps):
    stack = Stack.empty(SHAPE)
    for image, variance, mask, weight in warps:
        stack.add([WeightedWarp(image, variance, mask, weight)], BAD)
    return stack.planes()


def _by_hand(warps):
    """The weighted mean of one pixel after the other, in plain Python floats."""
    image = np.full(SHAPE, np.nan)
    variance = np.full(SHAPE, np.nan)
    mask = np.full(SHAPE, NO_DATA, np.int32)
    number = np.zeros(SHAPE, np.int32)
    for pixel in np.ndindex(SHAPE):
        used = [
            (float(i[pixel]), float(v[pixel]), int(m[pixel]), w)
            for i, v, m, w in warps
            if np.isfinite(i[pixel]) and np.isfinite(v[pixel]) and not m[pixel] & BAD
        ]
        if not used:
            continue
        weight = sum(w for *_, w in used)
        image[pixel] = sum(w * i for i, _, _, w in used) / weight
        variance[pixel] = sum(w**2 * v for _, v, _, w in used) / weight**2
        mask[pixel] = np.bitwise_or.reduce([m for _, _, m, _ in used])
        number[pixel] = len(used)
    return {"image": image, "variance": variance, "mask": mask, "nimage": number}


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_the_weighted_mean_is_that_of_plain_loops(count):
    warps = _warps(count)
    found, expected = _stack(warps), _by_hand(warps)
    assert list(found) == list(COADD_PLANES) == list(expected)
    for name, (dtype, _) in COADD_PLANES.items():
        assert found[name].dtype == np.dtype(dtype)
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


@pytest.mark.parametrize("together", [2, 4, 5, 8, 9])
def test_warps_added_together_give_the_bytes_of_one_by_one(together):
    warps, stack = _warps(9), Stack.empty(SHAPE)
    for first in range(0, 9, together):
        stack.add([WeightedWarp(*w) for w in warps[first : first + together]], BAD)
    for name, plane in _stack(warps).items():
        assert stack.planes()[name].tobytes() == plane.tobytes()


def test_empty_pixels_have_the_fill_values_of_the_store():
    for name, plane in _stack([]).items():
        np.testing.assert_array_equal(plane, np.full(SHAPE, COADD_PLANES[name][1]))


def test_the_variance_is_that_of_repeated_coadds():
    """Monte Carlo: the scatter of many coadds of white noise is what the plane says."""
    rng = np.random.default_rng(3)
    sigmas = (2.0, 5.0, 9.0)
    stack = Stack.empty((300, 300))
    for sigma in sigmas:
        image = rng.normal(10.0, sigma, (300, 300)).astype(np.float32)
        variance = np.full(image.shape, sigma**2, np.float32)
        mask = np.zeros(image.shape, np.int32)
        stack.add([WeightedWarp(image, variance, mask, sigma**-2)], BAD)
    planes = stack.planes()
    expected = 1.0 / sum(sigma**-2 for sigma in sigmas)
    np.testing.assert_allclose(planes["variance"], expected, rtol=1e-6)
    assert planes["image"].var() == pytest.approx(expected, rel=0.02)
    assert planes["image"].mean() == pytest.approx(10.0, abs=4 * np.sqrt(expected) / 300)


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(6)))
def test_the_order_of_the_warps_touches_the_last_bits_alone(order):
    """Sums are float64 in the order given: the same order gives the same bytes."""
    warps = _warps(6)
    first, other = _stack(warps), _stack([warps[i] for i in order])
    assert _stack(warps)["image"].tobytes() == first["image"].tobytes()
    np.testing.assert_array_equal(first["mask"], other["mask"])
    np.testing.assert_array_equal(first["nimage"], other["nimage"])
    np.testing.assert_array_almost_equal_nulp(
        np.nan_to_num(first["image"]), np.nan_to_num(other["image"]), nulp=1
    )


def test_a_common_factor_of_the_weights_does_not_matter():
    warps = _warps(3)
    scaled = [(i, v, m, 1e-3 * w) for i, v, m, w in warps]
    np.testing.assert_allclose(_stack(scaled)["image"], _stack(warps)["image"], rtol=1e-6)
    np.testing.assert_allclose(_stack(scaled)["variance"], _stack(warps)["variance"], rtol=1e-6)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_gives_nothing(weight):
    image, variance, mask, _ = _warps(1)[0]
    planes = _stack([(image, variance, mask, weight), *_warps(2, seed=5)])
    expected = _stack(_warps(2, seed=5))
    for name, plane in planes.items():
        np.testing.assert_array_equal(plane, expected[name])


def test_large_values_do_not_lose_the_small_ones():
    image = np.full(SHAPE, 1.0, np.float32)
    zeros = np.zeros(SHAPE, np.int32)
    stack = Stack.empty(SHAPE)
    for level in (1e8, 1.0, -1e8):
        plane = np.full(SHAPE, level, np.float32)
        stack.add([WeightedWarp(plane, image, zeros, 1.0)], BAD)
    np.testing.assert_allclose(stack.planes()["image"], 1 / 3, rtol=1e-6)


def test_the_sky_variance_is_measured_away_from_sources():
    rng = np.random.default_rng(1)
    variance = rng.normal(25.0, 0.5, (200, 200)).astype(np.float32)
    mask = np.zeros(variance.shape, np.int32)
    variance[50:90, 50:90], mask[50:90, 50:90] = 400.0, DETECTED
    variance[:10], mask[:10] = 1e6, SAT
    variance[120:130] = np.nan
    variance[130:135] = np.inf
    assert SkyWeight.measure(variance, mask, BAD).variance == pytest.approx(25.0, rel=1e-3)


def test_where_all_is_detected_the_rest_must_do():
    variance = np.full(SHAPE, 9.0, np.float32)
    mask = np.full(SHAPE, DETECTED, np.int32)
    assert SkyWeight.measure(variance, mask, BAD).variance == pytest.approx(9.0)


@pytest.mark.parametrize("level", [np.nan, np.inf, 0.0, -3.0])
def test_no_variance_gives_no_weight(level):
    variance = np.full(SHAPE, level, np.float32)
    found = SkyWeight.measure(variance, np.zeros(SHAPE, np.int32), BAD).variance
    assert np.isnan(found)


def _shifted(kind):
    """Seven warps with shifts and outliers, and the same with both put in by numpy."""
    rng = np.random.default_rng(8)
    warps, plain = [], []
    y, x = np.arange(SHAPE[0]) / 7.0, np.arange(SHAPE[1]) / 6.0
    for k, (image, variance, mask, weight) in enumerate(_warps(7)):
        nodes, noise = rng.normal(0.0, 50.0, (8, 9)), rng.uniform(0.1, 0.9, (6, 8))
        drawn = keys_render(nodes, x, y), linear_render(noise, x, y)
        rows = keys_rows(nodes, x, y), linear_rows(noise, x, y)
        outliers = rng.random(SHAPE) < 0.2 if k % 2 else None
        shift = None if k == 3 else {"rows": rows, "planes": drawn}[kind]
        left_out = k == 4
        warps.append(WeightedWarp(image, variance, mask, weight, shift, outliers, left_out))
        if left_out:
            continue
        if shift is not None:
            image, variance = image + drawn[0], variance + drawn[1]
        clipped = np.zeros(SHAPE, bool)
        if outliers is not None:
            clipped = outliers & np.isfinite(image) & ((mask & BAD) == 0)
            image = np.where(outliers, np.float32(np.nan), image)
        plain.append((image, variance, mask, weight, clipped))
    return warps, plain


@pytest.mark.parametrize("kind", ["rows", "planes"])
def test_shifts_and_outliers_are_those_of_plain_numpy(kind):
    warps, plain = _shifted(kind)
    stack, out = Stack.empty(SHAPE, plain=True), MeanPlanes.empty(SHAPE, plain=True)
    stack.add(warps[:3], BAD)
    stack.add(warps[3:], BAD, out)
    expected = _stack([w[:4] for w in plain])
    clipped = np.any([w[4] for w in plain], axis=0) & (expected["nimage"] > 0)
    assert clipped.any()
    expected["mask"][clipped] |= CLIPPED
    for name, plane in out.by_name.items():
        assert plane.tobytes() == expected[name].tobytes()
    unmatched = _stack([(w.image, w.variance, w.mask, w.weight) for w in warps])
    assert out.plain.tobytes() == unmatched["image"].tobytes()


@pytest.mark.parametrize("rows", [7, SHAPE[0], BAND])
@pytest.mark.parametrize("count", [0, 3, TOGETHER + 1, 2 * TOGETHER + 3])
def test_sums_of_a_few_rows_serve_for_any_number_of_warps_at_once(count, rows):
    warps = [WeightedWarp(*w) for w in _warps(count)]
    stack, out = Stack.empty((rows, SHAPE[1]), plain=True), MeanPlanes.empty(SHAPE, plain=True)
    for _ in range(2):
        stack.add(warps, BAD, out)
        for name, plane in _stack(_warps(count)).items():
            assert out.by_name[name].tobytes() == plane.tobytes()
        assert out.plain.tobytes() == out.image.tobytes()


@pytest.mark.parametrize("count", [0, 1, 2, 3, TOGETHER])
def test_sums_of_one_row_serve_where_all_warps_come_at_once(count):
    warps = [WeightedWarp(*w) for w in _warps(count)]
    stack, out = Stack.empty((1, SHAPE[1]), plain=True), MeanPlanes.empty(SHAPE, plain=True)
    for _ in range(2):
        stack.add(warps, BAD, out)
        for name, plane in _stack(_warps(count)).items():
            assert out.by_name[name].tobytes() == plane.tobytes()
        assert out.plain.tobytes() == out.image.tobytes()
    with pytest.raises(ValueError, match="sums of"):
        stack.add([WeightedWarp(*w) for w in _warps(TOGETHER + 1)], BAD)
