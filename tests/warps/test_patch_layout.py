import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bgmatch_dask.config import TractConfig
from bgmatch_dask.errors import GeometryError
from bgmatch_dask.geometry import Box, PatchGrid
from bgmatch_dask.warps.patch_layout import GROWTH, infer_patches, settle_patches

AUTO = TractConfig()
QUICK = settings(deadline=None, max_examples=100)


def _boxes(grid, *, clipped):
    box = grid.outer_box if clipped else grid.plane_box
    return [box(patch) for patch in range(grid.n_patches)]


def _same_units(found, grid):
    """The grid found may be a part of the true one, but its patches are true patches."""
    true = {grid.inner_box(p) for p in range(grid.n_patches)}
    return {found.inner_box(p) for p in range(found.n_patches)} <= true


@QUICK
@given(
    nx=st.integers(1, 4),
    ny=st.integers(1, 3),
    inner=st.integers(30, 4000),
    border=st.integers(1, 200),
    clipped=st.booleans(),
)
def test_a_whole_tract_gives_its_grid(nx, ny, inner, border, clipped):
    """Legacy sky maps clip the outer boxes at the edge of the tract, cells do not."""
    assume(2 * border < inner)
    assume(nx * ny > 1)
    grid = PatchGrid(0, 0, inner, inner, border, nx, ny)
    assert infer_patches(_boxes(grid, clipped=clipped), AUTO) == grid


@QUICK
@given(
    data=st.data(),
    size=st.sampled_from([(4000, 100), (3000, 200), (600, 50)]),
    clipped=st.booleans(),
)
def test_missing_patches_leave_the_others_in_place(data, size, clipped):
    """Any patches may lack warps, as long as two neighbours along each axis are there."""
    inner, border = size
    grid = PatchGrid(0, 0, inner, inner, border, 4, 3)
    first = data.draw(st.integers(0, 1)) * 4 + data.draw(st.integers(0, 2))
    kept = {first, first + 1, first + 4}
    kept |= data.draw(st.sets(st.integers(0, 11)))
    boxes = [_boxes(grid, clipped=clipped)[p] for p in sorted(kept)]
    found = infer_patches(boxes, AUTO)
    assert (found.inner_width, found.inner_height, found.border) == (inner, inner, border)
    assert _same_units(found, grid)
    for patch in kept:
        assert found.tract_box.contains(grid.inner_box(patch))


@pytest.mark.parametrize(("inner", "border"), [(4000, 100), (3000, 200)])
@pytest.mark.parametrize("patch", range(12))
@pytest.mark.parametrize("clipped", [True, False])
def test_one_patch_of_a_known_tract_builder(inner, border, patch, clipped):
    grid = PatchGrid(0, 0, inner, inner, border, 4, 3)
    found = infer_patches([_boxes(grid, clipped=clipped)[patch]], AUTO)
    assert found == PatchGrid(
        grid.inner_box(patch).x0, grid.inner_box(patch).y0, inner, inner, border, 1, 1
    )


@QUICK
@given(
    patch_inner=st.tuples(st.integers(20, 500), st.integers(20, 500)),
    border=st.integers(0, 9),
    chosen=st.sets(st.integers(0, 11), min_size=1),
    clipped=st.booleans(),
)
def test_sizes_that_are_given_are_taken(patch_inner, border, chosen, clipped):
    grid = PatchGrid(0, 0, *patch_inner, border, 4, 3)
    boxes = [_boxes(grid, clipped=clipped)[p] for p in chosen]
    found = infer_patches(boxes, TractConfig(patch_inner=patch_inner, border=border))
    assert (found.inner_width, found.inner_height, found.border) == (*patch_inner, border)
    assert _same_units(found, grid)
    assert all(found.tract_box.contains(grid.inner_box(p)) for p in chosen)


@QUICK
@given(
    width=st.integers(30, 400),
    height=st.integers(30, 400),
    border=st.integers(1, 14),
    counts=st.sampled_from([(1, 3), (3, 1), (2, 3), (4, 1), (1, 2)]),
    clipped=st.booleans(),
)
def test_patches_need_not_be_square(width, height, border, counts, clipped):
    # On an axis of one patch, these lengths are taken for those of a clipped square patch.
    assume(min(counts) > 1 or abs(width - height) > 2 * border)
    grid = PatchGrid(0, 0, width, height, border, *counts)
    assert infer_patches(_boxes(grid, clipped=clipped), AUTO) == grid


def test_a_row_that_is_clipped_on_one_side_is_known_from_the_columns():
    grid = PatchGrid(0, 0, 600, 600, 50, 3, 2)
    row = [grid.outer_box(p) for p in range(3)]
    assert infer_patches(row, AUTO) == PatchGrid(0, 0, 600, 600, 50, 3, 1)


def test_rows_that_do_not_touch_are_known_from_the_columns():
    grid = PatchGrid(0, 0, 600, 600, 50, 2, 3)
    boxes = [grid.outer_box(p) for p in (0, 1, 4, 5)]
    assert infer_patches(boxes, AUTO) == grid


def test_a_single_box_of_unknown_size_is_unclear():
    with pytest.raises(GeometryError, match="patch_inner") as caught:
        infer_patches([Box(0, 0, 700, 700)], AUTO)
    assert caught.value.code == "patches-unclear"


def test_patches_that_do_not_touch_are_unclear():
    with pytest.raises(GeometryError) as caught:
        infer_patches([Box(0, 0, 650, 650), Box(1750, 1750, 700, 650)], AUTO)
    assert caught.value.code == "patches-unclear"


def test_the_size_of_neighbours_goes_before_that_of_known_tract_builders():
    """A column of 4000 pixels is not a clipped patch of 4000 + 100 here."""
    grid = PatchGrid(0, 0, 4000, 4000, 1, 1, 2)
    assert infer_patches(_boxes(grid, clipped=True), AUTO) == grid


def test_boxes_that_contradict_the_given_sizes_are_unclear():
    with pytest.raises(GeometryError) as caught:
        infer_patches([Box(0, 0, 700, 700)], TractConfig(patch_inner=600, border=50))
    assert caught.value.code == "patches-unclear"


def test_order_and_repetition_of_the_boxes_do_not_matter():
    boxes = _boxes(PatchGrid(0, 0, 600, 600, 50, 3, 2), clipped=True)
    assert infer_patches(boxes[::-1] * 3, AUTO) == infer_patches(boxes, AUTO)


@pytest.mark.parametrize("config", [AUTO, TractConfig(patch_inner=4000, border=100)])
@pytest.mark.parametrize("clipped", [True, False])
def test_direct_warps_that_go_beyond_their_patches_are_known(config, clipped):
    """The default border of LSST's direct warps is 256 pixels around the outer box."""
    grid = PatchGrid(0, 0, 4000, 4000, 100, 3, 3)
    boxes = [box.grow(GROWTH) for box in _boxes(grid, clipped=clipped)]
    assert infer_patches(boxes, config) == grid


def test_few_boxes_that_fit_nothing_are_named_and_left_out():
    grid = PatchGrid(0, 0, 600, 600, 50, 3, 2)
    boxes = _boxes(grid, clipped=True) * 2
    odd = {Box(137, 0, 650, 650), Box(0, 0, 70, 50)}
    assert settle_patches([*boxes, *odd], AUTO) == (grid, frozenset(odd))
    with pytest.raises(GeometryError):
        settle_patches([*boxes[:2], *odd], AUTO)
