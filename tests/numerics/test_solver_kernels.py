"""Kernels of the joint solution, each beside plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.numerics.median import group_medians
from bgmatch_dask.numerics.mode_kernels import (
    BeamEnergies,
    plate_energy,
    plate_gradient,
    products,
    tapped,
)
from bgmatch_dask.numerics.row_products import row_dots, scaled_rows
from bgmatch_dask.numerics.site_offsets import site_offsets

RNG = np.random.default_rng(7)


def symmetric(n: int) -> np.ndarray:
    half = RNG.normal(size=(n, n))
    return half + half.T


def test_products_of_lines():
    y, x = RNG.normal(size=(5, 4)), RNG.normal(size=(5, 3))
    ky, kx = np.array([0, 3, 1, 1]), np.array([2, 0, 0, 1])
    np.testing.assert_array_equal(products(y, x, ky, kx), y[:, ky] * x[:, kx])
    assert products(y, x, ky[:0], kx[:0]).shape == (5, 0)


def test_taps_of_rows():
    shapes, weights = RNG.normal(size=(9, 6)), RNG.normal(size=(4, 5))
    first = np.array([0, 4, 2, 2])
    twin = np.stack([w @ shapes[f : f + 5, :3] for f, w in zip(first, weights, strict=True)])
    np.testing.assert_allclose(tapped(shapes, first, weights, 3), twin, rtol=1e-13)


def test_energies_of_plate_and_membrane():
    y, x = (BeamEnergies(symmetric(n), symmetric(n)) for n in (4, 3))
    ky, kx = np.array([0, 3, 1, 1, 2]), np.array([2, 0, 0, 1, 2])
    whole = np.kron(y.curvature, np.eye(3)) + np.kron(np.eye(4), x.curvature)
    whole += 2.0 * np.kron(y.slope, x.slope)
    whole += 0.3 * (np.kron(y.slope, np.eye(3)) + np.kron(np.eye(4), x.slope))
    at = 3 * ky + kx
    found = plate_energy(y, x, ky, kx, 0.3)
    np.testing.assert_allclose(found, whole[np.ix_(at, at)], rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("shape", [(6, 5), (4, 4), (1, 3), (2, 1)])
def test_the_gradient_is_that_of_the_energy(shape):
    ny, nx = shape
    hy, hx, rho = 1.3, 0.8, 0.01

    def differences(n, order):
        return np.diff(np.eye(n), order, axis=0) if n > order else np.zeros((0, n))

    one_y, one_x = np.eye(ny), np.eye(nx)
    steps = [
        np.kron(differences(ny, 2), one_x) / hy**2,
        np.kron(one_y, differences(nx, 2)) / hx**2,
        np.sqrt(2.0) * np.kron(differences(ny, 1), differences(nx, 1)) / (hy * hx),
        np.sqrt(rho) * np.kron(differences(ny, 1), one_x) / hy,
        np.sqrt(rho) * np.kron(one_y, differences(nx, 1)) / hx,
    ]
    g = RNG.normal(size=shape)
    twin = sum(m.T @ (m @ g.ravel()) for m in steps).reshape(shape)
    np.testing.assert_allclose(plate_gradient(g, hy, hx, rho), twin, atol=1e-13)


@settings(deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 99))
def test_medians_of_sites(sizes, seed):
    rng = np.random.default_rng(seed)
    site = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    values = rng.integers(-3, 4, len(site)) * 1.5
    twin = [np.median(values[site == k]) for k in range(len(sizes))]
    np.testing.assert_array_equal(group_medians(values, site, len(sizes)), twin)


def test_rows_that_meet():
    one, other = RNG.normal(size=(6, 31)), RNG.normal(size=(4, 31))
    i, j = np.array([5, 0, 5]), np.array([3, 3, 1])
    twin = (one[i] * other[j]).sum(axis=1)
    np.testing.assert_allclose(row_dots(one, i, other, j), twin, rtol=1e-12)
    scale = RNG.normal(size=6)
    np.testing.assert_array_equal(scaled_rows(one, i, scale), scale[i, np.newaxis] * one[i])


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 999), st.booleans())
def test_what_samples_need_is_least_squares(n_visits, n_sites, seed, closes):
    rng = np.random.default_rng(seed)
    hubs, visits, sites = [], [], []
    for k in range(n_sites):
        first = k * n_visits
        # A tree ties all samples of a site; further pairs close loops.
        tree = [(first + rng.integers(0, v), first + v) for v in range(1, n_visits)]
        more = [tuple(first + rng.choice(n_visits, 2, replace=False)) for _ in range(3)]
        hubs += [h for h, _ in tree + more]
        visits += [v for _, v in tree + more]
        sites += [k] * n_visits
    hub, visit, site = (np.array(a, np.int64) for a in (hubs, visits, sites))
    weight = rng.uniform(0.1, 1.0, len(hub))
    truth = rng.normal(size=len(site))
    difference = truth[visit] - truth[hub]
    if not closes:
        difference += rng.normal(size=len(hub))
    matrix = np.zeros((len(hub) + n_sites, len(site)))
    rows = np.arange(len(hub))
    np.add.at(matrix, (rows, visit), np.sqrt(weight))
    np.add.at(matrix, (rows, hub), -np.sqrt(weight))
    matrix[len(hub) + site, np.arange(len(site))] = 1.0
    right = np.concatenate([np.sqrt(weight) * difference, np.zeros(n_sites)])
    twin = np.linalg.lstsq(matrix, right, rcond=None)[0]
    found = site_offsets(difference, weight, hub, visit, site, n_sites, 1e-15)
    np.testing.assert_allclose(found, twin, atol=1e-10)


@pytest.mark.parametrize("value", [0.0, 1e9])
def test_one_pair_needs_no_second_step(value):
    end = np.array([0]), np.array([1])
    found = site_offsets(np.array([value]), np.ones(1), *end, np.zeros(2, np.int64), 1, 1e-15)
    np.testing.assert_array_equal(found, [-value / 2, value / 2])
