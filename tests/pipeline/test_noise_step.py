"""Stored pixels on steps of their noise: smaller, hardly noisier, and with offsets as before."""

from __future__ import annotations

import numpy as np
import pytest

from bgmatch_dask.config import load_config
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.store import open_store
from bgmatch_dask.warps.lsst import read_lsst_warp
from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract

SHARE = 0.0625


@pytest.fixture(scope="module")
def warps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    config = SimulationConfig(visits=3, patches=(2, 1), patch_size=256, border=16)
    return simulate_tract(folder, config).warps_dir


def _ingested(warps, store, *overrides):
    values = {"inputs": {"paths": [str(warps)]}, "store": {"url": str(store)}}
    plan = make_plan(load_config(values=values, overrides=overrides))
    run_tract(plan, until="ingest")
    return plan, open_store(plan.location.url)


def test_noise_grows_by_what_was_promised_and_warps_shrink(warps, tmp_path):
    plan, plain = _ingested(warps, tmp_path / "plain.zarr")
    _, stepped = _ingested(warps, tmp_path / "steps.zarr", f"store.noise_step={SHARE}")
    task = plan.ingest[0]
    box = plain.spec.geometry.patches.plane_box(task.patch)
    place = plain.spec.visit_index(task.visit), task.patch
    image, variance = (plain.read(p, *place, box) for p in ("image", "variance"))
    found, found_variance = (stepped.read(p, *place, box) for p in ("image", "variance"))
    # Without the option every bit is that of the file.
    warp = read_lsst_warp(task.files[0].path, box)
    np.testing.assert_array_equal(image[warp.box.slices_in(box)], warp.image)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(image))
    np.testing.assert_array_equal(
        stepped.read("mask", *place, box), plain.read("mask", *place, box)
    )
    good = np.isfinite(image)
    sky = float(np.median(variance[good]))
    added = (found.astype(np.float64) - image)[good]
    assert 0 < added.var() <= 1.05 * SHARE**2 / 12 * sky
    assert abs(added.mean()) < 5 * added.std() / np.sqrt(good.sum())
    assert np.abs(found_variance / variance - 1)[good].max() <= 1.2 * SHARE**2
    sizes = [
        sum(
            store.location.size(f"direct/{plane}/c/{place[0]}/{place[1]}/0/0")
            for plane in ("image", "variance")
        )
        for store in (plain, stepped)
    ]
    assert sizes[1] < 0.6 * sizes[0]
