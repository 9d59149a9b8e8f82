import numpy as np
import pytest

from bgmatch_dask.background.superpixels import (
    QUANTITIES,
    empty_sums,
    from_array,
    measure_difference,
    measure_visit,
    measured,
    merge,
    to_array,
)
from bgmatch_dask.errors import MatchError
from bgmatch_dask.geometry import PatchGrid, SuperpixelGrid

BAD = 1
# Patches of 50 × 40 pixels, superpixels of 16 × 12: nearly every boundary is straddled.
PATCHES = PatchGrid(7, -3, 50, 40, 4, 3, 2)
GRID = SuperpixelGrid(PATCHES.tract_box, 16, 12)


def scene(seed):
    rng = np.random.default_rng(seed)
    box = GRID.box
    image = rng.normal(100, 3, box.shape).astype(np.float32)
    mask = (rng.random(box.shape) < 0.1).astype(np.int32) * BAD
    image[20:40, 30:90] = np.nan
    return image, mask


def test_patches_merge_to_the_whole_without_clipping():
    image, mask = scene(1)
    wide = {"n_sigma": 1e9, "n_iter": 1}
    whole = measure_visit(image, mask, GRID.box, GRID, BAD, **wide)
    parts = []
    for patch in range(PATCHES.n_patches):
        box = PATCHES.inner_box(patch)
        at = box.slices_in(GRID.box)
        parts.append((GRID.window(box), measure_visit(image[at], mask[at], box, GRID, BAD, **wide)))
    merged = merge(parts, GRID)
    for name in QUANTITIES:
        np.testing.assert_allclose(
            getattr(merged, name), getattr(whole, name), rtol=1e-12, atol=1e-9
        )
    assert to_array(merge(parts[::-1], GRID)).tobytes() == to_array(merged).tobytes()


def test_sums_are_those_of_the_pixels():
    image, mask = scene(2)
    sums = measure_visit(image, mask, GRID.box, GRID, BAD, n_sigma=1e9, n_iter=1)
    window = GRID.window(GRID.box)
    for iy, ix in ((0, 0), (3, 4), (sums.shape[0] - 1, sums.shape[1] - 1)):
        at = (
            slice(window.y_edges[iy], window.y_edges[iy + 1]),
            slice(window.x_edges[ix], window.x_edges[ix + 1]),
        )
        good = (mask[at] == 0) & np.isfinite(image[at])
        y, x = np.nonzero(good)
        pixels = image[at][good].astype(np.float64)
        assert sums.n_good[iy, ix] == good.sum()
        if not good.any():
            assert np.isnan(sums.mean[iy, ix])
            continue
        columns = x + at[1].start + GRID.box.x0 - GRID.x_centres[ix]
        rows = y + at[0].start + GRID.box.y0 - GRID.y_centres[iy]
        np.testing.assert_allclose(sums.mean[iy, ix], pixels.mean(), rtol=1e-12)
        np.testing.assert_allclose(sums.variance[iy, ix], pixels.var(ddof=1), rtol=1e-9)
        np.testing.assert_allclose(sums.x_mean[iy, ix], columns.mean(), atol=1e-9)
        np.testing.assert_allclose(sums.y_mean[iy, ix], rows.mean(), atol=1e-9)
        np.testing.assert_allclose(sums.x_var[iy, ix], columns.var(), atol=1e-9)
        np.testing.assert_allclose(sums.y_var[iy, ix], rows.var(), atol=1e-9)


def test_difference_uses_the_union_of_masks():
    (a, mask_a), (b, mask_b) = scene(3), scene(4)
    sums = measure_difference(a, mask_a, b, mask_b, GRID.box, GRID, BAD)
    joint = np.where((mask_a | mask_b) != 0, np.float32(np.nan), a - b)
    direct = measure_visit(joint, None, GRID.box, GRID, BAD)
    np.testing.assert_array_equal(to_array(sums), to_array(direct))


def test_storage_form_and_refusals():
    image, mask = scene(5)
    sums = measure_visit(image, mask, GRID.box, GRID, BAD)
    again = from_array(to_array(sums))
    assert to_array(again).tobytes() == to_array(sums).tobytes()
    with pytest.raises(MatchError, match="sums-shape"):
        from_array(np.zeros((3, 2, 2)))
    with pytest.raises(MatchError, match="sums-shape"):
        measure_visit(image[1:], None, GRID.box, GRID, BAD)
    with pytest.raises(MatchError, match="sums-shape"):
        merge([(GRID.window(GRID.box), empty_sums((2, 2)))], GRID)


def test_smallest_share_counts_pixels_inside_the_tract():
    image, _ = scene(6)
    image[:] = 1.0
    sums = measure_visit(image, None, GRID.box, GRID, BAD)
    assert measured(sums, GRID, 1.0).all()
    assert not measured(empty_sums(GRID.shape), GRID, 0.0).any()
