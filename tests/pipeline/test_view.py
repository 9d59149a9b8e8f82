"""The xarray view is lazy, complete, and gives the bytes that a run would write."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from astropy.wcs import WCS

import bgmatch_dask
from bgmatch_dask.background.offsets import render, render_variance
from bgmatch_dask.errors import StoreError
from bgmatch_dask.geometry import PatchGrid
from bgmatch_dask.pipeline.results import load_offset
from bgmatch_dask.pipeline.thumbnails import read_thumbnail
from bgmatch_dask.store import TractStore
from tests.tiny_store import (
    EVIL,
    GEOMETRY,
    MATCHED,
    REFERENCE,
    RUN,
    STAR,
    STAR_PATCH,
    VISITS,
    build_tiny_store,
)


@pytest.fixture(scope="module")
def location(tmp_path_factory):
    return build_tiny_store(tmp_path_factory.mktemp("view"))


def test_package_is_cheap_to_import():
    code = (
        "import sys, bgmatch_dask; print(bgmatch_dask.__version__, "
        "sorted({'numpy', 'xarray', 'dask', 'astropy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split(maxsplit=1)[1].strip() == "[]"
    with pytest.raises(AttributeError):
        _ = bgmatch_dask.nothing


def test_everything_is_lazy_and_one_block_is_one_warp(location):
    dataset = bgmatch_dask.open_tract(location.url)
    height, width = GEOMETRY.patches.plane_shape
    for name in ("image", "variance", "mask", "matched", "matched_variance"):
        assert dataset[name].dims == ("visit", "patch", "y", "x")
        assert dataset[name].data.chunksize == (1, 1, height, width)
    for name in ("coadd", "coadd_variance", "coadd_mask", "nimage", "unmatched_coadd"):
        assert dataset[name].dims == ("patch", "y", "x")
        assert dataset[name].data.chunksize == (1, height, width)
    assert dataset["offset"].dims == ("visit", "sy", "sx")
    assert all(hasattr(dataset[name].data, "dask") for name in dataset.data_vars)


def test_matched_is_image_plus_rendered_offset(location):
    dataset = bgmatch_dask.open_tract(location.url)
    store = TractStore(location)
    offset = load_offset(store, RUN, MATCHED)
    box = GEOMETRY.patches.plane_box(1)
    warp = dataset.sel(visit=MATCHED, patch=1)
    expected = store.read("image", 1, 1, box) + render(offset, box)
    np.testing.assert_array_equal(warp["matched"], expected)
    expected = store.read("variance", 1, 1, box) + render_variance(offset, box)
    np.testing.assert_array_equal(warp["matched_variance"], expected)
    reference = dataset.sel(visit=REFERENCE)
    np.testing.assert_array_equal(reference["matched"], reference["image"])
    assert np.isnan(dataset["matched"].sel(visit=EVIL)).all()


def test_stored_arrays_come_back(location):
    dataset = bgmatch_dask.open_tract(location.url)
    store = TractStore(location)
    np.testing.assert_array_equal(dataset["mask"], store.array("direct/mask")[:])
    np.testing.assert_array_equal(dataset["offset"], store.array(f"match/{RUN}/offset")[:])
    nimage = store.array(f"coadd/{RUN}_matched/nimage")[:]
    np.testing.assert_array_equal(dataset["nimage"], nimage)


def test_the_unmatched_coadd_is_that_of_the_warps_as_they_are(location, tmp_path):
    dataset = bgmatch_dask.open_tract(location.url)
    stored = build_tiny_store(tmp_path, write_unmatched=True)
    store, other = TractStore(stored), bgmatch_dask.open_tract(stored.url)
    for plane in ("image", "variance", "mask", "nimage"):
        name = {"image": "coadd", "nimage": "nimage"}.get(plane, f"coadd_{plane}")
        expected = store.array(f"coadd/{RUN}_unmatched/{plane}")[:]
        for found in (dataset, other):
            assert found[f"unmatched_{name}"].values.tobytes() == expected.tobytes()
    warps = dataset["image"].sel(visit=[v for v in VISITS if v != EVIL])
    mean = warps.astype("f8").mean("visit").astype("f4")
    np.testing.assert_allclose(dataset["unmatched_coadd"], mean, rtol=1e-6)
    assert float(abs(dataset["unmatched_coadd"] - dataset["coadd"]).max()) > 10.0
    for patch in range(4):
        thumbnails = [read_thumbnail(TractStore(p), RUN, patch) for p in (location, stored)]
        for name, sums in thumbnails[0].items():
            assert sums.tobytes() == thumbnails[1][name].tobytes()


def test_coordinates_and_attributes_lead_to_the_sky(location):
    dataset = bgmatch_dask.open_tract(location.url)
    assert dataset["visit"].values.tolist() == list(VISITS)
    patch = dataset.isel(patch=STAR_PATCH)
    y, x = np.unravel_index(np.nanargmax(patch["coadd"].values), patch["coadd"].shape)
    sky = WCS(dataset.attrs["wcs"]).pixel_to_world_values(x + patch.patch_x0, y + patch.patch_y0)
    assert [float(v) for v in sky] == pytest.approx(STAR, abs=1e-9)
    assert PatchGrid(**json.loads(dataset.attrs["geometry"])) == GEOMETRY.patches
    assert (dataset.attrs["unit"], dataset["matched"].attrs["units"]) == ("DN", "DN")
    assert dataset.attrs["tract"] == GEOMETRY.tract
    assert dataset["sx"].values.tolist() == TractStore(location).spec.grid.x_centres.tolist()


def test_dataset_travels_to_another_process(location):
    dataset = pickle.loads(pickle.dumps(bgmatch_dask.open_tract(location.url)))
    mean = dataset["matched"].mean().compute(scheduler="processes", num_workers=1)
    assert np.isfinite(float(mean))


def test_store_without_a_finished_run_shows_its_warps(location):
    dataset = bgmatch_dask.open_tract(location.url, run="other")
    assert set(dataset.data_vars) == {"image", "variance", "mask"}
    assert dataset.attrs["run_finished"] == 0


def test_place_without_a_store_is_refused(tmp_path):
    with pytest.raises(StoreError) as caught:
        bgmatch_dask.open_tract(str(tmp_path / "nothing.zarr"))
    assert caught.value.code == "store-missing"
