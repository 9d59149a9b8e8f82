import pickle

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.errors import GeometryError
from bgmatch_dask.geometry import Box, PatchGrid, SuperpixelGrid, TractGeometry

QUICK = settings(deadline=None)
small = st.integers(-20, 20)
boxes = st.builds(Box, small, small, st.integers(0, 12), st.integers(0, 12))
grids = st.builds(
    PatchGrid,
    x0=st.integers(-15, 40),
    y0=st.integers(-15, 40),
    inner_width=st.integers(1, 17),
    inner_height=st.integers(1, 17),
    border=st.integers(0, 9),
    nx=st.integers(1, 4),
    ny=st.integers(1, 4),
)


def _pixels(box):
    return {(x, y) for x in range(box.x0, box.x1) for y in range(box.y0, box.y1)}


@QUICK
@given(boxes, boxes)
def test_the_intersection_is_that_of_the_pixels(a, b):
    common = a.intersect(b)
    assert _pixels(common) == _pixels(a) & _pixels(b)
    assert common.empty == (not _pixels(a) & _pixels(b))
    assert _pixels(b.intersect(a)) == _pixels(common)


@QUICK
@given(boxes, boxes)
def test_the_union_is_the_smallest_box_around_the_pixels(a, b):
    both = a.union(b)
    pixels = _pixels(a) | _pixels(b)
    assert both.empty == (not pixels)
    if pixels:
        xs, ys = zip(*pixels, strict=True)
        assert (both.x0, both.y0) == (min(xs), min(ys))
        assert (both.x1, both.y1) == (max(xs) + 1, max(ys) + 1)


@QUICK
@given(boxes, st.integers(0, 5))
def test_growing_and_shrinking_cancel(box, pixels):
    grown = box.grow(pixels)
    assert grown.shape == (box.height + 2 * pixels, box.width + 2 * pixels)
    assert grown.grow(-pixels) == box
    assert grown.contains(box)


@QUICK
@given(boxes, boxes)
def test_slices_cut_the_pixels_of_the_box(a, b):
    part = a.intersect(b)
    if part.empty:
        return
    ys, xs = np.mgrid[b.y0 : b.y1, b.x0 : b.x1]
    cut = part.slices_in(b)
    assert set(zip(xs[cut].ravel(), ys[cut].ravel(), strict=True)) == _pixels(part)


def test_a_box_that_leaves_its_parent_has_no_slices():
    with pytest.raises(GeometryError) as caught:
        Box(-1, 0, 3, 3).slices_in(Box(0, 0, 10, 10))
    assert caught.value.code == "box-outside"


@QUICK
@given(grids)
def test_inner_boxes_tile_the_tract(grid):
    seen = np.zeros(grid.tract_box.shape, int)
    for patch in range(grid.n_patches):
        seen[grid.inner_box(patch).slices_in(grid.tract_box)] += 1
        assert grid.plane_box(patch).shape == grid.plane_shape
        assert grid.outer_box(patch).contains(grid.inner_box(patch))
        assert grid.tract_box.contains(grid.outer_box(patch))
        assert grid.plane_box(patch).contains(grid.outer_box(patch))
    assert (seen == 1).all()


@settings(max_examples=300, deadline=None)
@given(
    grids,
    st.builds(
        Box, st.integers(-40, 90), st.integers(-40, 90), st.integers(0, 80), st.integers(0, 80)
    ),
)
def test_patches_touching_a_box_are_those_of_brute_force(grid, box):
    brute = [p for p in range(grid.n_patches) if not grid.outer_box(p).intersect(box).empty]
    assert list(grid.patches_touching(box)) == brute


@pytest.mark.parametrize(
    "change", [{"nx": 0}, {"inner_width": 0}, {"inner_height": -3}, {"border": -1}]
)
def test_a_grid_of_nothing_is_refused(change):
    good = {"x0": 0, "y0": 0, "inner_width": 4, "inner_height": 4, "border": 1, "nx": 1, "ny": 1}
    with pytest.raises(GeometryError) as caught:
        PatchGrid(**(good | change))
    assert caught.value.code == "patch-grid-empty"


