"""Mosaics count every pixel once, figures draw anything, and stretches show the sky."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from bgmatch_dask.background.solution import Flag
from bgmatch_dask.report.figures import (
    before_after,
    choose_stretch,
    convergence_figure,
    depth_map,
    difference_histogram,
    patch_map,
    timings_bar,
)
from bgmatch_dask.report.mosaic import Mosaic, bin_mosaic, coadd_mosaics
from bgmatch_dask.report.offset_maps import (
    PER_SHEET,
    OffsetMap,
    offset_sheets,
    sigma_sheets,
    symmetric_limit,
)
from bgmatch_dask.store import TractStore
from tests.tiny_store import GEOMETRY, RUN, STAR, STAR_PIXEL, build_tiny_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return TractStore(build_tiny_store(tmp_path_factory.mktemp("figures")))


def _whole(store, path):
    patches = GEOMETRY.patches
    full = np.full(patches.tract_box.shape, np.nan)
    for patch in range(patches.n_patches):
        inner = patches.inner_box(patch)
        window = inner.slices_in(patches.plane_box(patch))
        full[inner.slices_in(patches.tract_box)] = store.array(path)[patch][window]
    return full


@pytest.mark.parametrize("max_pixels", [96, 40, 14, 5, 1])
def test_mosaic_is_the_mean_of_blocks_of_the_whole_tract(store, max_pixels):
    path = f"coadd/{RUN}_matched/image"
    mosaic = bin_mosaic(store, path, max_pixels)
    full, step = _whole(store, path), mosaic.step
    assert max(mosaic.values.shape) <= max_pixels
    for sy, sx in np.ndindex(mosaic.values.shape):
        block = full[sy * step : (sy + 1) * step, sx * step : (sx + 1) * step]
        assert mosaic.values[sy, sx] == pytest.approx(np.nanmean(block), rel=1e-12)


def test_mosaic_leaves_out_what_is_not_finite_and_zeros_of_counts(store):
    depth = bin_mosaic(store, f"coadd/{RUN}_matched/nimage", 12)
    assert set(np.unique(depth.values)) <= {1.0, 2.0}


def test_mosaics_of_coadds_are_those_of_their_planes(tmp_path):
    store = TractStore(build_tiny_store(tmp_path, write_unmatched=True))
    mosaics = coadd_mosaics(store, RUN)
    assert set(mosaics) == {"matched", "unmatched"}
    for name, mosaic in mosaics.items():
        whole = bin_mosaic(store, f"coadd/{RUN}_{name}/image", max(mosaic.values.shape))
        assert mosaic.step == whole.step
        np.testing.assert_allclose(mosaic.values, whole.values, rtol=1e-6)


@pytest.mark.parametrize("max_pixels", [96, 14, 5])
def test_wcs_of_a_mosaic_puts_the_star_in_its_block(store, max_pixels):
    mosaic = bin_mosaic(store, f"coadd/{RUN}_matched/image", max_pixels)
    x, y = mosaic.wcs.world_to_pixel_values(*STAR)
    tract = GEOMETRY.patches.tract_box
    assert round(float(x)) == (STAR_PIXEL[0] - tract.x0) // mosaic.step
    assert round(float(y)) == (STAR_PIXEL[1] - tract.y0) // mosaic.step
    edge = mosaic.wcs.pixel_to_world_values(-0.5, -0.5)
    expected = GEOMETRY.wcs(tract).pixel_to_world_values(-0.5, -0.5)
    np.testing.assert_allclose(edge, expected, rtol=0, atol=1e-11)


def test_stretch_is_centred_on_the_sky_and_round_trips():
    rng = np.random.default_rng(1)
    values = rng.normal(50.0, 0.5, (300, 300))
    values[:20, :20] += 300.0
    values[0, 0] = np.nan
    stretch = choose_stretch(values)
    assert stretch.sky == pytest.approx(50.0, abs=0.02)
    assert stretch.low == pytest.approx(48.0, abs=0.1)
    assert stretch.high > 300.0
    norm, shown = stretch.norm(), values[1:].clip(stretch.low, stretch.high)
    np.testing.assert_allclose(norm.inverse(norm(values[1:])), shown)
    ticks = stretch.ticks()
    assert len(ticks) >= 4
    assert np.all(np.diff(ticks) > 0)


@pytest.mark.parametrize("values", [np.full((4, 4), np.nan), np.zeros((4, 4)), np.ones((1, 1))])
def test_figures_draw_flat_and_empty_tracts(values):
    mosaic = Mosaic(values, 4, GEOMETRY)
    for image in (before_after(mosaic, mosaic, "DN"), before_after(mosaic, None, "DN")):
        assert _size(image)[0] == 1650
    _size(depth_map(mosaic))
    _size(depth_map(Mosaic(values + 40.0, 4, GEOMETRY)))


def test_figures_draw_hostile_text_and_numbers():
    bad = "$\\frac{\x00漢<b>" + "x" * 300
    _size(difference_histogram([1.0, np.nan, 0.0], [np.inf, 0.0], [np.nan], bad))
    _size(difference_histogram([], [], [], ""))
    _size(timings_bar({bad: 1.0}))
    shape = (5, 4)
    flags, covered = np.full(shape, 4, np.uint8), np.ones(shape, bool)
    item = OffsetMap(bad, np.full(shape, 3.0), flags, covered, np.full(shape, np.nan))
    for sheet in (*offset_sheets([item], bad), *sigma_sheets([item], bad)):
        _size(sheet)
    _size(patch_map(np.full((2, 3), np.nan), bad))
    _size(patch_map(np.eye(20), bad))
    _size(convergence_figure([3.0, 0.1, 0.0, np.nan], bad))
    _size(convergence_figure([0.0], bad))


def test_offset_sheets_page_and_cover_visits_without_pixels():
    shape = (6, 8)
    flags = np.full(shape, Flag.EXTRAPOLATED | Flag.DISCONNECTED, np.uint8)
    maps = [
        OffsetMap(str(i), np.full(shape, float(i)), flags, np.full(shape, i % 2 == 0))
        for i in range(2 * PER_SHEET + 1)
    ]
    assert len(list(offset_sheets(maps, "nJy"))) == 3
    assert list(offset_sheets([], "nJy")) == []


def test_shape_of_an_offset_is_about_its_median_where_the_visit_is():
    values = np.array([[1.0, 2.0, 3.0, 1000.0]])
    covered = np.array([[True, True, True, False]])
    item = OffsetMap("1", values, np.ones_like(values, np.uint8), covered)
    assert item.level == 2.0
    np.testing.assert_array_equal(item.shape, [[-1.0, 0.0, 1.0, np.nan]])
    assert symmetric_limit([item]) == pytest.approx(1.0)


def _size(png):
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return image.size
