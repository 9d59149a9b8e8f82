import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from bgmatch_dask.warps.noise import sky_sigma

SHAPE = (500, 600)
SIGMA = 7.0
ROWS, COLUMNS = np.indices(SHAPE).astype(np.float32)


def _noise(seed=0):
    return np.random.default_rng(seed).normal(300.0, SIGMA, SHAPE).astype(np.float32)


def _sources(rng, count):
    points = np.zeros(SHAPE, np.float32)
    np.add.at(
        points,
        (rng.integers(0, SHAPE[0], count), rng.integers(0, SHAPE[1], count)),
        rng.pareto(1.2, count) * 2000,
    )
    return gaussian_filter(points, 2.0)


GRADIENT = 0.05 * COLUMNS - 0.08 * ROWS + 20 * np.cos(COLUMNS / 150)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gradient", [0.0, 1.0])
def test_white_noise_is_measured_within_three_percent(seed, gradient):
    image = (_noise(seed) + gradient * GRADIENT).astype(np.float32)
    assert abs(sky_sigma(image) / SIGMA - 1) < 0.03


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "tolerance"), [(100, 0.03), (300, 0.07)])
def test_sources_and_gaps_hardly_matter(seed, count, tolerance):
    """330 and 1000 sources in a million pixels; the latter touch a third of all differences."""
    rng = np.random.default_rng(100 + seed)
    image = (_noise(seed) + _sources(rng, count) + GRADIENT).astype(np.float32)
    image[rng.random(SHAPE) < 0.2] = np.nan
    image[:200, :300] = np.nan
    assert abs(sky_sigma(image) / SIGMA - 1) < tolerance


def test_quantised_noise_is_measured():
    """SDSS and DSS images are integers; here the noise is 3 steps."""
    image = np.round(_noise() / SIGMA * 3.0).astype(np.float32)
    assert abs(sky_sigma(image) / 3.0 - 1) < 0.2


@pytest.mark.parametrize(("fraction", "expected"), [(0.5, 0.5), (0.25, 0.625)])
def test_on_resampled_noise_it_is_the_scatter_of_the_pixels(fraction, expected):
    """The lag is beyond the correlation, so that nothing of the remaining scatter is lost.

    Bilinear interpolation by a fraction f along both axes scales the standard deviation of a
    pixel by f² + (1 − f)². The noise of sums over many pixels does not shrink like that:
    a variance from resampled pixels is one of pixels, not of large areas.
    """
    image = shift(_noise(), fraction, order=1, mode="nearest").astype(np.float32)
    assert abs(sky_sigma(image) / (SIGMA * expected) - 1) < 0.03


@pytest.mark.parametrize(
    "image",
    [
        np.full((80, 80), np.nan, np.float32),
        np.full((80, 80), 3.0, np.float32),
        np.zeros((80, 3), np.float32),
        np.zeros((0, 80), np.float32),
        np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32),
    ],
)
def test_too_little_to_measure_is_none(image):
    assert sky_sigma(image) is None


def test_infinite_pixels_do_no_harm():
    image = _noise()
    image[::7, ::9] = np.inf
    image[::5, ::11] = -np.inf
    assert abs(sky_sigma(image) / SIGMA - 1) < 0.03
