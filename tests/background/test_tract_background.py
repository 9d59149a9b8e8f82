"""The tract background: golden numbers of the upstream task, and what ours does better."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bgmatch_dask.background.tract_background import TractBackground, TractBackgroundConfig
from bgmatch_dask.background.tract_background_upstream import UpstreamTractBackground, bin_limits
from bgmatch_dask.errors import ConfigError, MatchError
from bgmatch_dask.geometry import Box, SuperpixelGrid
from bgmatch_dask.numerics.interpolation import InterpStyle

TRACT = Box(0, 0, 96, 80)


def golden_image():
    y, x = np.mgrid[:80, :96]
    image = (10 + 0.1 * x + 0.05 * y + ((3 * x + 5 * y + x * y) % 7) - 3).astype(np.float32)
    image[10:14, 20:40] = np.nan
    return image


def upstream(*columns):
    image, total = golden_image(), UpstreamTractBackground.empty(96, 80, 16, 20)
    for x0, x1 in columns:
        box = Box(x0, 0, x1 - x0, 80)
        warp = UpstreamTractBackground.empty(96, 80, 16, 20)
        total = total + warp.add_warp(np.ascontiguousarray(image[:, x0:x1]), None, box)
    return total


def test_golden_counts_means_and_variances_of_two_overlapping_warps():
    both = upstream((0, 56), (40, 96))
    np.testing.assert_array_equal(both.count[0], [704, 880, 1376, 1440, 960, 720])
    np.testing.assert_array_equal(both.count[1], [944, 1200, 1856, 1920, 1280, 960])
    np.testing.assert_array_equal(both.count[3], [720, 960, 1440, 1440, 960, 720])
    rows = {
        0: [12.3173304, 13.4477272, 15.3281975, 16.3541660, 18.3156242, 19.5472221],
        3: [14.8486109, 16.0125008, 17.7868061, 18.8548603, 20.8187504, 22.0458336],
    }
    for row, expected in rows.items():
        np.testing.assert_allclose(both.stats_image()[row], expected, rtol=2e-7)
    expected = [5.3117328, 5.5103478, 5.3293538, 5.2410879, 5.6308298, 5.1303120]
    np.testing.assert_allclose(both.variance_image()[0], expected, rtol=5e-7)


def test_golden_extrapolation_of_one_warp():
    alone = upstream((0, 56))
    np.testing.assert_array_equal(alone.count[0], [704, 880, 896, 480, 0, 0])
    expected = [12.3173304, 13.4477272, 15.0642853, 15.8208332, 16.3156338, 16.8104362]
    np.testing.assert_allclose(alone.stats_image()[0], expected, rtol=2e-7)
    np.testing.assert_allclose(alone.stats_image()[3, 4:], [18.9106464, 19.5004597], rtol=2e-7)
    assert np.isnan(alone.variance_image()[0, 4:]).all()


def test_golden_rendering_on_a_warp():
    drawn = upstream((0, 56), (40, 96)).to_warp_background(Box(40, 0, 56, 80), inner=32, binning=8)
    assert drawn.values.shape == (10, 7)
    expected = [16.1781807, 16.9244919, 17.9050388, 18.7032814, 19.3192177, 19.0063992, 19.0063992]
    np.testing.assert_allclose(drawn.values[0], expected, rtol=2e-7)
    assert (drawn.values == drawn.values[-1, -1]).sum() == 30
    assert (drawn.values[-2:] == drawn.values[-1, -1]).all()
    image = drawn.render().image
    for (y, x), value in {
        (0, 0): 15.7810841,
        (0, 55): 19.0713997,
        (40, 20): 19.6023922,
        (79, 55): 19.2819824,
    }.items():
        assert image[y, x] == pytest.approx(value, rel=2e-7)


@pytest.mark.parametrize(
    ("size", "limits"),
    [
        (128, [(-64, 191), (64, 319), (192, 447)]),
        (200, [(-100, 299), (100, 499), (300, 699)]),
        (100.5, [(-50, 150), (50, 250), (151, 351)]),
    ],
)
def test_golden_box_edges(size, limits):
    assert [bin_limits(k, size) for k in range(3)] == limits
    if size == int(size):
        assert [bin_limits(k, size, box_bins=1) for k in range(2)] == [
            (0, size - 1),
            (size, 2 * size - 1),
        ]


def test_upstream_grids_must_agree():
    with pytest.raises(ConfigError, match="tract-background-grid"):
        _ = upstream() + UpstreamTractBackground.empty(96, 80, 16, 16)


def ramp(box):
    y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
    return (100 + 0.03 * x - 0.02 * y).astype(np.float32)


def cuts(start, stop, step):
    return list(pairwise([*range(start, stop, step), stop]))


def by_patches(grid, image, width, height, config=None):
    found = TractBackground.empty(grid, config)
    tract = grid.box
    for x0, x1 in cuts(tract.x0, tract.x1, width):
        for y0, y1 in cuts(tract.y0, tract.y1, height):
            box = Box(x0, y0, x1 - x0, y1 - y0)
            found = found.add(np.ascontiguousarray(image[box.slices_in(tract)]), None, box)
    return found


@pytest.mark.parametrize("bin_size", [(32, 32), (27, 41)])
@pytest.mark.parametrize("patch", [(64, 64), (100, 70), (1000, 1000)])
def test_a_ramp_in_is_the_same_ramp_out_on_every_patch(bin_size, patch):
    tract = Box(-130, 57, 283, 211)
    grid = SuperpixelGrid(tract, *bin_size)
    # No pixel of a ramp is an outlier; parts of a bin that are clipped alone would be uneven.
    config = TractBackgroundConfig(style=InterpStyle.NATURAL_SPLINE, n_sigma=20.0)
    found = by_patches(grid, ramp(tract), *patch, config)
    # The last superpixels are narrower than the others, and no patch ends with a superpixel.
    y, x = grid.y_centres[:, np.newaxis], grid.x_centres[np.newaxis, :]
    np.testing.assert_allclose(found.values(), 100 + 0.03 * x - 0.02 * y, rtol=1e-6)
    for box in (tract, Box(tract.x1 - 70, tract.y1 - 80, 70, 80)):
        np.testing.assert_allclose(found.render(box), ramp(box), rtol=5e-7)


def test_overlapping_boxes_render_the_same_numbers():
    grid = SuperpixelGrid(Box(10, 20, 240, 200), 40, 40)
    rng = np.random.default_rng(2)
    found = by_patches(grid, rng.normal(50, 3, grid.box.shape).astype(np.float32), 80, 80)
    left, right = Box(10, 20, 130, 120), Box(90, 60, 160, 160)
    common = left.intersect(right)
    np.testing.assert_array_equal(
        found.render(left)[common.slices_in(left)], found.render(right)[common.slices_in(right)]
    )


def test_merging_smoothing_and_gaps():
    grid = SuperpixelGrid(Box(0, 0, 160, 120), 20, 20)
    image = ramp(grid.box)
    image[40:80, 60:100] = np.nan
    left, right = image.copy(), image.copy()
    left[:, 80:], right[:, :80] = np.nan, np.nan
    parts = [by_patches(grid, part, 1000, 1000) for part in (left, right)]
    whole = by_patches(grid, image, 1000, 1000)
    both = parts[1] + parts[0]
    np.testing.assert_array_equal(both.sums.n_good, whole.sums.n_good)
    np.testing.assert_allclose(both.values(), whole.values(), rtol=1e-6)
    assert not whole.measured[2:4, 3:5].any()
    # The gap lies in a plane: filling it restores the plane.
    y, x = grid.y_centres[:, np.newaxis], grid.x_centres[np.newaxis, :]
    np.testing.assert_allclose(whole.values(), 100 + 0.03 * x - 0.02 * y, atol=1e-3)
    smooth = TractBackground(grid, whole.sums, TractBackgroundConfig(smoothing=1.0))
    assert np.std(np.diff(smooth.values())) < 0.5
    assert smooth.values()[0, 0] > whole.values()[0, 0]
    with pytest.raises(MatchError, match="gaps-only"):
        TractBackground.empty(grid).values()


def test_upstream_boxes_are_twice_as_wide_and_exact_ones_are_ours():
    image = ramp(TRACT)
    theirs, exact = (
        UpstreamTractBackground.empty(96, 80, 16, 20, box_bins=n).add_warp(image, None, TRACT)
        for n in (2, 1)
    )
    ours = TractBackground.empty(SuperpixelGrid(TRACT, 16, 20)).add(image, None, TRACT)
    np.testing.assert_allclose(exact.stats_image(), ours.values(), rtol=1e-6)
    np.testing.assert_array_equal(exact.count, ours.sums.n_good)
    assert theirs.count.max() == 4 * exact.count.max()
    # Boxes that end at the tract are lopsided: the ramp is bent at its edges.
    assert np.abs(theirs.stats_image() - ours.values())[:, 0].max() > 0.1
