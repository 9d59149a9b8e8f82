"""Modes of surfaces, and both orders of taking out the sky."""

import numpy as np
import pytest

from bgmatch_dask.background.grid_covariance import covariance_on_grid
from bgmatch_dask.background.layout import lay_out
from bgmatch_dask.background.modes import modes_of
from bgmatch_dask.background.penalty import MEMBRANE, TREND
from bgmatch_dask.background.samples import Samples
from bgmatch_dask.background.sky_solvers import SkyFirst, SkyLast
from bgmatch_dask.background.sky_system import Prior, Strengths, build_system
from bgmatch_dask.geometry import Box, SuperpixelGrid

N = 9
GRID = SuperpixelGrid(Box(0, 0, N * 64, N * 64), 64, 64)
LAYOUT = lay_out([np.ones((N, N), bool), np.tri(N, dtype=bool)], GRID, 1)


def test_all_modes_are_the_nodes():
    modes = modes_of(LAYOUT, 0, gauge=False)
    basis = np.stack([modes.on_nodes(row).ravel() for row in np.eye(len(modes))])
    np.testing.assert_allclose(basis @ basis.T, np.eye((N + 4) ** 2), atol=1e-12)


def test_parabolas_are_modes_and_cost_nothing_but_what_a_gauge_may_not():
    modes, gauge = (modes_of(LAYOUT, 0, gauge=g) for g in (False, True))
    y, x = np.mgrid[: N + 4, : N + 4] / 10.0
    parabola = 3 - 2 * x + y + 0.3 * x * x - x * y + 0.7 * y * y
    assert np.all(modes.energies[: 1 + TREND] == 0.0)
    assert np.all(np.diff(modes.energies) >= 0)
    left = parabola.copy()
    for k in range(1 + TREND):
        shape = modes.on_nodes(np.eye(1 + TREND)[k])
        left -= (shape * parabola).sum() * shape
    assert np.abs(left).max() < 1e-12
    # Curvatures per superpixel of 1/10: with them as the trend K is zero.
    terms = np.array([0, 0, 0.6, -1.0, 1.4]) / 100
    middle = (N + 3) / 2 / 10
    terms[0] = (-2 + 0.6 * middle - middle) / 10
    terms[1] = (1 - middle + 1.4 * middle) / 10
    penalty = modes.penalty(len(modes))
    own = np.array(
        [(modes.on_nodes(row) * parabola).sum() for row in np.eye(len(modes))[: 1 + TREND]]
    )
    some = slice(0, 1 + TREND)
    cost = own @ penalty.energy[some, some] @ own + 2 * own @ penalty.cross[some] @ terms
    assert abs(cost + terms @ penalty.trend @ terms) < 1e-12
    for row in np.eye(len(gauge))[:9]:
        assert abs((gauge.on_nodes(row) * parabola).sum()) < 1e-12


def test_energy_is_that_of_plate_and_membrane():
    modes = modes_of(LAYOUT, 0, gauge=False)
    c = np.random.default_rng(0).normal(size=len(modes))
    g = modes.on_nodes(c)
    xx, yy = np.diff(g, 2, axis=1), np.diff(g, 2, axis=0)
    plate = (xx**2).sum() + (yy**2).sum() + 2 * (np.diff(np.diff(g, axis=0), axis=1) ** 2).sum()
    membrane = (np.diff(g, axis=0) ** 2).sum() + (np.diff(g, axis=1) ** 2).sum()
    energy = modes.penalty(len(modes)).energy
    assert c @ energy @ c == pytest.approx(plate + MEMBRANE * membrane)


def samples():
    sites = [np.arange(N * N), np.flatnonzero(np.tri(N))]
    site = np.concatenate(sites)
    visit = np.repeat([0, 1], [len(s) for s in sites])
    sy, sx = site // N, site % N
    low, high = (sy - 0.5, sx - 0.4), (sy + 0.3, sx + 0.5)
    none = np.empty(0, np.int64)
    starts = np.array([0, N * N, len(site)])
    photon = np.ones(len(site))
    return Samples(visit, site, sy, sx, low, high, photon, N * N, none, none, starts)


@pytest.mark.parametrize("counts", [(117, 163), (40, 24)])
def test_both_orders_of_taking_out_the_sky_are_the_same_solution(counts):
    rng = np.random.default_rng(1)
    found = samples()
    gauge = np.array([True, False])
    system = build_system(found, LAYOUT, gauge, np.zeros(2, bool)).with_modes(np.array(counts))
    ridge = np.full((2, TREND), 0.01)
    strengths = Strengths(np.array([0.5, 3.0]), ridge)
    priors = tuple(
        Prior.of(p, s, r)
        for p, s, r in zip(system.penalties, strengths.smoothing, ridge, strict=True)
    )
    weights = rng.uniform(0.5, 2.0, len(found))
    last, first = (kind.of(system, weights, strengths, priors) for kind in (SkyLast, SkyFirst))
    needed = rng.normal(size=len(found))
    zero = np.zeros(sum(counts))
    np.testing.assert_allclose(last.step(needed, zero), first.step(needed, zero), atol=1e-9)
    for v, u in ((0, 0), (1, 1), (0, 1)):
        np.testing.assert_allclose(last.covariance(v, u), first.covariance(v, u), atol=1e-8)
    a, b = ([s.spread(v, system.rows[v][:5]) for v in (0, 1)] for s in (last, first))
    np.testing.assert_allclose(a[0].variance, b[0].variance, rtol=1e-7)
    some = (np.array([0, 3, 4]), np.array([1, 3, 0]))
    both = [s.between(pair[0], some[0], pair[1], some[1]) for s, pair in ((last, a), (first, b))]
    np.testing.assert_allclose(*both, atol=1e-8)


def test_covariances_on_a_grid_are_those_of_its_superpixels():
    rng = np.random.default_rng(2)
    rows, columns = np.array([0, 3, 4, 8]), np.array([1, 2, 2])
    sy, sx = (a.ravel().astype(float) for a in np.meshgrid(rows, columns, indexing="ij"))
    low, high = [sy - 0.5, sx - 0.5], [sy + 0.5, sx + 0.5]
    modes = [modes_of(LAYOUT, v, gauge=v == 0) for v in (0, 1)]
    n = 31, 47
    lines = [m.on_grid(LAYOUT, v, 1.0 * rows, 1.0 * columns, n[v]) for v, m in enumerate(modes)]
    whole = [m.rows(LAYOUT, v, low, high, n[v]) for v, m in enumerate(modes)]
    between = rng.normal(size=n)
    twin = ((whole[0] @ between) * whole[1]).sum(axis=1).reshape(len(rows), len(columns))
    np.testing.assert_allclose(covariance_on_grid(*lines, between), twin, rtol=1e-10)
    none = modes[0].on_grid(LAYOUT, 0, 1.0 * rows, 1.0 * columns, 0)
    found = covariance_on_grid(none, lines[1], np.empty((0, n[1])))
    np.testing.assert_array_equal(found, np.zeros((len(rows), len(columns))))