@settings(max_examples=200, deadline=None)
@given(grids, st.integers(1, 70), st.integers(1, 70))
def test_windows_of_inner_boxes_count_every_pixel_once(grid, bin_x, bin_y):
    """Also where a superpixel straddles patches, or is larger than the tract."""
    superpixels = SuperpixelGrid(grid.tract_box, bin_x, bin_y)
    counts = np.zeros(superpixels.shape, int)
    owner = np.full(grid.tract_box.shape, -1)
    for patch in range(grid.n_patches):
        inner = grid.inner_box(patch)
        window = superpixels.window(inner)
        assert (window.x_edges[0], window.x_edges[-1]) == (0, inner.width)
        assert (window.y_edges[0], window.y_edges[-1]) == (0, inner.height)
        widths, heights = np.diff(window.x_edges), np.diff(window.y_edges)
        assert widths.min() > 0
        assert heights.min() > 0
        counts[window.slices] += np.outer(heights, widths)
        numbers = np.arange(counts.size).reshape(counts.shape)[window.slices]
        part = np.repeat(np.repeat(numbers, heights, axis=0), widths, axis=1)
        owner[inner.slices_in(grid.tract_box)] = part
    rows, columns = np.indices(grid.tract_box.shape)
    expected = rows // bin_y * superpixels.shape[1] + columns // bin_x
    np.testing.assert_array_equal(owner, expected)
    np.testing.assert_array_equal(
        counts.ravel(), np.bincount(expected.ravel(), minlength=counts.size)
    )


@QUICK
@given(grids, st.integers(1, 30), st.integers(1, 30))
def test_nodes_are_evenly_spaced_from_the_first_full_superpixel(grid, bin_x, bin_y):
    superpixels = SuperpixelGrid(grid.tract_box, bin_x, bin_y)
    columns = np.arange(grid.x0, grid.x0 + bin_x)
    assert superpixels.x_centres[0] == columns.mean()
    assert len(superpixels.y_centres) == superpixels.shape[0]
    assert (np.diff(superpixels.x_centres) == bin_x).all()
    assert (np.diff(superpixels.y_centres) == bin_y).all()


@pytest.mark.parametrize("box", [Box(0, 0, 0, 4), Box(-1, 0, 4, 4), Box(8, 8, 4, 4)])
def test_a_window_must_lie_in_the_tract(box):
    with pytest.raises(GeometryError) as caught:
        SuperpixelGrid(Box(0, 0, 10, 10), 4, 4).window(box)
    assert caught.value.code == "box-outside"


@pytest.mark.parametrize(("box", "size"), [(Box(0, 0, 4, 4), 0), (Box(0, 0, 0, 4), 2)])
def test_superpixels_of_nothing_are_refused(box, size):
    with pytest.raises(GeometryError) as caught:
        SuperpixelGrid(box, size, size)
    assert caught.value.code == "superpixel-grid-empty"


def _geometry():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.1, 2.2]
    wcs.wcs.cdelt = [-5e-5, 5e-5]
    wcs.wcs.crpix = [51.0, 41.0]
    cards = tuple((c.keyword, c.value) for c in wcs.to_header().cards)
    return TractGeometry("t", "r", cards, PatchGrid(0, 0, 50, 40, 5, 2, 2))


def test_the_wcs_counts_tract_pixels_and_those_of_a_box():
    geometry = _geometry()
    np.testing.assert_allclose(geometry.wcs().wcs_world2pix(150.1, 2.2, 0), (50, 40), atol=1e-7)
    box = geometry.patches.outer_box(3)
    local = geometry.wcs(box)
    np.testing.assert_allclose(
        local.wcs_world2pix(150.1, 2.2, 0), (50 - box.x0, 40 - box.y0), atol=1e-7
    )
    assert local.pixel_shape == (box.width, box.height)
    assert pickle.loads(pickle.dumps(geometry)) == geometry
