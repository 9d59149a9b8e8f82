from types import SimpleNamespace

import numpy as np
import pytest

from bgmatch_dask.background.overlaps import measure_overlaps, overlap_figures
from bgmatch_dask.background.superpixels import measure_difference
from bgmatch_dask.geometry import Box, SuperpixelGrid

BOX = Box(0, 0, 96, 64)
GRID = SuperpixelGrid(BOX, 16, 16)
SIGMA = 2.0


def _difference(level, seed, covered=slice(None)):
    """Sums of hub − visit, where the visit is lower by ``level``."""
    rng = np.random.default_rng(seed)
    hub = rng.normal(0, SIGMA, BOX.shape).astype(np.float32)
    visit = np.full(BOX.shape, np.nan, np.float32)
    visit[:, covered] = rng.normal(-level, SIGMA, BOX.shape)[:, covered]
    mask = np.zeros(BOX.shape, np.int32)
    return measure_difference(hub, mask, visit, mask, BOX, GRID, 0)


@pytest.fixture
def differences():
    return {("a", "b"): _difference(5.0, 1), ("a", "c"): _difference(-3.0, 2, slice(0, 48))}


def _solution(residuals):
    return SimpleNamespace(residuals=residuals)


def test_means_of_pairs_before_and_after(differences):
    sums = differences["a", "b"]
    residual = sums.mean - 4.5
    residual[0, 0] = np.nan
    (found,) = measure_overlaps(differences, _solution({("a", "b"): residual}))
    used = np.isfinite(residual)
    assert (found.hub, found.visit, found.n_superpixels) == (
        "a",
        "b",
        GRID.shape[0] * GRID.shape[1] - 1,
    )
    assert found.n_pixels == sums.count[used].sum()
    weights = sums.count[used] / sums.count[used].sum()
    assert found.before == pytest.approx((weights * sums.mean[used]).sum())
    assert found.after == pytest.approx(found.before - 4.5)
    # The error of the mean of n differences of two images, clipped at 3 sigma.
    assert found.sigma == pytest.approx(SIGMA * np.sqrt(2 / found.n_pixels), rel=0.05)
    assert found.before == pytest.approx(5.0, abs=4 * found.sigma)


def test_superpixels_without_pixels_do_not_count(differences):
    sums = differences["a", "c"]
    (found,) = measure_overlaps(differences, _solution({("a", "c"): np.zeros(GRID.shape)}))
    assert found.n_superpixels == np.count_nonzero(sums.count) == 4 * 3
    assert found.after == 0.0


def test_a_pair_of_which_nothing_was_used_is_left_out(differences):
    nothing = np.full(GRID.shape, np.nan)
    assert measure_overlaps(differences, _solution({("a", "b"): nothing})) == ()


def test_figures_of_all_pairs(differences):
    residuals = {pair: sums.mean - 1.0 for pair, sums in differences.items()}
    residuals["a", "b"] = differences["a", "b"].mean - 5.0
    overlaps = measure_overlaps(differences, _solution(residuals))
    figures = overlap_figures(overlaps)
    assert figures.pairs == 2
    assert figures.rms_before == pytest.approx(np.sqrt((5.0**2 + 3.0**2) / 2), rel=0.02)
    assert figures.worst == pytest.approx(4.0, rel=0.05)
    assert figures.rms_after == pytest.approx(np.sqrt(4.0**2 / 2), rel=0.05)


def test_no_pair_has_no_figures():
    figures = overlap_figures(())
    assert (figures.pairs, figures.worst) == (0, pytest.approx(np.nan, nan_ok=True))
