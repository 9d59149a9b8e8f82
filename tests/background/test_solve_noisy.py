"""Accuracy with noise, scattered light, outliers, and the figures that report it."""

import dataclasses

import numpy as np
import pytest

from bgmatch_dask.background.diagnostics import GateLimits, diagnose
from bgmatch_dask.background.offsets import at_superpixels, render
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.background.superpixels import SuperpixelSums, measure_difference
from bgmatch_dask.geometry import Box, SuperpixelGrid

N, BIN, FINE = 25, 128, 8
NOISE = 0.16  # Of the mean of one visit's superpixel.
GRID = SuperpixelGrid(Box(0, 0, N * BIN, N * BIN), BIN, BIN)


def background(rng, *, bump):
    """Return one visit's sky on FINE² points per superpixel, as hard as a real one."""
    u = (np.arange(N * FINE) + 0.5) / (N * FINE) * 2 - 1
    y, x = np.meshgrid(u, u, indexing="ij")
    gradient, curve = rng.uniform(-50, 50, 2), rng.uniform(-18, 18, 3)
    sky = rng.uniform(240, 1180) + gradient[0] * x + gradient[1] * y
    sky += curve[0] * x * x + curve[1] * y * y + curve[2] * x * y
    if bump:
        sigma = 380 / BIN / N * 2
        sky += 60 * np.exp(-0.5 * ((x - 0.1) ** 2 + (y + 0.2) ** 2) / sigma**2)
    return sky


def average(fine):
    return fine.reshape(N, FINE, N, FINE).mean(axis=(1, 3))


def footprints(rng):
    y, x = np.mgrid[:N, :N]
    out = {
        v: np.hypot(x - cx, y - cy) < 0.55 * N
        for v, (cx, cy) in enumerate(rng.uniform(0.3 * N, 0.7 * N, (8, 2)))
    }
    out[0], out[6] = x < 0.62 * N, x >= 0.62 * N  # These two do not meet.
    out[1] = (x > 0) | (y > 0)
    return out


def tract(seed=0):
    rng = np.random.default_rng(seed)
    truth = {v: background(rng, bump=v == 5) for v in range(8)}
    coverage = footprints(rng)
    seen = {v: average(sky) + rng.normal(0, NOISE, (N, N)) for v, sky in truth.items()}
    differences = {}
    for hub in truth:
        for visit in range(hub + 1, 8):
            n = np.where(coverage[hub] & coverage[visit], float(BIN * BIN), 0.0)
            if n.any():
                zero, second = np.zeros_like(n), n * (BIN**2 - 1) / 12
                total = n * (seen[hub] - seen[visit])
                squares = n * np.maximum(n - 1, 0) * 2 * NOISE**2
                differences[hub, visit] = SuperpixelSums(
                    n, total, squares, zero, second, zero, second, n
                )
    return truth, coverage, differences


def rendered(offset):
    image = render(offset, GRID.box).astype(np.float64)
    step = BIN // FINE
    return image.reshape(N * FINE, step, N * FINE, step).mean(axis=(1, 3))


def matched(truth, solution):
    return {
        v: sky + (rendered(solution.offsets[v]) if v in solution.offsets else 0.0)
        for v, sky in truth.items()
    }


def spread(plane):
    return np.kron(plane, np.ones((FINE, FINE), bool))


@pytest.fixture(scope="module")
def solved():
    truth, coverage, differences = tract()
    return truth, coverage, differences, solve_offsets(differences, coverage, GRID, 1)


def test_errors_stay_at_the_photon_noise(solved):
    truth, coverage, _, solution = solved
    errors = matched(truth, solution)
    pulls = []
    for visit, offset in solution.offsets.items():
        error = (errors[visit] - truth[1])[spread(coverage[visit])]
        assert np.sqrt(np.mean(error**2)) < 1.2 * NOISE
        pull = average(errors[visit] - truth[1])[coverage[visit]] ** 2
        pulls.append(np.mean(pull / offset.variance[coverage[visit]]))
    # The claimed variance is that of the error, within a factor of two of sigma. An offset of a
    # few parameters may err less by chance.
    assert max(pulls) < 4
    assert np.mean(pulls) > 0.25


def test_noise_is_recognised(solved):
    *_, solution = solved
    assert 0.7 < solution.noise_factor < 1.3
    assert all(f.anchored for f in solution.figures.values())
    # Scattered light asks for a weaker prior than skies that are nearly parabolas.
    smoothing = {v: f.smoothing for v, f in solution.figures.items()}
    assert min(smoothing, key=smoothing.get) == 5


