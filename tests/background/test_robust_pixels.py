"""Light of one visit alone, at the pixels: a satellite fleet, a ghost, a PSF twice as broad.

The other visits must not notice: their offsets change by less than their own errors.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from bgmatch_dask.background.differences import DifferenceSettings, measure_patch
from bgmatch_dask.background.offsets import at_superpixels
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.geometry import Box, SuperpixelGrid
from bgmatch_dask.maskplanes import bits_of
from tests.background.plane_reader import PlaneReader

BOX = Box(0, 0, 480, 480)
GRID = SuperpixelGrid(BOX, 48, 48)
SIGMA, SPOILT = 6.0, 3
DETECTED = bits_of(["DETECTED"])


def visits():
    """Return five visits of one sky with stars, each with a background and noise of its own."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:480, :480] / 480.0
    stars = np.zeros(BOX.shape)
    stars[tuple(rng.integers(5, 475, (2, 60)))] = rng.uniform(2e3, 4e4, 60)
    sky = gaussian_filter(stars, 1.6)
    images, masks = {}, {}
    for visit in range(5):
        a, b, c = rng.uniform(-40, 40, 3)
        background = 300 + a * x + b * y + c * x * y
        images[visit] = sky + background + rng.normal(0, SIGMA, BOX.shape)
        masks[visit] = np.where(gaussian_filter(sky, 3) > 3, DETECTED, 0).astype(np.int32)
    return images, masks, stars


def fleet(image):
    """Add twelve parallel trails of different brightness, like a train of satellites."""
    y, x = np.mgrid[:480, :480]
    out = image.copy()
    for k in range(12):
        distance = (x - 0.6 * y - 20 - 22 * k) / np.hypot(1, 0.6)
        out += (15 + 12 * k) * np.exp(-0.5 * (distance / 2.0) ** 2)
    return out


def ghost(image):
    """Add a ring of 10⁴ sigma."""
    y, x = np.mgrid[:480, :480]
    radius = np.hypot(x - 300, y - 180)
    return image + 1e4 * SIGMA * ((radius < 70) & (radius > 20))


def broad(image, stars):
    """Make the PSF twice as broad: the masked footprints no longer hold the wings."""
    return image - gaussian_filter(stars, 1.6) + gaussian_filter(stars, 3.2)


def solve(images, masks, method):
    pairs = [(a, b) for a in range(5) for b in range(a + 1, 5)]
    warps = PlaneReader({v: i.astype(np.float32) for v, i in images.items()}, masks)
    settings = DifferenceSettings(method, DETECTED)
    found = measure_patch(pairs, warps, BOX, GRID, settings)
    coverage = {v: np.ones(GRID.shape, bool) for v in range(5)}
    with threadpool_limits(1):
        return solve_offsets(found.sums, coverage, GRID, 0)


@pytest.mark.parametrize("method", ["pixel", "common_mask"])
@pytest.mark.parametrize("name", ["fleet", "ghost", "broad"])
def test_light_of_one_visit_leaves_the_others_as_they_are(name, method):
    images, masks, stars = visits()
    clean = solve(images, masks, method)
    seen = images[SPOILT]
    spoilt = {"fleet": lambda: fleet(seen), "ghost": lambda: ghost(seen)}
    image = spoilt.get(name, lambda: broad(seen, stars))()
    solution = solve({**images, SPOILT: image}, masks, method)
    for visit in (1, 2, 4):
        before, after = clean.offsets[visit], solution.offsets[visit]
        change = np.abs(at(after) - at(before)) / np.sqrt(before.variance)
        assert np.median(change) < 0.4, visit
        assert np.percentile(change, 90) < 1.0, visit


def at(offset):
    return at_superpixels(offset)
