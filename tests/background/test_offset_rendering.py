import numpy as np
import pytest

from bgmatch_dask.background.layout import node_shape
from bgmatch_dask.background.offsets import at_superpixels, render, render_flags, render_variance
from bgmatch_dask.background.solution import Offset
from bgmatch_dask.geometry import Box, PatchGrid, SuperpixelGrid

PATCHES = PatchGrid(-40, 25, 170, 140, 15, 3, 2)
GRID = SuperpixelGrid(PATCHES.tract_box, 32, 24)


def make_offset(pitch, value=None):
    shape = node_shape(GRID, pitch)
    rng = np.random.default_rng(5)
    nodes = rng.normal(0, 10, shape)
    if value is not None:
        j, i = np.indices(shape)
        y = GRID.y_centres[0] + (j - 2) * pitch * GRID.bin_y
        x = GRID.x_centres[0] + (i - 2) * pitch * GRID.bin_x
        nodes = value(x, y)
    variance = rng.random(GRID.shape)
    flags = rng.integers(1, 8, GRID.shape).astype(np.uint8)
    return Offset(3, GRID, pitch, nodes, variance, flags)


@pytest.mark.parametrize("pitch", [1, 2, 5])
def test_overlaps_of_patches_agree_bitwise(pitch):
    offset = make_offset(pitch)
    whole_box = GRID.box.grow(PATCHES.border)
    for function in (render, render_variance, render_flags):
        whole = function(offset, whole_box)
        for patch in range(PATCHES.n_patches):
            for box in (PATCHES.outer_box(patch), PATCHES.plane_box(patch)):
                part = function(offset, box)
                assert part.shape == box.shape
                assert part.tobytes() == whole[box.slices_in(whole_box)].tobytes()


@pytest.mark.parametrize("pitch", [1, 2, 5])
def test_parabolas_are_rendered_exactly_up_to_the_edges(pitch):
    def value(x, y):
        return 500 - 0.7 * x + 0.2 * y + 1e-3 * (x * x - x * y + 2 * y * y)

    offset = make_offset(pitch, value)
    y, x = np.mgrid[GRID.box.y0 : GRID.box.y1, GRID.box.x0 : GRID.box.x1].astype(np.float64)
    image = render(offset, GRID.box)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, value(x, y), rtol=3e-7)
    full = image[: 24 * 11, : 32 * 15].astype(np.float64).reshape(11, 24, 15, 32).mean(axis=(1, 3))
    # Averages are over the continuous superpixel: parabolas differ by 1/12 pixel² per axis.
    np.testing.assert_allclose(at_superpixels(offset)[:11, :15], full, rtol=1e-6)


def test_beyond_the_tract_the_offset_is_bounded():
    offset = make_offset(1, lambda x, y: 3.0 * x - 2.0 * y)
    far = render(offset, Box(5000, 5000, 4, 4))
    assert np.ptp(far) == 0
    assert np.abs(far).max() <= np.abs(offset.nodes).max()


def test_variance_stays_between_its_nodes():
    offset = make_offset(1)
    image = render_variance(offset, GRID.box)
    assert image.min() >= np.float32(offset.variance.min())
    assert image.max() <= np.float32(offset.variance.max())
