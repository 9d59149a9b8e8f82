"""Offsets as LSST background lists, per visit and per warp; the mapping; warps read again."""

from __future__ import annotations

import numpy as np
import pytest

import bgmatch_dask
from bgmatch_dask.background.layout import node_shape
from bgmatch_dask.background.offsets import render, render_flags, sample
from bgmatch_dask.background.solution import Offset
from bgmatch_dask.errors import StoreError
from bgmatch_dask.pipeline.results import load_offset
from bgmatch_dask.report.background_lists import offset_as_list
from bgmatch_dask.report.export import export_fits
from bgmatch_dask.store import TractStore
from bgmatch_dask.warps.background_fits import read_background_list
from tests.tiny_store import (
    GEOMETRY,
    MATCHED,
    PATCHES,
    REFERENCE,
    RUN,
    SCRIPT,
    build_tiny_store,
)


@pytest.fixture(scope="module")
def location(tmp_path_factory):
    return build_tiny_store(tmp_path_factory.mktemp("lists"))


def smooth(offset, value):
    grid = offset.grid
    j, i = np.indices(node_shape(grid, 1))
    x = grid.x_centres[0] + (i - 2) * grid.bin_x
    y = grid.y_centres[0] + (j - 2) * grid.bin_y
    return Offset(offset.visit, grid, 1, value(x, y), offset.variance, offset.flags)


def test_ramps_are_exact_and_waves_are_close(location):
    offset = load_offset(TractStore(location), RUN, MATCHED)
    box = GEOMETRY.patches.outer_box(1)
    ramp = smooth(offset, lambda x, y: 300 + 0.4 * x - 0.9 * y)
    np.testing.assert_allclose(offset_as_list(ramp, box).render(), render(ramp, box), rtol=2e-6)
    wave = smooth(offset, lambda x, y: 100 * np.sin(x / 60) * np.cos(y / 70))
    drawn, exact = offset_as_list(wave, box).render(), render(wave, box)
    inner = (slice(4, -4), slice(4, -4))
    assert np.abs(drawn - exact)[inner].max() < 1.0
    assert np.ptp(exact) > 60


def test_samples_on_pixels_are_the_rendering(location):
    offset = load_offset(TractStore(location), RUN, MATCHED)
    box = GEOMETRY.patches.outer_box(2)
    image, _, flags = sample(
        offset, np.arange(box.y0, box.y1, dtype=float), np.arange(box.x0, box.x1, dtype=float)
    )
    assert image.tobytes() == render(offset, box).tobytes()
    np.testing.assert_array_equal(flags, render_flags(offset, box))


def test_files_per_visit_and_per_warp(location, tmp_path):
    paths = export_fits(location, RUN, "background", tmp_path / "warps")
    assert len(paths) == len(PATCHES[MATCHED]) + len(PATCHES[SCRIPT])
    assert not [p for p in paths if f"visit{REFERENCE}" in p.name]
    (one,) = export_fits(location, RUN, "background", tmp_path, visit=MATCHED, patch=1)
    assert one.name == "background_visit34_patch1.fits"
    back = read_background_list(one)
    offset = load_offset(TractStore(location), RUN, MATCHED)
    (element,) = list(back)
    assert element.background.box == GEOMETRY.patches.outer_box(1)
    made = offset_as_list(offset, GEOMETRY.patches.outer_box(1))
    assert back.render().tobytes() == made.render().tobytes()
    np.testing.assert_array_equal(element.background.variance, made[0].background.variance)
    np.testing.assert_array_equal(element.background.mask, made[0].background.mask)
    (whole,) = export_fits(location, RUN, "background", tmp_path, visit=SCRIPT, whole_tract=True)
    assert read_background_list(whole)[0].background.box == GEOMETRY.patches.tract_box
    with pytest.raises(StoreError) as caught:
        export_fits(location, RUN, "background", tmp_path, visit=REFERENCE)
    assert caught.value.code == "nothing-to-export"


def test_the_mapping_of_offsets_has_no_entry_for_the_reference(location):
    offsets = bgmatch_dask.open_offsets(location.url)
    assert list(offsets) == [MATCHED, SCRIPT]
    assert len(offsets) == 2
    assert REFERENCE not in offsets
    with pytest.raises(KeyError):
        offsets["nobody"]
    np.testing.assert_array_equal(
        offsets[MATCHED].nodes, load_offset(TractStore(location), RUN, MATCHED).nodes
    )


def test_flags_of_matched_warps_are_lazy_and_rendered(location):
    dataset = bgmatch_dask.open_tract(location.url)
    flags = dataset["matched_flags"]
    assert flags.dims == ("visit", "patch", "y", "x")
    assert hasattr(flags.data, "dask")
    assert flags.attrs["flag_meanings"] == "measured interpolated extrapolated disconnected"
    assert not flags.sel(visit=REFERENCE).any()
    offset = load_offset(TractStore(location), RUN, MATCHED)
    expected = render_flags(offset, GEOMETRY.patches.plane_box(1))
    np.testing.assert_array_equal(flags.sel(visit=MATCHED, patch=1), expected)


def test_every_matched_warp_of_a_run_is_read_again(location, tmp_path):
    """Matched warps as files are warps again: the same planes, box and mask bits."""
    from bgmatch_dask.warps.lsst import read_lsst_warp

    cube = bgmatch_dask.open_tract(build_tiny_store(tmp_path, unit="nJy").url)
    folder = tmp_path / "out"
    from bgmatch_dask.store import Location

    paths = export_fits(Location.of(str(tmp_path / "tiny.zarr")), RUN, "matched", folder)
    assert len(paths) == sum(len(PATCHES[v]) for v in (REFERENCE, MATCHED, SCRIPT))
    order = [(v, p) for v in (REFERENCE, MATCHED, SCRIPT) for p in PATCHES[v]]
    for path, (visit, patch) in zip(paths, order, strict=True):
        warp = read_lsst_warp(path)
        plane, box = GEOMETRY.patches.plane_box(patch), GEOMETRY.patches.outer_box(patch)
        assert warp.box == box
        view = cube.sel(visit=visit, patch=patch)
        window = box.slices_in(plane)
        assert warp.image.tobytes() == view["matched"].values[window].tobytes()
        np.testing.assert_array_equal(warp.mask, view["mask"].values[window])
        np.testing.assert_array_equal(warp.variance, view["matched_variance"].values[window])
