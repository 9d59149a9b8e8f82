"""Chebyshev fits: exactness, weights, truncation, rank, and the compiled evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from bgmatch_dask.errors import ConfigError, GeometryError, MatchError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.chebyshev import ChebyshevControl, Weighting, fit_chebyshev

BOX = Box(1000, -200, 60, 40)
X, Y = np.arange(3.0, 60, 6), np.arange(2.0, 40, 5)


def _direct(coefficients, order, box):
    # numpy's own Chebyshev evaluation on the same domain.
    grid = np.zeros((order + 1, order + 1))
    terms = [(t - k, k) for t in range(order + 1) for k in range(t + 1)]
    for value, (i, k) in zip(coefficients, terms, strict=True):
        grid[k, i] = value
    x = (np.arange(box.width) - (box.width - 1) / 2) * 2 / box.width
    y = (np.arange(box.height) - (box.height - 1) / 2) * 2 / box.height
    return np.polynomial.chebyshev.chebgrid2d(y, x, grid)


def _surface(x, y):
    return 100 + 0.5 * x - 0.2 * y[:, None] + 0.01 * x * y[:, None] - 0.003 * x**2


@pytest.mark.parametrize("weighting", list(Weighting))
def test_a_polynomial_is_reproduced(weighting):
    variance = np.random.default_rng(0).uniform(0.5, 2, (len(Y), len(X)))
    control = ChebyshevControl(2, weighting)
    fit = fit_chebyshev(X, Y, _surface(X, Y), variance, BOX, control)
    expected = _surface(np.arange(60.0), np.arange(40.0))
    np.testing.assert_allclose(fit.render(), expected, rtol=1e-6)
    assert fit.determined
    assert fit.n_valid == variance.size
    assert 1 < fit.condition < 1e3


def test_render_equals_numpy_and_parts_equal_the_whole():
    rng = np.random.default_rng(1)
    fit = fit_chebyshev(
        X, Y, rng.normal(size=(8, 10)), None, BOX, ChebyshevControl(5, Weighting.NONE)
    )
    whole = fit.render()
    np.testing.assert_allclose(whole, _direct(fit.coefficients, 5, BOX), atol=1e-6)
    part = Box(1013, -190, 20, 11)
    np.testing.assert_array_equal(fit.render(part), whole[part.slices_in(BOX)])
    low = _direct(fit.coefficients[:6], 2, BOX)
    np.testing.assert_allclose(fit.render(order=2), low, atol=1e-6)


def test_inverse_sigma_is_inverse_variance_of_the_standard_error():
    rng = np.random.default_rng(2)
    values, sigma = rng.normal(size=(8, 10)), rng.uniform(0.1, 3, (8, 10))
    inverse_sigma = ChebyshevControl(3, Weighting.INVERSE_SIGMA)
    one = fit_chebyshev(X, Y, values, sigma**2, BOX, inverse_sigma)
    two = fit_chebyshev(X, Y, values, sigma, BOX, ChebyshevControl(3))
    np.testing.assert_allclose(one.coefficients, two.coefficients, rtol=1e-10)


def test_unusable_cells_are_left_out():
    values, variance = np.full((8, 10), 7.0), np.ones((8, 10))
    values[0, :4] = [np.nan, np.inf, 1e9, -1e9]
    variance[0, 2:5] = [0, np.nan, -1]
    variance[1, 0] = np.inf
    fit = fit_chebyshev(X, Y, values, variance, BOX, ChebyshevControl(1))
    assert fit.n_valid == 80 - 6
    np.testing.assert_allclose(fit.render(), 7, rtol=1e-6)


def test_huge_variances_are_no_obstacle():
    values = _surface(X, Y)
    fit = fit_chebyshev(X, Y, values, np.full(values.shape, 1e30), BOX, ChebyshevControl(2))
    assert fit.determined
    np.testing.assert_allclose(fit.render()[0, 0], 100, rtol=1e-6)


@pytest.mark.parametrize("order", [1, 3, 6])
def test_what_is_not_determined_is_reported_and_bounded(order):
    values = np.full((8, 10), np.nan)
    values[:, 4] = np.linspace(10, 20, 8)
    fit = fit_chebyshev(X, Y, values, None, BOX, ChebyshevControl(order, Weighting.NONE))
    assert not fit.determined
    assert fit.rank < len(fit.coefficients)
    assert fit.condition > 1e15
    image = fit.render()
    np.testing.assert_allclose(image[Y.astype(int), int(X[4])], values[:, 4], rtol=1e-5)
    assert np.abs(image).max() < 60


def test_errors():
    flat = np.ones((8, 10))
    with pytest.raises(MatchError, match="chebyshev-no-cells"):
        fit_chebyshev(X, Y, flat, flat * 0, BOX, ChebyshevControl(1))
    with pytest.raises(ConfigError, match="chebyshev-shape"):
        fit_chebyshev(X, Y, flat.T, flat.T, BOX, ChebyshevControl(1))
    with pytest.raises(ConfigError, match="chebyshev-shape"):
        fit_chebyshev(X, Y, flat, None, BOX, ChebyshevControl(1))
    with pytest.raises(ConfigError, match="chebyshev-orders-differ"):
        ChebyshevControl(2, order_y=3)
    with pytest.raises(ConfigError, match="chebyshev-order"):
        ChebyshevControl(-1)
    fit = fit_chebyshev(X, Y, flat, flat, BOX, ChebyshevControl(1))
    with pytest.raises(ConfigError, match="chebyshev-order-too-high"):
        fit.render(order=2)
    with pytest.raises(GeometryError, match="box-outside"):
        fit.render(Box(0, 0, 2, 2))
