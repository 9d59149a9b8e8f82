"""Differences of one patch, in both ways: gradients, gaps, masks, outliers, reads."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bgmatch_dask.background.differences import DifferenceSettings, measure_patch
from bgmatch_dask.background.outliers import outlier_cells
from bgmatch_dask.background.superpixels import measure_difference, merge, to_array
from bgmatch_dask.geometry import Box, SuperpixelGrid
from bgmatch_dask.maskplanes import bits_of
from tests.background.plane_reader import PlaneReader

METHODS = ["pixel", "common_mask"]
BAD, DETECTED = bits_of(["BAD"]), bits_of(["DETECTED"])
BOX = Box(300, 170, 210, 150)


def reader_of(images, masks, box=BOX, part=None):
    return PlaneReader(images, masks, (part or box).slices_in(box))


def settings(method, outlier_sigma=None, n_sigma=3.0):
    return DifferenceSettings(method, BAD | DETECTED, n_sigma, outlier_sigma=outlier_sigma)


def positions(box=BOX):
    y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
    return x, y


def gappy_visits(box=BOX, slope=(5.0, -3.0), seed=0):
    """Return visits of one steep static ramp, constant backgrounds 0, 7 and −20, and gaps."""
    rng = np.random.default_rng(seed)
    x, y = positions(box)
    images, masks = {}, {}
    for visit, level in ((1, 0.0), (2, 7.0), (3, -20.0)):
        image = (slope[0] * x + slope[1] * y + level).astype(np.float32)
        image[:, 40 * visit : 40 * visit + 23] = np.nan
        image[np.abs(x - y - 60 - 30 * visit) < 9] = np.nan
        mask = np.where(rng.random(box.shape) < 0.1, BAD, 0).astype(np.int32)
        mask[50 : 50 + 8 * visit, 100:170] |= DETECTED
        images[visit], masks[visit] = image, mask
    return images, masks


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bin_size", [32, 50, 64, 128])
def test_a_steep_ramp_leaks_through_no_gap(method, bin_size):
    grid = SuperpixelGrid(Box(300, 170, 210, 150), bin_size, bin_size)
    warps = reader_of(*gappy_visits())
    found = measure_patch([(1, 2), (1, 3), (2, 3)], warps, BOX, grid, settings(method))
    for pair, level in (((1, 2), -7.0), ((1, 3), 20.0), ((2, 3), 27.0)):
        mean = found.sums[pair].mean
        assert np.isfinite(mean).sum() > 0.8 * mean.size
        # float32 pixels of 2000 are known to 1e-4.
        np.testing.assert_allclose(mean[np.isfinite(mean)], level, atol=2e-3)


def test_bins_of_unlike_pixels_would_leak():
    """The gaps of the test above do matter: plain means of each visit are off by far more."""
    images, masks = gappy_visits()
    means = [np.nanmean(np.where(masks[v] & (BAD | DETECTED), np.nan, images[v])) for v in (1, 2)]
    assert abs(means[0] - means[1] + 7.0) > 5.0


@pytest.mark.parametrize("method", METHODS)
def test_a_ramp_of_the_background_is_measured_where_the_pixels_lie(method):
    grid = SuperpixelGrid(BOX, 50, 50)
    images, masks = gappy_visits(slope=(0.0, 0.0))
    x, y = positions()
    images[2] = (images[2] - 0.3 * x + 0.2 * y).astype(np.float32)
    # Without noise a clip takes the far end of a ramp for outliers, and with it the place.
    wide = settings(method, n_sigma=20.0)
    sums = measure_patch([(1, 2)], reader_of(images, masks), BOX, grid, wide).sums[1, 2]
    seen = sums.count > 0
    at_x = grid.x_centres[np.newaxis, :] + sums.x_mean
    at_y = grid.y_centres[:, np.newaxis] + sums.y_mean
    np.testing.assert_allclose(sums.mean[seen], (-7 + 0.3 * at_x - 0.2 * at_y)[seen], atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_patches_and_whole_tract_agree(method):
    grid = SuperpixelGrid(BOX, 48, 37)
    images, masks = gappy_visits(slope=(0.4, 0.1))
    whole = measure_patch([(1, 2)], reader_of(images, masks), BOX, grid, settings(method)).sums[
        1, 2
    ]
    parts = []
    for x0, x1 in pairwise((300, 371, 440, 510)):
        for y0, y1 in pairwise((170, 244, 320)):
            part = Box(x0, y0, x1 - x0, y1 - y0)
            warps = reader_of(images, masks, part=part)
            found = measure_patch([(1, 2)], warps, part, grid, settings(method))
            parts.append((grid.window(part), found.sums[1, 2]))
    merged = merge(parts, grid)
    seen = (whole.count > 50) & (merged.count > 50)
    assert seen.sum() > 15
    np.testing.assert_allclose(merged.mean[seen], whole.mean[seen], atol=1e-3)
    if method == "pixel":
        np.testing.assert_array_equal(merged.n_good, whole.n_good)


@pytest.mark.parametrize("method", METHODS)
def test_the_noise_of_a_difference_is_what_it_says(method):
    grid = SuperpixelGrid(BOX, 50, 50)
    pulls = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        images, masks = gappy_visits(slope=(1.0, 2.0), seed=seed)
        noisy = {v: (i + rng.normal(0, 3.0, i.shape)).astype(np.float32) for v, i in images.items()}
        warps = reader_of(noisy, masks)
        sums = measure_patch([(1, 2)], warps, BOX, grid, settings(method)).sums[1, 2]
        seen = sums.count > 400
        pulls.append(((sums.mean + 7.0) / np.sqrt(sums.variance_of_mean))[seen])
        np.testing.assert_allclose(np.median(sums.variance[seen]), 18.0, rtol=0.15)
    assert 0.8 < np.std(np.concatenate(pulls)) < 1.2


@pytest.mark.parametrize("method", METHODS)
def test_an_outlier_belongs_to_the_visit_that_stands_out_of_the_others(method):
    grid = SuperpixelGrid(BOX, 64, 64)
    rng = np.random.default_rng(3)
    x, y = positions()
    images = {v: rng.normal(100.0 * v, 5.0, BOX.shape).astype(np.float32) for v in range(4)}
    masks = {v: np.zeros(BOX.shape, np.int32) for v in images}
    trail = 60.0 * np.exp(-0.5 * ((x - 0.7 * y - 250) / 2.2) ** 2)
    images[2] = (images[2] + trail).astype(np.float32)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    found = measure_patch(pairs, reader_of(images, masks), BOX, grid, settings(method, 4.0))
    assert list(found.outliers) == [2]
    widths, heights = np.diff(found.x_edges), np.diff(found.y_edges)
    pixels = np.repeat(np.repeat(found.outliers[2], heights, 0), widths, 1)
    assert pixels[trail > 5].mean() > 0.95
    assert pixels.mean() < 0.3
    for pair in pairs:
        sums = found.sums[pair]
        pull = (sums.mean - 100.0 * (pair[0] - pair[1])) / np.sqrt(sums.variance_of_mean)
        assert np.abs(pull).max() < 5.0


def outliers_of_pair(a, b, n_sigma):
    """Outlier cells of a difference of blanked images, pixel by pixel."""
    shape = tuple(-(-n // 8) for n in a.shape)
    count, total, squares = np.zeros((3, *shape))
    for row, column in np.ndindex(shape):
        cell = (slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
        good = np.isfinite(a[cell]) & np.isfinite(b[cell])
        delta = np.where(good, a[cell].astype(np.float64) - b[cell], 0.0)
        count[row, column] = good.sum()
        for column_sum in np.cumsum(delta, axis=0)[-1]:
            total[row, column] += column_sum
        for column_sum in np.cumsum(delta**2, axis=0)[-1]:
            squares[row, column] += column_sum
    n = np.where(count >= 16, count, np.nan)
    spread = squares / n - (total / n) ** 2
    sigma = np.sqrt(np.median(spread[count >= 16]))
    return outlier_cells(total / n, sigma / np.sqrt(n), n_sigma)


@pytest.mark.parametrize("box", [BOX, Box(303, 171, 205, 149)])
def test_pixels_are_measured_as_masked_pixels_one_pair_after_the_other_would_be(box):
    """Blanked pixels, cells that are passed over and cells left out change not one bit."""
    grid = SuperpixelGrid(Box(270, 150, 270, 190), 64, 50)
    rng = np.random.default_rng(11)
    images, masks = gappy_visits(box, slope=(0.3, -0.1))
    x, y = positions(box)
    for image in images.values():
        image += rng.normal(0.0, 5.0, box.shape).astype(np.float32)
    images[2] += (60.0 * np.exp(-0.5 * ((x - 0.7 * y - 250) / 2.2) ** 2)).astype(np.float32)
    images[3][20:40, 30:50], masks[1][:, 150:] = np.inf, BAD
    pairs = [(1, 2), (1, 3), (2, 3)]
    found = measure_patch(pairs, reader_of(images, masks, box), box, grid, settings("pixel", 4.0))
    blanked = {v: np.where(masks[v] & (BAD | DETECTED), np.nan, images[v]) for v in images}
    some = 0
    for a, b in pairs:
        cells = outliers_of_pair(blanked[a].astype("f4"), blanked[b].astype("f4"), 4.0)
        some += cells.sum()
        marked = np.kron(cells, np.ones((8, 8), bool))[: box.height, : box.width]
        mask = masks[b] | np.where(marked, BAD, 0).astype(np.int32)
        expected = measure_difference(
            images[a], masks[a], images[b], mask, box, grid, BAD | DETECTED
        )
        np.testing.assert_array_equal(to_array(found.sums[a, b]), to_array(expected))
    assert some > 20


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("outlier_sigma", [None, 4.0])
def test_every_pixel_is_read_once(method, outlier_sigma):
    grid = SuperpixelGrid(BOX, 64, 64)
    warps = reader_of(*gappy_visits())
    measure_patch([(1, 2), (1, 3), (2, 3)], warps, BOX, grid, settings(method, outlier_sigma))
    pixels = BOX.width * BOX.height
    assert warps.reads == {(plane, v): pixels for plane in ("image", "mask") for v in (1, 2, 3)}


@pytest.mark.parametrize("method", METHODS)
def test_a_visit_without_good_pixels_gives_empty_sums(method):
    grid = SuperpixelGrid(BOX, 64, 64)
    images, masks = gappy_visits()
    images[3] = np.full(BOX.shape, np.nan, np.float32)
    masks[2][:] = BAD
    found = measure_patch(
        [(1, 2), (1, 3)], reader_of(images, masks), BOX, grid, settings(method, 4.0)
    )
    for sums in found.sums.values():
        assert not sums.count.any()
        assert not sums.n_good.any()


def test_sources_of_any_visit_are_left_out_of_all_differences_under_the_common_mask():
    grid = SuperpixelGrid(BOX, 50, 50)
    images, masks = gappy_visits(slope=(0.0, 0.0))
    for image in images.values():
        image[60:100, 110:160] += 500.0
    masks[3][55:105, 105:165] |= DETECTED
    warps = reader_of(images, masks)
    found = measure_patch([(1, 2), (1, 3)], warps, BOX, grid, settings("common_mask"))
    sums = found.sums[1, 2]
    inside = sums.count[grid.shape[0] // 2, 2:3]
    assert inside < 0.75 * 50 * 50
    np.testing.assert_allclose(sums.mean[sums.count > 0], -7.0, atol=1e-3)
