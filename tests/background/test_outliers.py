import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.background import outliers
from bgmatch_dask.background.outliers import outlier_footprints

SHAPE = (400, 480)
SIGMA = 10.0
ROWS, COLUMNS = np.indices(SHAPE).astype(np.float64)
ALL = np.ones(SHAPE, bool)


def _pair(seed=0, signal=0.0):
    """Two images of the same sky, each with half of the difference's variance."""
    rng = np.random.default_rng(seed)
    sky = 300 + 50 * np.sin(COLUMNS / 20) * np.cos(ROWS / 30)
    noise = rng.normal(0.0, SIGMA / np.sqrt(2), (2, *SHAPE))
    return (sky + noise[0] + signal).astype(np.float32), (sky + noise[1]).astype(np.float32)


def _trail(peak, *, angle=20.0, width=2.5):
    """A straight trail through the middle, Gaussian across."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    across = (ROWS - SHAPE[0] / 2) * c - (COLUMNS - SHAPE[1] / 2) * s
    return peak * np.exp(-0.5 * (across / width) ** 2)


@pytest.mark.parametrize("angle", [0.0, 20.0, 45.0, 90.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_trail_is_covered_with_its_wings(angle, sign):
    """A pixel of the trail is 3 sigma at most; its wings are covered down to a tenth of that."""
    trail = _trail(3 * SIGMA, angle=angle)
    found = outlier_footprints(*_pair(1, sign * trail), ALL)
    assert found[trail > 0.3 * SIGMA].mean() > 0.98
    # Cells are square: along a diagonal they reach further from the trail.
    assert found[trail < 1e-9 * SIGMA].mean() < 0.05
    # What remains of its light biases the mean of a superpixel by little.
    left = np.where(found, 0.0, trail)
    assert left.sum() < 0.005 * trail.sum()


@pytest.mark.parametrize("seed", range(4))
def test_noise_alone_flags_few_pixels(seed):
    assert outlier_footprints(*_pair(seed), ALL).mean() < 0.01


@pytest.mark.parametrize(
    "gradient",
    [
        0.2 * COLUMNS - 0.3 * ROWS,
        60 * np.sin(COLUMNS / 200) + 1e-3 * (ROWS - 100) ** 2,
        1e5 + 5.0 * COLUMNS,
    ],
)
def test_a_smooth_gradient_is_sky(gradient):
    assert outlier_footprints(*_pair(2, gradient), ALL).mean() < 0.01


@pytest.mark.parametrize(
    "gradient", [0.2 * COLUMNS - 0.3 * ROWS, 1e-3 * ROWS * COLUMNS - 2e-3 * (ROWS - 90) ** 2]
)
def test_a_gradient_without_noise_flags_none(gradient):
    image = gradient.astype(np.float32)
    assert not outlier_footprints(image, np.zeros_like(image), ALL).any()


def test_equal_images_flag_none():
    image, _ = _pair()
    assert not outlier_footprints(image, image, ALL).any()


def test_exchanging_the_images_changes_nothing():
    pair = _pair(3, _trail(4 * SIGMA))
    found = outlier_footprints(*pair, ALL)
    assert found.any()
    np.testing.assert_array_equal(outlier_footprints(*pair[::-1], ALL), found)


def test_a_common_sky_and_a_constant_change_nothing():
    hub, image = _pair(3, _trail(4 * SIGMA))
    found = outlier_footprints(hub, image, ALL)
    np.testing.assert_array_equal(outlier_footprints(hub + 64, image, ALL), found)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_gaps_do_no_harm(value):
    rng = np.random.default_rng(7)
    trail = _trail(3 * SIGMA)
    hub, image = _pair(4, trail)
    gap = rng.random(SHAPE) < 0.3
    gap[100:180, 60:200] = True
    gap[:, 300:308] = True
    hub[gap] = value
    image[:50, 400:] = value
    gap[:50, 400:] = True
    found = outlier_footprints(hub, image, ~gap)
    assert found[(trail > 0.5 * SIGMA) & ~gap].mean() > 0.97
    assert found[(trail < 1e-9 * SIGMA) & ~gap].mean() < 0.02


def test_a_transient_and_a_bad_star_are_found():
    spot = 40 * SIGMA * np.exp(-0.5 * ((ROWS - 90) ** 2 + (COLUMNS - 300) ** 2) / 3.0**2)
    found = outlier_footprints(*_pair(5, spot), ALL)
    assert found[spot > 0.1 * SIGMA].all()
    assert found.mean() < 0.02


@pytest.mark.parametrize("good", [0.0, 0.001])
def test_next_to_no_pixels_flag_none(good):
    keep = np.random.default_rng(0).random(SHAPE) < good
    assert not outlier_footprints(*_pair(), keep).any()


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (8, 8), (23, 100), (65, 17)])
def test_any_size_will_do(shape):
    rng = np.random.default_rng(1)
    hub, image = rng.normal(0, 1, (2, *shape)).astype(np.float32)
    found = outlier_footprints(hub, image, np.ones(shape, bool))
    assert found.shape == shape
    assert found.dtype == np.bool_


@settings(deadline=None, max_examples=15)
@given(st.floats(1e-6, 1e6))
def test_the_unit_of_the_image_does_not_matter(factor):
    hub, image = (a[:160, :160] for a in _pair(6, _trail(5 * SIGMA, angle=60.0)))
    keep = ALL[:160, :160]
    scaled = outlier_footprints((hub * factor).astype("f4"), (image * factor).astype("f4"), keep)
    assert (scaled != outlier_footprints(hub, image, keep)).mean() < 0.01


def test_a_higher_threshold_finds_less():
    pair = _pair(8, _trail(3 * SIGMA))
    shares = [outlier_footprints(*pair, ALL, n_sigma=n).mean() for n in (3.0, 5.0, 20.0, 1e3)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0


@pytest.mark.parametrize("seed", range(12))
def test_cells_far_from_all_data_need_not_be_looked_at(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    shape = (50, 70)
    top, left = rng.integers(0, 20, 2)
    height, width = rng.integers(4, 50, 2)
    mean = np.full(shape, np.nan)
    part = mean[top : top + height, left : left + width]
    part[:] = rng.normal(0.0, 1.0, part.shape)
    part[rng.random(part.shape) < 0.02] += 9.0
    part[rng.random(part.shape) < 0.5 * (seed % 3)] = np.nan
    error = rng.uniform(0.5, 1.0, shape)
    found = outliers.outlier_cells(mean, error, 4.0)
    assert found.any() or np.isfinite(mean).sum() < 100
    monkeypatch.setattr(outliers, "_reach", lambda seen: slice(0, len(seen)))
    np.testing.assert_array_equal(outliers.outlier_cells(mean, error, 4.0), found)
