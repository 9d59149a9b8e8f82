"""Gap filling, smoothing and bilinear sampling of grids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.errors import ConfigError, MatchError
from bgmatch_dask.numerics.bilinear import sample_bilinear
from bgmatch_dask.numerics.gapfill import fill_gaps
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.smoothing import smooth_masked

NAN = np.nan
GRID = np.array(
    [
        [1, 2, NAN, 4, 5, 6],
        [2, NAN, NAN, NAN, NAN, 7],
        [NAN] * 6,
        [4, 5, 7, 8, 6, 9],
        [NAN, NAN, NAN, 1, NAN, NAN],
    ]
)
AKIMA, CONSTANT = InterpStyle.AKIMA_SPLINE, InterpStyle.CONSTANT


@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize("style", [AKIMA, InterpStyle.NATURAL_SPLINE])
def test_golden_splines(style, upstream):
    got = fill_gaps(GRID, np.isnan(GRID), style, upstream=upstream)
    np.testing.assert_allclose(got[1], [2, 3, 4, 5, 6, 7], rtol=1e-12)
    np.testing.assert_allclose(got[2], [3.75, 4.9375, 6.8125, 8, 7.125, 9.6875], rtol=1e-12)
    np.testing.assert_array_equal(got[4], 1)


def test_golden_linear_and_constant():
    linear = fill_gaps(GRID, np.isnan(GRID), InterpStyle.LINEAR)
    np.testing.assert_allclose(linear[2], [3, 4, 5.5, 6.5, 6, 8], rtol=1e-12)
    old = fill_gaps(GRID, np.isnan(GRID), CONSTANT, upstream=True)
    np.testing.assert_array_equal(old[1], [2, 2, 2, 4.5, 4.5, 7])
    np.testing.assert_array_equal(old[2], [3, 3.5, 4.5, 6.25, 5.25, 8])
    nearest = fill_gaps(GRID, np.isnan(GRID), CONSTANT)
    np.testing.assert_array_equal(nearest[1], [2, 2, 2, 7, 7, 7])
    np.testing.assert_array_equal(nearest[2], GRID[3])


def test_finite_bad_values_are_replaced_unless_upstream():
    bad = np.isnan(GRID)
    grid = GRID.copy()
    grid[2, 2] = 50
    old = fill_gaps(grid, bad, AKIMA, upstream=True)
    np.testing.assert_allclose(old[2], [3.75, 4.9375, 50, 8, 7.125, 9.6875], rtol=1e-12)
    np.testing.assert_array_equal(fill_gaps(grid, bad, AKIMA), fill_gaps(GRID, bad, AKIMA))


def test_input_is_untouched_and_errors():
    grid, bad = GRID.copy(), np.isnan(GRID)
    fill_gaps(grid, bad)
    np.testing.assert_array_equal(grid, GRID)
    with pytest.raises(RuntimeError, match="gaps-only"):
        fill_gaps(grid, np.ones(grid.shape, bool))
    with pytest.raises(MatchError):
        fill_gaps(np.full((2, 2), NAN), np.zeros((2, 2), bool))
    with pytest.raises(ConfigError, match="gaps-shape"):
        fill_gaps(grid, bad[:2])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(0, 0.95),
    st.integers(0, 2**32 - 1),
    st.sampled_from(list(InterpStyle)),
)
def test_one_good_value_fills_everything(ny, nx, share, seed, style):
    rng = np.random.default_rng(seed)
    grid, bad = rng.normal(size=(ny, nx)), rng.random((ny, nx)) < share
    bad.flat[rng.integers(bad.size)] = False
    got = fill_gaps(grid, bad, style)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got[~bad], grid[~bad])


def test_smoothing_equals_the_weighted_mean():
    rng = np.random.default_rng(5)
    grid, bad = rng.normal(size=(9, 7)), rng.random((9, 7)) < 0.3
    y, x = np.mgrid[:9, :7]
    got = smooth_masked(np.where(bad, NAN, grid), np.zeros(bad.shape, bool), 1.3, truncate=20)
    for iy, ix in ((0, 0), (4, 3), (8, 6)):
        kernel = np.exp(-0.5 * ((y - iy) ** 2 + (x - ix) ** 2) / 1.3**2) * ~bad
        assert got[iy, ix] == pytest.approx((kernel * grid).sum() / kernel.sum(), rel=1e-10)


def test_smoothing_keeps_constants_and_knows_nothing_far_away():
    grid = np.full((5, 60), 3.5, np.float32)
    bad = np.ones(grid.shape, bool)
    bad[:, :4] = False
    got = smooth_masked(grid, bad, 2.0)
    np.testing.assert_allclose(got[:, :11], 3.5, rtol=1e-12)
    assert np.isnan(got[:, 12:]).all()
    assert got.dtype == np.float64
    with pytest.raises(ConfigError, match="smooth-sigma"):
        smooth_masked(grid, bad, 0)
    with pytest.raises(ConfigError, match="smooth-shape"):
        smooth_masked(grid, bad[1:], 1)


P = np.array([[1, 2, 4], [3, 5, 9], [2, 8, 7]], np.float32)


def _one(image, x, y, **options):
    return sample_bilinear(image, [x], [y], **options)[0, 0]


def test_bilinear_golden():
    assert _one(P, 1.5, 0.25, upstream=True) == 4
    assert _one(P, 0.5, 1, upstream=True) == 4
    assert _one(P, 0, 0, upstream=True) == 1
    assert np.isnan(_one(P, 2, 1, upstream=True))
    assert np.isnan(_one(P, -1e-9, 0, upstream=True))


def test_bilinear_last_pixel_and_scale():
    assert _one(P, 2, 1) == 9
    assert _one(P, 2, 2) == 7
    assert np.isnan(_one(P, 2.001, 1))
    assert np.isnan(_one(P, NAN, 1))
    assert _one(P, 0.5, 1, scale=0.25) == 1
    assert _one(P[:1, :1], 0, 0) == 1
    assert np.isnan(_one(P[:1, :1], 0, 0, upstream=True))
    np.testing.assert_array_equal(sample_bilinear(P, range(3), range(3)), P)
    with pytest.raises(ConfigError, match="sample-shape"):
        sample_bilinear(P[0], [0], [0])


def test_bilinear_nan_of_weight_zero_does_no_harm():
    holed = P.copy()
    holed[1, 2] = np.nan
    holed[0, 0] = np.inf
    assert _one(holed, 1, 0.5) == 3.5
    assert np.isnan(_one(holed, 1.5, 0.5))


@settings(max_examples=40, deadline=None)
@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 5), st.floats(0, 3))
def test_bilinear_is_exact_on_ramps(gx, gy, x, y):
    ramp = (gx * np.arange(6.0) + gy * np.arange(4.0)[:, None] + 1).astype(np.float64)
    assert _one(ramp, x, y) == pytest.approx(gx * x + gy * y + 1, rel=1e-6, abs=1e-5)
