"""One-dimensional interpolation: golden numbers, reference twins, end rules, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.errors import ConfigError, MatchError
from bgmatch_dask.numerics.interpolation import (
    InterpStyle,
    best_style,
    interpolate,
    interpolate_or_reduce,
    minimum_points,
    parse_style,
)

X = np.array([0, 1, 2.5, 4, 5, 7])
Y = np.array([1, 3, 2, 5, 4, 4.5])
T = np.array([-2, -0.5, 0.25, 1, 1.75, 3.3, 4.5, 6.9, 7.5, 9])
GOLDEN = {
    "AKIMA_SPLINE": [
        -11, -1, 1.75, 3, 2.5147058823529411, 3.7607342511472668, 4.509386733416771,
        4.4168474264705884, 5.0477941176470589, 8.014705882352942,
    ],
    "NATURAL_SPLINE": [
        -4.5932519498134958, -0.39831298745337396, 1.6867092128687691, 3, 2.4316426119023395,
        3.6830167665121882, 4.7144265005086474, 4.4023100203458805, 4.9893608002712782,
        6.4574432010851135,
    ],
    "LINEAR": [-3, 0, 1.5, 3, 2.5, 3.6, 4.5, 4.475, 4.625, 5],
    "CONSTANT": [1, 1, 1, 2, 2.5, 3.5, 4.5, 4.25, 4.25, 4.5],
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name):
    got = interpolate(X, Y, T, parse_style(name), upstream=True)
    np.testing.assert_allclose(got, GOLDEN[name], rtol=1e-13)


@pytest.mark.parametrize("name", ["AKIMA_SPLINE", "NATURAL_SPLINE", "LINEAR"])
def test_default_equals_upstream_away_from_the_faults(name):
    np.testing.assert_allclose(interpolate(X, Y, T, parse_style(name)), GOLDEN[name], rtol=1e-13)


def test_cubic_is_the_natural_spline():
    one = interpolate(X, Y, T, InterpStyle.CUBIC_SPLINE)
    np.testing.assert_array_equal(one, interpolate(X, Y, T, InterpStyle.NATURAL_SPLINE))


def test_periodic_akima_golden():
    got = interpolate(X, Y, [0.25, 6.9, 9], InterpStyle.AKIMA_SPLINE_PERIODIC)
    golden = [1.3819751103974307, 4.4224069148936174, 7.4300111982082875]
    np.testing.assert_allclose(got, golden, rtol=1e-13)


def test_few_points_golden():
    natural = InterpStyle.NATURAL_SPLINE
    three = interpolate(X[:3], Y[:3], [0.25, -2], natural)
    np.testing.assert_allclose(three, [1.625, -4.0666666666666664], rtol=1e-13)
    four = interpolate(X[:4], Y[:4], [3.3, 5.5], natural)
    np.testing.assert_allclose(four, [3.0869749749749742, 9.4054054054054035], rtol=1e-13)
    assert interpolate(X[:2], Y[:2], 2.5, InterpStyle.LINEAR) == pytest.approx(6, rel=1e-13)
    with pytest.raises(MatchError) as caught:
        interpolate(X[:4], Y[:4], T, InterpStyle.AKIMA_SPLINE)
    assert caught.value.code == "interp-too-few-points"


@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize(
    ("y", "t", "expected"),
    [
        (
            [0, 0, 0, 0, 1, 1, 1, 1],
            [3.25, 3.5, 3.75, -1, 2.5, 8],
            [0.15625, 0.5, 0.84375, 0, 0, 1],
        ),
        ([0, 1, 2, 3, 3, 3, 3, 3], [2.5, 3.25, -1], [2.5, 3, -1]),
        (np.arange(8) ** 2 / 2, [8, 3.75], [32, 7.03125]),
    ],
)
def test_degenerate_akima_golden(y, t, expected, upstream):
    np.testing.assert_allclose(interpolate(np.arange(8), y, t, upstream=upstream), expected)


def test_akima_does_not_turn_on_rounding_noise():
    x, y = np.arange(8.0), np.array([0, 1, 2, 3, 3, 3, 3, 3.0])
    noisy = np.nextafter(y, 4)
    noisy[::3] = y[::3]
    clean, t = interpolate(x, y, [2.5, 3.25]), [2.5, 3.25]
    np.testing.assert_allclose(interpolate(x, noisy, t), clean, rtol=1e-12)
    assert np.abs(interpolate(x, noisy, t, upstream=True) - clean).max() > 1e-3


def test_constant_is_the_nearest_knot():
    got = interpolate(X, Y, [-9, 0.4, 0.5, 1, 2.5, 6.1, 99, np.nan], InterpStyle.CONSTANT)
    np.testing.assert_array_equal(got, [1, 1, 3, 3, 2, 4.5, 4.5, np.nan])
    one = interpolate([3.0], [7.0], [-1, 3, 9], InterpStyle.CONSTANT)
    np.testing.assert_array_equal(one, 7)


def _dense_periodic(x, y, t):
    # The same equations solved with a dense matrix.
    n = len(x)
    h, m = np.diff(x), np.diff(y) / np.diff(x)
    size = n - 1
    matrix, right = np.zeros((size, size)), np.zeros(size)
    for i in range(size):
        before = i - 1
        matrix[i, (i - 1) % size] += h[before]
        matrix[i, i] += 2 * (h[before] + h[i])
        matrix[i, (i + 1) % size] += h[i]
        right[i] = 3 * (m[i] - m[before])
    c = np.linalg.solve(matrix, right)
    c = np.append(c, c[0])
    k = np.clip(np.searchsorted(x, t, side="right") - 1, 0, n - 2)
    u = t - x[k]
    b = m[k] - h[k] * (c[k + 1] + 2 * c[k]) / 3
    return y[k] + u * (b + u * (c[k] + u * (c[k + 1] - c[k]) / (3 * h[k])))


@pytest.mark.parametrize("n", [3, 4, 5, 9])
def test_periodic_cubic_equals_dense_solution(n):
    rng = np.random.default_rng(n)
    x, y = np.cumsum(rng.uniform(0.3, 2, n)), rng.normal(size=n)
    t = np.linspace(x[0], x[-1], 50)
    got = interpolate(x, y, t, InterpStyle.CUBIC_SPLINE_PERIODIC)
    np.testing.assert_allclose(got, _dense_periodic(x, y, t), rtol=1e-11, atol=1e-12)


def test_natural_and_akima_equal_scipy_inside():
    from scipy.interpolate import Akima1DInterpolator, CubicSpline

    rng = np.random.default_rng(3)
    x, y = np.cumsum(rng.uniform(0.3, 2, 30)), rng.normal(100, 5, 30)
    t = np.linspace(x[0], x[-1], 400)
    natural = CubicSpline(x, y, bc_type="natural")(t)
    np.testing.assert_allclose(
        interpolate(x, y, t, InterpStyle.NATURAL_SPLINE), natural, rtol=1e-12
    )
    np.testing.assert_allclose(interpolate(x, y, t), Akima1DInterpolator(x, y)(t), rtol=1e-12)


def test_nan_query_and_nan_sample():
    assert np.isnan(interpolate(X, Y, np.nan, InterpStyle.LINEAR))
    holed = Y.copy()
    holed[2] = np.nan
    got = interpolate(X, holed, [0.5, 1.5, 4.5], InterpStyle.LINEAR)
    np.testing.assert_array_equal(np.isnan(got), [False, True, False])


def test_shape_of_the_question_is_kept():
    assert interpolate(X, Y, np.zeros((2, 3))).shape == (2, 3)
    assert interpolate(X, Y, np.zeros((0,))).shape == (0,)


@pytest.mark.parametrize("bad", [[0, 1, 1, 2, 3], [4, 3, 2, 1, 0], [0, 1, np.nan, 3, 4]])
def test_knots_must_increase(bad):
    for style in (InterpStyle.LINEAR, InterpStyle.CONSTANT):
        with pytest.raises(RuntimeError, match="interp-knots-not-increasing"):
            interpolate(bad, np.zeros(5), [0.0], style)


def test_shapes_must_agree():
    with pytest.raises(ConfigError, match="interp-shape"):
        interpolate([0, 1, 2], [0, 1], [0.0], InterpStyle.LINEAR)


def test_tables():
    assert [best_style(n).name for n in (1, 2, 3, 4, 5, 50)] == [
        "CONSTANT", "LINEAR", "CUBIC_SPLINE", "CUBIC_SPLINE", "AKIMA_SPLINE", "AKIMA_SPLINE",
    ]  # fmt: skip
    assert [minimum_points(style) for style in InterpStyle] == [1, 2, 3, 3, 3, 5, 5]
    for call in (lambda: best_style(0), lambda: minimum_points(-1), lambda: parse_style("UNKNOWN")):
        with pytest.raises(ConfigError):
            call()


@pytest.mark.parametrize("n", range(6))
def test_reduction_of_the_style(n):
    got = interpolate_or_reduce(X[:n], Y[:n], T)
    if n == 0:
        assert np.isnan(got).all()
    else:
        np.testing.assert_array_equal(got, interpolate(X[:n], Y[:n], T, best_style(n)))


_SMOOTH = [style for style in InterpStyle if style is not InterpStyle.CONSTANT]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=5, max_size=20),
    st.floats(-100, 100),
    st.floats(-1e4, 1e4),
    st.sampled_from([InterpStyle.LINEAR, InterpStyle.NATURAL_SPLINE, InterpStyle.AKIMA_SPLINE]),
)
def test_ramps_are_exact_and_continue_outside(steps, slope, level, style):
    x = np.cumsum(steps).astype(float)
    t = np.linspace(x[0] - 20, x[-1] + 20, 60)
    got = interpolate(x, level + slope * x, t, style)
    scale = abs(level) + abs(slope) * (abs(t).max() + 1) + 1e-300
    assert np.abs(got - (level + slope * t)).max() <= 1e-10 * scale


@settings(max_examples=50, deadline=None)
@given(st.integers(5, 15), st.integers(0, 2**32 - 1), st.sampled_from(_SMOOTH))
def test_curves_pass_through_the_samples(n, seed, style):
    rng = np.random.default_rng(seed)
    x, y = np.cumsum(rng.uniform(0.1, 5, n)), rng.normal(size=n)
    np.testing.assert_allclose(interpolate(x, y, x, style), y, rtol=1e-9, atol=1e-9)
