import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.numerics.median import median
from bgmatch_dask.numerics.quadratic_trend import quadratic_moments, quadratic_trend

TRUTH = np.array([3.0, -2.0, 0.5, 4.0, 1.0, -6.0])


def surface(shape, scale):
    y, x = np.indices(shape) / scale - 0.5
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1) @ TRUTH


def test_the_normal_equations_give_back_a_quadratic_surface():
    values = surface((9, 13), 13)
    kept = np.random.default_rng(1).random(values.shape) < 0.7
    values[~kept] = np.nan
    found = np.linalg.solve(*quadratic_moments(values, kept, (0, 0), 13.0))
    np.testing.assert_allclose(found, TRUTH, rtol=1e-8)
    part = np.linalg.solve(*quadratic_moments(values[2:, 3:], kept[2:, 3:], (2, 3), 13.0))
    np.testing.assert_allclose(part, TRUTH, rtol=1e-8)


def plain_trend(values, seen, scale):
    """The same surface, written with arrays."""
    y, x = (np.arange(n) / scale - 0.5 for n in values.shape)
    y = y[:, np.newaxis]
    level = np.median(values[seen])
    flat = np.where(seen, values - level, 0.0)
    found, kept = np.zeros(values.shape), np.zeros(values.shape, bool)
    for _ in range(4):
        residual = np.abs(flat - found)
        width = 1.482602218505602 * float(np.median(residual[seen]))
        before, kept = kept, seen & (residual <= 3.0 * width)
        if np.array_equal(kept, before):
            break
        c = np.linalg.lstsq(*quadratic_moments(flat, kept, (0, 0), scale), rcond=None)[0]
        found = (c[0] + (c[1] + c[3] * x) * x) + (c[2] + c[4] * x + c[5] * y) * y
    return level + found


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (23, 31)])
def test_the_trend_is_that_of_plain_arrays(shape):
    rng = np.random.default_rng(3)
    values = surface(shape, 31) + rng.normal(0.0, 0.1, shape)
    seen = rng.random(shape) < 0.8
    seen[0, 0], values[~seen] = True, np.nan
    values[seen & (rng.random(shape) < 0.1)] += 50.0
    scale = float(max(*shape, 2))
    expected = plain_trend(values, seen, scale)
    np.testing.assert_array_equal(quadratic_trend(values, seen, (0, 0), scale), expected)
    if shape == (23, 31):
        np.testing.assert_allclose(expected, surface(shape, 31), atol=0.1)


def test_a_part_of_a_map_has_the_trend_of_the_map():
    values = surface((23, 31), 31) + np.random.default_rng(3).normal(0.0, 0.1, (23, 31))
    seen = np.zeros(values.shape, bool)
    seen[5:15, 7:30] = True
    whole = quadratic_trend(values, seen, (0, 0), 31.0)
    part = quadratic_trend(values[5:15, 7:].copy(), seen[5:15, 7:].copy(), (5, 7), 31.0)
    np.testing.assert_array_equal(part, whole[5:15, 7:])


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.integers(1, 40) | st.integers(4090, 20000),
    st.sampled_from(["normal", "few values", "constant", "periodic", "rising", "huge"]),
    st.integers(0, 2**31),
)
def test_the_median_is_that_of_numpy(n, kind, seed):
    noise = np.random.default_rng(seed).normal(0.0, 3.0, n)
    values = {
        "normal": noise,
        "few values": np.round(noise),
        "constant": np.full(n, 0.1),
        # Steps of the sample, which then knows nothing of the rest.
        "periodic": np.where(np.arange(n) % 16 == 0, 1e3, noise),
        "rising": np.arange(n, dtype=np.float64),
        "huge": 1e300 * noise,
    }[kind]
    assert median(values) == np.median(values)
    assert median(values[::-1]) == np.median(values)