@pytest.mark.parametrize("reference", [0, 6])
def test_any_reference_makes_all_visits_agree(reference):
    truth, coverage, differences = tract(1)
    solution = solve_offsets(differences, coverage, GRID, reference)
    errors = matched(truth, solution)
    for a in truth:
        for b in truth:
            both = spread(coverage[a] & coverage[b])
            if a < b and both.any():
                assert np.sqrt(np.mean((errors[a] - errors[b])[both] ** 2)) < 1.2 * NOISE


def test_bump_is_recovered(solved):
    truth, coverage, _, solution = solved
    error = matched(truth, solution)[5] - truth[1]
    y, x = np.indices(error.shape) / FINE
    near = (np.hypot(x - 0.55 * N, y - 0.4 * N) < 4) & spread(coverage[5])
    assert near.sum() > 40 * FINE**2
    assert np.abs(error[near]).max() < 4 * NOISE


def test_outlying_superpixels_do_little_harm(solved):
    truth, coverage, differences, clean = solved
    rng = np.random.default_rng(9)
    hurt = {}
    for pair, sums in differences.items():
        bad = (rng.random(GRID.shape) < 0.02) * 30.0
        hurt[pair] = dataclasses.replace(sums, total=sums.total + bad * sums.count)
    solution = solve_offsets(hurt, coverage, GRID, 1)
    for visit in clean.offsets:
        error = (matched(truth, solution)[visit] - truth[1])[spread(coverage[visit])]
        assert np.sqrt(np.mean(error**2)) < 3 * NOISE


def test_strength_may_be_given():
    _, coverage, differences = tract(2)
    config = SolveConfig(smoothing=0.2)
    solution = solve_offsets(differences, coverage, GRID, 1, config)
    assert {f.smoothing for f in solution.figures.values()} == {0.2}


def test_curved_background_inside_a_bin_is_not_lost():
    """A bump that bins of 128 pixels would blur by 0.28 counts, through pixels, noise-free."""
    grid = SuperpixelGrid(Box(0, 0, 1920, 1920), 128, 128)
    y, x = np.mgrid[:1920, :1920].astype(np.float64)
    bump = 60 * np.exp(-0.5 * ((x - 900) ** 2 + (y - 1000) ** 2) / 380**2)
    flat = np.zeros(bump.shape, np.float32)
    sums = measure_difference(flat, None, bump.astype(np.float32), None, grid.box, grid, 0)
    full = np.ones(grid.shape, bool)
    config = SolveConfig(smoothing=1e-4)
    solution = solve_offsets({(1, 2): sums}, {1: full, 2: full}, grid, 1, config)
    error = render(solution.offsets[2], grid.box) + bump
    # Bins alone lose 0.28 at the peak; what is left is the cubic kernel between nodes.
    assert np.abs(error[128:-128, 128:-128]).max() < 0.12
    assert np.abs(at_superpixels(solution.offsets[2]) - sums.mean).max() < 0.005


def test_diagnostics(solved):
    _, coverage, differences, solution = solved
    table = diagnose(solution, differences, coverage)
    assert [d.visit for d in table] == list(range(8))
    for row in table:
        assert row.gate == "pass"
        assert row.fit_rms < 2 * NOISE
        assert row.rms_before > 10
        assert 1.0 <= row.ratio < 1.001
        assert row.coverage > 0.9
        assert 0.4 < row.chi2 < 1.4
        assert 0 < row.freedom < row.n_superpixels
    assert table[1].flag_shares == {}
    assert table[0].flag_shares["measured"] > 0.9
    strict = diagnose(solution, differences, coverage, GateLimits(rms=0.01))
    assert {d.gate for d in strict} == {"warn"}
    assert {d.reasons for d in strict} == {("rms",)}
    strict = diagnose(solution, differences, coverage, GateLimits(ratio=1.0))
    assert {d.reasons for d in strict} == {("ratio",)}


def test_diagnostics_of_visits_without_overlap():
    _, coverage, differences = tract()
    pairs = {p: s for p, s in differences.items() if 7 not in p}
    solution = solve_offsets(pairs, coverage, GRID, 1, SolveConfig(order=2))
    row = diagnose(solution, pairs, coverage)[7]
    assert row.reasons == ("disconnected",)
    assert row.n_superpixels == 0
    assert np.isnan(row.fit_rms)
    assert row.flag_shares["disconnected"] == 1.0
    assert [p.n_superpixels for p in solution.pairs] == [
        int((coverage[a] & coverage[b]).sum()) for a, b in solution.observations.pairs
    ]
    residuals = solution.residuals
    assert set(residuals) == set(pairs)
    assert np.isfinite(residuals[1, 2]).sum() == (coverage[1] & coverage[2]).sum()
