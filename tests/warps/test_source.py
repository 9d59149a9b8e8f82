from dataclasses import replace

import numpy as np
import pytest

from bgmatch_dask.config import TractConfig
from bgmatch_dask.geometry import PatchGrid
from bgmatch_dask.maskplanes import NO_DATA
from bgmatch_dask.warps.catalogue import scan_inputs
from bgmatch_dask.warps.lsst_writing import write_lsst_warp
from bgmatch_dask.warps.profile import load_profile
from bgmatch_dask.warps.source import read_unit
from bgmatch_dask.warps.tract import lay_out
from bgmatch_dask.warps.warp import Warp
from tests.warps.fits_images import make_wcs

GRID = PatchGrid(0, 0, 60, 60, 8, 2, 2)
CARDS = tuple((c.keyword, c.value) for c in make_wcs((120, 120)).to_header().cards)
LSST = load_profile("lsst")


def _warp(patch, seed=0):
    box = GRID.outer_box(patch)
    rng = np.random.default_rng(seed)
    image = rng.normal(300.0, 20.0, box.shape).astype(np.float32)
    variance = rng.uniform(200.0, 400.0, box.shape).astype(np.float32)
    mask = np.zeros(box.shape, np.int32)
    image[:9], variance[:9], mask[:9] = np.nan, np.inf, NO_DATA
    return Warp(box, image, variance, mask)


@pytest.fixture
def layout(tmp_path):
    for patch in range(4):
        write_lsst_warp(
            tmp_path / f"p{patch}.fits", _warp(patch, patch), CARDS, visit=7, tract=1, patch=patch,
            band="r",
        )  # fmt: skip
    catalogue = scan_inputs([str(tmp_path)], LSST, max_pixels=10**6)
    assert catalogue.rejected == ()
    return lay_out(catalogue.files, TractConfig())


def _read(layout, number, **changes):
    _, patch, files = layout.units[number]
    files = tuple(replace(f, **changes) for f in files)
    return read_unit(files, LSST, layout.geometry, patch, max_pixels=10**6)


def test_warps_are_found_and_read_as_they_were_written(layout):
    assert layout.geometry.patches == GRID
    assert [(v, p) for v, p, _ in layout.units] == [("7", p) for p in range(4)]
    for patch in range(4):
        warp, rejected = _read(layout, patch)
        assert rejected == ()
        expected = _warp(patch, patch)
        assert warp.box == expected.box
        for name in ("image", "variance", "mask"):
            np.testing.assert_array_equal(getattr(warp, name), getattr(expected, name))


def test_a_second_file_of_a_unit_is_rejected(layout):
    _, patch, files = layout.units[0]
    warp, rejected = read_unit(
        (*files, replace(files[0], path="other.fits")), LSST, layout.geometry, patch,
        max_pixels=10**6,
    )  # fmt: skip
    assert warp is not None
    assert [(r.code, r.source) for r in rejected] == [("duplicate-unit", "other.fits")]


def test_a_bad_file_gives_no_warp_and_a_reason(layout, tmp_path):
    warp, rejected = _read(layout, 1, path=str(tmp_path / "gone.fits"))
    assert warp is None
    assert [r.code for r in rejected] == ["path-unreadable"]


def test_a_second_file_stands_in_for_a_bad_one(layout):
    _, patch, files = layout.units[0]
    both = (replace(files[0], path="gone.fits"), files[0])
    warp, rejected = read_unit(both, LSST, layout.geometry, patch, max_pixels=10**6)
    assert warp is not None
    assert [r.code for r in rejected] == ["path-unreadable"]
