"""A ratio of background to photometric calibration that is known leaves no pattern behind."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

import bgmatch_dask
from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline.photometric_ratio import read_ratio
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.report.export import export_fits
from bgmatch_dask.store import Location, open_store
from bgmatch_dask.warps.lsst import read_lsst_warp
from bgmatch_dask.warps.lsst_writing import write_lsst_warp
from bgmatch_dask.warps.simulation import SimulationConfig, load_truth, simulate_tract
from bgmatch_dask.warps.simulation.exposure import photometric_ratio
from bgmatch_dask.warps.simulation.truth import true_sky
from bgmatch_dask.warps.warp import Warp
from tests.conftest import make_job

CONFIG = SimulationConfig(visits=4, patches=(2, 2), patch_size=192, border=16, ratio_amplitude=0.02)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the truth, and stores of a run with the ratio and of one that ignores it."""
    folder = tmp_path_factory.mktemp("ratio")
    simulate_tract(folder, CONFIG)
    stores = []
    for name, options in (("with", ["inputs.photometric_ratio=RATIO"]), ("without", [])):
        job = make_job(
            folder / "warps", folder / f"{name}.zarr", *options, "match.write_warps=true"
        )
        summary = run_tract(make_plan(job))
        stores.append((Location.of(job.store.url), summary))
    return load_truth(folder), *stores


def residuals(truth, location, summary):
    """Return rms of offset − true offset over what each visit covers, in background units."""
    offsets = bgmatch_dask.open_offsets(location.url)
    box = truth.config.geometry.patches.tract_box
    from bgmatch_dask.background.offsets import render

    reference = true_sky(truth, summary["reference"]["visit"], box)
    counts = open_store(location.url).array("superpixels/direct/count")
    grid = open_store(location.url).spec.grid
    out = []
    for visit, offset in offsets.items():
        index = open_store(location.url).spec.visit_index(visit)
        covered = np.kron(np.asarray(counts[index]) > 0, np.ones((grid.bin_y, grid.bin_x))) > 0
        error = render(offset, box) - (reference - true_sky(truth, visit, box))
        out.append(np.std(error[covered[: box.height, : box.width]]))
    return float(np.median(out))


def test_a_ratio_that_is_known_leaves_no_pattern(runs):
    truth, known, ignored = runs
    good, bad = residuals(truth, *known), residuals(truth, *ignored)
    assert good < 0.5 * bad
    assert np.median([v["cv_rms"] for v in known[1]["visits"]]) < 0.5 * np.median(
        [v["cv_rms"] for v in ignored[1]["visits"]]
    )


def test_what_is_added_is_the_offset_over_the_ratio(runs, tmp_path):
    truth, (location, summary), (plain, _) = runs
    store, cube = open_store(location.url), bgmatch_dask.open_tract(location.url)
    visit = next(v["visit"] for v in summary["visits"] if v["status"] == "matched")
    index, patch = store.spec.visit_index(visit), 0
    if patch not in store.patches_of(visit):
        patch = store.patches_of(visit)[0]
    box = store.spec.geometry.patches.outer_box(patch)
    from bgmatch_dask.background.offsets import render, render_variance

    offset = bgmatch_dask.open_offsets(location.url)[visit]
    image, variance = (store.read(name, index, patch, box) for name in ("image", "variance"))
    ratio = read_ratio(store, index, patch, box)
    good = np.isfinite(image)
    true = photometric_ratio(truth.config, int(visit), box).astype(np.float32)
    np.testing.assert_array_equal(ratio[good], true[good])
    expected = image + render(offset, box) / ratio
    window = box.slices_in(store.spec.geometry.patches.plane_box(patch))
    view = cube.sel(visit=visit, patch=patch)
    np.testing.assert_array_equal(view["matched"].values[window], expected)
    np.testing.assert_array_equal(
        view["matched_variance"].values[window], variance + render_variance(offset, box) / ratio**2
    )
    written = store.read("image", index, patch, box, kind="match/main/warps")
    np.testing.assert_array_equal(written, expected)
    (path,) = export_fits(location, "main", "offset", tmp_path, visit=visit, patch=patch)
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(hdus[0].data, render(offset, box) / ratio)
    # Off by default: no cube, and nothing is divided.
    assert read_ratio(open_store(plain.url), 0, 0, box) is None
    assert not plain.exists("photometric_ratio/zarr.json")


def test_a_run_without_it_forgets_the_ratio_of_an_earlier_one(tmp_path):
    config = SimulationConfig(
        visits=2, patches=(2, 1), patch_size=128, border=8, ratio_amplitude=0.02
    )
    simulate_tract(tmp_path, config)
    warps, store = tmp_path / "warps", tmp_path / "tract.zarr"
    run_tract(make_plan(make_job(warps, store, "inputs.photometric_ratio=RATIO")))
    place = open_store(Location.of(str(store)).url)
    box = place.spec.geometry.patches.outer_box(0)
    assert np.ptp(read_ratio(place, 0, 0, box)) > 0.01
    run_tract(make_plan(make_job(warps, store)))
    assert np.all(read_ratio(open_store(Location.of(str(store)).url), 0, 0, box) == 1)


def test_planes_of_a_ratio_are_checked(tmp_path):
    box = Box(3, 4, 6, 5)
    planes = (np.ones((5, 6), np.float32), np.ones((5, 6), np.float32), np.zeros((5, 6), np.int32))
    ratio = np.full((5, 6), 1.1, np.float32)
    ratio[0, 0], ratio[1, 1], ratio[2, 2] = np.nan, -1.0, 0.0
    warp = Warp(box, *planes, ratio)
    path = tmp_path / "w.fits"
    wcs = CONFIG.geometry.wcs_cards
    write_lsst_warp(path, warp, wcs, visit=1, tract=1, patch=0, band="r")
    back = read_lsst_warp(path, ratio="RATIO")
    bad = np.zeros((5, 6), bool)
    bad[[0, 1, 2], [0, 1, 2]] = True
    np.testing.assert_array_equal(np.isnan(back.image), bad)
    np.testing.assert_array_equal(back.ratio[~bad], ratio[~bad])
    assert back.crop(Box(5, 5, 2, 2)).ratio.shape == (2, 2)
    assert read_lsst_warp(path).ratio is None
    for name, code in (("NOTHING", "plane-missing"), ("MASK", "plane-shape")):
        with pytest.raises(BgmatchError) as caught:
            read_lsst_warp(path, ratio=name)
        assert caught.value.code == code


def test_images_have_no_ratio(tmp_path):
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "a.fits")
    job = make_job(
        tmp_path, tmp_path / "s.zarr", "inputs.photometric_ratio=RATIO", profile="generic"
    )
    with pytest.raises(BgmatchError) as caught:
        make_plan(job)
    assert caught.value.code == "ratio-layout"
